//! What there is to see at this moment: written by the pipeline, read by connections.

use super::access::Secret;
use super::alarms::Alarms;
use super::serve::BACKGROUND_THREADS;
use super::{About, body, json, metrics};
use crate::config::{Colormap, HttpConfig, OverlayConfig};
use crate::frame;
use crate::heatmap::overlay::Overlay;
use crate::heatmap::{ClassScore, Heatmap, encode};
use crate::rules::Event;
use crate::sink::{CameraState, Published, SinkError, Viewers, npy};
use hyper::body::Bytes;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};

/// Heatmap pictures kept for one heatmap: as many classes and colours as people look at.
const MAX_KEPT_PNGS: usize = 32;

/// Shared by the sink and every connection.
pub(super) struct Board {
    pub config: HttpConfig,
    pub about: About,
    pub secret: Option<Secret>,
    pub viewers: Arc<Viewers>,
    pub overlay: Channel,
    pub raw: Channel,
    /// Those who listen to events.
    pub listeners: AtomicUsize,
    pub now: watch::Sender<Now>,
    pub stats: metrics::Stats,
    /// For snapshots.
    drawing: Mutex<Drawing>,
    /// Whoever has it draws and encodes an answer. The others wait where it is forgotten once
    /// their client has gone.
    pub encoding: Arc<Semaphore>,
    /// For pictures of the map alone, by colours.
    painters: Mutex<HashMap<&'static str, Overlay>>,
}

/// The newest of everything.
#[derive(Clone)]
pub(super) struct Now {
    pub newest: Option<Arc<Newest>>,
    pub camera: CameraState,
    pub alarms: Arc<Alarms>,
}

/// Which picture.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Picture {
    /// With the heatmap drawn on it.
    Overlay,
    /// As it came from the camera.
    Raw,
}

/// A stream's newest picture.
pub(super) struct Channel {
    pub frames: watch::Sender<Shown>,
    watching: AtomicUsize,
}

/// A picture as it goes into a stream, with its number there, so that one who missed some
/// knows how many.
#[derive(Clone, Default)]
pub(super) struct Shown {
    pub number: u64,
    pub part: Bytes,
}

/// A heatmap with what was made of it so far: everything once, for all who ask.
pub(super) struct Newest {
    pub item: Published,
    pub came: Instant,
    /// From the camera to here.
    pub latency: Duration,
    event: OnceLock<Bytes>,
    npy: OnceLock<Bytes>,
    jpegs: [OnceLock<Result<Bytes, String>>; 2],
    pngs: Mutex<HashMap<Png, Bytes>>,
}

