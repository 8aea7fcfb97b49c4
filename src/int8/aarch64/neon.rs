//! Plain NEON (Cortex-A53, A72): `smull`, `smlal2` into 16 bits, `sadalp` into 32.
//!
//! Tiles of 4 rows × 4 columns, 16 of the inner dimension a step: an accumulator per
//! element holds four partial sums. Two products of ±128 and ±127 fit 16 bits; with a
//! weight of −128 they may not, and each half is added by itself.

use super::requant;
use crate::int8::gemm::{Tile, even_tiles};
use crate::int8::pack::PackedGemm;
use std::arch::aarch64::*;

/// # Safety
/// Every row and output of `tile` in bounds.
pub unsafe fn gemm(w: &PackedGemm, tile: &Tile) {
    for (start, rows) in even_tiles(tile.count, 4) {
        for panel in 0..w.n.div_ceil(4) {
            // SAFETY: `start + rows` is at most `tile.count`.
            unsafe {
                match (rows, w.has_min) {
                    (1, false) => kernel::<1, false>(w, panel, tile, start),
                    (2, false) => kernel::<2, false>(w, panel, tile, start),
                    (3, false) => kernel::<3, false>(w, panel, tile, start),
                    (_, false) => kernel::<4, false>(w, panel, tile, start),
                    (1, true) => kernel::<1, true>(w, panel, tile, start),
                    (2, true) => kernel::<2, true>(w, panel, tile, start),
                    (3, true) => kernel::<3, true>(w, panel, tile, start),
                    (_, true) => kernel::<4, true>(w, panel, tile, start),
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn kernel<const MR: usize, const EXACT: bool>(
    w: &PackedGemm,
    panel: usize,
    tile: &Tile,
    start: usize,
) {
    // SAFETY: the caller's bounds; `pack` sized the weights of this panel.
    unsafe {
        let a = tile.rows.add(start * tile.row_stride);
        let mut b = w.data.as_slice().as_ptr().add(panel * 4 * w.k_units() * 16);
        let mut acc = [[vdupq_n_s32(0); 4]; MR];
        for run in 0..w.runs {
            let a = a.add(run * tile.run_stride);
            for unit in 0..w.run_units {
                let mut x = [vdupq_n_s8(0); MR];
                for (r, x) in x.iter_mut().enumerate() {
                    *x = vld1q_s8(a.add(r * tile.row_stride + unit * 16));
                }
                for c in 0..4 {
                    let y = vld1q_s8(b.add(c * 16));
                    for r in 0..MR {
                        let low = vmull_s8(vget_low_s8(x[r]), vget_low_s8(y));
                        acc[r][c] = if EXACT {
                            vpadalq_s16(vpadalq_s16(acc[r][c], low), vmull_high_s8(x[r], y))
                        } else {
                            vpadalq_s16(acc[r][c], vmlal_high_s8(low, x[r], y))
                        };
                    }
                }
                b = b.add(64);
            }
        }
        let bias = vld1q_s32(w.bias.as_ptr().add(panel * 4));
        let multiplier = vld1q_f32(w.multiplier.as_ptr().add(panel * 4));
        let twice = [multiplier, multiplier];
        let columns = (w.n - panel * 4).min(4);
        for (r, acc) in acc.iter().enumerate() {
            let sum = vpaddq_s32(vpaddq_s32(acc[0], acc[1]), vpaddq_s32(acc[2], acc[3]));
            let sum = vaddq_s32(sum, bias);
            let bytes = requant::eight([sum, sum], twice.as_ptr().cast(), w.clamp);
            let out = tile.out.add((start + r) * tile.out_stride + panel * 4);
            if columns == 4 {
                let four = vget_lane_s32::<0>(vreinterpret_s32_s8(bytes));
                out.cast::<i32>().write_unaligned(four);
            } else {
                requant::store(out, bytes, columns);
            }
        }
    }
}
