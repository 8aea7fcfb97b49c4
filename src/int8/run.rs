//! Executes a region: operator by operator, each over strips of output rows.

use super::Act;
use super::aligned::Aligned;
use super::elementwise::{self, Term};
use super::gemm::{self, gemm};
use super::graph::{Layout, Op, Region, TensorId, Window};
use super::lines::{Lines, Ring};
use super::pack::{PackedDepthwise, PackedGemm};
use super::plan::{Plan, SLACK};
use std::sync::atomic::{AtomicBool, Ordering};

/// The memory of one pass; kept from pass to pass.
#[derive(Debug, Default)]
pub struct Workspace {
    arena: Aligned<Act>,
    /// One per thread.
    scratch: Vec<Scratch>,
}

/// What a thread works in.
#[derive(Debug, Default)]
struct Scratch {
    /// A tile of rows for a product: gathered windows, or a depthwise result.
    tile: Aligned<Act>,
    /// See [`Lines`].
    lines: Aligned<Act>,
}

/// The pass was abandoned between two operators.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("cancelled")]
pub struct Cancelled;

/// A tile of rows is to stay in the second-level cache, and to be swept by the weights
/// seldom: they come from beyond it at the larger views.
const TILE_BYTES: usize = 128 * 1024;

/// Bytes of scratch memory that an operator takes a thread, at most: `[h, w, c]` of what it
/// reads and writes.
pub(super) fn scratch_len(
    op: &Op,
    [h, w, c]: [usize; 3],
    [_, width, channels]: [usize; 3],
) -> usize {
    let ring = |window| Ring::new(window, [h, w], c).len();
    match op {
        Op::Conv { window, .. } if *window == Window::POINT => TILE_BYTES,
        // Grouped ones gather twice.
        Op::Conv { window, .. } => {
            TILE_BYTES.max(window.taps().saturating_mul(c)).saturating_mul(2)
        }
        Op::Depthwise { window, .. } => ring(window),
        Op::Separable { window, .. } => {
            ring(window).saturating_add(TILE_BYTES.max(width.saturating_mul(2 * c)))
        }
        Op::MaxPool { window, .. } => {
            let [_, left, _, right] = window.pads([h, w]);
            (w + left + right).saturating_mul(c)
        }
        Op::Add { .. } => 2 * channels,
        _ => 0,
    }
}

/// Runs `region` on float inputs into float outputs of the planned sizes, on `threads`
/// threads of the current rayon pool.
///
/// # Panics
/// Where an input or output is not of its planned size.
pub fn run(
    region: &Region,
    plan: &Plan,
    ws: &mut Workspace,
    inputs: &[&[f32]],
    outputs: &mut [&mut [f32]],
    threads: usize,
    cancel: &AtomicBool,
) -> Result<(), Cancelled> {
    let arena = ws.arena.at_least(plan.arena_len);
    ws.scratch.resize_with(threads.max(1), Scratch::default);
    for op in &region.ops {
        if cancel.load(Ordering::Relaxed) {
            return Err(Cancelled);
        }
        Step { region, plan, arena, scratch: &mut ws.scratch }.run(op, inputs, outputs);
    }
    Ok(())
}

/// One operator with everything it works on.
struct Step<'a> {
    region: &'a Region,
    plan: &'a Plan,
    arena: &'a mut [Act],
    scratch: &'a mut [Scratch],
}

/// A tensor `[h, w, c]` to read; `data` ends with slack.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub data: &'a [Act],
    /// `[h, w]`.
    pub size: [usize; 2],
    pub channels: usize,
    /// The byte that means 0.0.
    pub zero: Act,
}

impl Source<'_> {
    fn bytes(&self) -> &[Act] {
        &self.data[..self.size[0] * self.size[1] * self.channels]
    }

    fn shape(&self) -> [usize; 3] {
        [self.size[0], self.size[1], self.channels]
    }

    /// Copies the channels of a pixel; along sides of 1, the one serves all.
    fn spread(&self, [row, column]: [usize; 2], to: &mut [Act]) {
        let [h, w] = self.size;
        let at = row.min(h - 1) * w + column.min(w - 1);
        let pixel = &self.data[at * self.channels..][..self.channels];
        match pixel {
            [one] => to.fill(*one),
            all => to.copy_from_slice(all),
        }
    }
}

