//! The product as it is defined; every other kernel must give the same bits.

use super::pack::PackedGemm;
use super::{Act, requantize};

pub fn gemm(
    w: &PackedGemm,
    rows: &[Act],
    row_stride: usize,
    count: usize,
    out: &mut [Act],
    out_stride: usize,
) {
    for r in 0..count {
        let row = &rows[r * row_stride..r * row_stride + w.k];
        for (n, weights) in w.data.as_slice().chunks_exact(w.k).enumerate() {
            let sum: i32 = row.iter().zip(weights).map(|(&a, &b)| a as i32 * b as i32).sum();
            out[r * out_stride + n] = requantize(w.bias[n] + sum, w.multiplier[n], w.clamp);
        }
    }
}
