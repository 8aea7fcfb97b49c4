//! Executes a region: operator by operator, each over strips of output rows.

use super::Act;
use super::depthwise::{MAX_TAPS, Run, depthwise};
use super::elementwise;
use super::gemm::{self, gemm};
use super::graph::{Layout, Op, Region, TensorId, Window};
use super::pack::{PackedDepthwise, PackedGemm};
use super::plan::{Plan, SLACK};
use std::sync::atomic::{AtomicBool, Ordering};

/// The memory of one pass; kept from pass to pass.
#[derive(Debug, Default)]
pub struct Workspace {
    arena: Vec<Act>,
    /// One tile of gathered rows per thread.
    tiles: Vec<Vec<Act>>,
}

/// The pass was abandoned between two operators.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("cancelled")]
pub struct Cancelled;

/// A tile of gathered rows is to stay in the second-level cache beside the weights.
const TILE_BYTES: usize = 64 * 1024;

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
    if ws.arena.len() < plan.arena_len {
        ws.arena.resize(plan.arena_len, 0);
    }
    ws.tiles.resize_with(threads.max(1), Vec::new);
    for op in &region.ops {
        if cancel.load(Ordering::Relaxed) {
            return Err(Cancelled);
        }
        Step { region, plan, arena: &mut ws.arena, tiles: &mut ws.tiles }.run(op, inputs, outputs);
    }
    Ok(())
}

/// One operator with everything it works on.
struct Step<'a> {
    region: &'a Region,
    plan: &'a Plan,
    arena: &'a mut [Act],
    tiles: &'a mut [Vec<Act>],
}

/// A tensor `[h, w, c]` to read; `data` ends with slack.
#[derive(Clone, Copy)]
struct Source<'a> {
    data: &'a [Act],
    size: [usize; 2],
    channels: usize,
    zero: Act,
}

