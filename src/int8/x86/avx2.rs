//! AVX2: operands widened to 16 bits, `vpmaddwd`. (`vpmaddubsw` adds two products in 16
//! bits and saturates: 255 · 127 · 2 does not fit.)

use crate::int8::depthwise::{MAX_TAPS, Run};
use crate::int8::gemm::{Tile, even_tiles};
use crate::int8::pack::{PackedDepthwise, PackedGemm};
use crate::int8::requantize;
use std::arch::x86_64::*;

/// # Safety
/// Needs AVX2, and every row and output of `tile` in bounds.
#[target_feature(enable = "avx2")]
pub unsafe fn gemm(w: &PackedGemm, tile: &Tile) {
    for panel in 0..w.n.div_ceil(8) {
        for (start, rows) in even_tiles(tile.count, 4) {
            // SAFETY: `start + rows` is at most `tile.count`.
            unsafe {
                match rows {
                    1 => kernel::<1>(w, panel, tile, start),
                    2 => kernel::<2>(w, panel, tile, start),
                    3 => kernel::<3>(w, panel, tile, start),
                    _ => kernel::<4>(w, panel, tile, start),
                }
            }
        }
    }
}

/// `MR` rows × 8 columns. An accumulator holds two partial sums for each of four columns.
#[target_feature(enable = "avx2")]
unsafe fn kernel<const MR: usize>(w: &PackedGemm, panel: usize, tile: &Tile, start: usize) {
    // SAFETY: the caller's bounds; `pack` sized the weights of this panel.
    unsafe {
        let a = tile.rows.add(start * tile.row_stride);
        let mut b = w.data.as_slice().as_ptr().add(panel * 8 * w.k_units() * 4);
        let mut acc = [[_mm256_setzero_si256(); 2]; MR];
        for run in 0..w.runs {
            let a = a.add(run * tile.run_stride);
            for unit in 0..w.run_units {
                let w0 = _mm256_cvtepi8_epi16(_mm_loadu_si128(b.cast()));
                let w1 = _mm256_cvtepi8_epi16(_mm_loadu_si128(b.add(16).cast()));
                b = b.add(32);
                for (r, row) in acc.iter_mut().enumerate() {
                    let four = a.add(r * tile.row_stride + unit * 4).cast::<i32>().read_unaligned();
                    let x = _mm256_cvtepu8_epi16(_mm_set1_epi32(four));
                    row[0] = _mm256_add_epi32(row[0], _mm256_madd_epi16(x, w0));
                    row[1] = _mm256_add_epi32(row[1], _mm256_madd_epi16(x, w1));
                }
            }
        }
        let columns = (w.n - panel * 8).min(8);
        for (r, row) in acc.iter().enumerate() {
            // The slots of `pack` make the sums come out in natural order, while biases
            // and multipliers lie in slot order.
            let mut sums = [0i32; 8];
            _mm256_storeu_si256(sums.as_mut_ptr().cast(), _mm256_hadd_epi32(row[0], row[1]));
            let out = tile.out.add((start + r) * tile.out_stride + panel * 8);
            for (c, sum) in sums.iter().enumerate().take(columns) {
                let s = panel * 8 + c / 4 * 2 + c % 2 + c / 2 % 2 * 4;
                *out.add(c) = requantize(w.bias[s] + sum, w.multiplier[s], w.clamp);
            }
        }
    }
}

/// # Safety
/// Needs AVX2, and every tap and output of `run` in bounds.
#[target_feature(enable = "avx2")]
pub unsafe fn depthwise(w: &PackedDepthwise, run: Run) {
    let mut taps = [run.taps[0]; MAX_TAPS];
    taps[..run.taps.len()].copy_from_slice(run.taps);
    for c in (0..w.channels).step_by(16) {
        let channels = (w.channels - c).min(16);
        for i in 0..run.count {
            let mut acc = [_mm256_setzero_si256(); 2];
            // SAFETY: taps and outputs are in bounds (the caller's), `load16` reads only
            // `channels` bytes, and `pack` pads weights and biases to whole blocks.
            unsafe {
                let bias = w.bias.as_ptr().add(c);
                acc[0] = _mm256_loadu_si256(bias.cast());
                acc[1] = _mm256_loadu_si256(bias.add(8).cast());
                let pixel = run.input.as_ptr().add(i * run.step + c);
                for g in 0..w.groups {
                    let t0 = _mm256_cvtepu8_epi16(load16(pixel.add(taps[g * 2]), channels));
                    let t1 = _mm256_cvtepu8_epi16(load16(pixel.add(taps[g * 2 + 1]), channels));
                    let weights = w.data.as_slice().as_ptr().add(c * w.groups * 2 + g * 32);
                    let w0 = _mm256_cvtepi8_epi16(_mm_loadu_si128(weights.cast()));
                    let w1 = _mm256_cvtepi8_epi16(_mm_loadu_si128(weights.add(16).cast()));
                    let p0 = _mm256_madd_epi16(_mm256_unpacklo_epi16(t0, t1), w0);
                    let p1 = _mm256_madd_epi16(_mm256_unpackhi_epi16(t0, t1), w1);
                    acc[0] = _mm256_add_epi32(acc[0], p0);
                    acc[1] = _mm256_add_epi32(acc[1], p1);
                }
                let multiplier = w.multiplier.as_ptr().add(c);
                let q0 = scale(acc[0], _mm256_loadu_ps(multiplier));
                let q1 = scale(acc[1], _mm256_loadu_ps(multiplier.add(8)));
                let bytes = to_bytes(w.clamp, q0, q1);
                let out = run.out.as_mut_ptr().add(i * run.out_step + c);
                if channels == 16 {
                    _mm_storeu_si128(out.cast(), bytes);
                } else {
                    let mut rest = [0u8; 16];
                    _mm_storeu_si128(rest.as_mut_ptr().cast(), bytes);
                    out.copy_from_nonoverlapping(rest.as_ptr(), channels);
                }
            }
        }
    }
}

/// Up to 16 bytes; the rest is zero.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load16(from: *const u8, count: usize) -> __m128i {
    // SAFETY: the caller may read `count` bytes.
    unsafe {
        if count == 16 {
            return _mm_loadu_si128(from.cast());
        }
        let mut bytes = [0u8; 16];
        bytes.as_mut_ptr().copy_from_nonoverlapping(from, count);
        _mm_loadu_si128(bytes.as_ptr().cast())
    }
}

/// `round_ties_even(f32(acc) · multiplier)`.
#[target_feature(enable = "avx2")]
#[inline]
pub fn scale(acc: __m256i, multiplier: __m256) -> __m256i {
    _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(acc), multiplier))
}

/// Two registers of 32-bit results to 16 clamped bytes, interleaved by fours per 128 bits.
#[target_feature(enable = "avx2")]
#[inline]
pub fn to_bytes(clamp: crate::int8::Clamp, q0: __m256i, q1: __m256i) -> __m128i {
    let q = _mm256_packs_epi32(q0, q1);
    let q = _mm256_adds_epi16(q, _mm256_set1_epi16(clamp.zero_point as i16));
    let q = _mm256_max_epi16(q, _mm256_set1_epi16(clamp.low as i16));
    let q = _mm256_min_epi16(q, _mm256_set1_epi16(clamp.high as i16));
    _mm_packus_epi16(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1))
}
