//! AVX-512 VNNI: `vpdpbusd` on 512-bit registers, 64 products an instruction.
//!
//! GEMM: tiles of up to 14 rows × 32 columns (28 accumulators, 2 weights, 1 broadcast
//! activation) or 14 × 16. Depthwise: 64 channels at a time, four taps interleaved by byte
//! unpacking.

use crate::int8::depthwise::{MAX_TAPS, Run};
use crate::int8::gemm::{Tile, even_tiles};
use crate::int8::pack::{PackedDepthwise, PackedGemm, depthwise_used};
use std::arch::x86_64::*;

const MOST_ROWS: usize = 14;

/// # Safety
/// Needs the target features, and every row and output of `tile` in bounds.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn gemm(w: &PackedGemm, tile: &Tile) {
    for panel in 0..w.n.div_ceil(32) {
        let columns = (w.n - panel * 32).min(32);
        for (start, rows) in even_tiles(tile.count, MOST_ROWS) {
            // SAFETY: `start + rows` is at most `tile.count`, the panel at most `w.n`.
            unsafe {
                let a = tile.rows.add(start * tile.row_stride);
                let out = tile.out.add(start * tile.out_stride + panel * 32);
                let strides = [tile.row_stride, tile.run_stride, tile.out_stride];
                // The half-width panel that `pack` makes of a short rest.
                if columns <= 16 {
                    rows_of::<1>(w, panel, rows, a, out, strides, columns);
                } else {
                    rows_of::<2>(w, panel, rows, a, out, strides, columns);
                }
            }
        }
    }
}

/// Picks the kernel for this number of rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn rows_of<const NV: usize>(
    w: &PackedGemm,
    panel: usize,
    rows: usize,
    a: *const u8,
    out: *mut u8,
    strides: [usize; 3],
    columns: usize,
) {
    macro_rules! pick {
        ($($n:literal)*) => {
            match rows {
                // SAFETY: the caller's.
                $($n => unsafe { kernel::<$n, NV>(w, panel, a, out, strides, columns) },)*
                _ => unreachable!("tiles have 1 to {MOST_ROWS} rows"),
            }
        };
    }
    pick!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}

/// `MR` rows × `NV · 16` columns over the whole inner dimension.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn kernel<const MR: usize, const NV: usize>(
    w: &PackedGemm,
    panel: usize,
    a: *const u8,
    out: *mut u8,
    strides: [usize; 3],
    columns: usize,
) {
    // SAFETY: the caller's bounds on `a` and `out`; `pack` sized the weights, biases and
    // multipliers of this panel.
    unsafe {
        let [stride, run_stride, out_stride] = strides;
        let bias = w.bias.as_ptr().add(panel * 32);
        let mut acc = [[_mm512_setzero_si512(); NV]; MR];
        for v in 0..NV {
            let b = _mm512_loadu_si512(bias.add(v * 16).cast());
            for row in &mut acc {
                row[v] = b;
            }
        }
        let mut b = w.data.as_slice().as_ptr().add(panel * 32 * w.k_units() * 4);
        for run in 0..w.runs {
            let a = a.add(run * run_stride);
            for unit in 0..w.run_units {
                let mut weights = [_mm512_setzero_si512(); NV];
                for (v, x) in weights.iter_mut().enumerate() {
                    *x = _mm512_loadu_si512(b.add(v * 64).cast());
                }
                b = b.add(NV * 64);
                for (r, row) in acc.iter_mut().enumerate() {
                    let four = a.add(r * stride + unit * 4).cast::<i32>().read_unaligned();
                    let x = _mm512_set1_epi32(four);
                    for v in 0..NV {
                        row[v] = _mm512_dpbusd_epi32(row[v], x, weights[v]);
                    }
                }
            }
        }
        let multiplier = w.multiplier.as_ptr().add(panel * 32);
        let zero_point = _mm512_set1_epi16(w.clamp.zero_point as i16);
        let low = _mm512_set1_epi16(w.clamp.low as i16);
        let high = _mm512_set1_epi16(w.clamp.high as i16);
        let keep = u32::MAX >> (32 - columns);
        for (r, row) in acc.iter().enumerate() {
            let mut q = [_mm512_setzero_si512(); 2];
            for v in 0..NV {
                q[v] = scale(row[v], _mm512_loadu_ps(multiplier.add(v * 16)));
            }
            let q = if NV == 2 {
                _mm512_packs_epi32(q[0], q[1])
            } else {
                _mm512_castsi256_si512(_mm512_cvtsepi32_epi16(q[0]))
            };
            let q = _mm512_adds_epi16(q, zero_point);
            let q = _mm512_min_epi16(_mm512_max_epi16(q, low), high);
            _mm256_mask_storeu_epi8(out.add(r * out_stride).cast(), keep, _mm512_cvtepi16_epi8(q));
        }
    }
}

