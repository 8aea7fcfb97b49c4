//! `smmla` (Armv8.6: Cortex-A510, A710, X2, Neoverse V1): a 2×8 by 8×2 product, 32
//! multiply-accumulates an instruction.
//!
//! Tiles of up to 3 pairs of rows × 16 columns. A sum register (v8 on) holds two rows of two
//! columns; v0 to v2 hold a pair of rows each, eight of the inner dimension; v3 to v6 the
//! weights, two pairs, so that one is loaded while the other is used. An odd last row is
//! paired with itself and written once.
//!
//! Assembly, because the intrinsic is not stable (`stdarch_neon_i8mm`).

use super::requant::Requantizer;
use crate::int8::gemm::{Tile, even_tiles};
use crate::int8::pack::PackedGemm;
use std::arch::aarch64::*;
use std::arch::asm;

const MOST_PAIRS: usize = 3;
const COLUMNS: usize = 16;

/// # Safety
/// Needs `i8mm`, and every row and output of `tile` in bounds.
#[target_feature(enable = "neon,i8mm")]
pub unsafe fn gemm(w: &PackedGemm, tile: &Tile) {
    let pairs = tile.count.div_ceil(2);
    for panel in 0..w.n.div_ceil(COLUMNS) {
        for (pair, count) in even_tiles(pairs, MOST_PAIRS) {
            let (start, rows) = (pair * 2, (count * 2).min(tile.count - pair * 2));
            // SAFETY: `start + rows` is at most `tile.count`.
            unsafe {
                match count {
                    1 => kernel::<1>(w, panel, tile, start, rows),
                    2 => kernel::<2>(w, panel, tile, start, rows),
                    _ => kernel::<3>(w, panel, tile, start, rows),
                }
            }
        }
    }
}

/// `PAIRS` pairs of rows × 16 columns over the whole inner dimension.
#[target_feature(enable = "neon,i8mm")]
unsafe fn kernel<const PAIRS: usize>(
    w: &PackedGemm,
    panel: usize,
    tile: &Tile,
    start: usize,
    rows: usize,
) {
    // SAFETY: the caller's bounds; `pack` sized the weights, biases and multipliers of this
    // panel.
    unsafe {
        let mut weights = w.data.as_slice().as_ptr().add(panel * COLUMNS * w.k_units() * 8);
        let bias = w.bias.as_ptr().add(panel * COLUMNS);
        // Two columns' biases for the upper row and again for the lower one.
        let bias: [int32x4_t; 8] = std::array::from_fn(|c| {
            let two = vld1_s32(bias.add(c * 2));
            vcombine_s32(two, two)
        });
        let mut sums = [bias; MOST_PAIRS];
        for run in 0..w.runs {
            let row = |r: usize| {
                let r = r.min(rows - 1);
                tile.rows.add((start + r) * tile.row_stride + run * tile.run_stride)
            };
            let rows = [row(0), row(1), row(2), row(3), row(4), row(5)];
            weights = add_run::<PAIRS>(&mut sums, weights, rows, w.run_units);
        }
        let requantizer = Requantizer::new(w, panel * COLUMNS);
        let columns = w.n - panel * COLUMNS;
        for (p, s) in sums.iter().enumerate().take(PAIRS) {
            let out = tile.out.add((start + p * 2) * tile.out_stride + panel * COLUMNS);
            let upper = |a, b| vreinterpretq_s32_s64(vtrn1q_s64(wide(a), wide(b)));
            let lower = |a, b| vreinterpretq_s32_s64(vtrn2q_s64(wide(a), wide(b)));
            let sums = [upper(s[0], s[1]), upper(s[2], s[3]), upper(s[4], s[5]), upper(s[6], s[7])];
            requantizer.store(sums, out, columns);
            if p * 2 + 1 < rows {
                let out = out.add(tile.out_stride);
                let sums =
                    [lower(s[0], s[1]), lower(s[2], s[3]), lower(s[4], s[5]), lower(s[6], s[7])];
                requantizer.store(sums, out, columns);
            }
        }
    }
}

