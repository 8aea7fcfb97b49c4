//! A virtual camera: overlays to a V4L2 output node, so that any program which opens a
//! camera can show them. Made for v4l2loopback.
//!
//! Frames are handed over by a `write` that never waits: where the driver has no room, the
//! frame is skipped. A node that goes away is opened again.

mod picture;
#[allow(unsafe_code)] // The kernel's structures and calls.
mod sys;

use super::{CameraState, Published, Sink, SinkError};
use crate::config::{OverlayConfig, V4l2SinkConfig};
use crate::heatmap::overlay::Overlay;
use picture::{Converter, FORMATS};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use sys::Device;

/// Between two attempts to open the node again.
const REOPEN_EVERY: Duration = Duration::from_secs(2);

/// The `v4l2` sink.
pub struct V4l2Sink {
    path: PathBuf,
    overlay: Overlay,
    output: Option<Output>,
    /// Of the last attempt.
    opened_at: Option<Instant>,
}

/// An open node and what it takes.
struct Output {
    device: Device,
    converter: Converter,
    /// Size of the pictures that the format was set for.
    pictures: [usize; 2],
}

impl V4l2Sink {
    /// The node must be there and take video; its format is set with the first picture.
    pub fn open(config: &V4l2SinkConfig, overlay: &OverlayConfig) -> Result<Self, SinkError> {
        let path = config.device.clone();
        Device::open(&path).map_err(|error| {
            SinkError::Open(format!(
                "sink.v4l2.device: {}: {error}; for a virtual camera, load v4l2loopback: \
                 modprobe v4l2loopback video_nr=10 exclusive_caps=1",
                path.display()
            ))
        })?;
        let overlay = Overlay::new(overlay);
        Ok(Self { path, overlay, output: None, opened_at: None })
    }

    /// The output for pictures of this size; opened, or opened anew, where it is not there.
    fn output(&mut self, pictures: [usize; 2]) -> Result<Option<&mut Output>, SinkError> {
        if self.output.as_ref().is_some_and(|output| output.pictures != pictures) {
            // Programs that read keep the old format until the node is closed.
            self.output = None;
        }
        if self.output.is_none() {
            if self.opened_at.is_some_and(|at| at.elapsed() < REOPEN_EVERY) {
                return Ok(None);
            }
            self.opened_at = Some(Instant::now());
            let output = Output::open(&self.path, pictures);
            self.output = Some(output.map_err(|source| self.failed("open", source))?);
        }
        Ok(self.output.as_mut())
    }

    fn failed(&self, what: &'static str, source: io::Error) -> SinkError {
        SinkError::Io { what, path: self.path.clone(), source }
    }
}

impl Output {
    fn open(path: &Path, pictures: [usize; 2]) -> io::Result<Self> {
        let device = Device::open(path)?;
        let listed = device.formats();
        // A driver that lists nothing may still take what it is asked for.
        let takes = |code: &&[u8; 4]| listed.is_empty() || listed.contains(code);
        let code = FORMATS.iter().find(takes).ok_or_else(|| {
            let names = |codes: &[[u8; 4]]| {
                let names = codes.iter().map(|code| String::from_utf8_lossy(code).into_owned());
                names.collect::<Vec<_>>().join(", ")
            };
            let text = format!("takes {}, we write {}", names(&listed), names(&FORMATS));
            io::Error::other(text)
        })?;
        let [width, height] = pictures.map(|side| side as u32);
        let format = device.set_format(*code, width, height)?;
        let converter = Converter::new(format)
            .ok_or_else(|| io::Error::other(format!("wants {format:?}, which we cannot write")))?;
        device.announce();
        log::info!(
            "sink v4l2: {}: {} {}x{}",
            path.display(),
            String::from_utf8_lossy(&format.code),
            format.width,
            format.height
        );
        Ok(Self { device, converter, pictures })
    }
}

impl Sink for V4l2Sink {
    fn name(&self) -> &'static str {
        "v4l2"
    }

    fn publish(&mut self, item: &Published) -> Result<(), SinkError> {
        let size = [item.picture.width, item.picture.height];
        if self.output(size)?.is_none() {
            return Ok(());
        }
        let drawn = self.overlay.render(&item.picture, &item.heatmap);
        let Some(output) = &mut self.output else { return Ok(()) };
        let frame = output.converter.frame(drawn).map_err(io::Error::other);
        match frame.and_then(|frame| output.device.write(frame)) {
            Ok(true) => Ok(()),
            Ok(false) => {
                log::debug!("sink v4l2: no room, a frame is skipped");
                Ok(())
            }
            Err(source) => {
                self.output = None;
                Err(self.failed("write to", source))
            }
        }
    }

    fn camera(&mut self, _: &CameraState) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.output = None;
        Ok(())
    }
}