/// `round_ties_even(f32(acc) · multiplier)`.
#[target_feature(enable = "avx512f")]
#[inline]
fn scale(acc: __m512i, multiplier: __m512) -> __m512i {
    _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), multiplier))
}

/// # Safety
/// Needs the target features, and every tap and output of `run` in bounds.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn depthwise(w: &PackedDepthwise, mut run: Run) {
    let slides = w.taps == 9 && run.taps.chunks_exact(3).all(|t| slides(t, run.step));
    let shares = slides && run.rows == 2 && run.taps[3..9] == run.taps[9..15];
    for c in (0..w.channels).step_by(64) {
        let keep = u64::MAX >> (64 - (w.channels - c).min(64));
        // SAFETY: the mask keeps loads and stores within the pixel; the caller's bounds.
        unsafe {
            let squares = if shares { squares(w, &mut run, c, keep) } else { 0 };
            for r in 0..run.rows {
                let mut row = run.row(r);
                let done = match slides && !shares {
                    true => pairs(w, &mut row, c, keep),
                    false => squares,
                };
                singles(w, &mut row, c, keep, done);
            }
        }
    }
}

/// Whether the window of the next pixel is this one's, one tap further.
fn slides(taps: &[usize], step: usize) -> bool {
    taps[0] + step == taps[1] && taps[1] + step == taps[2]
}

/// Channels `c..c + 64` of the pixels from `first` on, one by one.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn singles(w: &PackedDepthwise, run: &mut Run, c: usize, keep: u64, first: usize) {
    if first == run.count {
        return;
    }
    // Groups of four taps. Taps beyond the kernel meet zero weights; the first tap stands
    // in for them.
    let used = depthwise_used(w.isa, w.taps);
    let mut taps = [[run.taps[0]; 4]; MAX_TAPS / 3 + 1];
    for (group, own) in taps.iter_mut().zip(run.taps.chunks(used)) {
        group[..own.len()].copy_from_slice(own);
    }
    // SAFETY: the caller's.
    unsafe {
        let finish = Finish::new(w, c, keep);
        let weights = w.data.as_slice().as_ptr().add(c * w.groups * 4);
        for i in first..run.count {
            let pixel = run.input.as_ptr().add(c + i * run.step);
            let mut acc = bias(w, c);
            for (g, taps) in taps[..w.groups].iter().enumerate() {
                let x =
                    interleave(taps.map(|t| _mm512_maskz_loadu_epi8(keep, pixel.add(t).cast())));
                for j in 0..4 {
                    let weights = _mm512_loadu_si512(weights.add((g * 4 + j) * 64).cast());
                    acc[j] = _mm512_dpbusd_epi32(acc[j], x[j], weights);
                }
            }
            finish.store(&acc, run.out.as_mut_ptr().add(i * run.out_step + c));
        }
    }
}

/// The weights of a 3×3 kernel for channels `c..c + 64`, for a window that starts at the
/// first of four columns, and for one that starts at the second.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn left_and_right(w: &PackedDepthwise, c: usize) -> [[__m512i; 12]; 2] {
    let mut both = [[_mm512_setzero_si512(); 12]; 2];
    for i in 0..12 {
        // SAFETY: `pack` makes twelve registers of weights for every block.
        both[0][i] =
            unsafe { _mm512_loadu_si512(w.data.as_slice().as_ptr().add(c * 12 + i * 64).cast()) };
        both[1][i] = _mm512_slli_epi32::<8>(both[0][i]);
    }
    both
}

/// Two by two pixels of a 3×3 kernel at stride 1 at a time: each of the four input rows is
/// unpacked once for both output rows. Returns the number of columns done.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn squares(w: &PackedDepthwise, run: &mut Run, c: usize, keep: u64) -> usize {
    // SAFETY: the caller's; the fourth column is the second pixel's last tap.
    unsafe {
        let finish = Finish::new(w, c, keep);
        let weights = left_and_right(w, c);
        let done = run.count & !1;
        let lines = [0, 3, 6, 15].map(|t| run.taps[t]);
        for i in (0..done).step_by(2) {
            let pixel = run.input.as_ptr().add(c + i * run.step);
            let mut acc = [[bias(w, c); 2]; 2];
            // Unrolled by hand: a loop would keep the sums in memory.
            macro_rules! lines {
                ($($line:literal)*) => {$(
                    let column = |t: usize| {
                        let at = lines[$line] + t * run.step;
                        _mm512_maskz_loadu_epi8(keep, pixel.add(at).cast())
                    };
                    let x = interleave([column(0), column(1), column(2), column(3)]);
                    for side in 0..2 {
                        for j in 0..4 {
                            // The upper output row meets this line with its kernel row of the
                            // same number, the lower one with the row before.
                            if $line < 3 {
                                let sum = &mut acc[0][side][j];
                                *sum = _mm512_dpbusd_epi32(*sum, x[j], weights[side][$line % 3 * 4 + j]);
                            }
                            if $line > 0 {
                                let sum = &mut acc[1][side][j];
                                *sum = _mm512_dpbusd_epi32(*sum, x[j], weights[side][($line + 2) % 3 * 4 + j]);
                            }
                        }
                    }
                )*};
            }
            lines!(0 1 2 3);
            for (r, acc) in acc.iter().enumerate() {
                let out = run.out.as_mut_ptr().add(r * run.out_row + i * run.out_step + c);
                finish.store(&acc[0], out);
                finish.store(&acc[1], out.add(run.out_step));
            }
        }
        done
    }
}

