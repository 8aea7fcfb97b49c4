//! Depthwise convolution on NEON, 16 channels at a time.
//!
//! Two taps' products are added in 16 bits before they are widened: ±128 · ±127, twice,
//! fits. With a weight of −128 it may not, and every tap is widened by itself. The nine
//! weights of a 3×3 kernel stay in registers along the row.

use super::requant::{self, Requantizer};
use crate::int8::depthwise::Run;
use crate::int8::pack::PackedDepthwise;
use std::arch::aarch64::*;

/// # Safety
/// Every tap and output of `run` in bounds.
pub unsafe fn depthwise(w: &PackedDepthwise, mut run: Run) {
    let nine: Option<[usize; 9]> = run.taps.try_into().ok().filter(|_| !w.has_min);
    for c in (0..w.channels).step_by(16) {
        let channels = (w.channels - c).min(16);
        // SAFETY: the caller's bounds; a short last block goes through a buffer.
        unsafe {
            match (nine, channels, w.has_min) {
                (Some(taps), 16, _) => three_by_three(w, &mut run, taps, c),
                (_, 16, false) => block::<true, false>(w, &mut run, c, 16),
                (_, 16, true) => block::<true, true>(w, &mut run, c, 16),
                (_, _, false) => block::<false, false>(w, &mut run, c, channels),
                (_, _, true) => block::<false, true>(w, &mut run, c, channels),
            }
        }
    }
}

/// Whole blocks of nine taps, no weight −128.
unsafe fn three_by_three(w: &PackedDepthwise, run: &mut Run, taps: [usize; 9], c: usize) {
    // SAFETY: the caller's bounds; `pack` pads weights, biases and multipliers to whole
    // blocks.
    unsafe {
        let weights = w.data.as_slice().as_ptr().add(c * 9);
        let weights: [int8x16_t; 9] = std::array::from_fn(|t| vld1q_s8(weights.add(t * 16)));
        let bias = bias(w, c);
        let requantizer = Requantizer::depthwise(w, c);
        let taps = taps.map(|t| run.input.as_ptr().add(c + t));
        let mut out = run.out.as_mut_ptr().add(c);
        let mut at = 0;
        for _ in 0..run.count {
            let mut sums = bias;
            for t in [0, 2, 4, 6] {
                let x = [vld1q_s8(taps[t].add(at)), vld1q_s8(taps[t + 1].add(at))];
                add(&mut sums, two(x, [weights[t], weights[t + 1]]));
            }
            add(&mut sums, one(vld1q_s8(taps[8].add(at)), weights[8]));
            vst1q_s8(out, requantizer.apply(sums));
            at += run.step;
            out = out.wrapping_add(run.out_step);
        }
    }
}

#[inline(always)]
unsafe fn bias(w: &PackedDepthwise, c: usize) -> [int32x4_t; 4] {
    // SAFETY: `pack` pads biases to whole blocks.
    [0, 4, 8, 12].map(|at| unsafe { vld1q_s32(w.bias.as_ptr().add(c + at)) })
}

/// Sixteen products in 16 bits.
#[inline(always)]
fn one(x: int8x16_t, w: int8x16_t) -> [int16x8_t; 2] {
    // SAFETY: NEON is part of AArch64.
    unsafe { [vmull_s8(vget_low_s8(x), vget_low_s8(w)), vmull_high_s8(x, w)] }
}

/// The sums of two taps' products; no weight is −128.
#[inline(always)]
fn two(x: [int8x16_t; 2], w: [int8x16_t; 2]) -> [int16x8_t; 2] {
    let [low, high] = one(x[0], w[0]);
    // SAFETY: NEON is part of AArch64.
    unsafe {
        [vmlal_s8(low, vget_low_s8(x[1]), vget_low_s8(w[1])), vmlal_high_s8(high, x[1], w[1])]
    }
}

#[inline(always)]
fn add(sums: &mut [int32x4_t; 4], [low, high]: [int16x8_t; 2]) {
    // SAFETY: NEON is part of AArch64.
    unsafe {
        sums[0] = vaddw_s16(sums[0], vget_low_s16(low));
        sums[1] = vaddw_high_s16(sums[1], low);
        sums[2] = vaddw_s16(sums[2], vget_low_s16(high));
        sums[3] = vaddw_high_s16(sums[3], high);
    }
}

/// Any number of taps, any weights, any number of channels up to 16.
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
        let requantizer = Requantizer::depthwise(w, c);
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
            let tap = |t: usize| (load(input.add(run.taps[t])), vld1q_s8(weights.add(t * 16)));
            let mut sums = bias(w, c);
            let paired = if EXACT { 0 } else { w.taps & !1 };
            for t in (0..paired).step_by(2) {
                let ((x0, w0), (x1, w1)) = (tap(t), tap(t + 1));
                add(&mut sums, two([x0, x1], [w0, w1]));
            }
            for t in paired..w.taps {
                let (x, w) = tap(t);
                add(&mut sums, one(x, w));
            }
            let out = run.out.as_mut_ptr().add(i * run.out_step + c);
            requant::store(out, requantizer.apply(sums), channels);
        }
    }
}
