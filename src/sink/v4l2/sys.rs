//! The driver's output side: four ioctls and `write`, each as a safe function. The `v4l`
//! crate gives structures and request numbers; its own device panics when closing fails.

#![allow(non_upper_case_globals)] // The kernel's enumerators as bindgen names them.

use super::picture::FourCc;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use v4l::v4l_sys::*;
use v4l::v4l2::vidioc::*;

/// Most formats read; real drivers have a few dozen at most.
const MAX_FORMATS: u32 = 256;

/// An open node that takes frames by `write`.
#[derive(Debug)]
pub(super) struct Device {
    fd: OwnedFd,
}

/// What the driver made of the wanted format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub code: FourCc,
    pub width: u32,
    pub height: u32,
    pub stride_bytes: u32,
    /// Of a whole frame.
    pub bytes: u32,
}

impl Device {
    /// An error that is not of the kernel says what the node lacks.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = Self { fd: rustix::fs::open(path, flags, Mode::empty())? };
        // SAFETY: all zeros is a value of this plain C structure.
        let mut caps: v4l2_capability = unsafe { zeroed() };
        // SAFETY: QUERYCAP fills a v4l2_capability, which holds no pointers.
        unsafe { device.ioctl(VIDIOC_QUERYCAP, &mut caps) }?;
        let own = caps.capabilities & V4L2_CAP_DEVICE_CAPS != 0;
        let flags = if own { caps.device_caps } else { caps.capabilities };
        let lacks = |what: &str| Err(io::Error::other(what.to_owned()));
        if flags & V4L2_CAP_VIDEO_OUTPUT == 0 {
            return lacks("takes no video: not the node of a virtual camera");
        }
        if flags & V4L2_CAP_READWRITE == 0 {
            return lacks("takes no frames by write()");
        }
        Ok(device)
    }

    /// Formats that the driver takes, as it lists them.
    pub fn formats(&self) -> Vec<FourCc> {
        let entry = |index| {
            // SAFETY: all zeros is a value of this plain C structure.
            let mut entry: v4l2_fmtdesc = unsafe { zeroed() };
            (entry.index, entry.type_) = (index, v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_OUTPUT);
            // SAFETY: ENUM_FMT fills a v4l2_fmtdesc, which holds no pointers.
            unsafe { self.ioctl(VIDIOC_ENUM_FMT, &mut entry) }.ok()?;
            Some(entry.pixelformat.to_le_bytes())
        };
        (0..MAX_FORMATS).map_while(entry).collect()
    }

    /// Asks for a format; the driver answers with the nearest that it has. Colours are
    /// those of ITU-R BT.601 in limited range.
    pub fn set_format(&self, code: FourCc, width: u32, height: u32) -> io::Result<Format> {
        // SAFETY: all zeros is a value of this plain C structure.
        let mut format: v4l2_format = unsafe { zeroed() };
        format.type_ = v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_OUTPUT;
        // SAFETY: all zeros is a value of this plain C structure.
        let mut pix: v4l2_pix_format = unsafe { zeroed() };
        (pix.width, pix.height) = (width, height);
        pix.pixelformat = u32::from_le_bytes(code);
        pix.field = v4l2_field_V4L2_FIELD_NONE;
        pix.colorspace = v4l2_colorspace_V4L2_COLORSPACE_SMPTE170M;
        format.fmt.pix = pix;
        // SAFETY: S_FMT takes a v4l2_format; its video formats hold no pointers.
        unsafe { self.ioctl(VIDIOC_S_FMT, &mut format) }?;
        // SAFETY: of this buffer type, `pix` is what was filled in.
        let pix = unsafe { format.fmt.pix };
        Ok(Format {
            code: pix.pixelformat.to_le_bytes(),
            width: pix.width,
            height: pix.height,
            stride_bytes: pix.bytesperline,
            bytes: pix.sizeimage,
        })
    }

    /// Makes this opener the node's writer for v4l2loopback, which otherwise announces no output
    /// again (`exclusive_caps=1`) when a writer that only ever called `write` has gone. Drivers
    /// that want buffers first refuse, and need nothing of the kind.
    pub fn announce(&self) {
        let mut output: i32 = v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_OUTPUT as i32;
        // SAFETY: STREAMON takes an int, the buffers' type.
        let _ = unsafe { self.ioctl(VIDIOC_STREAMON, &mut output) };
    }

    /// Hands over a whole frame. False: the driver has no room at the moment.
    pub fn write(&self, frame: &[u8]) -> io::Result<bool> {
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.fd, frame)) {
            Ok(written) if written == frame.len() => Ok(true),
            Ok(written) => {
                Err(io::Error::other(format!("took {written} of {} bytes", frame.len())))
            }
            Err(rustix::io::Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// # Safety
    /// `request` must be one that takes a `T` without pointers.
    unsafe fn ioctl<T>(&self, request: _IOC_TYPE, arg: &mut T) -> io::Result<()> {
        // The size of the argument stands in bits 16 to 29 (asm-generic/ioctl.h).
        debug_assert_eq!((request >> 16 & 0x3fff) as usize, size_of::<T>());
        loop {
            // SAFETY: by the contract above; `arg` outlives the call.
            let done =
                unsafe { v4l::v4l2::ioctl(self.fd.as_raw_fd(), request, (&raw mut *arg).cast()) };
            match done {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}