/// Two neighbouring pixels of a 3×3 kernel at stride 1 at a time: four columns of a row are
/// unpacked once, the first pixel weighs the first three of them, the second the last
/// three. Returns the number of pixels done.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pairs(w: &PackedDepthwise, run: &mut Run, c: usize, keep: u64) -> usize {
    // SAFETY: the caller's; the fourth column is the second pixel's last tap.
    unsafe {
        let finish = Finish::new(w, c, keep);
        let weights = left_and_right(w, c);
        let done = run.count & !1;
        for i in (0..done).step_by(2) {
            let pixel = run.input.as_ptr().add(c + i * run.step);
            let mut acc = [bias(w, c); 2];
            for line in 0..3 {
                let column = |t: usize| {
                    let at = run.taps[line * 3] + t * run.step;
                    _mm512_maskz_loadu_epi8(keep, pixel.add(at).cast())
                };
                let x = interleave([column(0), column(1), column(2), column(3)]);
                for (acc, weights) in acc.iter_mut().zip(&weights) {
                    for j in 0..4 {
                        acc[j] = _mm512_dpbusd_epi32(acc[j], x[j], weights[line * 4 + j]);
                    }
                }
            }
            let out = run.out.as_mut_ptr().add(i * run.out_step + c);
            finish.store(&acc[0], out);
            finish.store(&acc[1], out.add(run.out_step));
        }
        done
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn bias(w: &PackedDepthwise, c: usize) -> [__m512i; 4] {
    // SAFETY: `pack` pads biases to whole blocks.
    unsafe {
        let bias = w.bias.as_ptr().add(c);
        [0, 16, 32, 48].map(|at| _mm512_loadu_si512(bias.add(at).cast()))
    }
}

/// Four taps of 64 channels: two rounds of unpacking put the four bytes of a channel side by
/// side, as `vpdpbusd` wants them.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn interleave(t: [__m512i; 4]) -> [__m512i; 4] {
    let (lo01, hi01) = (_mm512_unpacklo_epi8(t[0], t[1]), _mm512_unpackhi_epi8(t[0], t[1]));
    let (lo23, hi23) = (_mm512_unpacklo_epi8(t[2], t[3]), _mm512_unpackhi_epi8(t[2], t[3]));
    [
        _mm512_unpacklo_epi16(lo01, lo23),
        _mm512_unpackhi_epi16(lo01, lo23),
        _mm512_unpacklo_epi16(hi01, hi23),
        _mm512_unpackhi_epi16(hi01, hi23),
    ]
}

/// What the sums of a block of 64 channels go through; loaded once for several pixels, as a
/// store in between might have changed it for all that the compiler knows.
struct Finish {
    multiplier: [__m512; 4],
    zero_point: __m512i,
    low: __m512i,
    high: __m512i,
    keep: u64,
}

impl Finish {
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    unsafe fn new(w: &PackedDepthwise, c: usize, keep: u64) -> Self {
        // SAFETY: `pack` pads multipliers to whole blocks.
        let multiplier =
            unsafe { [0, 16, 32, 48].map(|at| _mm512_loadu_ps(w.multiplier.as_ptr().add(c + at))) };
        Self {
            multiplier,
            zero_point: _mm512_set1_epi16(w.clamp.zero_point as i16),
            low: _mm512_set1_epi8(w.clamp.low as i8),
            high: _mm512_set1_epi8(w.clamp.high as i8),
            keep,
        }
    }

    /// Requantizes the sums of a pixel and stores those bytes that `keep` names.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn store(&self, acc: &[__m512i; 4], out: *mut u8) {
        let q = |j: usize| scale(acc[j], self.multiplier[j]);
        let half = |a, b| _mm512_adds_epi16(_mm512_packs_epi32(a, b), self.zero_point);
        let bytes = _mm512_packus_epi16(half(q(0), q(1)), half(q(2), q(3)));
        let bytes = _mm512_min_epu8(_mm512_max_epu8(bytes, self.low), self.high);
        // SAFETY: the caller may write what `keep` names.
        unsafe {
            match self.keep {
                u64::MAX => _mm512_storeu_si512(out.cast(), bytes),
                keep => _mm512_mask_storeu_epi8(out.cast(), keep, bytes),
            }
        }
    }
}
