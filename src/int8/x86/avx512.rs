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
    // Groups of four taps. Taps beyond the kernel meet zero weights; the first tap stands
    // in for them.
    let used = depthwise_used(w.isa, w.taps);
    let mut taps = [[run.taps[0]; 4]; MAX_TAPS / 3 + 1];
    for (group, own) in taps.iter_mut().zip(run.taps.chunks(used)) {
        group[..own.len()].copy_from_slice(own);
    }
    let taps = &taps[..w.groups];
    // At stride 1 the window of the next pixel is this one's, one tap further.
    let slides =
        w.taps == 9 && taps.iter().all(|t| t[0] + run.step == t[1] && t[1] + run.step == t[2]);
    for c in (0..w.channels).step_by(64) {
        let keep = u64::MAX >> (64 - (w.channels - c).min(64));
        // SAFETY: the mask keeps loads and stores within the pixel; the caller's bounds.
        unsafe {
            let paired = if slides { pairs(w, &mut run, taps, c, keep) } else { 0 };
            singles(w, &mut run, taps, c, keep, paired);
        }
    }
}

/// Channels `c..c + 64` of the pixels from `first` on, one by one.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn singles(
    w: &PackedDepthwise,
    run: &mut Run,
    taps: &[[usize; 4]],
    c: usize,
    keep: u64,
    first: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let weights = w.data.as_slice().as_ptr().add(c * w.groups * 4);
        for i in first..run.count {
            let pixel = run.input.as_ptr().add(c + i * run.step);
            let mut acc = bias(w, c);
            for (g, taps) in taps.iter().enumerate() {
                let x =
                    interleave(taps.map(|t| _mm512_maskz_loadu_epi8(keep, pixel.add(t).cast())));
                for j in 0..4 {
                    let weights = _mm512_loadu_si512(weights.add((g * 4 + j) * 64).cast());
                    acc[j] = _mm512_dpbusd_epi32(acc[j], x[j], weights);
                }
            }
            store(w, &acc, c, run.out.as_mut_ptr().add(i * run.out_step + c), keep);
        }
    }
}

/// Two neighbouring pixels of a 3×3 kernel at stride 1 at a time: four columns of a row are
/// unpacked once, the first pixel weighs the first three of them, the second the last
/// three. Returns the number of pixels done.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pairs(
    w: &PackedDepthwise,
    run: &mut Run,
    taps: &[[usize; 4]],
    c: usize,
    keep: u64,
) -> usize {
    // SAFETY: the caller's; the fourth column is the second pixel's last tap.
    unsafe {
        let packed = w.data.as_slice().as_ptr().add(c * 12);
        let mut left = [_mm512_setzero_si512(); 12];
        let mut right = left;
        for (i, (left, right)) in left.iter_mut().zip(&mut right).enumerate() {
            *left = _mm512_loadu_si512(packed.add(i * 64).cast());
            *right = _mm512_slli_epi32::<8>(*left);
        }
        let done = run.count & !1;
        for i in (0..done).step_by(2) {
            let pixel = run.input.as_ptr().add(c + i * run.step);
            let mut acc = [bias(w, c); 2];
            for (g, taps) in taps.iter().enumerate() {
                let column = |t: usize| {
                    _mm512_maskz_loadu_epi8(keep, pixel.add(taps[0] + t * run.step).cast())
                };
                let x = interleave([column(0), column(1), column(2), column(3)]);
                for j in 0..4 {
                    acc[0][j] = _mm512_dpbusd_epi32(acc[0][j], x[j], left[g * 4 + j]);
                    acc[1][j] = _mm512_dpbusd_epi32(acc[1][j], x[j], right[g * 4 + j]);
                }
            }
            let out = run.out.as_mut_ptr().add(i * run.out_step + c);
            store(w, &acc[0], c, out, keep);
            store(w, &acc[1], c, out.add(run.out_step), keep);
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
unsafe fn store(w: &PackedDepthwise, acc: &[__m512i; 4], c: usize, out: *mut u8, keep: u64) {
    // SAFETY: `pack` pads multipliers to whole blocks; the mask keeps the store in bounds.
    unsafe {
        let multiplier = w.multiplier.as_ptr().add(c);
        let mut q = [_mm512_setzero_si512(); 4];
        for j in 0..4 {
            q[j] = scale(acc[j], _mm512_loadu_ps(multiplier.add(j * 16)));
        }
        let zero_point = _mm512_set1_epi16(w.clamp.zero_point as i16);
        let half = |a, b| _mm512_adds_epi16(_mm512_packs_epi32(a, b), zero_point);
        let bytes = _mm512_packus_epi16(half(q[0], q[1]), half(q[2], q[3]));
        let bytes = _mm512_max_epu8(bytes, _mm512_set1_epi8(w.clamp.low as i8));
        let bytes = _mm512_min_epu8(bytes, _mm512_set1_epi8(w.clamp.high as i8));
        _mm512_mask_storeu_epi8(out.cast(), keep, bytes);
    }
}
