//! From dequeued kernel buffers to the newest good frame: what is skipped, what is counted.
//!
//! Works on any [`Queue`], so that every fault can be played through without a camera. The
//! rules: every buffer goes back to the driver, on every path; flagged and short buffers are
//! counted and passed over; of the good ones that wait, the newest wins.

use super::negotiate::{FourCc, pixel_format};
use super::sys::{Format, MAX_PLANES};
use crate::camera::CameraCounters;
use crate::frame::{FrameLayout, PixelFormat};
use std::io;
use std::time::{Duration, Instant};

/// A stream's buffers, as the kernel hands them out.
pub(in crate::camera) trait Queue {
    /// Waits until a buffer may be dequeued; false after `timeout`.
    fn wait(&mut self, timeout: Duration) -> io::Result<bool>;
    /// The oldest filled buffer, if there is one.
    fn dequeue(&mut self) -> io::Result<Option<Filled>>;
    /// Gives a buffer back to the driver.
    fn requeue(&mut self, buffer: &Filled) -> io::Result<()>;
    /// The bytes used of a dequeued buffer's plane.
    fn plane(&self, buffer: &Filled, plane: usize) -> &[u8];
}

/// A buffer that the driver has filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::camera) struct Filled {
    pub index: u32,
    /// The driver says that its content is damaged.
    pub flagged: bool,
    pub sequence: u32,
    /// On `CLOCK_MONOTONIC`; none where the driver's clock is another.
    pub timestamp: Option<Duration>,
    /// Offset and bytes used of each plane.
    pub used: [(u32, u32); MAX_PLANES],
}

/// How the planes of the kernel's buffers become the bytes of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub layout: FrameLayout,
    planes: Vec<PlaneCopy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PlaneCopy {
    rows: usize,
    row_bytes: usize,
    from_stride: usize,
    to_stride: usize,
}

impl PlaneCopy {
    fn min_bytes(&self) -> usize {
        self.from_stride * self.rows.saturating_sub(1) + self.row_bytes
    }
}

impl Plan {
    /// For what the driver has set; an error is for people.
    pub(super) fn new(format: &Format) -> Result<Self, String> {
        let Format { code, width, height, strides, colour } = format;
        let (width, height) = (*width, *height);
        let name = name(*code);
        let pixel = pixel_format(*code).ok_or(format!("format {name} is not one we read"))?;
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(format!("{width}x{height}, each side must be 1 to {MAX_SIDE} pixels"));
        }
        let planes = if matches!(&format.code, b"NM12") {
            2
        } else if matches!(&format.code, b"YM12") {
            3
        } else {
            1
        };
        if strides.len() != planes {
            return Err(format!("{} planes of {name}, expected {planes}", strides.len()));
        }
        let row = pixel.row_bytes(width);
        // Some drivers leave the stride of rows without padding at zero.
        let stride = if pixel == PixelFormat::Mjpg { 0 } else { strides[0].max(row) };
        if stride > 64 * MAX_SIDE {
            return Err(format!("a stride of {stride} bytes for {width} pixels"));
        }
        // Half of it is the stride of YU12's chroma.
        let stride = if planes == 3 { stride.next_multiple_of(2) } else { stride };
        let layout = FrameLayout {
            format: pixel,
            width,
            height,
            stride_bytes: stride,
            matrix: colour.matrix(),
            range: colour.range(pixel),
        };
        Ok(Self { layout, planes: plane_copies(&layout, strides) })
    }

    /// Copies a buffer's planes to a frame's bytes; false: a plane is short.
    ///
    /// Row padding between is kept where both sides have the same stride.
    fn gather<'a>(&self, plane: impl Fn(usize) -> &'a [u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        if self.layout.format == PixelFormat::Mjpg {
            out.extend_from_slice(plane(0));
            return !out.is_empty();
        }
        for (index, copy) in self.planes.iter().enumerate() {
            let bytes = plane(index);
            if bytes.len() < copy.min_bytes() {
                return false;
            }
            let start = out.len();
            if self.planes.len() == 1 {
                out.extend_from_slice(&bytes[..bytes.len().min(self.layout.bytes() as usize)]);
            } else if copy.from_stride == copy.to_stride {
                out.extend_from_slice(&bytes[..copy.min_bytes()]);
            } else {
                for row in bytes.chunks(copy.from_stride).take(copy.rows) {
                    let filled = out.len();
                    out.extend_from_slice(&row[..copy.row_bytes]);
                    out.resize(filled + copy.to_stride, 0);
                }
            }
            if self.planes.len() > 1 {
                out.resize(start + copy.rows * copy.to_stride, 0);
            }
        }
        true
    }
}