impl Step<'_> {
    fn run(mut self, op: &Op, inputs: &[&[f32]], outputs: &mut [&mut [f32]]) {
        let isa = self.region.isa;
        match op {
            Op::Quantize { input, out } => {
                let layout = self.region.inputs[*input];
                let quant = self.region.tensors[*out].quant;
                let ([], dest, _) = self.borrow([], *out);
                match layout {
                    Layout::Nhwc => elementwise::quantize(isa, inputs[*input], quant, dest.data),
                    Layout::Nchw => {
                        let plane = dest.size[0] * dest.size[1];
                        assert_eq!(inputs[*input].len(), plane * dest.channels);
                        for (i, o) in dest.data.iter_mut().enumerate() {
                            let (p, c) = (i / dest.channels, i % dest.channels);
                            *o = quant.quantize(inputs[*input][c * plane + p]);
                        }
                    }
                }
            }
            Op::Conv { x, out, window, groups } => {
                let ([x], dest, scratch) = self.borrow([*x], *out);
                strips(dest, scratch, |first, rows, scratch| {
                    conv(x, window, groups, first, rows, &mut scratch.tile)
                });
            }
            Op::Depthwise { x, rescale, out, window, weights } => {
                let ([x], dest, scratch) = self.borrow([*x], *out);
                strips(dest, scratch, |first, rows, scratch| {
                    let mut lines = Lines::new(isa, x, *rescale, window, &mut scratch.lines);
                    lines.depthwise(weights, first, rows.data, rows.width);
                });
            }
            Op::Separable { x, rescale, out, window, depthwise, pointwise } => {
                let ([x], dest, scratch) = self.borrow([*x], *out);
                strips(dest, scratch, |first, rows, Scratch { tile, lines }| {
                    let lines = Lines::new(isa, x, *rescale, window, lines);
                    separable(lines, depthwise, pointwise, first, rows, tile);
                });
            }
            Op::Add { a, b, out, terms, clamp } => {
                let ([a, b], dest, scratch) = self.borrow([*a, *b], *out);
                let is_plain = a.shape() == b.shape();
                strips(dest, scratch, |first, rows, scratch| {
                    if !is_plain {
                        let tile = &mut scratch.tile;
                        return add_by_pixel(isa, [a, b], *terms, *clamp, first, rows, tile);
                    }
                    let at = first * rows.width * rows.channels;
                    let (a, b) = (&a.data[at..], &b.data[at..]);
                    elementwise::add(isa, a, terms[0], b, terms[1], *clamp, rows.data);
                });
            }
            Op::Rescale { x, out, by } => {
                let ([x], dest, _) = self.borrow([*x], *out);
                elementwise::rescale(isa, x.bytes(), *by, dest.data);
            }
            Op::Clip { x, out, low, high } => {
                let ([x], dest, _) = self.borrow([*x], *out);
                elementwise::clip(isa, x.bytes(), *low, *high, dest.data);
            }
            Op::MaxPool { x, out, window } => {
                let ([x], dest, scratch) = self.borrow([*x], *out);
                strips(dest, scratch, |first, rows, scratch| {
                    max_pool(isa, x, window, first, rows, &mut scratch.lines);
                });
            }
            Op::Pad { x, out, pads } => {
                let ([x], dest, _) = self.borrow([*x], *out);
                pad(x, pads, dest);
            }
            Op::Dequantize { x, output } => {
                let info = &self.region.tensors[*x];
                let range = self.plan.range(*x);
                let [h, w, c] = self.plan.sizes[*x];
                let data = &self.arena[range][..h * w * c];
                let out = &mut *outputs[*output];
                assert_eq!(out.len(), data.len());
                match self.region.outputs[*output].0 {
                    Layout::Nhwc => elementwise::dequantize(isa, data, info.quant, out),
                    Layout::Nchw => {
                        for (i, o) in out.iter_mut().enumerate() {
                            let (channel, p) = (i / (h * w), i % (h * w));
                            *o = info.quant.dequantize(data[p * c + channel]);
                        }
                    }
                }
            }
        }
    }

    /// The tensors that an operator reads, the one that it writes, and the tiles.
    fn borrow<const N: usize>(
        &mut self,
        reads: [TensorId; N],
        out: TensorId,
    ) -> ([Source<'_>; N], Dest<'_>, &mut [Scratch]) {
        let source = |t: TensorId, data| {
            let [height, width, channels] = self.plan.sizes[t];
            let zero = self.region.tensors[t].quant.zero();
            Source { data, size: [height, width], channels, zero }
        };
        let out_range = self.plan.range(out);
        let [height, width, channels] = self.plan.sizes[out];
        // The plan keeps tensors that are alive together apart, so the output cuts the
        // arena into what lies before and after it.
        let (before, rest) = self.arena.split_at_mut(out_range.start);
        let (dest, after) = rest.split_at_mut(out_range.len());
        let reads = reads.map(|t| {
            let range = self.plan.range(t);
            if range.end <= out_range.start {
                source(t, &before[range])
            } else {
                source(t, &after[range.start - out_range.end..range.end - out_range.end])
            }
        });
        let data = &mut dest[..height * width * channels];
        (reads, Dest { data, size: [height, width], channels }, self.scratch)
    }
}

