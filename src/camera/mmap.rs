//! A V4L2 stream of memory-mapped buffers, single- and multi-planar.
//!
//! The kernel's rules (Documentation/userspace-api/media/v4l/mmap.rst): ask for buffers, map
//! each plane, queue all, start. Each buffer then belongs to the driver from QBUF to DQBUF
//! and to us in between; only then may its memory be read.

use super::v4l2::capture::{Filled, Queue};
use super::v4l2::sys::{Device, MAX_PLANES, ioctl};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::io;
use std::mem::zeroed;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::time::Duration;
use v4l::v4l_sys::*;
use v4l::v4l2::vidioc::*;

/// Fewest buffers to work with: one to read while the driver fills the other.
const MIN_BUFFERS: usize = 2;

/// A running stream. Stops and gives everything back when dropped.
#[derive(Debug)]
pub(super) struct Stream {
    /// Dropped before the device: the kernel frees buffers once nothing maps them.
    buffers: Vec<Vec<Mapping>>,
    device: Device,
    /// The last poll reported an error, so an empty queue will stay empty.
    failed: bool,
}

/// One plane of one buffer in our memory.
#[derive(Debug)]
struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone and is as good from any thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, len: usize, offset: u64) -> io::Result<Self> {
        if len == 0 {
            return Err(Errno::INVAL.into());
        }
        // SAFETY: a new mapping at a place of the kernel's choice disturbs no memory of ours.
        let start = unsafe {
            mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, fd, offset)
        }?;
        let start = NonNull::new(start).ok_or(Errno::FAULT)?;
        Ok(Self { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; nothing borrows it any more. It cannot
        // fail for such a range, and if it did the mapping would only stay.
        let _ = unsafe { munmap(self.start.as_ptr(), self.len) };
    }
}

/// A `v4l2_buffer` with the planes it points to in the multi-planar case.
struct Buffer {
    raw: v4l2_buffer,
    planes: [v4l2_plane; MAX_PLANES],
}

impl Buffer {
    fn new(device: &Device, index: u32) -> Self {
        // SAFETY: all zeros is a value of these plain C structures.
        let (mut raw, planes): (v4l2_buffer, _) = unsafe { (zeroed(), zeroed()) };
        raw.index = index;
        raw.type_ = device.buffer_type();
        raw.memory = v4l2_memory_V4L2_MEMORY_MMAP;
        Self { raw, planes }
    }

    fn ioctl(&mut self, device: &Device, request: _IOC_TYPE) -> io::Result<()> {
        if device.multi_planar() {
            self.raw.length = MAX_PLANES as u32;
            self.raw.m.planes = self.planes.as_mut_ptr();
        }
        // SAFETY: the callers' requests take a v4l2_buffer; in the multi-planar case it
        // points to `length` planes that live as long as `self`, else it holds no pointer.
        unsafe { ioctl(device.fd(), request, &mut self.raw) }
    }

    fn filled(&self, device: &Device) -> Filled {
        let raw = &self.raw;
        let mut used = [(0, 0); MAX_PLANES];
        if device.multi_planar() {
            for (used, plane) in used.iter_mut().zip(&self.planes) {
                // `bytesused` counts what stands before the data, too.
                *used = (plane.data_offset, plane.bytesused.saturating_sub(plane.data_offset));
            }
        } else {
            used[0] = (0, raw.bytesused);
        }
        let clock = raw.flags & V4L2_BUF_FLAG_TIMESTAMP_MASK;
        let seconds = u64::try_from(raw.timestamp.tv_sec).unwrap_or(0);
        let micros = u64::try_from(raw.timestamp.tv_usec).unwrap_or(0);
        let since = Duration::from_secs(seconds) + Duration::from_micros(micros);
        Filled {
            index: raw.index,
            flagged: raw.flags & V4L2_BUF_FLAG_ERROR != 0,
            sequence: raw.sequence,
            timestamp: (clock == V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC).then_some(since),
            used,
        }
    }
}