/// Which map, in which colours: the heatmap's at a position, or the mean of a class.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Png {
    Map(&'static str, usize),
    Mean(&'static str, usize),
}

/// Draws and encodes; keeps its buffers.
pub(super) struct Drawing {
    overlay: Overlay,
    quality: u8,
    buffer: Vec<u8>,
}

impl Drawing {
    pub fn new(config: &OverlayConfig, quality: u8) -> Self {
        Self { overlay: Overlay::new(config), quality, buffer: Vec::new() }
    }

    /// The picture as a JPEG, with the heatmap on it if that is asked for and fits.
    pub fn jpeg(
        &mut self,
        which: Picture,
        picture: &frame::Picture,
        heatmap: Option<&Heatmap>,
    ) -> Result<Bytes, SinkError> {
        let size = [picture.width as u32, picture.height as u32];
        let drawn = match heatmap.filter(|h| which == Picture::Overlay && h.picture == size) {
            Some(heatmap) => self.overlay.render(picture, heatmap),
            None => picture,
        };
        encode::jpeg(drawn, self.quality, &mut self.buffer)
            .map_err(|error| SinkError::Open(format!("sink.http: {error}")))?;
        Ok(Bytes::copy_from_slice(&self.buffer))
    }
}

impl Channel {
    fn new() -> Self {
        Self { frames: watch::Sender::new(Shown::default()), watching: AtomicUsize::new(0) }
    }

    pub fn is_watched(&self) -> bool {
        self.watching.load(Relaxed) > 0
    }

    pub fn watching(&self) -> usize {
        self.watching.load(Relaxed)
    }

    /// The newest picture for all who watch.
    pub fn show(&self, jpeg: Bytes) {
        let part = body::part(&jpeg);
        self.frames.send_modify(|shown| *shown = Shown { number: shown.number + 1, part });
    }

    pub fn join(&self) {
        self.watching.fetch_add(1, Relaxed);
    }

    pub fn leave(&self) {
        self.watching.fetch_sub(1, Relaxed);
    }
}

impl Board {
    pub fn new(
        config: &HttpConfig,
        overlay: &OverlayConfig,
        about: About,
        secret: Option<Secret>,
    ) -> Self {
        let camera = CameraState { running: false, reason: "starting".into() };
        let alarms = Alarms::new(&about.rules);
        Self {
            viewers: Arc::new(Viewers::new(config.max_fps, about.started)),
            config: config.clone(),
            about,
            secret,
            overlay: Channel::new(),
            raw: Channel::new(),
            listeners: AtomicUsize::new(0),
            now: watch::Sender::new(Now { newest: None, camera, alarms: Arc::new(alarms) }),
            stats: metrics::Stats::default(),
            drawing: Mutex::new(Drawing::new(overlay, config.jpeg_quality)),
            encoding: Arc::new(Semaphore::new(BACKGROUND_THREADS)),
            painters: Mutex::default(),
        }
    }

    pub fn publish(&self, item: &Published, now: Instant) {
        let latency = now.saturating_duration_since(item.heatmap.captured_at);
        self.stats.heatmap(latency, &item.heatmap);
        let newest = Arc::new(Newest {
            item: item.clone(),
            came: now,
            latency,
            event: OnceLock::new(),
            npy: OnceLock::new(),
            jpegs: [OnceLock::new(), OnceLock::new()],
            pngs: Mutex::default(),
        });
        self.now.send_modify(|now| now.newest = Some(newest));
    }

    pub fn camera(&self, state: &CameraState) {
        self.now.send_modify(|now| now.camera = state.clone());
    }

    pub fn event(&self, event: &Event) {
        self.now.send_modify(|now| Arc::make_mut(&mut now.alarms).add(event));
    }

    pub fn channel(&self, which: Picture) -> &Channel {
        match which {
            Picture::Overlay => &self.overlay,
            Picture::Raw => &self.raw,
        }
    }

    /// Streams that are open.
    pub fn watching(&self) -> usize {
        self.viewers.count() + self.listeners.load(Relaxed)
    }

    pub fn newest(&self) -> Option<Arc<Newest>> {
        self.now.borrow().newest.clone()
    }

    /// Why heatmaps do not flow, for anybody; `None`: they do.
    pub fn ailment(&self) -> Option<String> {
        self.ailment_with(|_| "; camera away".into())
    }

    /// With what the camera said.
    pub fn ailment_in_full(&self) -> Option<String> {
        self.ailment_with(|camera| format!("; camera away: {}", camera.reason))
    }

    fn ailment_with(&self, told: impl Fn(&CameraState) -> String) -> Option<String> {
        let Now { newest, camera, .. } = self.now.borrow().clone();
        let away = if camera.running { String::new() } else { told(&camera) };
        match newest.map(|newest| newest.came.elapsed().as_secs_f64()) {
            None => Some(format!("no heatmap yet{away}")),
            Some(age_s) if age_s > self.config.stale_s => {
                Some(format!("no heatmap for {age_s:.1} s{away}"))
            }
            Some(_) => None,
        }
    }

    /// The newest heatmap's own picture. Draws and encodes the first time it is asked for.
    pub fn snapshot(&self, newest: &Newest, which: Picture) -> Result<Bytes, String> {
        let place = &newest.jpegs[(which == Picture::Raw) as usize];
        let make = || {
            let mut drawing = self.drawing.lock().unwrap_or_else(PoisonError::into_inner);
            let Published { picture, heatmap } = &newest.item;
            drawing.jpeg(which, picture, Some(heatmap)).map_err(|error| error.to_string())
        };
        place.get_or_init(make).clone()
    }

    /// The map of the class at `position` alone, one pixel a cell.
    pub fn map_png(
        &self,
        newest: &Newest,
        colours: (&'static str, Colormap),
        position: usize,
    ) -> Result<Bytes, String> {
        newest.png(Png::Map(colours.0, position), || {
            self.paint(colours, &newest.item.heatmap, position)
        })
    }

    /// The long-term mean of the class with this index, one pixel a cell; without one, of the
    /// newest heatmap's best.
    pub fn mean_png(
        &self,
        newest: &Newest,
        colours: (&'static str, Colormap),
        class: Option<usize>,
    ) -> Result<Bytes, String> {
        let means = self.about.means.as_ref().ok_or("no mean is kept; add [mean]")?;
        let of = &newest.item.heatmap;
        let best = of.classes.first().map(|class| class.index);
        let index = class.or(best).ok_or("no class has a map")?;
        newest.png(Png::Mean(colours.0, index), || {
            let mean = {
                let means = means.lock().unwrap_or_else(PoisonError::into_inner);
                let label = means.classes().get(&index).map(|mean| mean.label.clone());
                let label = label.ok_or_else(|| format!("class {index} was not seen yet"))?;
                let class = ClassScore { index, label, logit: 0.0, probability: 0.0 };
                means.heatmap(&Heatmap { classes: vec![class], ..Heatmap::clone(of) })
            };
            self.paint(colours, &mean.ok_or("no mean of this scene yet")?, 0)
        })
    }

    fn paint(
        &self,
        (name, colours): (&'static str, Colormap),
        heatmap: &Heatmap,
        position: usize,
    ) -> Result<Bytes, String> {
        let mut painters = self.painters.lock().unwrap_or_else(PoisonError::into_inner);
        let painter = painters.entry(name).or_insert_with(|| Overlay::solid(colours));
        let picture = painter.map_picture(heatmap, position);
        let mut bytes = Vec::new();
        encode::png(&picture, &mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes.into())
    }
}

impl Newest {
    /// What `make` gives, once for all who ask.
    fn png(
        &self,
        which: Png,
        make: impl FnOnce() -> Result<Bytes, String>,
    ) -> Result<Bytes, String> {
        let mut kept = self.pngs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(png) = kept.get(&which) {
            return Ok(png.clone());
        }
        let png = make()?;
        if kept.len() < MAX_KEPT_PNGS {
            kept.insert(which, png.clone());
        }
        Ok(png)
    }

    /// `[height, width, classes]` of f32 as an NPY file.
    pub fn npy(&self) -> Bytes {
        let heatmap = &self.item.heatmap;
        let shape = [heatmap.height, heatmap.width, heatmap.classes.len()];
        self.npy.get_or_init(|| npy::to_bytes(&shape, &heatmap.values).into()).clone()
    }

    /// The JSON that goes with a `heatmap` event.
    pub fn event(&self) -> Bytes {
        self.event.get_or_init(|| json::event(self)).clone()
    }
}
