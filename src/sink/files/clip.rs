//! Clips: overlays around an event as motion JPEG.
//!
//! Every overlay is encoded into a ring, so that a clip can begin before its event. While a
//! clip goes on its frames go to the disk, under a name that is not its own until it is whole.

use super::avi::{self, Avi};
use super::store::Store;
use crate::config::{ClassName, ClipConfig, ClipTrigger, OverlayConfig};
use crate::heatmap::Heatmap;
use crate::heatmap::encode;
use crate::heatmap::overlay::Overlay;
use crate::sink::atomic::AtomicFile;
use crate::sink::{Published, SinkError};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter};
use std::time::{Duration, Instant};

/// What the ring may hold besides its time.
const RING_BYTES: usize = 32 << 20;
const RING_FRAMES: usize = 4096;
/// The period of a clip with a single frame.
const LONE_PERIOD: Duration = Duration::from_secs(1);

/// Watches heatmaps and records what its triggers say.
pub(super) struct Recorder {
    on: Vec<ClipTrigger>,
    class: Option<ClassName>,
    score: f32,
    pre: Duration,
    post: Duration,
    max: Duration,
    overlay: Overlay,
    ring: VecDeque<Shot>,
    ring_bytes: usize,
    clip: Option<Clip>,
    /// Of the heatmap before.
    before: Before,
}

/// An encoded overlay.
struct Shot {
    jpeg: Vec<u8>,
    at: Instant,
    size: [u16; 2],
    stem: String,
}

/// What triggers compare with.
#[derive(Default)]
struct Before {
    is_known: bool,
    classes: Vec<usize>,
    is_above: bool,
}

/// A clip in the making.
struct Clip {
    name: String,
    file: AtomicFile,
    avi: Avi<BufWriter<File>>,
    size: [u16; 2],
    first: Instant,
    last: Instant,
    until: Instant,
}

