//! The product as it is defined; every other kernel must give the same bits.

use super::gemm::Rows;
use super::pack::PackedGemm;
use super::{Act, requantize};

pub fn gemm(w: &PackedGemm, left: Rows, out: &mut [Act], out_stride: usize) {
    for r in 0..left.count {
        for (n, weights) in w.data.as_slice().chunks_exact(w.runs * w.run).enumerate() {
            let mut sum = w.bias[n];
            for (i, weights) in weights.chunks_exact(w.run).enumerate() {
                let run = &left.rows[r * left.row_stride + i * left.run_stride..][..w.run];
                sum += run.iter().zip(weights).map(|(&a, &b)| a as i32 * b as i32).sum::<i32>();
            }
            out[r * out_stride + n] = requantize(sum, w.multiplier[n], w.clamp);
        }
    }
}