/// A tensor to write, slack left out.
struct Dest<'a> {
    data: &'a mut [Act],
    size: [usize; 2],
    channels: usize,
}

/// Some rows of a tensor to write.
struct Rows<'a> {
    data: &'a mut [Act],
    width: usize,
    channels: usize,
}

impl Rows<'_> {
    fn count(&self) -> usize {
        self.data.len() / (self.width * self.channels)
    }
}

/// Cuts the output into one strip of rows per thread; `work` gets the strip's first row.
fn strips(
    dest: Dest,
    scratch: &mut [Scratch],
    work: impl Fn(usize, Rows, &mut Scratch) + Send + Sync,
) {
    let Dest { data, size: [height, width], channels } = dest;
    let threads = scratch.len().min(height);
    if threads <= 1 {
        return work(0, Rows { data, width, channels }, &mut scratch[0]);
    }
    rayon::scope(|scope| {
        let mut rest = data;
        for (t, scratch) in scratch.iter_mut().enumerate().take(threads) {
            let (first, end) = (t * height / threads, (t + 1) * height / threads);
            let (data, later) = rest.split_at_mut((end - first) * width * channels);
            rest = later;
            let work = &work;
            scope.spawn(move |_| work(first, Rows { data, width, channels }, scratch));
        }
    });
}

/// The addition of two tensors of which one is spread over the other.
fn add_by_pixel(
    isa: super::Isa,
    [a, b]: [Source; 2],
    terms: [Term; 2],
    clamp: super::Clamp,
    first: usize,
    rows: Rows,
    tile: &mut Aligned<Act>,
) {
    let c = rows.channels;
    let (x, y) = tile.at_least(2 * c)[..2 * c].split_at_mut(c);
    for (i, out) in rows.data.chunks_exact_mut(c).enumerate() {
        let at = [first + i / rows.width, i % rows.width];
        a.spread(at, x);
        b.spread(at, y);
        elementwise::add(isa, x, terms[0], y, terms[1], clamp, out);
    }
}

/// Rows of output to gather at a time so that `row_bytes` each stay within a tile.
fn tile_rows(row_bytes: usize) -> usize {
    (TILE_BYTES / row_bytes).max(1)
}

fn separable(
    mut lines: Lines,
    dw: &PackedDepthwise,
    pw: &PackedGemm,
    first: usize,
    rows: Rows,
    tile: &mut Aligned<Act>,
) {
    let (width, k) = (rows.width, dw.channels);
    // Rows of the depthwise convolution come two by two.
    let step = tile_rows(width * k).next_multiple_of(2);
    let tile = tile.at_least(step * width * k + SLACK);
    for (i, out) in rows.data.chunks_mut(step * width * pw.n).enumerate() {
        let pixels = out.len() / pw.n;
        lines.depthwise(dw, first + i * step, &mut tile[..pixels * k], width);
        let left = gemm::Rows { rows: tile, row_stride: k, run_stride: 0, count: pixels };
        gemm(pw, left, out, pw.n);
    }
}