const MAX_SIDE: u32 = 8192;

fn plane_copies(layout: &FrameLayout, strides: &[u32]) -> Vec<PlaneCopy> {
    let (stride, rows) = (layout.stride_bytes as usize, layout.height as usize);
    let row_bytes = layout.format.row_bytes(layout.width) as usize;
    let chroma_rows = rows.div_ceil(2);
    let copy = |rows, row_bytes, from: u32, to_stride| PlaneCopy {
        rows,
        row_bytes,
        from_stride: (from as usize).max(row_bytes),
        to_stride,
    };
    match *strides {
        [luma, chroma] => {
            vec![copy(rows, row_bytes, luma, stride), copy(chroma_rows, row_bytes, chroma, stride)]
        }
        [luma, u, v] => vec![
            copy(rows, row_bytes, luma, stride),
            copy(chroma_rows, row_bytes / 2, u, stride / 2),
            copy(chroma_rows, row_bytes / 2, v, stride / 2),
        ],
        // One buffer: its planes follow each other as the frame's do.
        _ => vec![PlaneCopy {
            rows: 1,
            row_bytes: layout.min_bytes() as usize,
            from_stride: 0,
            to_stride: 0,
        }],
    }
}

pub(super) fn name(code: FourCc) -> String {
    code.iter().map(|&c| if c.is_ascii_graphic() { c as char } else { '.' }).collect()
}

/// Counts what the driver hands out.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub counters: CameraCounters,
    last_sequence: Option<u32>,
}

impl Account {
    /// Numbers that went by unseen. One that goes back is a driver that started over.
    fn saw(&mut self, sequence: u32) {
        let step = self.last_sequence.map_or(1, |last| sequence.wrapping_sub(last));
        self.last_sequence = Some(sequence);
        if (1..=u32::MAX / 2).contains(&step) {
            self.counters.lost += u64::from(step - 1);
        }
    }
}

/// Waits for a good frame, at most `timeout`, and copies the newest there is to `out`.
/// `Ok(None)`: there was none.
pub(super) fn newest(
    queue: &mut impl Queue,
    plan: &Plan,
    account: &mut Account,
    timeout: Duration,
    out: &mut Vec<u8>,
) -> io::Result<Option<Filled>> {
    let deadline = Instant::now() + timeout;
    loop {
        if !queue.wait(deadline.saturating_duration_since(Instant::now()))? {
            return Ok(None);
        }
        if let Some(filled) = drain(queue, plan, account, out)? {
            return Ok(Some(filled));
        }
        // Waiting with what is left: a driver that only hands out bad ones is a stall.
        if Instant::now() >= deadline {
            return Ok(None);
        }
    }
}

/// Most buffers passed over at once: a driver as fast as this loop must not hold it.
const MAX_DRAIN: usize = 32;

fn drain(
    queue: &mut impl Queue,
    plan: &Plan,
    account: &mut Account,
    out: &mut Vec<u8>,
) -> io::Result<Option<Filled>> {
    let mut newest: Option<Filled> = None;
    for _ in 0..MAX_DRAIN {
        let Some(filled) = queue.dequeue()? else { break };
        account.saw(filled.sequence);
        if filled.flagged || is_short(queue, plan, &filled) {
            account.counters.bad += 1;
            queue.requeue(&filled)?;
        } else if let Some(older) = newest.replace(filled) {
            account.counters.skipped += 1;
            queue.requeue(&older)?;
        }
    }
    let Some(filled) = newest else { return Ok(None) };
    let whole = plan.gather(|plane| queue.plane(&filled, plane), out);
    queue.requeue(&filled)?;
    if !whole {
        account.counters.bad += 1;
        return Ok(None);
    }
    account.counters.frames += 1;
    Ok(Some(filled))
}

fn is_short(queue: &impl Queue, plan: &Plan, filled: &Filled) -> bool {
    match plan.layout.format {
        PixelFormat::Mjpg => queue.plane(filled, 0).is_empty(),
        _ => {
            let mut planes = plan.planes.iter().enumerate();
            planes.any(|(index, copy)| queue.plane(filled, index).len() < copy.min_bytes())
        }
    }
}

#[cfg(test)]
mod tests;
