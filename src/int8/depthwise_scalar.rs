//! Depthwise convolution as it is defined; every other kernel must give the same bits.

use super::depthwise::Run;
use super::pack::PackedDepthwise;
use super::requantize;

pub fn depthwise(w: &PackedDepthwise, run: Run) {
    for i in 0..run.count {
        let out = &mut run.out[i * run.out_step..][..w.channels];
        for (c, (o, weights)) in out.iter_mut().zip(w.data.as_slice().chunks(w.taps)).enumerate() {
            let taps = run.taps.iter().map(|t| run.input[t + i * run.step + c] as i32);
            let sum: i32 = taps.zip(weights).map(|(a, &b)| a * b as i32).sum();
            *o = requantize(w.bias[c] + sum, w.multiplier[c], w.clamp);
        }
    }
}