#[inline(always)]
fn wide(sums: int32x4_t) -> int64x2_t {
    // SAFETY: NEON is part of AArch64.
    unsafe { vreinterpretq_s64_s32(sums) }
}

/// The products of a pair of weight registers with every pair of rows.
macro_rules! pair {
    ($w0:literal $w1:literal, $($pair:literal: $sum0:literal $sum1:literal),*) => {
        concat!($(
            ".if {PAIRS} > ", $pair, "\n",
            "smmla v", $sum0, ".4s, v", $pair, ".16b, v", $w0, ".16b\n",
            "smmla v", $sum1, ".4s, v", $pair, ".16b, v", $w1, ".16b\n",
            ".endif\n",
        )*)
    };
}

/// The next eight bytes of every pair of rows, one above the other.
macro_rules! rows {
    ($($pair:literal: $upper:literal $lower:literal),*) => {
        concat!($(
            ".if {PAIRS} > ", $pair, "\n",
            "ldr d", $pair, ", [{row", $upper, "}], 8\n",
            "ld1 {{v", $pair, ".d}}[1], [{row", $lower, "}], 8\n",
            ".endif\n",
        )*)
    };
}

/// Adds `units` of the inner dimension. Returns where the weights go on.
///
/// # Safety
/// Needs `i8mm`; `units · 8` bytes at `PAIRS · 2` rows, 128 times `units` of weights and 32 more.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn add_run<const PAIRS: usize>(
    sums: &mut [[int32x4_t; 8]; MOST_PAIRS],
    weights: *const i8,
    rows: [*const i8; 6],
    units: usize,
) -> *const i8 {
    let mut weights = weights;
    let [
        [a0, a1, a2, a3, a4, a5, a6, a7],
        [b0, b1, b2, b3, b4, b5, b6, b7],
        [c0, c1, c2, c3, c4, c5, c6, c7],
    ] = sums;
    // SAFETY: the caller's bounds; writes no memory, and all registers are declared.
    unsafe {
        asm!(
            "ldp q3, q4, [{weights}]",
            "2:",
            rows!(0: 0 1, 1: 2 3, 2: 4 5),
            "subs {units}, {units}, 1",
            "ldp q5, q6, [{weights}, 32]",
            pair!(3 4, 0: 8 9, 1: 16 17, 2: 24 25),
            "ldp q3, q4, [{weights}, 64]",
            pair!(5 6, 0: 10 11, 1: 18 19, 2: 26 27),
            "ldp q5, q6, [{weights}, 96]",
            pair!(3 4, 0: 12 13, 1: 20 21, 2: 28 29),
            "ldp q3, q4, [{weights}, 128]!",
            pair!(5 6, 0: 14 15, 1: 22 23, 2: 30 31),
            "b.ne 2b",
            PAIRS = const PAIRS,
            weights = inout(reg) weights, units = inout(reg) units => _,
            row0 = inout(reg) rows[0] => _, row1 = inout(reg) rows[1] => _,
            row2 = inout(reg) rows[2] => _, row3 = inout(reg) rows[3] => _,
            row4 = inout(reg) rows[4] => _, row5 = inout(reg) rows[5] => _,
            inout("v8") *a0, inout("v9") *a1, inout("v10") *a2, inout("v11") *a3,
            inout("v12") *a4, inout("v13") *a5, inout("v14") *a6, inout("v15") *a7,
            inout("v16") *b0, inout("v17") *b1, inout("v18") *b2, inout("v19") *b3,
            inout("v20") *b4, inout("v21") *b5, inout("v22") *b6, inout("v23") *b7,
            inout("v24") *c0, inout("v25") *c1, inout("v26") *c2, inout("v27") *c3,
            inout("v28") *c4, inout("v29") *c5, inout("v30") *c6, inout("v31") *c7,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _,
            out("v5") _, out("v6") _,
            options(readonly, nostack),
        );
    }
    weights
}
