//! AVX-VNNI: `vpdpbusd` on 256-bit registers (client CPUs without AVX-512). Not tested on
//! hardware by us: neither the machines that we have nor QEMU execute it.

use super::avx2::{scale, to_bytes};
use crate::int8::gemm::{Tile, even_tiles};
use crate::int8::pack::PackedGemm;
use std::arch::x86_64::*;

/// # Safety
/// Needs AVX2 and AVX-VNNI, and every row and output of `tile` in bounds.
#[target_feature(enable = "avx2,avxvnni")]
pub unsafe fn gemm(w: &PackedGemm, tile: &Tile) {
    for panel in 0..w.n.div_ceil(16) {
        for (start, rows) in even_tiles(tile.count, 6) {
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

/// `MR` rows × 16 columns: 12 accumulators, 2 weights, 1 broadcast activation.
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn kernel<const MR: usize>(w: &PackedGemm, panel: usize, tile: &Tile, start: usize) {
    // SAFETY: the caller's bounds; `pack` sized the weights of this panel.
    unsafe {
        let a = tile.rows.add(start * tile.row_stride);
        let mut b = w.data.as_slice().as_ptr().add(panel * 16 * w.k_units() * 4);
        let bias = w.bias.as_ptr().add(panel * 16);
        let bias = [_mm256_loadu_si256(bias.cast()), _mm256_loadu_si256(bias.add(8).cast())];
        let mut acc = [bias; MR];
        for run in 0..w.runs {
            let a = a.add(run * tile.run_stride);
            for unit in 0..w.run_units {
                let w0 = _mm256_loadu_si256(b.cast());
                let w1 = _mm256_loadu_si256(b.add(32).cast());
                b = b.add(64);
                for (r, row) in acc.iter_mut().enumerate() {
                    let four = a.add(r * tile.row_stride + unit * 4).cast::<i32>().read_unaligned();
                    let x = _mm256_set1_epi32(four);
                    row[0] = _mm256_dpbusd_avx_epi32(row[0], x, w0);
                    row[1] = _mm256_dpbusd_avx_epi32(row[1], x, w1);
                }
            }
        }
        let multiplier = w.multiplier.as_ptr().add(panel * 16);
        let multiplier = [_mm256_loadu_ps(multiplier), _mm256_loadu_ps(multiplier.add(8))];
        let columns = (w.n - panel * 16).min(16);
        for (r, row) in acc.iter().enumerate() {
            let bytes =
                to_bytes(w.clamp, scale(row[0], multiplier[0]), scale(row[1], multiplier[1]));
            let out = tile.out.add((start + r) * tile.out_stride + panel * 16);
            if columns == 16 {
                _mm_storeu_si128(out.cast(), bytes);
            } else {
                let mut rest = [0u8; 16];
                _mm_storeu_si128(rest.as_mut_ptr().cast(), bytes);
                out.copy_from_nonoverlapping(rest.as_ptr(), columns);
            }
        }
    }
}
