//! Cameras of the kernel: V4L2 capture devices.

pub(super) mod capture;
mod colour;
mod control;
mod negotiate;
mod select;
#[allow(unsafe_code)] // The kernel's structures and calls.
pub(super) mod sys;

pub use negotiate::{FourCc, RateRange, SizeRange};
pub use select::{CameraInfo, FormatInfo, SizeInfo, list};

use super::mmap::Stream;
use super::{Camera, CameraCounters, CameraError};
use crate::config::V4l2Config;
use crate::frame::{Frame, PixelFormat};
use capture::{Account, Plan};
use negotiate::{Mode, Offer, Wanted};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};
use sys::{Device, Format};

/// Frame buffers kept for reuse.
const SPARE_BUFFERS: usize = 3;

/// An older timestamp than this is a wrong one.
const MAX_FRAME_AGE: Duration = Duration::from_secs(10);

/// A streaming capture device.
#[derive(Debug)]
pub struct V4l2 {
    /// As configured, with what it was found to be.
    camera: String,
    description: String,
    differences: Vec<String>,
    stream: Stream,
    plan: Plan,
    account: Account,
    spare: Vec<Vec<u8>>,
}

impl V4l2 {
    /// Finds the device, negotiates a mode, sets the controls and starts streaming.
    pub fn open(config: &V4l2Config) -> Result<Self, CameraError> {
        let wanted = wanted(config)?;
        let path = select::find(&config.device)?;
        let camera = match config.device == path.display().to_string() {
            true => config.device.clone(),
            false => format!("{} ({})", config.device, path.display()),
        };
        let device = open_device(&path, &camera)?;
        let (format, fps, mut differences) = negotiate(&device, &camera, &wanted)?;
        let plan = Plan::new(&format).map_err(|why| CameraError::unusable(&camera, why))?;
        differences.extend(control::apply(&device, &config.controls));
        let differences = differences.into_iter().map(|what| format!("{camera}: {what}")).collect();
        let rate = fps.map_or(String::new(), |fps| format!(" @ {}", short(fps)));
        let card = &device.capability.card;
        let mode = format!("{} {}x{}", capture::name(format.code), format.width, format.height);
        let description = format!("{camera} \"{card}\" {mode}{rate}");
        let planes = format.strides.len();
        let stream = Stream::start(device, config.buffers, planes)
            .map_err(|e| world(&camera, "cannot start streaming", &e))?;
        let account = Account::default();
        Ok(Self { camera, description, differences, stream, plan, account, spare: Vec::new() })
    }
}

impl Camera for V4l2 {
    fn next_frame(&mut self, timeout: Duration) -> Result<Frame, CameraError> {
        let mut data = self.spare.pop().unwrap_or_default();
        let (stream, plan, account) = (&mut self.stream, &self.plan, &mut self.account);
        let filled = match capture::newest(stream, plan, account, timeout, &mut data) {
            Ok(Some(filled)) => filled,
            Ok(None) => {
                self.spare.push(data);
                return Err(CameraError::stalled(&self.camera, timeout));
            }
            Err(error) => return Err(world(&self.camera, "lost", &error)),
        };
        let age = filled.timestamp.map_or(Duration::ZERO, age);
        let (now, wall) = (Instant::now(), SystemTime::now());
        Ok(Frame {
            layout: self.plan.layout,
            data,
            sequence: u64::from(filled.sequence),
            captured_at: now.checked_sub(age).unwrap_or(now),
            captured_wall: wall.checked_sub(age).unwrap_or(wall),
        })
    }

    fn describe(&self) -> String {
        self.description.clone()
    }

    fn differences(&self) -> &[String] {
        &self.differences
    }

    fn counters(&self) -> CameraCounters {
        self.account.counters
    }

    fn recycle(&mut self, frame: Frame) {
        if self.spare.len() < SPARE_BUFFERS {
            self.spare.push(frame.data);
        }
    }
}

/// How long ago a moment of `CLOCK_MONOTONIC` was; zero for one that makes no sense.
fn age(timestamp: Duration) -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::try_from(now).unwrap_or_default();
    now.checked_sub(timestamp).filter(|age| *age <= MAX_FRAME_AGE).unwrap_or_default()
}

fn wanted(config: &V4l2Config) -> Result<Wanted, CameraError> {
    let code = match config.format.as_str() {
        "auto" => None,
        name => Some(known(name).ok_or_else(|| {
            let names = PixelFormat::ALL.map(PixelFormat::fourcc).join(", ");
            let why = format!("{name:?}, allowed: auto, {names}, NM12, YM12");
            CameraError::unusable("camera.v4l2.format", why)
        })?),
    };
    let &V4l2Config { width, height, fps, .. } = config;
    Ok(Wanted { code, width, height, fps })
}

