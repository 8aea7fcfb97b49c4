//! Where frames come from: one trait, four sources.

pub mod files;
pub mod pattern;
pub mod pipe;
pub mod v4l2;

use crate::frame::Frame;
use std::time::Duration;

/// A source of frames. It owns its buffers and yields the newest frame.
pub trait Camera: Send {
    /// Waits for the next frame, at most `timeout`. Frames that queued up meanwhile are
    /// skipped: the newest wins (live sources) or none is skipped (finite ones).
    fn next_frame(&mut self, timeout: Duration) -> Result<Frame, CameraError>;
    /// What is being captured, for people: `/dev/video0 "HD Webcam" YUYV 1280x720 @ 15`.
    fn describe(&self) -> String;
    /// Counts since it was opened.
    fn counters(&self) -> CameraCounters;
}

/// What went by that no heatmap will ever show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CameraCounters {
    /// Frames yielded.
    pub frames: u64,
    /// Older frames passed over for a newer one.
    pub skipped: u64,
    /// Gaps in the driver's sequence numbers.
    pub lost: u64,
    /// Frames that the driver flagged, or that were shorter than their format.
    pub bad: u64,
}

/// Named by the state of the world.
#[derive(Debug, thiserror::Error)]
pub enum CameraError {
    /// No frame within the timeout; the same camera may go on.
    #[error("{camera}: no frame for {waited_ms} ms")]
    Stalled { camera: String, waited_ms: u128 },
    /// A finite source came to its end.
    #[error("{0}: end of input")]
    End(String),
    /// Not there now, may come (back): reopen later.
    #[error("{camera}: {why}")]
    Gone { camera: String, why: String },
    /// Will not work until the configuration or the system changes.
    #[error("{camera}: {why}")]
    Unusable { camera: String, why: String },
}
