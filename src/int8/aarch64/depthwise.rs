//! Depthwise convolution on NEON, 16 channels at a time.
//!
//! Two taps' products are added in 16 bits before they are widened: ±128 · ±127, twice,
//! fits. With a weight of −128 it may not, and every tap is widened by itself.

use super::requant;
use crate::int8::depthwise::Run;
use crate::int8::pack::PackedDepthwise;
use std::arch::aarch64::*;

/// # Safety
/// Every tap and output of `run` in bounds.
pub unsafe fn depthwise(w: &PackedDepthwise, mut run: Run) {
    for c in (0..w.channels).step_by(16) {
        let channels = (w.channels - c).min(16);
        // SAFETY: the caller's bounds; a short last block goes through a buffer.
        unsafe {
            match (channels, w.has_min) {
                (16, false) => block::<true, false>(w, &mut run, c, 16),
                (16, true) => block::<true, true>(w, &mut run, c, 16),
                (_, false) => block::<false, false>(w, &mut run, c, channels),
                (_, true) => block::<false, true>(w, &mut run, c, channels),
            }
        }
    }
}

#[inline(always)]
unsafe fn block<const WHOLE: bool, const EXACT: bool>(
    w: &PackedDepthwise,
    run: &mut Run,
    c: usize,
    channels: usize,
) {
    // SAFETY: `channels` bytes may be read at every tap; `pack` pads weights, biases and
    // multipliers to whole blocks.
    unsafe {
        let weights = w.data.as_slice().as_ptr().add(c * w.taps);
        let bias = w.bias.as_ptr().add(c);
        let multiplier = w.multiplier.as_ptr().add(c);
        let load = |at: *const i8| {
            if WHOLE {
                return vld1q_s8(at);
            }
            let mut all = [0i8; 16];
            all.as_mut_ptr().copy_from_nonoverlapping(at, channels);
            vld1q_s8(all.as_ptr())
        };
        for i in 0..run.count {
            let input = run.input.as_ptr().add(i * run.step + c);
            let mut acc = [vdupq_n_s32(0); 4];
            for (j, acc) in acc.iter_mut().enumerate() {
                *acc = vld1q_s32(bias.add(j * 4));
            }
            let mut t = 0;
            while t < w.taps {
                let (x, y) = (load(input.add(run.taps[t])), vld1q_s8(weights.add(t * 16)));
                let mut low = vmull_s8(vget_low_s8(x), vget_low_s8(y));
                let mut high = vmull_high_s8(x, y);
                t += 1;
                if !EXACT && t < w.taps {
                    let (x, y) = (load(input.add(run.taps[t])), vld1q_s8(weights.add(t * 16)));
                    low = vmlal_s8(low, vget_low_s8(x), vget_low_s8(y));
                    high = vmlal_high_s8(high, x, y);
                    t += 1;
                }
                acc[0] = vaddw_s16(acc[0], vget_low_s16(low));
                acc[1] = vaddw_high_s16(acc[1], low);
                acc[2] = vaddw_s16(acc[2], vget_low_s16(high));
                acc[3] = vaddw_high_s16(acc[3], high);
            }
            let out = run.out.as_mut_ptr().add(i * run.out_step + c);
            let low = requant::eight([acc[0], acc[1]], multiplier, w.clamp);
            let high = requant::eight([acc[2], acc[3]], multiplier.add(8), w.clamp);
            requant::store(out, low, channels);
            if channels > 8 {
                requant::store(out.add(8), high, channels - 8);
            }
        }
    }
}
