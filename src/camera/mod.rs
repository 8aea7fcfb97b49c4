//! Where frames come from: one trait, four sources.

mod backoff;
pub mod clip;
pub mod files;
pub mod image;
mod mjpeg;
#[allow(unsafe_code)] // Kernel buffers mapped into memory.
mod mmap;
mod pace;
pub mod pattern;
pub mod pipe;
pub mod v4l2;
mod y4m;

pub use backoff::Backoff;
pub use v4l2::{CameraInfo, list};

use crate::config::{CameraConfig, CameraSource};
use crate::frame::{Frame, YuvMatrix};
use std::time::Duration;

/// A source of frames. It owns its buffers and yields the newest frame.
pub trait Camera: Send {
    /// Waits for the next frame, at most `timeout`. Frames that queued up meanwhile are
    /// skipped: the newest wins (live sources) or none is skipped (finite ones).
    fn next_frame(&mut self, timeout: Duration) -> Result<Frame, CameraError>;
    /// What is being captured, for people: `/dev/video0 "HD Webcam" YUYV 1280x720 @ 15`.
    fn describe(&self) -> String;
    /// What the driver made otherwise than configured, for people.
    fn differences(&self) -> &[String] {
        &[]
    }
    /// Counts since it was opened.
    fn counters(&self) -> CameraCounters;
    /// Whether to go on with it after a stall: what it has of a frame, or its place, would be
    /// lost by opening it anew.
    fn outlasts_stalls(&self) -> bool {
        false
    }
    /// Takes a frame's buffer back, so that a steady stream allocates nothing.
    fn recycle(&mut self, _frame: Frame) {}
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
    /// Has lost its place, and nobody can give it another one: this was all of it.
    #[error("{camera}: {why}; it cannot be begun anew")]
    Lost { camera: String, why: String },
}

impl CameraError {
    pub(crate) fn gone(camera: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Gone { camera: camera.into(), why: why.into() }
    }

    pub(crate) fn unusable(camera: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Unusable { camera: camera.into(), why: why.into() }
    }

    pub(crate) fn stalled(camera: impl Into<String>, waited: Duration) -> Self {
        Self::Stalled { camera: camera.into(), waited_ms: waited.as_millis() }
    }
}

/// Opens the configured source, ready to yield frames.
///
/// Errors: [`CameraError::Gone`] where trying again later can help, [`CameraError::Unusable`]
/// where it cannot.
pub fn open(config: &CameraConfig) -> Result<Box<dyn Camera>, CameraError> {
    let timeout = Duration::from_millis(config.timeout_ms);
    Ok(match config.source {
        CameraSource::V4l2 => Box::new(v4l2::V4l2::open(&config.v4l2)?),
        CameraSource::Files => Box::new(files::Files::open(&config.files, timeout)?),
        CameraSource::Pipe => Box::new(pipe::Pipe::open(&config.pipe)?),
        CameraSource::Pattern => Box::new(pattern::Pattern::open(&config.pattern, timeout)?),
    })
}

/// The matrix of a stream that does not name one: BT.709 from HD on, BT.601 below, as
/// rpicam-apps encodes and as players assume.
fn usual_matrix(width: u32, height: u32) -> YuvMatrix {
    if width >= 1280 || height > 576 { YuvMatrix::Bt709 } else { YuvMatrix::Bt601 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hd_is_bt709_and_smaller_is_bt601() {
        for (width, height, expected) in [
            (640, 480, YuvMatrix::Bt601),
            (720, 576, YuvMatrix::Bt601),
            (1279, 576, YuvMatrix::Bt601),
            (1280, 720, YuvMatrix::Bt709),
            (960, 720, YuvMatrix::Bt709),
        ] {
            assert_eq!(usual_matrix(width, height), expected, "{width}x{height}");
        }
    }
}
