//! Where heatmaps go. A sink never sees a camera and never delays the frame path: the
//! pipeline runs each on a thread of its own behind a slot that holds only the newest.

pub mod atomic;
pub mod command;
pub mod files;
pub mod http;
pub mod inherited;
mod listen;
pub mod mean;
#[cfg(feature = "mqtt")]
pub mod mqtt;
pub mod npy;
pub mod socket;
pub mod v4l2;
pub mod wire;

pub use atomic::write_atomically;

use crate::frame::Picture;
use crate::health::Metrics;
use crate::heatmap::Heatmap;
use crate::rules::Event;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What the pipeline hands to every sink: a heatmap and the picture it was made from.
#[derive(Clone, Debug)]
pub struct Published {
    pub picture: Arc<Picture>,
    pub heatmap: Arc<Heatmap>,
}

/// What sinks say while there is nothing new to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraState {
    pub running: bool,
    /// Why not, for people; empty while running.
    pub reason: String,
}

/// A picture of the camera on its way to those who look between heatmaps.
#[derive(Clone, Debug)]
pub struct LivePicture {
    pub picture: Arc<Picture>,
    /// Of the camera's frame.
    pub sequence: u64,
    pub captured_at: Instant,
}

/// Who looks at a sink's pictures between heatmaps. While nobody does, no frame is decoded
/// for it.
#[derive(Debug)]
pub struct Viewers {
    now: AtomicUsize,
    /// Shortest time between two pictures.
    every: Duration,
    origin: Instant,
    /// When the next picture is wanted, in µs since `origin`.
    due_us: AtomicU64,
}

impl Viewers {
    /// Nobody yet. They want at most `max_fps` pictures a second.
    pub fn new(max_fps: f64, origin: Instant) -> Self {
        let every = Duration::from_secs_f64(1.0 / max_fps.max(0.001));
        Self { now: AtomicUsize::new(0), every, origin, due_us: AtomicU64::new(0) }
    }

    /// One more.
    pub fn join(&self) {
        self.now.fetch_add(1, Relaxed);
    }

    /// One less.
    pub fn leave(&self) {
        self.now.fetch_sub(1, Relaxed);
    }

    pub fn count(&self) -> usize {
        self.now.load(Relaxed)
    }

    /// Whether somebody looks and a picture is due. One that says so is taken to be given.
    /// Asked by one thread.
    pub fn are_due(&self, now: Instant) -> bool {
        if self.count() == 0 {
            return false;
        }
        let now = now.saturating_duration_since(self.origin).as_micros() as u64;
        let (due, every) = (self.due_us.load(Relaxed), self.every.as_micros() as u64);
        // A camera's frames come a little early or late: an eighth of the time is let pass,
        // and what was early is owed to the next.
        if now + every / 8 < due {
            return false;
        }
        self.due_us.store((due + every).max(now + every / 2), Relaxed);
        true
    }
}

/// An outlet for heatmaps. Errors are counted by the pipeline and never stop it.
pub trait Sink: Send {
    /// For logs and counters: `socket`, `files`, …
    fn name(&self) -> &'static str;
    fn publish(&mut self, item: &Published) -> Result<(), SinkError>;
    /// The camera went away or came back.
    fn camera(&mut self, state: &CameraState) -> Result<(), SinkError>;
    /// A rule was raised or cleared. Comes after the heatmap that brought it about, unless
    /// a newer one took that one's place.
    fn event(&mut self, _: &Event) -> Result<(), SinkError> {
        Ok(())
    }
    /// Nothing has come for a moment: time for what is to be done now and then. Returns soon.
    fn idle(&mut self) {}
    /// What the sink counts itself, kept up to date.
    fn metrics(&self) -> Option<Arc<dyn Metrics>> {
        None
    }
    /// Who looks at pictures between heatmaps; `None`: this sink has no use for them.
    fn viewers(&self) -> Option<Arc<Viewers>> {
        None
    }
    /// A picture for which [`Sink::viewers`] were due. It may get no heatmap of its own.
    fn live(&mut self, _picture: &LivePicture) -> Result<(), SinkError> {
        Ok(())
    }
    /// Everything accepted so far is out when this returns; called once, at the end.
    fn finish(&mut self) -> Result<(), SinkError>;
}

/// A sink that could not be opened, or could not take an item.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// At start: what, where and what to do about it.
    #[error("{0}")]
    Open(String),
    /// More than can be done at the moment.
    #[error("{0}")]
    Busy(String),
    #[error("cannot send: {0}")]
    Encode(#[from] wire::WireError),
    #[error("{what} {path}: {source}", path = path.display())]
    Io { what: &'static str, path: std::path::PathBuf, source: std::io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `frames` frames a second, over ten seconds, viewers of `max_fps` get.
    fn given(frames: u64, max_fps: f64) -> u64 {
        let origin = Instant::now();
        let viewers = Viewers::new(max_fps, origin);
        viewers.join();
        // As a camera does, a millisecond early or late.
        let at = |i: u64| 1_000_000 * i / frames + (i % 3) * 1_000;
        (0..frames * 10).filter(|&i| viewers.are_due(origin + Duration::from_micros(at(i)))).count()
            as u64
    }

    #[test]
    fn viewers_get_the_cameras_rate_or_what_they_allow() {
        for (frames, max_fps, least, most) in
            [(15, 15.0, 149, 150), (30, 15.0, 148, 152), (10, 60.0, 100, 100), (60, 1.0, 10, 11)]
        {
            let given = given(frames, max_fps);
            assert!((least..=most).contains(&given), "{given} of {frames}/s at {max_fps}/s");
        }
    }

    #[test]
    fn nothing_is_due_while_nobody_looks() {
        let origin = Instant::now();
        let viewers = Viewers::new(15.0, origin);
        assert!(!viewers.are_due(origin));
        viewers.join();
        assert!(viewers.are_due(origin));
        viewers.leave();
        assert!(!viewers.are_due(origin + Duration::from_secs(9)));
    }
}
