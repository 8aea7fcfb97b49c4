//! Frames at a steady rate on the monotonic clock, for the sources that make their own.

use super::CameraError;
use std::time::{Duration, Instant};

/// Says when the next frame is due. A frame fetched late does not hurry the ones after it.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    due: Instant,
}

impl Pace {
    /// `key` names the setting in errors. A rate so slow that each frame would count as a
    /// stall is refused here rather than reopened for ever.
    pub(super) fn new(key: &str, fps: f64, timeout: Duration) -> Result<Self, CameraError> {
        let unusable = |why| Err(CameraError::unusable(key, why));
        if !(fps.is_finite() && fps > 0.0 && fps <= 1000.0) {
            return unusable(format!("{fps} frames per second, allowed: above 0, at most 1000"));
        }
        let seconds = 1.0 / fps;
        if seconds > timeout.as_secs_f64() {
            return unusable(format!(
                "{fps} means a frame every {:.0} ms, more than camera.timeout_ms = {}: \
                 raise that or the rate",
                seconds * 1e3,
                timeout.as_millis()
            ));
        }
        Ok(Self { interval: Duration::from_secs_f64(seconds), due: Instant::now() })
    }

    /// Sleeps until the next frame is due, at most `timeout`. False: it is not due yet.
    pub(super) fn wait(&mut self, timeout: Duration) -> bool {
        let wait = self.due.saturating_duration_since(Instant::now());
        std::thread::sleep(wait.min(timeout));
        if wait > timeout {
            return false;
        }
        self.due = (self.due + self.interval).max(Instant::now());
        true
    }
}