/// The output columns whose window lies within the input's columns.
fn interior(window: &Window, pad_left: usize, w_in: usize, width: usize) -> std::ops::Range<usize> {
    let stride = window.stride[1];
    let start = pad_left.div_ceil(stride);
    let end = match (w_in + pad_left).checked_sub(window.reach(1)) {
        Some(last) => (last / stride + 1).min(width),
        None => 0,
    };
    start.min(end)..end
}

/// Copies the window of one output pixel, `[taps, channels]`, padding included.
fn gather(
    x: Source,
    window: &Window,
    pads: [usize; 4],
    row: usize,
    column: usize,
    out: &mut [Act],
) {
    let [h_in, w_in] = x.size;
    let c = x.channels;
    let left = (column * window.stride[1]) as isize - pads[1] as isize;
    let top = (row * window.stride[0]) as isize - pads[0] as isize;
    let run = window.kernel[1] * c;
    for (ky, out) in out[..window.taps() * c].chunks_exact_mut(run).enumerate() {
        let y = top + (ky * window.dilation[0]) as isize;
        if y < 0 || y >= h_in as isize {
            out.fill(x.zero);
            continue;
        }
        let line = &x.data[y as usize * w_in * c..][..w_in * c];
        let right = left + ((window.kernel[1] - 1) * window.dilation[1]) as isize;
        if left >= 0 && right < w_in as isize && window.dilation[1] == 1 {
            out.copy_from_slice(&line[left as usize * c..][..run]);
            continue;
        }
        for (kx, out) in out.chunks_exact_mut(c).enumerate() {
            let at = left + (kx * window.dilation[1]) as isize;
            if at < 0 || at >= w_in as isize {
                out.fill(x.zero);
            } else {
                out.copy_from_slice(&line[at as usize * c..][..c]);
            }
        }
    }
}

fn conv(
    x: Source,
    window: &Window,
    groups: &[PackedGemm],
    first: usize,
    rows: Rows,
    tile: &mut Aligned<Act>,
) {
    let (width, channels) = (rows.width, rows.channels);
    let row_stride = window.stride[1] * x.channels;
    if let ([w], true) = (groups, *window == Window::POINT) {
        let from = &x.data[first * width * x.channels..];
        let count = rows.count() * width;
        let left = gemm::Rows { rows: from, row_stride, run_stride: 0, count };
        return gemm(w, left, rows.data, channels);
    }
    let pads = window.pads(x.size);
    let columns = interior(window, pads[1], x.size[1], width);
    let mut strip = Strip { x, window, groups, first, width, channels, tile };
    let [w] = groups else { return strip.gathered(0..rows.count() * width, rows.data) };
    if window.dilation[1] != 1 || columns.len() < DIRECT_FROM {
        return strip.gathered(0..rows.count() * width, rows.data);
    }
    for row in 0..rows.count() {
        let top = (first + row) * window.stride[0];
        let at = row * width;
        if top < pads[0] || top - pads[0] + window.reach(0) > x.size[0] {
            strip.gathered(at..at + width, rows.data);
            continue;
        }
        // Each kernel row is one run of the input, read in place.
        let line = x.size[1] * x.channels;
        let left = columns.start * window.stride[1] - pads[1];
        let from = &x.data[(top - pads[0]) * line + left * x.channels..];
        let run_stride = window.dilation[0] * line;
        let left = gemm::Rows { rows: from, row_stride, run_stride, count: columns.len() };
        gemm(w, left, &mut rows.data[(at + columns.start) * channels..], channels);
        strip.gathered(at..at + columns.start, rows.data);
        strip.gathered(at + columns.end..at + width, rows.data);
    }
}

/// Output rows shorter than this are gathered, many to a product: two tiles of the widest
/// kernel.
const DIRECT_FROM: usize = 28;

/// Rows of a convolution's output on their way.
struct Strip<'a> {
    x: Source<'a>,
    window: &'a Window,
    groups: &'a [PackedGemm],
    /// Index of the strip's first row.
    first: usize,
    width: usize,
    channels: usize,
    tile: &'a mut Aligned<Act>,
}

