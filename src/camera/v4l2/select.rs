//! Which device node is meant, and what there is to choose from.

use super::capture::name;
use super::negotiate::{FourCc, RateRange, SizeRange, pixel_format};
use super::sys::{Device, FormatName};
use super::{CameraError, not_opened, open_device, world};
use std::io;
use std::path::{Path, PathBuf};

/// Most nodes looked at.
const MAX_NODES: usize = 256;
/// From the node's device up to the USB device that has the serial number.
const MAX_PARENTS: usize = 8;

/// A capture device, for `doctor`.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraInfo {
    pub path: PathBuf,
    pub driver: String,
    pub card: String,
    pub bus: String,
    /// Of the USB device, where it has one.
    pub serial: Option<String>,
    pub formats: Vec<FormatInfo>,
    /// Why nothing more is known; nothing: all is well.
    pub problem: Option<String>,
}

/// One of a camera's formats.
#[derive(Clone, Debug, PartialEq)]
pub struct FormatInfo {
    /// Four characters.
    pub code: String,
    pub description: String,
    /// Whether it is one that we read.
    pub readable: bool,
    pub sizes: Vec<SizeInfo>,
}

/// A size and its frame rates; of a range of sizes the rates of its largest.
#[derive(Clone, Debug, PartialEq)]
pub struct SizeInfo {
    pub size: SizeRange,
    pub rates: Vec<RateRange>,
}

/// The system's cameras in the order of their numbers. Nodes that capture no video are left
/// out; those that can't be opened are in, with the reason.
pub fn list() -> Vec<CameraInfo> {
    nodes(Path::new("/dev")).iter().filter_map(|path| info(path)).collect()
}

fn info(path: &Path) -> Option<CameraInfo> {
    let mut info = CameraInfo {
        path: path.to_path_buf(),
        driver: String::new(),
        card: String::new(),
        bus: String::new(),
        serial: serial(path),
        formats: Vec::new(),
        problem: None,
    };
    let problem = |error: CameraError| Some(error.to_string().trim_start_matches(": ").to_owned());
    match Device::open(path) {
        Ok(device) if !device.capability.can_capture() => return None,
        Ok(device) => {
            info.driver = device.capability.driver.clone();
            info.card = device.capability.card.clone();
            info.bus = device.capability.bus.clone();
            match formats(&device) {
                Ok(formats) => info.formats = formats,
                Err(e) => info.problem = problem(world("", "cannot list its formats", &e)),
            }
        }
        Err(error) => info.problem = problem(not_opened("", &error)),
    }
    Some(info)
}

fn formats(device: &Device) -> io::Result<Vec<FormatInfo>> {
    let info = |format: FormatName| FormatInfo {
        code: name(format.code),
        description: format.description,
        readable: pixel_format(format.code).is_some(),
        sizes: sizes(device, format.code),
    };
    Ok(device.formats()?.into_iter().map(info).collect())
}

fn sizes(device: &Device, code: FourCc) -> Vec<SizeInfo> {
    let sizes = device.sizes(code).into_iter();
    let rates = |size: &SizeRange| device.rates(code, size.width[1], size.height[1]);
    sizes.map(|size| SizeInfo { size, rates: rates(&size) }).collect()
}

/// The node that `device` of the configuration means.
pub(super) fn find(device: &str) -> Result<PathBuf, CameraError> {
    let (what, text) = match device.split_once(':') {
        Some((what @ ("name" | "serial" | "bus"), text)) if !text.is_empty() => (what, text),
        _ if device.starts_with('/') => return Ok(PathBuf::from(device)),
        _ => {
            let why = "allowed: a path such as /dev/video0, name:TEXT, serial:TEXT or bus:TEXT";
            return Err(CameraError::unusable(format!("camera.v4l2.device = {device:?}"), why));
        }
    };
    let mut seen = Vec::new();
    for path in nodes(Path::new("/dev")) {
        match open_device(&path, &path.display().to_string()) {
            Ok(opened) => {
                let is = match what {
                    "name" => Some(opened.capability.card.clone()),
                    "bus" => Some(opened.capability.bus.clone()),
                    _ => serial(&path),
                };
                if is.as_ref().is_some_and(|is| is.contains(text)) {
                    return Ok(path);
                }
                seen.push(format!("{} has {:?}", path.display(), is.unwrap_or_default()));
            }
            // A node that captures nothing is none of the cameras.
            Err(CameraError::Unusable { .. }) => {}
            Err(error) => seen.push(error.to_string()),
        }
    }
    let seen = if seen.is_empty() { "there is none".into() } else { seen.join("; ") };
    Err(CameraError::gone(device, format!("no camera with that {what}: {seen}")))
}

/// `video0`, `video1`, … of a folder by number.
fn nodes(dev: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dev).into_iter().flatten().flatten();
    let number = |path: &Path| -> Option<u32> {
        path.file_name()?.to_str()?.strip_prefix("video")?.parse().ok()
    };
    let mut nodes: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((number(&entry.path())?, entry.path())))
        .take(MAX_NODES)
        .collect();
    nodes.sort();
    nodes.into_iter().map(|(_, path)| path).collect()
}

fn serial(node: &Path) -> Option<String> {
    let name = node.file_name()?;
    serial_above(&Path::new("/sys/class/video4linux").join(name).join("device"))
}

/// The nearest `serial` in the folder or above. A video node's device is an interface of the
/// USB device, which has the number.
fn serial_above(device: &Path) -> Option<String> {
    let device = device.canonicalize().ok()?;
    let folders = device.ancestors().take(MAX_PARENTS);
    let serial = folders.filter_map(|folder| std::fs::read_to_string(folder.join("serial")).ok());
    serial.map(|text| text.trim().to_owned()).find(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn nodes_come_by_number_and_nothing_else_counts() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["video10", "video2", "video0", "videoX", "vbi0", "video"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let found = nodes(dir.path());
        let names: Vec<_> =
            found.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["video0", "video2", "video10"]);
        assert_eq!(nodes(&dir.path().join("none")), Vec::<PathBuf>::new());
    }

    #[test]
    fn the_serial_number_stands_on_the_usb_device_above() {
        let dir = tempfile::tempdir().unwrap();
        let interface = dir.path().join("usb1/1-1/1-1:1.0");
        fs::create_dir_all(&interface).unwrap();
        fs::write(dir.path().join("usb1/serial"), "of the host controller\n").unwrap();
        fs::write(dir.path().join("usb1/1-1/serial"), "AB12CD\n").unwrap();
        let node = dir.path().join("device");
        std::os::unix::fs::symlink(&interface, &node).unwrap();
        assert_eq!(serial_above(&node), Some("AB12CD".into()));
        assert_eq!(serial_above(&dir.path().join("none")), None);
    }

    #[test]
    fn a_device_is_a_path_or_says_what_to_look_for() {
        assert_eq!(find("/dev/video7").unwrap(), PathBuf::from("/dev/video7"));
        for bad in ["video0", "", "name:", "card:x"] {
            assert_eq!(
                find(bad).unwrap_err().to_string(),
                format!(
                    "camera.v4l2.device = {bad:?}: allowed: a path such as /dev/video0, \
                     name:TEXT, serial:TEXT or bus:TEXT"
                )
            );
        }
        let missing = find("serial:no such serial number").unwrap_err();
        assert!(matches!(missing, CameraError::Gone { .. }), "{missing}");
    }
}
