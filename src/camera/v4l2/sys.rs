//! The driver's ioctls, each as one safe function.
//!
//! The `v4l` crate gives the kernel's structures and request numbers. Its safe layer is not
//! used: it panics where a card name was cut inside a UTF-8 character or where closing a
//! device fails, and it knows single-planar capture only.

#![allow(non_upper_case_globals)] // The kernel's enumerators as bindgen names them.

use super::colour::Colour;
use super::negotiate::{FourCc, RateRange, SizeRange};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use v4l::v4l_sys::*;
use v4l::v4l2::vidioc::*;

/// Most entries read of any of the driver's lists; real ones have a few dozen at most.
const MAX_ENTRIES: u32 = 256;

/// Planes of a frame in separate buffers: at most Y, U and V of ours.
pub(in crate::camera) const MAX_PLANES: usize = 3;

/// An open device node.
#[derive(Debug)]
pub(in crate::camera) struct Device {
    fd: OwnedFd,
    pub(super) capability: Capability,
}

/// What the node is.
#[derive(Clone, Debug)]
pub(super) struct Capability {
    pub driver: String,
    pub card: String,
    pub bus: String,
    /// Of this node, not of the whole device.
    flags: u32,
}

impl Capability {
    /// Video capture with streaming; not metadata, output or codec nodes.
    pub(super) fn can_capture(&self) -> bool {
        let capture = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_VIDEO_CAPTURE_MPLANE;
        self.flags & capture != 0 && self.flags & V4L2_CAP_STREAMING != 0
    }

    /// A sensor behind a media graph that user space has to set up, as on Raspberry Pi 5.
    pub(super) fn needs_media_setup(&self) -> bool {
        self.flags & V4L2_CAP_IO_MC != 0
    }

    fn multi_planar(&self) -> bool {
        self.flags & V4L2_CAP_VIDEO_CAPTURE == 0 && self.flags & V4L2_CAP_VIDEO_CAPTURE_MPLANE != 0
    }
}

/// A format as the driver calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FormatName {
    pub code: FourCc,
    pub description: String,
}

/// What the driver made of the wanted format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub code: FourCc,
    pub width: u32,
    pub height: u32,
    /// Bytes per row of each plane that has a buffer of its own.
    pub strides: Vec<u32>,
    pub colour: Colour,
}

/// A control that has a number for a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Control {
    id: u32,
    /// In snake case.
    pub name: String,
    wide: bool,
    pub minimum: i64,
    pub maximum: i64,
    /// Buttons and the like have no value to read back.
    pub readable: bool,
}

