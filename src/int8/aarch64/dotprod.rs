//! `sdot` (Cortex-A76, A55, Neoverse N1): sixteen products an instruction.
//!
//! Tiles of 6 rows × 16 columns: 24 accumulators; 16 of the inner dimension are loaded per
//! row at once and used lane by lane. The intrinsic is not stable yet
//! (`stdarch_neon_dotprod`), hence the one line of assembly.

use super::requant;
use crate::int8::gemm::{Tile, even_tiles};
use crate::int8::pack::PackedGemm;
use std::arch::aarch64::*;
use std::arch::asm;

const MOST_ROWS: usize = 6;

/// # Safety
/// Needs `dotprod`, and every row and output of `tile` in bounds.
#[target_feature(enable = "neon,dotprod")]
pub unsafe fn gemm(w: &PackedGemm, tile: &Tile) {
    for panel in 0..w.n.div_ceil(16) {
        for (start, rows) in even_tiles(tile.count, MOST_ROWS) {
            // SAFETY: `start + rows` is at most `tile.count`.
            unsafe {
                match rows {
                    1 => kernel::<1>(w, panel, tile, start),
                    2 => kernel::<2>(w, panel, tile, start),
                    3 => kernel::<3>(w, panel, tile, start),
                    4 => kernel::<4>(w, panel, tile, start),
                    5 => kernel::<5>(w, panel, tile, start),
                    _ => kernel::<6>(w, panel, tile, start),
                }
            }
        }
    }
}

/// `acc += b · a[LANE]`, groups of four bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot<const LANE: usize>(acc: int32x4_t, b: int8x16_t, a: int8x16_t) -> int32x4_t {
    let mut acc = acc;
    // SAFETY: reads and writes nothing but these registers.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {b:v}.16b, {a:v}.4b[{lane}]",
            acc = inout(vreg) acc, b = in(vreg) b, a = in(vreg) a, lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

#[target_feature(enable = "neon,dotprod")]
unsafe fn kernel<const MR: usize>(w: &PackedGemm, panel: usize, tile: &Tile, start: usize) {
    // SAFETY: the caller's bounds; `pack` sized the weights of this panel. Four units of
    // four are loaded at once only where as many are left.
    unsafe {
        let mut b = w.data.as_slice().as_ptr().add(panel * 16 * w.k_units() * 4);
        let bias = w.bias.as_ptr().add(panel * 16);
        let mut acc = [[vdupq_n_s32(0); 4]; MR];
        for c in 0..4 {
            let bias = vld1q_s32(bias.add(c * 4));
            for acc in &mut acc {
                acc[c] = bias;
            }
        }
        for run in 0..w.runs {
            let mut a = [tile.rows; MR];
            for (r, a) in a.iter_mut().enumerate() {
                *a = tile.rows.add((start + r) * tile.row_stride + run * tile.run_stride);
            }
            for _ in 0..w.run_units / 4 {
                let mut x = [vdupq_n_s8(0); MR];
                for (x, a) in x.iter_mut().zip(&mut a) {
                    *x = vld1q_s8(*a);
                    *a = a.add(16);
                }
                macro_rules! step {
                ($($lane:literal)*) => {$(
                    for c in 0..4 {
                        let y = vld1q_s8(b.add($lane * 64 + c * 16));
                        for r in 0..MR {
                            acc[r][c] = dot::<$lane>(acc[r][c], y, x[r]);
                        }
                    }
                )*};
            }
                step!(0 1 2 3);
                b = b.add(256);
            }
            for unit in 0..w.run_units % 4 {
                for r in 0..MR {
                    let four = a[r].add(unit * 4).cast::<i32>().read_unaligned();
                    let x = vreinterpretq_s8_s32(vdupq_n_s32(four));
                    for c in 0..4 {
                        acc[r][c] = dot::<0>(acc[r][c], vld1q_s8(b.add(unit * 64 + c * 16)), x);
                    }
                }
            }
            b = b.add(w.run_units % 4 * 64);
        }
        let columns = (w.n - panel * 16).min(16);
        let multiplier = w.multiplier.as_ptr().add(panel * 16);
        for (r, acc) in acc.iter().enumerate() {
            let out = tile.out.add((start + r) * tile.out_stride + panel * 16);
            let low = requant::eight([acc[0], acc[1]], multiplier, w.clamp);
            let high = requant::eight([acc[2], acc[3]], multiplier.add(8), w.clamp);
            if columns == 16 {
                vst1q_s8(out, vcombine_s8(low, high));
            } else {
                requant::store(out, low, columns);
                if columns > 8 {
                    requant::store(out.add(8), high, columns - 8);
                }
            }
        }
    }
}
