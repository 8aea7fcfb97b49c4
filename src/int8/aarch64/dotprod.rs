//! `sdot` (Cortex-A55, A76, Neoverse N1): sixteen products an instruction.
//!
//! Tiles of up to 5 rows × 16 columns. Of the 32 registers 20 hold sums (v12 on), 5 the rows
//! (v0 on, sixteen of the inner dimension each, used lane by lane) and 4 the weights (v5 on):
//! two pairs, so that one is loaded while the other is used and an in-order core need not
//! wait. A sixth row would save 2 % of the instructions and leave room for one pair only.
//!
//! Assembly, because the intrinsic is not stable (`stdarch_neon_dotprod`) and because the
//! compiler, given single `sdot`s, moved sums to the stack and back.

use super::requant::Requantizer;
use crate::int8::gemm::{Tile, even_tiles};
use crate::int8::pack::PackedGemm;
use std::arch::aarch64::*;
use std::arch::asm;

const MOST_ROWS: usize = 5;
const COLUMNS: usize = 16;

/// # Safety
/// Needs `dotprod`, and every row and output of `tile` in bounds.
#[target_feature(enable = "neon,dotprod")]
pub unsafe fn gemm(w: &PackedGemm, tile: &Tile) {
    for panel in 0..w.n.div_ceil(COLUMNS) {
        for (start, rows) in even_tiles(tile.count, MOST_ROWS) {
            // SAFETY: `start + rows` is at most `tile.count`.
            unsafe {
                match rows {
                    1 => kernel::<1>(w, panel, tile, start),
                    2 => kernel::<2>(w, panel, tile, start),
                    3 => kernel::<3>(w, panel, tile, start),
                    4 => kernel::<4>(w, panel, tile, start),
                    _ => kernel::<5>(w, panel, tile, start),
                }
            }
        }
    }
}

/// `MR` rows × 16 columns over the whole inner dimension.
#[target_feature(enable = "neon,dotprod")]
unsafe fn kernel<const MR: usize>(w: &PackedGemm, panel: usize, tile: &Tile, start: usize) {
    // SAFETY: the caller's bounds; `pack` sized the weights, biases and multipliers of this
    // panel.
    unsafe {
        let mut weights = w.data.as_slice().as_ptr().add(panel * COLUMNS * w.k_units() * 4);
        let bias = w.bias.as_ptr().add(panel * COLUMNS);
        let bias = [0, 4, 8, 12].map(|at| vld1q_s32(bias.add(at)));
        let mut sums = [bias; MOST_ROWS];
        for run in 0..w.runs {
            let rows = tile.rows.add(start * tile.row_stride + run * tile.run_stride);
            weights = add_run::<MR>(&mut sums, weights, rows, tile.row_stride, w.run_units);
        }
        let requantizer = Requantizer::new(w, panel * COLUMNS);
        let columns = w.n - panel * COLUMNS;
        for (r, sums) in sums.iter().enumerate().take(MR) {
            let out = tile.out.add((start + r) * tile.out_stride + panel * COLUMNS);
            requantizer.store(*sums, out, columns);
        }
    }
}

/// The products of a pair of weight registers with one lane of every row; each row has its
/// two sums.
macro_rules! pair {
    ($lane:literal, $w0:literal $w1:literal, $($row:literal: $sum0:literal $sum1:literal),*) => {
        concat!($(
            ".if {MR} > ", $row, "\n",
            "sdot v", $sum0, ".4s, v", $w0, ".16b, v", $row, ".4b[", $lane, "]\n",
            "sdot v", $sum1, ".4s, v", $w1, ".16b, v", $row, ".4b[", $lane, "]\n",
            ".endif\n",
        )*)
    };
}

/// One unit of the inner dimension. v5 and v6 were loaded before, and are again after it.
macro_rules! unit {
    ($lane:literal) => {
        concat!(
            "ldp q7, q8, [{weights}, 32]\n",
            pair!($lane, 5 6, 0: 12 13, 1: 16 17, 2: 20 21, 3: 24 25, 4: 28 29),
            "ldp q5, q6, [{weights}, 64]!\n",
            pair!($lane, 7 8, 0: 14 15, 1: 18 19, 2: 22 23, 3: 26 27, 4: 30 31),
        )
    };
}

/// The next bytes of every row: `q` loads sixteen, `s` four.
macro_rules! rows {
    ($size:literal, $step:literal, $($row:literal)*) => {
        concat!($(
            ".if {MR} > ", $row, "\n",
            "ldr ", $size, $row, ", [{row", $row, "}], ", $step, "\n",
            ".endif\n",
        )*)
    };
}

/// Adds `units` of the inner dimension, four units a round while there are as many. Returns
/// where the weights go on.
///
/// # Safety
/// Needs `dotprod`; `units · 4` bytes at `MR` rows, 64 times `units` of weights and 32 more.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn add_run<const MR: usize>(
    sums: &mut [[int32x4_t; 4]; MOST_ROWS],
    weights: *const i8,
    rows: *const i8,
    row_stride: usize,
    units: usize,
) -> *const i8 {
    let mut weights = weights;
    let [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3], [e0, e1, e2, e3]] =
        sums;
    let row = |r: usize| rows.wrapping_add(r.min(MR - 1) * row_stride);
    // SAFETY: the caller's bounds; writes no memory, and all registers are declared.
    unsafe {
        asm!(
            "ldp q5, q6, [{weights}]",
            "cbz {rounds}, 3f",
            "2:",
            rows!("q", 16, 0 1 2 3 4),
            "subs {rounds}, {rounds}, 1",
            unit!(0), unit!(1), unit!(2), unit!(3),
            "b.ne 2b",
            "3:",
            "cbz {rest}, 5f",
            "4:",
            rows!("s", 4, 0 1 2 3 4),
            "subs {rest}, {rest}, 1",
            unit!(0),
            "b.ne 4b",
            "5:",
            MR = const MR,
            weights = inout(reg) weights,
            rounds = inout(reg) units / 4 => _, rest = inout(reg) units % 4 => _,
            row0 = inout(reg) row(0) => _, row1 = inout(reg) row(1) => _,
            row2 = inout(reg) row(2) => _, row3 = inout(reg) row(3) => _,
            row4 = inout(reg) row(4) => _,
            inout("v12") *a0, inout("v13") *a1, inout("v14") *a2, inout("v15") *a3,
            inout("v16") *b0, inout("v17") *b1, inout("v18") *b2, inout("v19") *b3,
            inout("v20") *c0, inout("v21") *c1, inout("v22") *c2, inout("v23") *c3,
            inout("v24") *d0, inout("v25") *d1, inout("v26") *d2, inout("v27") *d3,
            inout("v28") *e0, inout("v29") *e1, inout("v30") *e2, inout("v31") *e3,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _,
            out("v5") _, out("v6") _, out("v7") _, out("v8") _,
            options(readonly, nostack),
        );
    }
    weights
}