fn known(name: &str) -> Option<FourCc> {
    let code = name.as_bytes().try_into().ok()?;
    negotiate::pixel_format(code).map(|_| code)
}

fn open_device(path: &Path, camera: &str) -> Result<Device, CameraError> {
    let device = Device::open(path).map_err(|e| not_opened(camera, &e))?;
    if !device.capability.can_capture() {
        let why = "not a camera: the node captures no video (a camera's other nodes carry \
                   metadata; `salientd doctor` lists those that capture)";
        return Err(CameraError::unusable(camera, why));
    }
    Ok(device)
}

fn not_opened(camera: &str, error: &io::Error) -> CameraError {
    if error.raw_os_error() == Some(Errno::NOTTY.raw_os_error()) {
        return CameraError::unusable(camera, "not a V4L2 device");
    }
    world(camera, "cannot be opened", error)
}

/// Asks for the ranked modes in turn until the driver takes one. Answers with what it made of
/// it, the rate where the driver tells, and what is not as wanted.
fn negotiate(
    device: &Device,
    camera: &str,
    wanted: &Wanted,
) -> Result<(Format, Option<f64>, Vec<String>), CameraError> {
    let formats = device.formats().map_err(|e| world(camera, "cannot list its formats", &e))?;
    let offer = |code| Offer { code, sizes: device.sizes(code) };
    let offers: Vec<Offer> = formats.iter().map(|format| offer(format.code)).collect();
    let modes = negotiate::rank(&offers, wanted, |code, w, h| device.rates(code, w, h));
    for mode in modes {
        match device.set_format(mode.code, mode.width, mode.height) {
            Ok(format) if format.code == mode.code => {
                let rate = device
                    .set_rate(mode.fps)
                    .map_err(|e| world(camera, "cannot set the frame rate", &e))?;
                let differences = differences(wanted, &mode, &format, rate);
                return Ok((format, rate, differences));
            }
            Ok(format) => {
                let (asked, got) = (capture::name(mode.code), capture::name(format.code));
                log::debug!("{camera}: asked for {asked}, the driver answered {got}");
            }
            Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {}
            Err(e) => return Err(world(camera, "cannot set the format", &e)),
        }
    }
    let offered: Vec<String> = formats.iter().map(|format| capture::name(format.code)).collect();
    Err(CameraError::unusable(camera, no_format(device, wanted, &offered)))
}

fn no_format(device: &Device, wanted: &Wanted, offered: &[String]) -> String {
    if offered.is_empty() && device.capability.needs_media_setup() {
        return "a bare sensor that needs libcamera: use source = \"pipe\" with rpicam-vid, or \
                start salientd under libcamerify"
            .into();
    }
    let offered = if offered.is_empty() { "none".into() } else { offered.join(", ") };
    match wanted.code {
        Some(code) => format!("no format {}, the camera offers {offered}", capture::name(code)),
        None => {
            let known = PixelFormat::ALL.map(PixelFormat::fourcc).join(", ");
            format!("no common format: the camera offers {offered}; we read {known}")
        }
    }
}

/// What of size and rate is not as wanted.
fn differences(wanted: &Wanted, mode: &Mode, format: &Format, rate: Option<f64>) -> Vec<String> {
    let mut found = Vec::new();
    if (format.width, format.height) != (wanted.width, wanted.height) {
        let (asked, got) = ((wanted.width, wanted.height), (format.width, format.height));
        found.push(format!("{}x{} instead of {}x{}", got.0, got.1, asked.0, asked.1));
    }
    let fps = rate.unwrap_or(mode.fps);
    if (fps - f64::from(wanted.fps)).abs() > 0.01 * f64::from(wanted.fps) {
        let (got, asked) = (short(fps), wanted.fps);
        found.push(format!("{got} frames per second instead of {asked}"));
    }
    found
}

fn short(fps: f64) -> f64 {
    (fps * 100.0).round() / 100.0
}

/// What an error of the driver means: all may pass, as cameras are plugged in again and other
/// programs let go of them.
fn world(camera: &str, doing: &str, error: &io::Error) -> CameraError {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let why = match errno {
        Some(Errno::NOENT) => "no such device: not plugged in?".into(),
        Some(Errno::NODEV | Errno::NXIO) => format!("{doing}: unplugged"),
        Some(Errno::ACCESS | Errno::PERM) => {
            format!("{doing}: permission denied: is the user in the group `video`?")
        }
        Some(Errno::BUSY) => format!("{doing}: in use by another program"),
        Some(Errno::NOSPC) => format!(
            "{doing}: not enough USB bandwidth left: another port, a smaller size or MJPG may do"
        ),
        _ => format!("{doing}: {error}"),
    };
    CameraError::gone(camera, why)
}

#[cfg(test)]
mod tests;