impl Stream {
    /// Maps about `count` buffers, queues them and starts the stream. `planes`: how many of
    /// each buffer the format has.
    pub(super) fn start(device: Device, count: u32, planes: usize) -> io::Result<Self> {
        let got = request_buffers(&device, count.max(MIN_BUFFERS as u32))?;
        let mut stream = Self { buffers: Vec::new(), device, failed: false };
        for index in 0..got {
            let mappings = stream.map(index, planes)?;
            stream.buffers.push(mappings);
        }
        if stream.buffers.len() < MIN_BUFFERS {
            return Err(Errno::NOMEM.into());
        }
        for index in 0..got {
            Buffer::new(&stream.device, index).ioctl(&stream.device, VIDIOC_QBUF)?;
        }
        let mut kind = stream.device.buffer_type() as i32;
        // SAFETY: STREAMON takes a buffer type as an int.
        unsafe { ioctl(stream.device.fd(), VIDIOC_STREAMON, &mut kind) }?;
        Ok(stream)
    }

    fn map(&self, index: u32, planes: usize) -> io::Result<Vec<Mapping>> {
        let mut buffer = Buffer::new(&self.device, index);
        buffer.ioctl(&self.device, VIDIOC_QUERYBUF)?;
        if !self.device.multi_planar() {
            // SAFETY: for MMAP buffers of the single-planar type the union holds `offset`.
            let offset = unsafe { buffer.raw.m.offset };
            let len = buffer.raw.length as usize;
            return Ok(vec![Mapping::new(self.device.fd(), len, u64::from(offset))?]);
        }
        let planes = buffer.planes.get(..planes).ok_or(Errno::INVAL)?;
        let map = |plane: &v4l2_plane| {
            // SAFETY: for planes of MMAP buffers the union holds `mem_offset`.
            let offset = unsafe { plane.m.mem_offset };
            Mapping::new(self.device.fd(), plane.length as usize, u64::from(offset))
        };
        planes.iter().map(map).collect()
    }
}

fn request_buffers(device: &Device, count: u32) -> io::Result<u32> {
    // SAFETY: all zeros is a value of this plain C structure.
    let mut request: v4l2_requestbuffers = unsafe { zeroed() };
    request.count = count;
    request.type_ = device.buffer_type();
    request.memory = v4l2_memory_V4L2_MEMORY_MMAP;
    // SAFETY: REQBUFS takes a v4l2_requestbuffers, which holds no pointers.
    unsafe { ioctl(device.fd(), VIDIOC_REQBUFS, &mut request) }?;
    Ok(request.count)
}

impl Queue for Stream {
    fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
        let device = self.device.fd();
        let mut fds = [PollFd::new(&device, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => Ok(false),
            Ok(_) => {
                let errors = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
                self.failed = fds[0].revents().intersects(errors);
                Ok(true)
            }
            // The caller comes back with what is left of the time.
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn dequeue(&mut self) -> io::Result<Option<Filled>> {
        let mut buffer = Buffer::new(&self.device, 0);
        match buffer.ioctl(&self.device, VIDIOC_DQBUF) {
            Ok(()) => Ok(Some(buffer.filled(&self.device))),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && self.failed => Err(Errno::IO.into()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn requeue(&mut self, filled: &Filled) -> io::Result<()> {
        Buffer::new(&self.device, filled.index).ioctl(&self.device, VIDIOC_QBUF)
    }

    fn plane(&self, filled: &Filled, plane: usize) -> &[u8] {
        let buffer = self.buffers.get(filled.index as usize);
        let Some(mapping) = buffer.and_then(|planes| planes.get(plane)) else { return &[] };
        // SAFETY: `len` bytes are mapped for as long as `self` is borrowed, and nobody writes
        // to them meanwhile: the buffer is dequeued, and requeueing borrows `self` mutably.
        let bytes =
            unsafe { std::slice::from_raw_parts(mapping.start.as_ptr().cast::<u8>(), mapping.len) };
        let (offset, used) = filled.used[plane];
        // What a driver says it used and did not have counts as nothing: a short frame.
        let end = (offset as usize).saturating_add(used as usize);
        bytes.get(offset as usize..end).unwrap_or(&[])
    }
}

impl Drop for Stream {
    /// The device may be gone, so errors mean nothing here.
    fn drop(&mut self) {
        let mut kind = self.device.buffer_type() as i32;
        // SAFETY: STREAMOFF takes a buffer type as an int.
        let _ = unsafe { ioctl(self.device.fd(), VIDIOC_STREAMOFF, &mut kind) };
        self.buffers.clear();
        let _ = request_buffers(&self.device, 0);
    }
}