impl Recorder {
    pub fn new(config: &ClipConfig, overlay: &OverlayConfig) -> Self {
        let time = |s| Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX);
        Self {
            on: config.on.clone(),
            class: config.class.clone(),
            score: config.score,
            pre: time(config.pre_s),
            post: time(config.post_s),
            max: time(config.max_s),
            overlay: Overlay::new(overlay),
            ring: VecDeque::new(),
            ring_bytes: 0,
            clip: None,
            before: Before::default(),
        }
    }

    /// Takes up a heatmap whose files begin with `stem`. `spare` is never removed.
    pub fn publish(
        &mut self,
        item: &Published,
        stem: &str,
        store: &mut Store,
        spare: Option<&str>,
    ) -> Result<(), SinkError> {
        let shot = self.shoot(item, stem, store)?;
        let (at, size) = (shot.at, shot.size);
        // A camera that came back with another size is another film.
        if self.clip.as_ref().is_some_and(|clip| clip.size != size) {
            self.end(store, spare)?;
        }
        if self.ring.front().is_some_and(|old| old.size != size) {
            self.ring.clear();
            self.ring_bytes = 0;
        }
        self.keep(shot);
        if self.triggers(&item.heatmap) {
            self.trigger(store)?;
        }
        self.record(store, spare)?;
        if self.clip.as_ref().is_some_and(|clip| at >= clip.until) {
            self.end(store, spare)?;
        }
        Ok(())
    }

    /// A rule was raised.
    pub fn rule_raised(&mut self, store: &mut Store, spare: Option<&str>) -> Result<(), SinkError> {
        if !self.on.contains(&ClipTrigger::Rule) {
            return Ok(());
        }
        self.trigger(store)?;
        self.record(store, spare)
    }

    /// Finishes a clip that goes on.
    pub fn end(&mut self, store: &mut Store, spare: Option<&str>) -> Result<(), SinkError> {
        let Some(clip) = self.clip.take() else { return Ok(()) };
        let path = store.path(&clip.name);
        let intervals = clip.avi.frames().saturating_sub(1) as u32;
        let period = match intervals {
            0 => LONE_PERIOD,
            n => clip.last.saturating_duration_since(clip.first) / n,
        };
        let bytes = clip.avi.bytes();
        store.make_room(1, bytes, spare)?;
        let finished = clip.avi.finish(period).and_then(|_| clip.file.commit());
        finished.map_err(|source| SinkError::Io { what: "write", path, source })?;
        store.count(&clip.name, bytes);
        Ok(())
    }

    /// Begins a clip with what the ring holds, or lets one go on for longer.
    fn trigger(&mut self, store: &Store) -> Result<(), SinkError> {
        let Some(newest) =
            self.ring.back().map(|shot| shot.at).or(self.clip.as_ref().map(|c| c.last))
        else {
            return Ok(());
        };
        if let Some(clip) = &mut self.clip {
            clip.until = (newest + self.post).min(clip.first + self.max);
            return Ok(());
        }
        let Some(oldest) = self.ring.front() else { return Ok(()) };
        let name = format!("{}_clip.avi", oldest.stem);
        let path = store.path(&name);
        let failed = |source| SinkError::Io { what: "create", path: path.clone(), source };
        let file = store.in_dir(|| AtomicFile::create(&path)).map_err(failed)?;
        let writer = BufWriter::new(file.handle().map_err(failed)?);
        self.clip = Some(Clip {
            name,
            avi: Avi::new(writer, oldest.size).map_err(failed)?,
            file,
            size: oldest.size,
            first: oldest.at,
            last: oldest.at,
            until: (newest + self.post).min(oldest.at + self.max),
        });
        Ok(())
    }

    /// Moves the ring's frames into the clip, if there is one.
    fn record(&mut self, store: &mut Store, spare: Option<&str>) -> Result<(), SinkError> {
        while let Some(clip) = &mut self.clip {
            let Some(shot) = self.ring.pop_front() else { break };
            self.ring_bytes -= shot.jpeg.len();
            if clip.avi.bytes() + shot.jpeg.len() as u64 + 64
                > store.max_bytes().min(avi::MAX_BYTES) / 4
            {
                self.end(store, spare)?;
                break;
            }
            if let Err(source) = clip.avi.frame(&shot.jpeg) {
                let path = store.path(&clip.name);
                // What there is of it goes with it.
                self.clip = None;
                return Err(SinkError::Io { what: "write", path, source });
            }
            clip.last = shot.at;
        }
        Ok(())
    }

    fn keep(&mut self, shot: Shot) {
        let from = shot.at.checked_sub(self.pre);
        self.ring_bytes += shot.jpeg.len();
        self.ring.push_back(shot);
        let is_due = |ring: &VecDeque<Shot>, bytes: usize| {
            let Some(oldest) = ring.front().filter(|_| ring.len() > 1) else { return false };
            let is_old = from.is_some_and(|from| oldest.at < from);
            is_old || bytes > RING_BYTES || ring.len() > RING_FRAMES
        };
        while is_due(&self.ring, self.ring_bytes) {
            self.ring_bytes -= self.ring.pop_front().map_or(0, |old| old.jpeg.len());
        }
    }

    fn shoot(&mut self, item: &Published, stem: &str, store: &Store) -> Result<Shot, SinkError> {
        let drawn = self.overlay.render(&item.picture, &item.heatmap);
        let mut jpeg = Vec::new();
        encode::jpeg(drawn, encode::JPEG_QUALITY, &mut jpeg).map_err(|error| SinkError::Io {
            what: "encode",
            path: store.path(stem),
            source: io::Error::other(error),
        })?;
        let size = [drawn.width as u16, drawn.height as u16];
        Ok(Shot { jpeg, at: item.heatmap.captured_at, size, stem: stem.into() })
    }

    fn triggers(&mut self, heatmap: &Heatmap) -> bool {
        let is_it = |index: usize, label: &str| match &self.class {
            None => true,
            Some(ClassName::Index(wanted)) => index == *wanted,
            Some(ClassName::Label(wanted)) => label == wanted,
        };
        let mut mine = heatmap.classes.iter().filter(|c| is_it(c.index, &c.label));
        let is_above = mine.clone().any(|class| class.probability >= self.score);
        let appears = mine.any(|class| !self.before.classes.contains(&class.index));
        let fires = self.before.is_known
            && self.on.iter().any(|trigger| match trigger {
                ClipTrigger::Class => appears,
                ClipTrigger::Score => is_above && !self.before.is_above,
                ClipTrigger::Rule => false,
            });
        let classes = heatmap.classes.iter().map(|class| class.index).collect();
        self.before = Before { is_known: true, classes, is_above };
        fires
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Picture, Rect};
    use std::sync::Arc;

    fn item(side: usize) -> Published {
        let heatmap = Heatmap {
            covers: Rect::full(side as u32, side as u32),
            picture: [side as u32; 2],
            ..Heatmap::of_one_cell(Instant::now())
        };
        Published { picture: Arc::new(Picture::new(side, side)), heatmap: Arc::new(heatmap) }
    }

    #[test]
    fn frames_of_another_size_leave_the_ring_with_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path(), 10, 1 << 30).unwrap();
        let mut recorder = Recorder::new(&ClipConfig::default(), &OverlayConfig::default());
        for (side, frames) in [(64, 1), (64, 2), (32, 1), (32, 2), (64, 1)] {
            recorder.publish(&item(side), "stem", &mut store, None).unwrap();
            assert_eq!(recorder.ring.len(), frames);
            let bytes: usize = recorder.ring.iter().map(|shot| shot.jpeg.len()).sum();
            assert_eq!(recorder.ring_bytes, bytes);
        }
    }
}