impl Source<'_> {
    fn bytes(&self) -> &[Act] {
        &self.data[..self.size[0] * self.size[1] * self.channels]
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
                let ([x], dest, tiles) = self.borrow([*x], *out);
                strips(dest, tiles, |first, rows, tile| conv(x, window, groups, first, rows, tile));
            }
            Op::Depthwise { x, out, window, weights } => {
                let ([x], dest, tiles) = self.borrow([*x], *out);
                strips(dest, tiles, |first, rows, _| {
                    depthwise_rows(x, window, weights, first, rows.data, rows.width);
                });
            }
            Op::Separable { x, out, window, depthwise, pointwise } => {
                let ([x], dest, tiles) = self.borrow([*x], *out);
                strips(dest, tiles, |first, rows, tile| {
                    separable(x, window, depthwise, pointwise, first, rows, tile);
                });
            }
            Op::Add { a, b, out, terms, clamp } => {
                let ([a, b], dest, tiles) = self.borrow([*a, *b], *out);
                strips(dest, tiles, |first, rows, _| {
                    let at = first * rows.width * rows.channels;
                    let (a, b) = (&a.data[at..], &b.data[at..]);
                    elementwise::add(isa, a, terms[0], b, terms[1], *clamp, rows.data);
                });
            }
            Op::Rescale { x, out, term, clamp } => {
                let ([x], dest, _) = self.borrow([*x], *out);
                elementwise::rescale(isa, x.bytes(), *term, *clamp, dest.data);
            }
            Op::Clip { x, out, low, high } => {
                let ([x], dest, _) = self.borrow([*x], *out);
                elementwise::clip(isa, x.bytes(), *low, *high, dest.data);
            }
            Op::MaxPool { x, out, window } => {
                let ([x], dest, tiles) = self.borrow([*x], *out);
                strips(dest, tiles, |first, rows, _| max_pool(isa, x, window, first, rows));
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
    ) -> ([Source<'_>; N], Dest<'_>, &mut [Vec<Act>]) {
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
        (reads, Dest { data, size: [height, width], channels }, self.tiles)
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
    tiles: &mut [Vec<Act>],
    work: impl Fn(usize, Rows, &mut Vec<Act>) + Send + Sync,
) {
    let Dest { data, size: [height, width], channels } = dest;
    let threads = tiles.len().min(height);
    if threads <= 1 {
        return work(0, Rows { data, width, channels }, &mut tiles[0]);
    }
    rayon::scope(|scope| {
        let mut rest = data;
        for (t, tile) in tiles.iter_mut().enumerate().take(threads) {
            let (first, end) = (t * height / threads, (t + 1) * height / threads);
            let (data, later) = rest.split_at_mut((end - first) * width * channels);
            rest = later;
            let work = &work;
            scope.spawn(move |_| work(first, Rows { data, width, channels }, tile));
        }
    });
}

/// Rows of output to gather at a time so that `row_bytes` each stay within a tile.
fn tile_rows(row_bytes: usize) -> usize {
    (TILE_BYTES / row_bytes).max(1)
}

fn separable(
    x: Source,
    window: &Window,
    dw: &PackedDepthwise,
    pw: &PackedGemm,
    first: usize,
    rows: Rows,
    tile: &mut Vec<Act>,
) {
    let (width, k) = (rows.width, dw.channels);
    let step = tile_rows(width * k);
    tile.resize(tile.len().max(step * width * k + SLACK), 0);
    for (i, out) in rows.data.chunks_mut(step * width * pw.n).enumerate() {
        let pixels = out.len() / pw.n;
        depthwise_rows(x, window, dw, first + i * step, &mut tile[..pixels * k], width);
        let left = gemm::Rows { rows: tile, row_stride: k, run_stride: 0, count: pixels };
        gemm(pw, left, out, pw.n);
    }
}

/// Depthwise convolution of whole output rows, `first` being the first one's index.
fn depthwise_rows(
    x: Source,
    window: &Window,
    w: &PackedDepthwise,
    first: usize,
    out: &mut [Act],
    width: usize,
) {
    let [h_in, w_in] = x.size;
    let c = x.channels;
    // Taps that fall into the padding read a pixel of zeros; it is put together with the
    // edge pixels' neighbourhoods, which are copied to `edge`.
    let pads = window.pads(x.size);
    let interior = interior(window, pads[1], w_in, width);
    let mut edge = vec![x.zero; window.taps() * c];
    for (row, out) in out.chunks_mut(width * c).enumerate() {
        let top = ((first + row) * window.stride[0]) as isize - pads[0] as isize;
        let bottom = top + ((window.kernel[0] - 1) * window.dilation[0]) as isize;
        let inside_rows = top >= 0 && bottom < h_in as isize;
        let inside = if inside_rows { interior.clone() } else { 0..0 };
        if !inside.is_empty() {
            let left = inside.start * window.stride[1] - pads[1];
            let taps = taps(window, top as usize, left, w_in, c);
            let (start, count) = (inside.start * c, inside.len());
            let out = &mut out[start..];
            let step = window.stride[1] * c;
            let taps = &taps[..window.taps()];
            depthwise(w, Run { taps, step, count, input: x.data, out, out_step: c });
        }
        let mut edge_taps = [0; MAX_TAPS];
        for (t, at) in edge_taps.iter_mut().enumerate().take(window.taps()) {
            *at = t * c;
        }
        for column in (0..width).filter(|i| !inside.contains(i)) {
            gather(x, window, pads, first + row, column, &mut edge);
            let out = &mut out[column * c..];
            let taps = &edge_taps[..window.taps()];
            depthwise(w, Run { taps, step: 0, count: 1, input: &edge, out, out_step: c });
        }
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

/// Offsets of the window's taps when its corner is at (`top`, `left`) of the input.
fn taps(window: &Window, top: usize, left: usize, w_in: usize, c: usize) -> [usize; MAX_TAPS] {
    let mut taps = [0; MAX_TAPS];
    for ky in 0..window.kernel[0] {
        for kx in 0..window.kernel[1] {
            let (y, x) = (top + ky * window.dilation[0], left + kx * window.dilation[1]);
            taps[ky * window.kernel[1] + kx] = (y * w_in + x) * c;
        }
    }
    taps
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
    tile: &mut Vec<Act>,
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
    tile: &'a mut Vec<Act>,
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
        self.tile.resize(self.tile.len().max(count * k + SLACK), 0);
        for p in 0..count {
            let (row, column) = ((start + p) / self.width, (start + p) % self.width);
            gather(x, window, pads, self.first + row, column, &mut self.tile[p * k..][..k]);
        }
        fn rows<'r>(window: &Window, each: usize, count: usize, rows: &'r [Act]) -> gemm::Rows<'r> {
            let row_stride = window.taps() * each;
            gemm::Rows { rows, row_stride, run_stride: window.kernel[1] * each, count }
        }
        if let [w] = groups {
            return gemm(w, rows(window, x.channels, count, self.tile), out, channels);
        }
        // Of all groups a window's channels alternate tap by tap; each gets its own.
        let each = x.channels / groups.len();
        let mut own = vec![0; count * window.taps() * each + SLACK];
        for (g, w) in groups.iter().enumerate() {
            let taps = self.tile[..count * k].chunks_exact(x.channels);
            for (to, tap) in own.chunks_exact_mut(each).zip(taps) {
                to.copy_from_slice(&tap[g * each..][..each]);
            }
            gemm(w, rows(window, each, count, &own), &mut out[g * w.n..], channels);
        }
    }
}

fn max_pool(isa: super::Isa, x: Source, window: &Window, first: usize, rows: Rows) {
    let [h_in, w_in] = x.size;
    let (c, pads) = (x.channels, window.pads(x.size));
    // Down the columns first, whole lines at a time, then along the line.
    let mut tallest = vec![Act::MIN; w_in * c];
    for (row, out) in rows.data.chunks_mut(rows.width * c).enumerate() {
        tallest.fill(Act::MIN);
        for ky in 0..window.kernel[0] {
            let y = (first + row) * window.stride[0] + ky * window.dilation[0];
            if let Some(y) = y.checked_sub(pads[0]).filter(|&y| y < h_in) {
                elementwise::max_into(isa, &mut tallest, &x.data[y * w_in * c..][..w_in * c]);
            }
        }
        for (column, out) in out.chunks_mut(c).enumerate() {
            out.fill(Act::MIN);
            for kx in 0..window.kernel[1] {
                let at = column * window.stride[1] + kx * window.dilation[1];
                if let Some(at) = at.checked_sub(pads[1]).filter(|&at| at < w_in) {
                    elementwise::max_into(isa, out, &tallest[at * c..][..c]);
                }
            }
        }
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
