//! Plain NEON (Cortex-A53, A72): `smull`, `smlal2` into 16 bits, `sadalp` into 32: three
//! instructions for sixteen products, two of them multiplications.
//!
//! Tiles of up to 5 rows × 4 columns, 16 of the inner dimension a step: a register for each
//! element holds four partial sums (v12 on). 5 more hold the rows (v0 on), 4 the weights (v5
//! on; two pairs, one loaded while the other is used), 3 the 16-bit sums, so that three
//! products are under way and an in-order core need not wait.
//!
//! Two products of ±128 and ±127 fit 16 bits; with a weight of −128 they may not, and each
//! half is added by itself.

use super::requant::{self, Requantizer};
use crate::int8::gemm::{Tile, even_tiles};
use crate::int8::pack::PackedGemm;
use std::arch::aarch64::*;
use std::arch::asm;

const MOST_ROWS: usize = 5;
const COLUMNS: usize = 4;

/// # Safety
/// Every row and output of `tile` in bounds.
pub unsafe fn gemm(w: &PackedGemm, tile: &Tile) {
    for panel in 0..w.n.div_ceil(COLUMNS) {
        for (start, rows) in even_tiles(tile.count, MOST_ROWS) {
            // SAFETY: `start + rows` is at most `tile.count`.
            unsafe {
                match (rows, w.has_min) {
                    (1, false) => kernel::<1, 0>(w, panel, tile, start),
                    (2, false) => kernel::<2, 0>(w, panel, tile, start),
                    (3, false) => kernel::<3, 0>(w, panel, tile, start),
                    (4, false) => kernel::<4, 0>(w, panel, tile, start),
                    (_, false) => kernel::<5, 0>(w, panel, tile, start),
                    (1, true) => kernel::<1, 1>(w, panel, tile, start),
                    (2, true) => kernel::<2, 1>(w, panel, tile, start),
                    (3, true) => kernel::<3, 1>(w, panel, tile, start),
                    (4, true) => kernel::<4, 1>(w, panel, tile, start),
                    (_, true) => kernel::<5, 1>(w, panel, tile, start),
                }
            }
        }
    }
}

/// `MR` rows × 4 columns over the whole inner dimension; `EXACT` (0 or 1) where a weight is
/// −128.
unsafe fn kernel<const MR: usize, const EXACT: usize>(
    w: &PackedGemm,
    panel: usize,
    tile: &Tile,
    start: usize,
) {
    // SAFETY: the caller's bounds; `pack` sized the weights, biases and multipliers of this
    // panel.
    unsafe {
        let mut weights = w.data.as_slice().as_ptr().add(panel * COLUMNS * w.k_units() * 16);
        let bias = w.bias.as_ptr().add(panel * COLUMNS);
        // One of an element's four partial sums begins with the bias.
        let bias = [0, 1, 2, 3].map(|c| vsetq_lane_s32::<0>(*bias.add(c), vdupq_n_s32(0)));
        let mut sums = [bias; MOST_ROWS];
        for run in 0..w.runs {
            let rows = tile.rows.add(start * tile.row_stride + run * tile.run_stride);
            weights = add_run::<MR, EXACT>(&mut sums, weights, rows, tile.row_stride, w.run_units);
        }
        let requantizer = Requantizer::repeated(w, panel * COLUMNS);
        let columns = (w.n - panel * COLUMNS).min(COLUMNS);
        for first in (0..MR).step_by(4) {
            // A row's four sums; beyond the last row, that again.
            let sum = |r: usize| {
                let [a, b, c, d] = sums[(first + r).min(MR - 1)];
                vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))
            };
            let bytes = requantizer.apply([sum(0), sum(1), sum(2), sum(3)]);
            let out = tile.out.add((start + first) * tile.out_stride + panel * COLUMNS);
            requant::store_rows(out, tile.out_stride, bytes, (MR - first).min(4), columns);
        }
    }
}

/// A column's products with some rows; each row has its sum and a register of its own on
/// the way there.
macro_rules! products {
    ($weight:literal, $($row:literal $way:literal: $sum:literal),*) => {
        concat!(
            $(".if {MR} > ", $row, "\n",
              "smull v", $way, ".8h, v", $row, ".8b, v", $weight, ".8b\n",
              ".endif\n",)*
            // Where 16 bits might not hold both halves, the first is added before.
            $(".if {MR} > ", $row, "\n",
              ".if {EXACT}\n",
              "sadalp v", $sum, ".4s, v", $way, ".8h\n",
              "smull2 v", $way, ".8h, v", $row, ".16b, v", $weight, ".16b\n",
              ".else\n",
              "smlal2 v", $way, ".8h, v", $row, ".16b, v", $weight, ".16b\n",
              ".endif\n",
              ".endif\n",)*
            $(".if {MR} > ", $row, "\n",
              "sadalp v", $sum, ".4s, v", $way, ".8h\n",
              ".endif\n",)*
        )
    };
}

/// A column: three rows, then two.
macro_rules! column {
    ($weight:literal: $sum0:literal $sum1:literal $sum2:literal $sum3:literal $sum4:literal) => {
        concat!(
            products!($weight, 0 9: $sum0, 1 10: $sum1, 2 11: $sum2),
            products!($weight, 3 9: $sum3, 4 10: $sum4),
        )
    };
}

/// The next sixteen bytes of every row.
macro_rules! rows {
    ($($row:literal)*) => {
        concat!($(
            ".if {MR} > ", $row, "\n",
            "ldr q", $row, ", [{row", $row, "}], 16\n",
            ".endif\n",
        )*)
    };
}

/// Adds `units` of the inner dimension. Returns where the weights go on.
///
/// # Safety
/// `units · 16` bytes at `MR` rows, 64 times `units` of weights and 32 more
/// ([`crate::int8::pack::Aligned`]).
#[inline(always)]
unsafe fn add_run<const MR: usize, const EXACT: usize>(
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
            "2:",
            rows!(0 1 2 3 4),
            "subs {units}, {units}, 1",
            "ldp q7, q8, [{weights}, 32]",
            column!(5: 12 16 20 24 28),
            column!(6: 13 17 21 25 29),
            "ldp q5, q6, [{weights}, 64]!",
            column!(7: 14 18 22 26 30),
            column!(8: 15 19 23 27 31),
            "b.ne 2b",
            MR = const MR, EXACT = const EXACT,
            weights = inout(reg) weights, units = inout(reg) units => _,
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
            out("v9") _, out("v10") _, out("v11") _,
            options(readonly, nostack),
        );
    }
    weights
}
