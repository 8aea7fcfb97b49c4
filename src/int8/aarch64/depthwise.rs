//! Depthwise convolution on NEON, 16 channels at a time.
//!
//! Two taps' products are added in 16 bits before they are widened: ±128 · ±127, twice,
//! fits. With a weight of −128 it may not, and every tap is widened by itself. The nine
//! weights of a 3×3 kernel stay in registers along the row.

use super::requant::{self, Requantizer};
use crate::int8::depthwise::Run;
use crate::int8::pack::PackedDepthwise;
use std::arch::aarch64::*;
use std::arch::asm;

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

/// Adds the 16-bit products in v8 and v9 to `$a` to `$d`; the sums are v0 to v3.
macro_rules! add_products {
    ($a:literal $b:literal $c:literal $d:literal) => {
        concat!(
            "saddw v0.4s, ",
            $a,
            ".4s, v8.4h\n",
            "saddw2 v1.4s, ",
            $b,
            ".4s, v8.8h\n",
            "saddw v2.4s, ",
            $c,
            ".4s, v9.4h\n",
            "saddw2 v3.4s, ",
            $d,
            ".4s, v9.8h\n",
        )
    };
}

/// The products of two taps, added in 16 bits, then to `$a` to `$d`.
macro_rules! two_taps {
    ($tap0:literal $w0:literal, $tap1:literal $w1:literal, $($sum:literal)*) => {
        concat!(
            "ldr q4, [", $tap0, ", {at}]\n",
            "ldr q5, [", $tap1, ", {at}]\n",
            "smull v8.8h, v4.8b, v", $w0, ".8b\n",
            "smull2 v9.8h, v4.16b, v", $w0, ".16b\n",
            "smlal v8.8h, v5.8b, v", $w1, ".8b\n",
            "smlal2 v9.8h, v5.16b, v", $w1, ".16b\n",
            add_products!($($sum)*),
        )
    };
}

/// Sixteen channels of every pixel of the run, nine taps, no weight −128.
///
/// Assembly, because the compiler will not keep `smull2` (it moves the weights' upper halves
/// down instead) and runs out of registers. v16 to v24 hold the weights, v25 to v28 the
/// biases, v29 to v31 and v15 the multipliers, v12 to v14 the bounds; sums grow in v0 to v3.
///
/// # Safety
/// As [`depthwise`]; channels `c..c + 16`.
unsafe fn three_by_three(w: &PackedDepthwise, run: &mut Run, taps: [usize; 9], c: usize) {
    // SAFETY: the caller's bounds; `pack` pads weights, biases and multipliers to whole
    // blocks. Every register that is used is declared.
    unsafe {
        let weights = w.data.as_slice().as_ptr().add(c * 9);
        let weights: [int8x16_t; 9] = std::array::from_fn(|t| vld1q_s8(weights.add(t * 16)));
        let bias = bias(w, c);
        let Requantizer { multiplier, bounds } = Requantizer::depthwise(w, c);
        let tap = taps.map(|t| run.input.as_ptr().add(c + t));
        asm!(
            "2:",
            two_taps!("{tap0}" 16, "{tap1}" 17, "v25" "v26" "v27" "v28"),
            two_taps!("{tap2}" 18, "{tap3}" 19, "v0" "v1" "v2" "v3"),
            two_taps!("{tap4}" 20, "{tap5}" 21, "v0" "v1" "v2" "v3"),
            two_taps!("{tap6}" 22, "{tap7}" 23, "v0" "v1" "v2" "v3"),
            "ldr q4, [{tap8}, {at}]",
            "add {at}, {at}, {step}",
            "subs {count}, {count}, 1",
            "smull v8.8h, v4.8b, v24.8b",
            "smull2 v9.8h, v4.16b, v24.16b",
            add_products!("v0" "v1" "v2" "v3"),
            // Requantizer::apply
            "scvtf v0.4s, v0.4s", "scvtf v1.4s, v1.4s",
            "scvtf v2.4s, v2.4s", "scvtf v3.4s, v3.4s",
            "fmul v0.4s, v0.4s, v29.4s", "fmul v1.4s, v1.4s, v30.4s",
            "fmul v2.4s, v2.4s, v31.4s", "fmul v3.4s, v3.4s, v15.4s",
            "fcvtns v0.4s, v0.4s", "fcvtns v1.4s, v1.4s",
            "fcvtns v2.4s, v2.4s", "fcvtns v3.4s, v3.4s",
            "sqxtn v0.4h, v0.4s", "sqxtn v2.4h, v2.4s",
            "sqxtn2 v0.8h, v1.4s", "sqxtn2 v2.8h, v3.4s",
            "sqadd v0.8h, v0.8h, v12.8h", "sqadd v2.8h, v2.8h, v12.8h",
            "sqxtn v0.8b, v0.8h",
            "sqxtn2 v0.16b, v2.8h",
            "smax v0.16b, v0.16b, v13.16b",
            "smin v0.16b, v0.16b, v14.16b",
            "st1 {{v0.16b}}, [{out}], {out_step}",
            "b.ne 2b",
            tap0 = in(reg) tap[0], tap1 = in(reg) tap[1], tap2 = in(reg) tap[2],
            tap3 = in(reg) tap[3], tap4 = in(reg) tap[4], tap5 = in(reg) tap[5],
            tap6 = in(reg) tap[6], tap7 = in(reg) tap[7], tap8 = in(reg) tap[8],
            at = inout(reg) 0usize => _, step = in(reg) run.step,
            count = inout(reg) run.count => _,
            out = inout(reg) run.out.as_mut_ptr().add(c) => _, out_step = in(reg) run.out_step,
            in("v16") weights[0], in("v17") weights[1], in("v18") weights[2],
            in("v19") weights[3], in("v20") weights[4], in("v21") weights[5],
            in("v22") weights[6], in("v23") weights[7], in("v24") weights[8],
            in("v25") bias[0], in("v26") bias[1], in("v27") bias[2], in("v28") bias[3],
            in("v29") multiplier[0], in("v30") multiplier[1], in("v31") multiplier[2],
            in("v15") multiplier[3],
            in("v12") bounds.zero_point, in("v13") bounds.low, in("v14") bounds.high,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            out("v4") _, out("v5") _, out("v8") _, out("v9") _,
            options(nostack),
        );
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
