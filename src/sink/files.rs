//! Heatmaps as files: overlays, coloured maps, arrays and JSON lines in one directory,
//! kept within a count and a size.
//!
//! Names begin with the time and the sequence number of the frame, so that they sort by
//! both: `20261123T121617.000042Z_0000000042_overlay.jpg`, `…_heatmap.png`, `…_maps.npy`,
//! `…_mean.png`, `…_means.npy`, `…_clip.avi`.
//! `…_heatmaps.jsonl` holds one line per heatmap, and one per event of a rule (`"kind":
//! "event"`), and is named after its first; a new one begins at every start, with a new day (UTC) and at 8 MiB (less, if `max_mib` is small).
//! Files under other names are never touched.

mod avi;
mod clip;
mod journal;
mod store;

use super::mean::SharedMeans;
use super::wire::{EventHeader, Header, HeatmapHeader, WireError};
use super::{CameraState, Published, Sink, SinkError, npy};
use crate::config::{FileKind, FileSinkConfig, FileWhen, OverlayConfig};
use crate::frame::Picture;
use crate::heatmap::Heatmap;
use crate::heatmap::encode::{self, EncodeError};
use crate::heatmap::overlay::Overlay;
use crate::rules::{Change, Event};
use crate::wall;
use clip::Recorder;
use journal::Journal;
use serde::Serialize;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};
use store::Store;

/// Between two looks for what is too old while no heatmap comes.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// The `files` sink.
pub struct FileSink {
    write: Vec<FileKind>,
    schedule: Schedule,
    overlay: Overlay,
    means: Option<SharedMeans>,
    recorder: Option<Recorder>,
    max_age: Option<Duration>,
    /// When it last looked for what is too old.
    expired: Instant,
    store: Store,
    journal: Journal,
    /// Encoded images, recycled.
    bytes: Vec<u8>,
    /// What is wrong at the moment, so that it is told once.
    trouble: Option<Trouble>,
    stats: Arc<FileStats>,
}

/// What the sink did; kept by whoever wants to report it.
#[derive(Debug, Default)]
pub struct FileStats {
    written: AtomicU64,
    failed: AtomicU64,
    kept_files: AtomicU64,
    kept_bytes: AtomicU64,
}

impl FileStats {
    /// Heatmaps of which every file was written.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Heatmaps of which some file was not.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// Files of ours in the directory.
    pub fn kept_files(&self) -> u64 {
        self.kept_files.load(Relaxed)
    }

    /// Their size in bytes.
    pub fn kept_bytes(&self) -> u64 {
        self.kept_bytes.load(Relaxed)
    }
}

/// An ongoing failure: the same message again is no news.
struct Trouble {
    message: String,
    heatmaps: u64,
}

/// Decides which heatmaps are written.
struct Schedule {
    when: FileWhen,
    every: Duration,
    last: Option<(Instant, usize)>,
}

impl Schedule {
    /// Whether a heatmap taken at `at` whose best class is `class` is due; if so, it is
    /// the one that the next is measured against.
    fn is_due(&mut self, at: Instant, class: usize) -> bool {
        let due = match (self.when, self.last) {
            (FileWhen::EveryFrame, _) | (_, None) => true,
            (FileWhen::Interval, Some((last, _))) => {
                at.saturating_duration_since(last) >= self.every
            }
            (FileWhen::ClassChange, Some((_, last))) => class != last,
        };
        if due {
            self.last = Some((at, class));
        }
        due
    }
}

/// One line of a `.jsonl` file: what the socket says of a heatmap, and its files.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    heatmap: HeatmapHeader,
    files: &'a [String],
}

impl FileSink {
    /// Makes the directory if it is missing, counts what earlier runs left in it, brings
    /// that within the limits of count, size and age, and sees that files can be written. `means` are what the
    /// kinds `mean-…` show.
    pub fn open(
        config: &FileSinkConfig,
        overlay: &OverlayConfig,
        means: Option<SharedMeans>,
    ) -> Result<Self, SinkError> {
        let max_bytes = config.max_mib.saturating_mul(1 << 20);
        let store = Store::open(&config.dir, config.max_files, max_bytes)?;
        let every = Duration::try_from_secs_f64(config.every_s).map_err(|_| {
            SinkError::Open(format!("sink.files.every_s: {} is not a time in s", config.every_s))
        })?;
        let mut sink = Self {
            write: config.write.clone(),
            schedule: Schedule { when: config.when, every, last: None },
            overlay: Overlay::new(overlay),
            means,
            recorder: config.clip.as_ref().map(|clip| Recorder::new(clip, overlay)),
            max_age: config.max_age_days.map(|days| Duration::from_secs_f64(days * 86_400.0)),
            expired: Instant::now(),
            store,
            journal: Journal::new(max_bytes),
            bytes: Vec::new(),
            trouble: None,
            stats: Arc::default(),
        };
        sink.expire(SystemTime::now());
        sink.count_kept();
        Ok(sink)
    }