/// Calls `request` on the device, again when a signal came between.
///
/// # Safety
/// `request` must be one that takes a `T`, and pointers inside `arg` must be valid for what
/// the kernel does with them.
pub(in crate::camera) unsafe fn ioctl<T>(
    fd: BorrowedFd<'_>,
    request: _IOC_TYPE,
    arg: &mut T,
) -> io::Result<()> {
    // The size of the argument stands in bits 16 to 29 (asm-generic/ioctl.h).
    debug_assert_eq!((request >> 16 & 0x3fff) as usize, size_of::<T>());
    loop {
        // SAFETY: by the contract above; `arg` outlives the call.
        let done = unsafe { v4l::v4l2::ioctl(fd.as_raw_fd(), request, (&raw mut *arg).cast()) };
        match done {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

impl Device {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        // SAFETY: all zeros is a value of this plain C structure.
        let mut caps: v4l2_capability = unsafe { zeroed() };
        // SAFETY: QUERYCAP fills a v4l2_capability, which holds no pointers.
        unsafe { ioctl(fd.as_fd(), VIDIOC_QUERYCAP, &mut caps) }?;
        let own = caps.capabilities & V4L2_CAP_DEVICE_CAPS != 0;
        let capability = Capability {
            driver: text(&caps.driver),
            card: text(&caps.card),
            bus: text(&caps.bus_info),
            flags: if own { caps.device_caps } else { caps.capabilities },
        };
        Ok(Self { fd, capability })
    }

    pub(in crate::camera) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(in crate::camera) fn buffer_type(&self) -> u32 {
        match self.capability.multi_planar() {
            true => v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE,
            false => v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE,
        }
    }

    pub(in crate::camera) fn multi_planar(&self) -> bool {
        self.capability.multi_planar()
    }

    pub(super) fn formats(&self) -> io::Result<Vec<FormatName>> {
        entries(|index| {
            // SAFETY: all zeros is a value of this plain C structure.
            let mut entry: v4l2_fmtdesc = unsafe { zeroed() };
            (entry.index, entry.type_) = (index, self.buffer_type());
            // SAFETY: ENUM_FMT fills a v4l2_fmtdesc, which holds no pointers.
            unsafe { ioctl(self.fd(), VIDIOC_ENUM_FMT, &mut entry) }?;
            let code = entry.pixelformat.to_le_bytes();
            Ok(FormatName { code, description: text(&entry.description) })
        })
    }

    /// Empty where the driver does not say.
    pub(super) fn sizes(&self, code: FourCc) -> Vec<SizeRange> {
        let entry = |index| {
            // SAFETY: all zeros is a value of this plain C structure.
            let mut entry: v4l2_frmsizeenum = unsafe { zeroed() };
            (entry.index, entry.pixel_format) = (index, u32::from_le_bytes(code));
            // SAFETY: ENUM_FRAMESIZES fills a v4l2_frmsizeenum, which holds no pointers.
            unsafe { ioctl(self.fd(), VIDIOC_ENUM_FRAMESIZES, &mut entry) }.ok()?;
            if entry.type_ == v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_DISCRETE {
                // SAFETY: the type says that `discrete` is what was filled in.
                let size = unsafe { entry.__bindgen_anon_1.discrete };
                return Some(SizeRange::discrete(size.width, size.height));
            }
            // SAFETY: the other two types, stepwise and continuous, fill in `stepwise`.
            let size = unsafe { entry.__bindgen_anon_1.stepwise };
            Some(SizeRange {
                width: [size.min_width, size.max_width, size.step_width],
                height: [size.min_height, size.max_height, size.step_height],
            })
        };
        (0..MAX_ENTRIES).map_while(entry).collect()
    }

    /// Empty where the driver does not say.
    pub(super) fn rates(&self, code: FourCc, width: u32, height: u32) -> Vec<RateRange> {
        let hz = |interval: v4l2_fract| {
            f64::from(interval.denominator) / f64::from(interval.numerator.max(1))
        };
        let entry = |index| {
            // SAFETY: all zeros is a value of this plain C structure.
            let mut entry: v4l2_frmivalenum = unsafe { zeroed() };
            (entry.index, entry.pixel_format) = (index, u32::from_le_bytes(code));
            (entry.width, entry.height) = (width, height);
            // SAFETY: ENUM_FRAMEINTERVALS fills a v4l2_frmivalenum, which holds no pointers.
            unsafe { ioctl(self.fd(), VIDIOC_ENUM_FRAMEINTERVALS, &mut entry) }.ok()?;
            if entry.type_ == v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_DISCRETE {
                // SAFETY: the type says that `discrete` is what was filled in.
                let rate = hz(unsafe { entry.__bindgen_anon_1.discrete });
                return Some(RateRange { slowest: rate, fastest: rate });
            }
            // SAFETY: the other two types, stepwise and continuous, fill in `stepwise`.
            let range = unsafe { entry.__bindgen_anon_1.stepwise };
            Some(RateRange { slowest: hz(range.max), fastest: hz(range.min) })
        };
        (0..MAX_ENTRIES).map_while(entry).collect()
    }

    /// Asks for a format; the driver answers with the nearest that it has.
    pub(super) fn set_format(&self, code: FourCc, w: u32, h: u32) -> io::Result<Format> {
        // SAFETY: all zeros is a value of this plain C structure.
        let mut format: v4l2_format = unsafe { zeroed() };
        format.type_ = self.buffer_type();
        let field = v4l2_field_V4L2_FIELD_NONE;
        let pixelformat = u32::from_le_bytes(code);
        if self.multi_planar() {
            // SAFETY: all zeros is a value of this plain C structure.
            let mut pix: v4l2_pix_format_mplane = unsafe { zeroed() };
            (pix.width, pix.height, pix.pixelformat, pix.field) = (w, h, pixelformat, field);
            format.fmt.pix_mp = pix;
        } else {
            // SAFETY: all zeros is a value of this plain C structure.
            let mut pix: v4l2_pix_format = unsafe { zeroed() };
            (pix.width, pix.height, pix.pixelformat, pix.field) = (w, h, pixelformat, field);
            format.fmt.pix = pix;
        }
        // SAFETY: S_FMT takes a v4l2_format; its video formats hold no pointers.
        unsafe { ioctl(self.fd(), VIDIOC_S_FMT, &mut format) }?;
        Ok(self.read_format(&format))
    }

    fn read_format(&self, format: &v4l2_format) -> Format {
        if self.multi_planar() {
            // SAFETY: of a multi-planar buffer type, `pix_mp` is what was filled in.
            let pix = unsafe { format.fmt.pix_mp };
            let planes = { pix.plane_fmt };
            let count = usize::from(pix.num_planes).min(planes.len());
            return Format {
                code: { pix.pixelformat }.to_le_bytes(),
                width: pix.width,
                height: pix.height,
                strides: planes[..count].iter().map(|plane| plane.bytesperline).collect(),
                colour: Colour {
                    colorspace: pix.colorspace,
                    // SAFETY: both members of this union are the same byte.
                    ycbcr_enc: u32::from(unsafe { pix.__bindgen_anon_1.ycbcr_enc }),
                    quantization: u32::from(pix.quantization),
                },
            };
        }
        // SAFETY: of the single-planar buffer type, `pix` is what was filled in.
        let pix = unsafe { format.fmt.pix };
        Format {
            code: pix.pixelformat.to_le_bytes(),
            width: pix.width,
            height: pix.height,
            strides: vec![pix.bytesperline],
            colour: Colour {
                colorspace: pix.colorspace,
                // SAFETY: both members of this union are the same number.
                ycbcr_enc: unsafe { pix.__bindgen_anon_1.ycbcr_enc },
                quantization: pix.quantization,
            },
        }
    }

    /// Asks for a frame rate in Hz; answers with the rate that the driver took, or nothing
    /// where it has only one.
    pub(super) fn set_rate(&self, fps: f64) -> io::Result<Option<f64>> {
        // SAFETY: all zeros is a value of this plain C structure.
        let mut parm: v4l2_streamparm = unsafe { zeroed() };
        parm.type_ = self.buffer_type();
        // SAFETY: G_PARM fills a v4l2_streamparm, which holds no pointers.
        if unsafe { ioctl(self.fd(), VIDIOC_G_PARM, &mut parm) }.is_err() {
            return Ok(None);
        }
        // SAFETY: of a capture buffer type, `capture` is what was filled in.
        if unsafe { parm.parm.capture }.capability & V4L2_CAP_TIMEPERFRAME == 0 {
            return Ok(None);
        }
        // SAFETY: all zeros is a value of this plain C structure.
        let mut capture: v4l2_captureparm = unsafe { zeroed() };
        capture.timeperframe =
            v4l2_fract { numerator: 1000, denominator: (fps * 1000.0).round() as u32 };
        parm.parm.capture = capture;
        // SAFETY: S_PARM takes a v4l2_streamparm, which holds no pointers.
        unsafe { ioctl(self.fd(), VIDIOC_S_PARM, &mut parm) }?;
        // SAFETY: of a capture buffer type, `capture` is what was filled in.
        let interval = unsafe { parm.parm.capture }.timeperframe;
        if interval.numerator == 0 {
            return Ok(None);
        }
        Ok(Some(f64::from(interval.denominator) / f64::from(interval.numerator)))
    }

    /// The controls with a number for a value that may be set.
    pub(super) fn controls(&self) -> Vec<Control> {
        let mut controls = Vec::new();
        // SAFETY: all zeros is a value of this plain C structure.
        let mut query: v4l2_query_ext_ctrl = unsafe { zeroed() };
        for _ in 0..MAX_ENTRIES {
            query.id |= V4L2_CTRL_FLAG_NEXT_CTRL;
            // SAFETY: QUERY_EXT_CTRL fills a v4l2_query_ext_ctrl, which holds no pointers.
            if unsafe { ioctl(self.fd(), VIDIOC_QUERY_EXT_CTRL, &mut query) }.is_err() {
                break;
            }
            if query.flags & (V4L2_CTRL_FLAG_DISABLED | V4L2_CTRL_FLAG_READ_ONLY) != 0 {
                continue;
            }
            let (wide, button) = match query.type_ {
                v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER
                | v4l2_ctrl_type_V4L2_CTRL_TYPE_BOOLEAN
                | v4l2_ctrl_type_V4L2_CTRL_TYPE_MENU
                | v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU
                | v4l2_ctrl_type_V4L2_CTRL_TYPE_BITMASK => (false, false),
                v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER64 => (true, false),
                v4l2_ctrl_type_V4L2_CTRL_TYPE_BUTTON => (false, true),
                _ => continue,
            };
            let name: Vec<u8> = query.name.iter().map(|&c| c as u8).collect();
            controls.push(Control {
                id: query.id,
                name: super::control::snake_case(&text(&name)),
                wide,
                minimum: query.minimum,
                maximum: query.maximum,
                readable: !button && query.flags & V4L2_CTRL_FLAG_WRITE_ONLY == 0,
            });
        }
        controls
    }

    pub(super) fn set_control(&self, control: &Control, value: i64) -> io::Result<()> {
        self.control(control, VIDIOC_S_EXT_CTRLS, value).map(drop)
    }

    pub(super) fn get_control(&self, control: &Control) -> io::Result<i64> {
        self.control(control, VIDIOC_G_EXT_CTRLS, 0)
    }

    fn control(&self, control: &Control, request: _IOC_TYPE, value: i64) -> io::Result<i64> {
        // SAFETY: all zeros is a value of these plain C structures; a control class of zero
        // (V4L2_CTRL_WHICH_CUR_VAL) means that controls of any class may follow.
        let (mut one, mut list): (v4l2_ext_control, v4l2_ext_controls) =
            unsafe { (zeroed(), zeroed()) };
        one.id = control.id;
        if control.wide {
            one.__bindgen_anon_1.value64 = value;
        } else {
            let out_of_range = |_| io::Error::from(Errno::RANGE);
            one.__bindgen_anon_1.value = i32::try_from(value).map_err(out_of_range)?;
        }
        list.count = 1;
        list.controls = &raw mut one;
        // SAFETY: both requests take a v4l2_ext_controls with `count` controls behind its
        // pointer; there is one, it outlives the call, and it has a number, not a payload.
        unsafe { ioctl(self.fd(), request, &mut list) }?;
        // SAFETY: a union of numbers, written through the member that is read.
        Ok(match control.wide {
            true => unsafe { one.__bindgen_anon_1.value64 },
            false => i64::from(unsafe { one.__bindgen_anon_1.value }),
        })
    }
}

/// One of the driver's lists: EINVAL ends it, and any other error is one.
fn entries<T>(entry: impl FnMut(u32) -> io::Result<T>) -> io::Result<Vec<T>> {
    let is_end = |e: &io::Error| e.raw_os_error() == Some(Errno::INVAL.raw_os_error());
    (0..MAX_ENTRIES).map(entry).take_while(|e| !e.as_ref().is_err_and(is_end)).collect()
}

/// A C string in a fixed field; the kernel may have cut it inside a character.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_at_the_zero_and_survive_a_cut_character() {
        for (field, expected) in [
            (&b"HD Webcam\0\0junk"[..], "HD Webcam"),
            (b"full", "full"),
            (b"Kam\xc3", "Kam\u{fffd}"),
            (b"\0", ""),
        ] {
            assert_eq!(text(field), expected);
        }
    }

    #[test]
    fn a_list_ends_with_einval_and_an_unplugged_device_has_none() {
        let list =
            |last: Errno| entries(|index| if index < 2 { Ok(index) } else { Err(last.into()) });
        assert_eq!(list(Errno::INVAL).unwrap(), [0, 1]);
        let unplugged = list(Errno::NODEV).unwrap_err();
        assert_eq!(unplugged.raw_os_error(), Some(Errno::NODEV.raw_os_error()));
        assert_eq!(entries(Ok).unwrap().len(), MAX_ENTRIES as usize);
    }

    #[test]
    fn what_is_no_video_device_is_refused_by_the_kernel() {
        let error = Device::open(Path::new("/dev/null")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::NOTTY.raw_os_error()));
    }
}