impl Strip<'_> {
    /// Computes `pixels` of the strip, counted row by row, from gathered windows: at the
    /// borders, with dilation, for narrow maps and for grouped convolutions.
    fn gathered(&mut self, pixels: std::ops::Range<usize>, out: &mut [Act]) {
        let k = self.window.taps() * self.x.channels;
        let most = (TILE_BYTES / k).max(1);
        let mut start = pixels.start;
        while start < pixels.end {
            let count = most.min(pixels.end - start);
            self.product(start, count, k, &mut out[start * self.channels..]);
            start += count;
        }
    }

    fn product(&mut self, start: usize, count: usize, k: usize, out: &mut [Act]) {
        let Self { x, window, groups, channels, .. } = *self;
        let pads = window.pads(x.size);
        let tile = self.tile.at_least(count * k + SLACK);
        for p in 0..count {
            let (row, column) = ((start + p) / self.width, (start + p) % self.width);
            gather(x, window, pads, self.first + row, column, &mut tile[p * k..][..k]);
        }
        fn rows<'r>(window: &Window, each: usize, count: usize, rows: &'r [Act]) -> gemm::Rows<'r> {
            let row_stride = window.taps() * each;
            gemm::Rows { rows, row_stride, run_stride: window.kernel[1] * each, count }
        }
        if let [w] = groups {
            return gemm(w, rows(window, x.channels, count, tile), out, channels);
        }
        // Of all groups a window's channels alternate tap by tap; each gets its own.
        let each = x.channels / groups.len();
        let mut own = vec![0; count * window.taps() * each + SLACK];
        for (g, w) in groups.iter().enumerate() {
            let taps = tile[..count * k].chunks_exact(x.channels);
            for (to, tap) in own.chunks_exact_mut(each).zip(taps) {
                to.copy_from_slice(&tap[g * each..][..each]);
            }
            gemm(w, rows(window, each, count, &own), &mut out[g * w.n..], channels);
        }
    }
}

/// Down the columns first, whole lines at a time, then along the line.
fn max_pool(
    isa: super::Isa,
    x: Source,
    window: &Window,
    first: usize,
    rows: Rows,
    memory: &mut Aligned<Act>,
) {
    let [h_in, w_in] = x.size;
    let (c, pads) = (x.channels, window.pads(x.size));
    let (line, apart) = (w_in * c, window.dilation[1] * c);
    // What pads a line loses against everything.
    let padded = memory.at_least(line + (pads[1] + pads[3]) * c);
    padded.fill(Act::MIN);
    for (row, out) in rows.data.chunks_mut(rows.width * c).enumerate() {
        let taps = (0..window.kernel[0]).map(|k| {
            ((first + row) * window.stride[0] + k * window.dilation[0]).checked_sub(pads[0])
        });
        let tallest = &mut padded[pads[1] * c..][..line];
        let mut is_first = true;
        for y in taps.flatten().filter(|&y| y < h_in) {
            let from = &x.data[y * line..][..line];
            match std::mem::take(&mut is_first) {
                true => tallest.copy_from_slice(from),
                false => elementwise::max_into(isa, tallest, from),
            }
        }
        if is_first {
            tallest.fill(Act::MIN);
        }
        elementwise::max_along(isa, padded, c, window.stride[1] * c, window.kernel[1], apart, out);
    }
}