    /// Counters that go on counting for as long as the sink lives.
    pub fn stats(&self) -> Arc<FileStats> {
        Arc::clone(&self.stats)
    }

    fn write_all(&mut self, item: &Published) -> Result<(), SinkError> {
        let stem = stem_of(item);
        let mut names = Vec::with_capacity(self.write.len());
        for kind in self.write.clone() {
            let mean = match kind {
                FileKind::Jsonl => continue,
                // Without a mean of this scene, yet, there is no file of it.
                FileKind::MeanPng | FileKind::MeanNpy => match self.mean(item) {
                    None => continue,
                    mean => mean,
                },
                _ => None,
            };
            let name = format!("{stem}{}", ending(kind));
            let heatmap = mean.as_ref().unwrap_or(&item.heatmap);
            self.encode(kind, &item.picture, heatmap).map_err(|error| SinkError::Io {
                what: "encode",
                path: self.store.path(&name),
                source: io::Error::other(error),
            })?;
            self.store.write(&name, &self.bytes, self.journal.name())?;
            names.push(name);
        }
        if self.write.contains(&FileKind::Jsonl) {
            let heatmap = HeatmapHeader::from(&*item.heatmap);
            self.bytes.clear();
            serde_json::to_writer(&mut self.bytes, &Line { heatmap, files: &names })
                .map_err(WireError::from)?;
            self.bytes.push(b'\n');
            self.journal.append(&mut self.store, &stem, &self.bytes)?;
        }
        Ok(())
    }

    fn write_event(&mut self, event: &Event) -> Result<(), SinkError> {
        let header = Header::Event(EventHeader::from(event));
        let mut line = serde_json::to_vec(&header).map_err(WireError::from)?;
        line.push(b'\n');
        self.journal.append(&mut self.store, &stem(event.captured_wall, event.sequence), &line)
    }

    /// Fills `bytes` with the file of this kind.
    fn encode(
        &mut self,
        kind: FileKind,
        picture: &Picture,
        heatmap: &Heatmap,
    ) -> Result<(), EncodeError> {
        match kind {
            FileKind::OverlayPng => {
                encode::png(self.overlay.render(picture, heatmap), &mut self.bytes)
            }
            FileKind::OverlayJpeg => {
                let drawn = self.overlay.render(picture, heatmap);
                encode::jpeg(drawn, encode::JPEG_QUALITY, &mut self.bytes)
            }
            FileKind::HeatmapPng | FileKind::MeanPng => {
                encode::png(&self.overlay.map_picture(heatmap, 0), &mut self.bytes)
            }
            FileKind::Npy | FileKind::MeanNpy | FileKind::Jsonl => {
                let shape = [heatmap.height, heatmap.width, heatmap.classes.len()];
                self.bytes = npy::to_bytes(&shape, &heatmap.values);
                Ok(())
            }
        }
    }

    /// The long-term means of a heatmap's classes.
    fn mean(&self, item: &Published) -> Option<Heatmap> {
        let means = self.means.as_ref()?.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        means.heatmap(&item.heatmap)
    }

    /// Removes what is too old; the lines that are being written too, where all of them are.
    fn expire(&mut self, now: SystemTime) {
        let from = self.max_age.and_then(|max_age| now.checked_sub(max_age));
        if let Some(from) = from {
            self.store.expire(&wall::stamp(from));
        }
    }

    fn expire_if_due(&mut self, now: Instant, wall: SystemTime) {
        if now.saturating_duration_since(self.expired) >= EXPIRE_EVERY {
            self.expired = now;
            self.expire(wall);
            self.count_kept();
        }
    }

    fn end_clip(&mut self) -> Result<(), SinkError> {
        let Some(recorder) = &mut self.recorder else { return Ok(()) };
        let ended = recorder.end(&mut self.store, self.journal.name());
        self.count_kept();
        ended
    }

    fn count_kept(&self) {
        self.stats.kept_files.store(self.store.files() as u64, Relaxed);
        self.stats.kept_bytes.store(self.store.bytes(), Relaxed);
    }

