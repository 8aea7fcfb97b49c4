//! Plain NEON (Cortex-A53, A72): `smull`, `smlal2` into 16 bits, `sadalp` into 32: three
//! instructions for sixteen products, two of them multiplications.
//!
//! Tiles of up to 4 rows × 4 columns: a register for each element holds four partial sums
//! (v16 on). v0 to v7 hold the rows, 32 of the inner dimension each, loaded by one
//! instruction; v8 to v11 the weights, two pairs of columns, one loaded while the other is
//! used; v12 to v15 the 16-bit sums, so that four products are under way and an in-order
//! core need not wait. With a fifth row only 16 of each fit: more loads, not fewer.
//!
//! Two products of ±128 and ±127 fit 16 bits; with a weight of −128 they may not, and each
//! half is added by itself.

use super::requant::{self, Requantizer};
use crate::int8::gemm::{Tile, even_tiles};
use crate::int8::pack::PackedGemm;
use std::arch::aarch64::*;
use std::arch::asm;

const MOST_ROWS: usize = 4;
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
                    (_, false) => kernel::<4, 0>(w, panel, tile, start),
                    (1, true) => kernel::<1, 1>(w, panel, tile, start),
                    (2, true) => kernel::<2, 1>(w, panel, tile, start),
                    (3, true) => kernel::<3, 1>(w, panel, tile, start),
                    (_, true) => kernel::<4, 1>(w, panel, tile, start),
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
        // A row's four sums; beyond the last row, that again.
        let row = |r: usize| {
            let [a, b, c, d] = sums[r.min(MR - 1)];
            vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))
        };
        let requantizer = Requantizer::repeated(w, panel * COLUMNS);
        let bytes = requantizer.apply([row(0), row(1), row(2), row(3)]);
        let out = tile.out.add(start * tile.out_stride + panel * COLUMNS);
        requant::store_rows(out, tile.out_stride, bytes, MR, (w.n - panel * COLUMNS).min(COLUMNS));
    }
}

/// A column's products with one half (`$x`) of every row; each row has its sum and a register
/// of its own on the way there.
macro_rules! column {
    ($weight:literal, $($row:literal $x:literal $way:literal $sum:literal),*) => {
        concat!(
            $(".if {MR} > ", $row, "\n",
              "smull v", $way, ".8h, v", $x, ".8b, v", $weight, ".8b\n",
              ".endif\n",)*
            // Where 16 bits might not hold both products, the first is added by itself.
            $(".if {MR} > ", $row, "\n",
              ".if {EXACT}\n",
              "sadalp v", $sum, ".4s, v", $way, ".8h\n",
              "smull2 v", $way, ".8h, v", $x, ".16b, v", $weight, ".16b\n",
              ".else\n",
              "smlal2 v", $way, ".8h, v", $x, ".16b, v", $weight, ".16b\n",
              ".endif\n",
              ".endif\n",)*
            $(".if {MR} > ", $row, "\n",
              "sadalp v", $sum, ".4s, v", $way, ".8h\n",
              ".endif\n",)*
        )
    };
}

/// One unit of the inner dimension, in `$x0` to `$x3` of the rows. v8 and v9 were loaded
/// before, and are again after it.
macro_rules! unit {
    ($x0:literal $x1:literal $x2:literal $x3:literal) => {
        concat!(
            "ldp q10, q11, [{weights}, 32]\n",
            column!(8, 0 $x0 12 16, 1 $x1 13 20, 2 $x2 14 24, 3 $x3 15 28),
            column!(9, 0 $x0 12 17, 1 $x1 13 21, 2 $x2 14 25, 3 $x3 15 29),
            "ldp q8, q9, [{weights}, 64]!\n",
            column!(10, 0 $x0 12 18, 1 $x1 13 22, 2 $x2 14 26, 3 $x3 15 30),
            column!(11, 0 $x0 12 19, 1 $x1 13 23, 2 $x2 14 27, 3 $x3 15 31),
        )
    };
}

/// The next bytes of every row, 32 (`ldp`, two registers) or 16 (`ldr`, one).
macro_rules! rows {
    ($load:literal $step:literal, $($row:literal $to:literal),*) => {
        concat!($(
            ".if {MR} > ", $row, "\n",
            $load, " ", $to, ", [{row", $row, "}], ", $step, "\n",
            ".endif\n",
        )*)
    };
}

/// Adds `units` of the inner dimension, two a round. Returns where the weights go on.
///
/// # Safety
/// `units · 16` bytes at `MR` rows, 64 times `units` of weights and 32 more.
#[inline(always)]
unsafe fn add_run<const MR: usize, const EXACT: usize>(
    sums: &mut [[int32x4_t; 4]; MOST_ROWS],
    weights: *const i8,
    rows: *const i8,
    row_stride: usize,
    units: usize,
) -> *const i8 {
    let mut weights = weights;
    let [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]] = sums;
    let row = |r: usize| rows.wrapping_add(r.min(MR - 1) * row_stride);
    // SAFETY: the caller's bounds; writes no memory, and all registers are declared.
    unsafe {
        asm!(
            "ldp q8, q9, [{weights}]",
            "cbz {rounds}, 3f",
            "2:",
            rows!("ldp" 32, 0 "q0, q1", 1 "q2, q3", 2 "q4, q5", 3 "q6, q7"),
            "subs {rounds}, {rounds}, 1",
            unit!(0 2 4 6),
            unit!(1 3 5 7),
            "b.ne 2b",
            "3:",
            "cbz {rest}, 4f",
            rows!("ldr" 16, 0 "q0", 1 "q2", 2 "q4", 3 "q6"),
            unit!(0 2 4 6),
            "4:",
            MR = const MR, EXACT = const EXACT,
            weights = inout(reg) weights,
            rounds = inout(reg) units / 2 => _, rest = in(reg) units % 2,
            row0 = inout(reg) row(0) => _, row1 = inout(reg) row(1) => _,
            row2 = inout(reg) row(2) => _, row3 = inout(reg) row(3) => _,
            inout("v16") *a0, inout("v17") *a1, inout("v18") *a2, inout("v19") *a3,
            inout("v20") *b0, inout("v21") *b1, inout("v22") *b2, inout("v23") *b3,
            inout("v24") *c0, inout("v25") *c1, inout("v26") *c2, inout("v27") *c3,
            inout("v28") *d0, inout("v29") *d1, inout("v30") *d2, inout("v31") *d3,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            options(readonly, nostack),
        );
    }
    weights
}
