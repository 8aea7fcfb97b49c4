//! 32-bit sums to bytes, four and eight at a time: [`crate::int8::requantize`].

use crate::int8::Clamp;
use std::arch::aarch64::*;

/// `round_ties_even(f32(acc) · multiplier)`, saturated to 16 bits.
#[inline(always)]
unsafe fn scale(acc: int32x4_t, multiplier: float32x4_t) -> int16x4_t {
    // SAFETY: NEON is part of AArch64.
    unsafe { vqmovn_s32(vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(acc), multiplier))) }
}

/// Eight sums (bias included) to eight bytes.
///
/// # Safety
/// `multiplier` points at eight values.
#[inline(always)]
pub unsafe fn eight(acc: [int32x4_t; 2], multiplier: *const f32, clamp: Clamp) -> int8x8_t {
    // SAFETY: the caller's.
    unsafe {
        let lo = scale(acc[0], vld1q_f32(multiplier));
        let hi = scale(acc[1], vld1q_f32(multiplier.add(4)));
        let q = vqaddq_s16(vcombine_s16(lo, hi), vdupq_n_s16(clamp.zero_point as i16));
        let q = vmaxq_s16(q, vdupq_n_s16(clamp.low as i16));
        vmovn_s16(vminq_s16(q, vdupq_n_s16(clamp.high as i16)))
    }
}

/// Writes the first `count` of eight bytes.
///
/// # Safety
/// `count` bytes may be written at `out`.
#[inline(always)]
pub unsafe fn store(out: *mut i8, bytes: int8x8_t, count: usize) {
    // SAFETY: the caller's.
    unsafe {
        if count >= 8 {
            return vst1_s8(out, bytes);
        }
        let mut all = [0i8; 8];
        vst1_s8(all.as_mut_ptr(), bytes);
        out.copy_from_nonoverlapping(all.as_ptr(), count);
    }
}
