//! `smmla` (Armv8.6: Cortex-A510, A710, X2, Neoverse V1): a 2×8 by 8×2 product, 32
//! multiply-accumulates an instruction.
//!
//! Tiles of up to 8 rows × 8 columns: an accumulator holds two rows of two columns. The
//! intrinsic is not stable yet (`stdarch_neon_i8mm`), hence the one line of assembly.

use super::requant;
use crate::int8::gemm::{Tile, even_tiles};
use crate::int8::pack::PackedGemm;
use std::arch::aarch64::*;
use std::arch::asm;

/// # Safety
/// Needs `i8mm`, and every row and output of `tile` in bounds.
#[target_feature(enable = "neon,i8mm")]
pub unsafe fn gemm(w: &PackedGemm, tile: &Tile) {
    for panel in 0..w.n.div_ceil(8) {
        for (start, rows) in even_tiles(tile.count, 8) {
            // SAFETY: `start + rows` is at most `tile.count`.
            unsafe {
                match rows.div_ceil(2) {
                    1 => kernel::<1>(w, panel, tile, start, rows),
                    2 => kernel::<2>(w, panel, tile, start, rows),
                    3 => kernel::<3>(w, panel, tile, start, rows),
                    _ => kernel::<4>(w, panel, tile, start, rows),
                }
            }
        }
    }
}

/// `acc += a · bᵀ`, both 2 × 8.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn product(acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let mut acc = acc;
    // SAFETY: reads and writes nothing but these registers.
    unsafe {
        asm!(
            "smmla {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// `PAIRS` pairs of rows; an odd last row is paired with itself and written once.
#[target_feature(enable = "neon,i8mm")]
unsafe fn kernel<const PAIRS: usize>(
    w: &PackedGemm,
    panel: usize,
    tile: &Tile,
    start: usize,
    rows: usize,
) {
    // SAFETY: the caller's bounds; `pack` sized the weights of this panel.
    unsafe {
        let row = |r: usize| tile.rows.add((start + r.min(rows - 1)) * tile.row_stride);
        let mut b = w.data.as_slice().as_ptr().add(panel * 8 * w.k_units() * 8);
        let mut acc = [[vdupq_n_s32(0); 4]; PAIRS];
        for run in 0..w.runs {
            let at = run * tile.run_stride;
            for unit in 0..w.run_units {
                let mut y = [vdupq_n_s8(0); 4];
                for (c, y) in y.iter_mut().enumerate() {
                    *y = vld1q_s8(b.add(c * 16));
                }
                b = b.add(64);
                for (p, acc) in acc.iter_mut().enumerate() {
                    let top = vld1_s8(row(p * 2).add(at + unit * 8));
                    let x = vcombine_s8(top, vld1_s8(row(p * 2 + 1).add(at + unit * 8)));
                    for c in 0..4 {
                        acc[c] = product(acc[c], x, y[c]);
                    }
                }
            }
        }
        let bias = w.bias.as_ptr().add(panel * 8);
        let bias = [vld1q_s32(bias), vld1q_s32(bias.add(4))];
        let multiplier = w.multiplier.as_ptr().add(panel * 8);
        let columns = (w.n - panel * 8).min(8);
        for r in 0..rows {
            let a = acc[r / 2];
            let half = |v| if r % 2 == 0 { vget_low_s32(v) } else { vget_high_s32(v) };
            let sums = [
                vaddq_s32(vcombine_s32(half(a[0]), half(a[1])), bias[0]),
                vaddq_s32(vcombine_s32(half(a[2]), half(a[3])), bias[1]),
            ];
            let out = tile.out.add((start + r) * tile.out_stride + panel * 8);
            requant::store(out, requant::eight(sums, multiplier, w.clamp), columns);
        }
    }
}