fn pad(x: Source, pads: &[usize; 4], dest: Dest) {
    let c = x.channels;
    dest.data.fill(x.zero);
    let lines = dest.data.chunks_mut(dest.size[1] * c).skip(pads[0]);
    for (line, from) in lines.zip(x.bytes().chunks(x.size[1] * c)) {
        line[pads[1] * c..][..from.len()].copy_from_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::int8::aligned::Shelf;
    use crate::int8::elementwise::{Rescale, Term};
    use crate::int8::graph::{Pads, TensorInfo};
    use crate::int8::pack::Requant;
    use crate::int8::{Clamp, Isa, Quant, load, requantize, store};
    use proptest::prelude::*;

    /// A convolution as it is defined: every output value from its window of the padded
    /// input, by itself.
    #[derive(Clone, Debug)]
    struct Problem {
        size: [usize; 2],
        channels: usize,
        outputs: usize,
        groups: usize,
        window: Window,
        input_zero: i32,
        clamp: [i32; 3],
        seed: u64,
    }

    impl Problem {
        /// Numbers of which the extremes are a fifth each.
        fn noise(&self, salt: u64, n: usize) -> Vec<i32> {
            let mut s = (self.seed ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = || {
                s ^= s << 13;
                s ^= s >> 7;
                s ^= s << 17;
                match (s >> 32) as u8 {
                    b if b % 5 == 0 => 0,
                    b if b % 5 == 1 => 255,
                    b => i32::from(b),
                }
            };
            (0..n).map(|_| next()).collect()
        }

        fn input(&self) -> Vec<i32> {
            self.noise(1, self.size[0] * self.size[1] * self.channels)
        }

        /// `[outputs, taps, channels / groups]`.
        fn weights(&self) -> Vec<i8> {
            let n = self.outputs * self.window.taps() * self.channels / self.groups;
            self.noise(2, n).into_iter().map(|x| (x - 128) as i8).collect()
        }

        fn multiplier(&self) -> f32 {
            1.0 / (self.window.taps() * self.channels / self.groups) as f32 / 100.0
        }

        fn clamp(&self) -> Clamp {
            Clamp::new(self.clamp[0], self.clamp[1], self.clamp[2])
        }

        fn defined(&self, input: &[i32]) -> Option<Vec<i32>> {
            let ([h, w], pads) = (self.size, self.window.pads(self.size));
            let [rows, columns] = self.window.output(self.size)?;
            let (weights, each) = (self.weights(), self.channels / self.groups);
            let mut out = Vec::new();
            for i in 0..rows * columns * self.outputs {
                let (row, column) = (i / self.outputs / columns, i / self.outputs % columns);
                let n = i % self.outputs;
                let group = n / (self.outputs / self.groups);
                let mut sum = 0;
                for t in 0..self.window.taps() {
                    let (ky, kx) = (t / self.window.kernel[1], t % self.window.kernel[1]);
                    let y = row * self.window.stride[0] + ky * self.window.dilation[0];
                    let x = column * self.window.stride[1] + kx * self.window.dilation[1];
                    let (y, x) = (y.wrapping_sub(pads[0]), x.wrapping_sub(pads[1]));
                    if y >= h || x >= w {
                        continue;
                    }
                    for c in 0..each {
                        let real = input[(y * w + x) * self.channels + group * each + c];
                        let weight = weights[(n * self.window.taps() + t) * each + c];
                        sum += (real - self.input_zero) * i32::from(weight);
                    }
                }
                out.push(load(requantize(sum, self.multiplier(), self.clamp())));
            }
            Some(out)
        }

        /// The same through the executor. `before` rescales the input on its way.
        fn run(&self, isa: Isa, before: Option<Rescale>, threads: usize) -> Vec<i32> {
            let (taps, each) = (self.window.taps(), self.channels / self.groups);
            let bias = vec![0; self.outputs];
            let multiplier = vec![self.multiplier(); self.outputs];
            let q = |of: std::ops::Range<usize>| Requant {
                input_zero: self.input_zero,
                bias: &bias[of.clone()],
                multiplier: &multiplier[of],
                clamp: self.clamp(),
            };
            let (weights, mut shelf) = (self.weights(), Shelf::default());
            let op = if each == 1 && self.groups == self.outputs {
                let turned: Vec<i8> = (0..taps * self.outputs)
                    .map(|i| weights[i % self.outputs * taps + i / self.outputs])
                    .collect();
                let q = q(0..self.outputs);
                let weights =
                    PackedDepthwise::new(isa, &mut shelf, &turned, taps, self.outputs, &q).unwrap();
                Op::Depthwise { x: 0, rescale: before, out: 1, window: self.window, weights }
            } else {
                let n = self.outputs / self.groups;
                let run = [self.window.kernel[0], self.window.kernel[1] * each];
                let groups = weights
                    .chunks(n * taps * each)
                    .enumerate()
                    .map(|(g, w)| {
                        PackedGemm::new(isa, &mut shelf, w, n, run, &q(g * n..(g + 1) * n)).unwrap()
                    })
                    .collect();
                Op::Conv { x: 0, out: 1, window: self.window, groups }
            };
            let one = |zero_point| Quant { scale: 1.0, zero_point };
            let tensor = |zero: i32| TensorInfo { name: String::new(), quant: one(zero) };
            let region = Region {
                isa,
                tensors: vec![tensor(self.input_zero), tensor(0)],
                ops: vec![
                    Op::Quantize { input: 0, out: 0 },
                    op,
                    Op::Dequantize { x: 1, output: 0 },
                ],
                inputs: vec![Layout::Nhwc],
                outputs: vec![(Layout::Nhwc, 1)],
            };
            let [h, w] = self.size;
            let plan = Plan::new(&region, &[[h, w, self.channels]]).unwrap();
            let input: Vec<f32> =
                self.input().iter().map(|q| (q - self.input_zero) as f32).collect();
            let [h, w, c] = plan.sizes[1];
            let mut output = vec![0.0; h * w * c];
            let (mut ws, cancel) = (Workspace::default(), AtomicBool::new(false));
            // Twice: what a pass leaves behind must not show in the next.
            for _ in 0..2 {
                let (inputs, outputs) = (&[&input[..]], &mut [&mut output[..]]);
                run(&region, &plan, &mut ws, inputs, outputs, threads, &cancel).unwrap();
            }
            output.iter().map(|&x| x as i32).collect()
        }
    }

    fn problems() -> impl Strategy<Value = Problem> {
        let kernel =
            prop_oneof![Just([1usize, 1]), Just([3, 3]), Just([5, 5]), [1usize..6, 1usize..6]];
        let pads = prop_oneof![
            Just(Pads::SameUpper),
            Just(Pads::SameLower),
            [0usize..4, 0usize..4, 0usize..4, 0usize..4].prop_map(Pads::Fixed),
        ];
        let window = (kernel, [1usize..4, 1usize..4], [1usize..3, 1usize..3], pads)
            .prop_map(|(kernel, stride, dilation, pads)| Window { kernel, stride, dilation, pads });
        // Odd sizes and 1×1 maps; channels around every register width.
        let size = prop_oneof![Just([1usize, 1]), [1usize..9, 1usize..9], [3usize..6, 28usize..40]];
        let channels = prop_oneof![1usize..20, 30usize..36, 62usize..67, Just(130usize)];
        let zero = || prop_oneof![Just(0), Just(255), 0..=255];
        let kind = prop_oneof![Just(0usize), Just(1), 2usize..5];
        let clamp = (zero(), 0..=128, 129..=255).prop_map(|(z, low, high)| [z, low, high]);
        (window, size, channels, kind, 1usize..40, zero(), clamp, any::<u64>()).prop_map(
            |(window, size, channels, kind, outputs, input_zero, clamp, seed)| {
                // Depthwise, one product, or a few groups of it.
                let (channels, outputs, groups) = match kind {
                    0 => (channels, channels, channels),
                    1 => (channels.min(40), outputs, 1),
                    g => (channels.min(8) * g, outputs.min(8) * g, g),
                };
                Problem { size, channels, outputs, groups, window, input_zero, clamp, seed }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn convolutions_are_what_they_are_defined_to_be(
            problem in problems(), threads in 1usize..3,
        ) {
            if let Some(expected) = problem.defined(&problem.input()) {
                for isa in Isa::available() {
                    prop_assert_eq!(&problem.run(isa, None, threads), &expected, "{}", isa);
                }
            }
        }

        /// What is rescaled on its way is what was rescaled before.
        #[test]
        fn a_folded_rescaling_changes_nothing(mut problem in problems(), ratio in 0.1f32..3.0) {
            (problem.outputs, problem.groups) = (problem.channels, problem.channels);
            let from = Quant { scale: ratio, zero_point: problem.input_zero };
            let clamp = Clamp::new(problem.input_zero, problem.input_zero, 255);
            let by = Rescale { term: Term::new(from, 1.0), clamp };
            let stored: Vec<Act> = problem.input().into_iter().map(store).collect();
            let mut rescaled = stored.clone();
            elementwise::rescale(Isa::Scalar, &stored, by, &mut rescaled);
            let rescaled: Vec<i32> = rescaled.into_iter().map(load).collect();
            if let Some(expected) = problem.defined(&rescaled) {
                for isa in Isa::available() {
                    prop_assert_eq!(&problem.run(isa, Some(by), 2), &expected, "{}", isa);
                }
            }
        }
    }
}