    /// Counts, and passes on an error only if it is not the one that goes on already.
    fn settle(&mut self, result: Result<(), SinkError>) -> Result<(), SinkError> {
        self.count_kept();
        let Err(error) = result else {
            self.stats.written.fetch_add(1, Relaxed);
            if let Some(trouble) = self.trouble.take() {
                log::info!("sink files: writing again after {} heatmaps", trouble.heatmaps);
            }
            return Ok(());
        };
        self.stats.failed.fetch_add(1, Relaxed);
        let message = kind_of(&error);
        match &mut self.trouble {
            Some(trouble) if trouble.message == message => {
                trouble.heatmaps += 1;
                Ok(())
            }
            trouble => {
                *trouble = Some(Trouble { message, heatmaps: 1 });
                Err(error)
            }
        }
    }
}

impl Sink for FileSink {
    fn name(&self) -> &'static str {
        "files"
    }

    /// An error is returned when it begins or changes; while it goes on, heatmaps are
    /// only counted as failed.
    fn publish(&mut self, item: &Published) -> Result<(), SinkError> {
        let Some(best) = item.heatmap.classes.first() else { return Ok(()) };
        self.expire(item.heatmap.captured_wall);
        let recorded = match &mut self.recorder {
            Some(recorder) => {
                recorder.publish(item, &stem_of(item), &mut self.store, self.journal.name())
            }
            None => Ok(()),
        };
        if recorded.is_err() {
            return self.settle(recorded);
        }
        if !self.schedule.is_due(item.heatmap.captured_at, best.index) {
            return Ok(());
        }
        let result = self.write_all(item);
        self.settle(result)
    }

    fn camera(&mut self, state: &CameraState) -> Result<(), SinkError> {
        if state.running { Ok(()) } else { self.end_clip() }
    }

    /// An event has its line whatever the schedule says of heatmaps.
    fn event(&mut self, event: &Event) -> Result<(), SinkError> {
        let told = match self.write.contains(&FileKind::Jsonl) {
            true => self.write_event(event),
            false => Ok(()),
        };
        let recorded = match (&mut self.recorder, event.change) {
            (Some(recorder), Change::Raised) => {
                recorder.rule_raised(&mut self.store, self.journal.name())
            }
            _ => Ok(()),
        };
        self.count_kept();
        told.and(recorded)
    }

    /// Files grow too old while the camera is away, too.
    fn idle(&mut self) {
        self.expire_if_due(Instant::now(), SystemTime::now());
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        let ended = self.end_clip();
        self.journal.close(&self.store).and(ended)
    }
}

/// What is wrong, without the name of the file that it happened to.
fn kind_of(error: &SinkError) -> String {
    match error {
        SinkError::Io { what, source, .. } => format!("{what}: {source}"),
        other => other.to_string(),
    }
}

fn stem_of(item: &Published) -> String {
    stem(item.heatmap.captured_wall, item.heatmap.sequence)
}

/// What the names of a frame's files begin with.
fn stem(captured: SystemTime, sequence: u64) -> String {
    format!("{}_{sequence:010}", wall::stamp(captured))
}

fn ending(kind: FileKind) -> &'static str {
    match kind {
        FileKind::OverlayPng => "_overlay.png",
        FileKind::OverlayJpeg => "_overlay.jpg",
        FileKind::HeatmapPng => "_heatmap.png",
        FileKind::Npy => "_maps.npy",
        FileKind::MeanPng => "_mean.png",
        FileKind::MeanNpy => "_means.npy",
        FileKind::Jsonl => "_heatmaps.jsonl",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_grow_too_old_without_heatmaps() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let old = |days: u64| now - Duration::from_secs(days * 86_400);
        for days in [0, 2, 3] {
            let name = format!("{}_maps.npy", stem(old(days), days));
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let config = FileSinkConfig {
            dir: dir.path().into(),
            max_age_days: Some(2.5),
            ..FileSinkConfig::default()
        };
        let mut sink = FileSink::open(&config, &OverlayConfig::default(), None).unwrap();
        assert_eq!(sink.stats().kept_files(), 2, "at the start");
        let tomorrow = now + Duration::from_secs(86_400);
        sink.expire_if_due(Instant::now(), tomorrow);
        assert_eq!(sink.stats().kept_files(), 2, "not each time that nothing comes");
        sink.expire_if_due(Instant::now() + EXPIRE_EVERY, tomorrow);
        assert_eq!(sink.stats().kept_files(), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
