//! Depthwise convolution of whole rows: the input's lines pass through a ring, where each
//! gets its padding, and where pixels begin on cache lines. So the kernels know no borders,
//! and each input byte is fetched from beyond the second-level cache once.

use super::aligned::Aligned;
use super::depthwise::{MAX_TAPS, Run, depthwise};
use super::elementwise::{self, Rescale};
use super::graph::Window;
use super::pack::PackedDepthwise;
use super::run::Source;
use super::{Act, Isa};

/// The lines of an input that a window covers while it slides down, two output rows at a
/// time.
pub struct Lines<'a> {
    isa: Isa,
    x: Source<'a>,
    /// What the input goes through first.
    rescale: Option<Rescale>,
    window: &'a Window,
    /// Top, left, bottom, right.
    pads: [usize; 4],
    /// `[line, column, channel]`; line `y` of the padded input lies in slot `y % slots`.
    ring: &'a mut [Act],
    slots: usize,
    /// Bytes of a pixel and of a line.
    step: usize,
    line: usize,
    /// The first line of the padded input that is not in the ring yet.
    next: usize,
}

/// How an input lies in a ring.
pub struct Ring {
    /// Top, left, bottom, right.
    pads: [usize; 4],
    /// Bytes of a pixel and of a line.
    step: usize,
    line: usize,
    slots: usize,
}

impl Ring {
    /// For an input of `[h, w]`.
    pub fn new(window: &Window, size: [usize; 2], channels: usize) -> Self {
        let pads = window.pads(size);
        // Whole cache lines; of few channels, some pixels to one.
        let step = channels.next_multiple_of(channels.next_power_of_two().min(64));
        let line = (size[1] + pads[1] + pads[3]).saturating_mul(step);
        Self { pads, step, line, slots: window.reach(0) + window.stride[0] }
    }

    /// Bytes of it.
    pub fn len(&self) -> usize {
        self.slots.saturating_mul(self.line)
    }
}

impl<'a> Lines<'a> {
    pub fn new(
        isa: Isa,
        x: Source<'a>,
        rescale: Option<Rescale>,
        window: &'a Window,
        memory: &'a mut Aligned<Act>,
    ) -> Self {
        let shape = Ring::new(window, x.size, x.channels);
        let ring = memory.at_least(shape.len());
        let Ring { pads, step, line, slots } = shape;
        Self { isa, x, rescale, window, pads, ring, slots, step, line, next: 0 }
    }

    /// Output rows from `first` on; `out` is `[rows, width, channels]`. Later calls are for
    /// later rows.
    pub fn depthwise(&mut self, w: &PackedDepthwise, first: usize, out: &mut [Act], width: usize) {
        let row = width * w.channels;
        for (pair, out) in out.chunks_mut(2 * row).enumerate() {
            let (rows, taps) = (out.len() / row, w.taps);
            let top = (first + 2 * pair) * self.window.stride[0];
            self.fetch(top, top + (rows - 1) * self.window.stride[0] + self.window.reach(0));
            let mut at = [0; 2 * MAX_TAPS];
            for (r, at) in at.chunks_exact_mut(taps).enumerate().take(rows) {
                self.taps(top + r * self.window.stride[0], at);
            }
            let step = self.window.stride[1] * self.step;
            let (taps, input) = (&at[..rows * taps], &*self.ring);
            let (count, out_step) = (width, w.channels);
            depthwise(w, Run { taps, step, count, input, out, out_step, rows, out_row: row });
        }
    }

    /// Offsets of the taps of an output row's first pixel.
    fn taps(&self, top: usize, at: &mut [usize]) {
        let columns = self.window.kernel[1];
        for (t, at) in at.iter_mut().enumerate() {
            let y = top + t / columns * self.window.dilation[0];
            *at = y % self.slots * self.line + t % columns * self.window.dilation[1] * self.step;
        }
    }

    /// Makes lines `top..end` of the padded input lie in the ring.
    fn fetch(&mut self, top: usize, end: usize) {
        for y in self.next.max(top)..end {
            let line = &mut self.ring[y % self.slots * self.line..][..self.line];
            let zero = self.rescale.map_or(self.x.zero, |r| r.zero());
            let Some(y) = y.checked_sub(self.pads[0]).filter(|&y| y < self.x.size[0]) else {
                line.fill(zero);
                continue;
            };
            let (left, rest) = line.split_at_mut(self.pads[1] * self.step);
            let (inner, right) = rest.split_at_mut(self.x.size[1] * self.step);
            left.fill(zero);
            right.fill(zero);
            let c = self.x.channels;
            let from = &self.x.data[y * self.x.size[1] * c..][..self.x.size[1] * c];
            let piece = if c == self.step { from.len() } else { c };
            for (to, from) in inner.chunks_mut(piece.max(self.step)).zip(from.chunks_exact(piece)) {
                match self.rescale {
                    Some(r) => elementwise::rescale(self.isa, from, r, &mut to[..piece]),
                    None => to[..piece].copy_from_slice(from),
                }
            }
        }
        self.next = self.next.max(end);
    }
}
