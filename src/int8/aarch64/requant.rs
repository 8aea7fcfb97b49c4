//! 32-bit sums to bytes: [`crate::int8::requantize`], 22 instructions for sixteen values.

use crate::int8::Clamp;
use crate::int8::pack::{PackedDepthwise, PackedGemm};
use std::arch::aarch64::*;

/// What sixteen neighbouring channels are requantized with, in registers.
#[derive(Clone, Copy)]
pub struct Requantizer {
    pub multiplier: [float32x4_t; 4],
    pub bounds: Bounds,
}

/// [`Clamp`] in registers.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub zero_point: int16x8_t,
    pub low: int8x16_t,
    pub high: int8x16_t,
}

impl Bounds {
    #[inline(always)]
    pub fn new(clamp: Clamp) -> Self {
        // SAFETY: NEON is part of AArch64.
        unsafe {
            Self {
                zero_point: vdupq_n_s16(clamp.zero_point as i16),
                low: vdupq_n_s8(clamp.low as i8),
                high: vdupq_n_s8(clamp.high as i8),
            }
        }
    }

    /// Sixteen rounded values, saturated to 16 bits, to bytes. 16 bits are enough: the zero
    /// point moves what was cut by 128 at most, far beyond any byte still.
    #[inline(always)]
    pub fn apply(self, low: int16x8_t, high: int16x8_t) -> int8x16_t {
        // SAFETY: NEON is part of AArch64.
        unsafe {
            let low = vqmovn_s16(vqaddq_s16(low, self.zero_point));
            let all = vqmovn_high_s16(low, vqaddq_s16(high, self.zero_point));
            vminq_s8(vmaxq_s8(all, self.low), self.high)
        }
    }
}

impl Requantizer {
    /// For the slots from `first` on.
    ///
    /// # Safety
    /// Sixteen slots from `first` on.
    #[inline(always)]
    pub unsafe fn new(w: &PackedGemm, first: usize) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::at(w.multiplier.as_ptr().add(first), w.clamp) }
    }

    /// As [`Requantizer::new`].
    ///
    /// # Safety
    /// Sixteen slots from `first` on.
    #[inline(always)]
    pub unsafe fn depthwise(w: &PackedDepthwise, first: usize) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::at(w.multiplier.as_ptr().add(first), w.clamp) }
    }

    /// Of the four slots from `first` on, four times.
    ///
    /// # Safety
    /// Four slots from `first` on.
    #[inline(always)]
    pub unsafe fn repeated(w: &PackedGemm, first: usize) -> Self {
        // SAFETY: the caller's.
        let four = unsafe { vld1q_f32(w.multiplier.as_ptr().add(first)) };
        Self { multiplier: [four; 4], bounds: Bounds::new(w.clamp) }
    }

    #[inline(always)]
    unsafe fn at(multiplier: *const f32, clamp: Clamp) -> Self {
        // SAFETY: the caller's.
        let multiplier = [0, 4, 8, 12].map(|at| unsafe { vld1q_f32(multiplier.add(at)) });
        Self { multiplier, bounds: Bounds::new(clamp) }
    }

    /// Sixteen sums, bias included, to bytes.
    #[inline(always)]
    pub fn apply(&self, sums: [int32x4_t; 4]) -> int8x16_t {
        let [a, b, c, d] = std::array::from_fn(|i| scale(sums[i], self.multiplier[i]));
        // SAFETY: NEON is part of AArch64.
        unsafe {
            let low = vqmovn_high_s32(vqmovn_s32(a), b);
            let high = vqmovn_high_s32(vqmovn_s32(c), d);
            self.bounds.apply(low, high)
        }
    }

    /// Writes sixteen sums as bytes, or the first `count` where these are fewer.
    ///
    /// # Safety
    /// As many bytes may be written at `out`.
    #[inline(always)]
    pub unsafe fn store(&self, sums: [int32x4_t; 4], out: *mut i8, count: usize) {
        // SAFETY: the caller's.
        unsafe { store(out, self.apply(sums), count) }
    }
}

/// `round_ties_even(f32(sum) · multiplier)`.
#[inline(always)]
pub fn scale(sum: int32x4_t, multiplier: float32x4_t) -> int32x4_t {
    // SAFETY: NEON is part of AArch64.
    unsafe { vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(sum), multiplier)) }
}

/// Writes the first `count` of sixteen bytes.
///
/// # Safety
/// `count`, sixteen at most, bytes may be written at `out`.
#[inline(always)]
pub unsafe fn store(out: *mut i8, bytes: int8x16_t, count: usize) {
    // SAFETY: the caller's.
    unsafe {
        if count >= 16 {
            return vst1q_s8(out, bytes);
        }
        let mut all = [0i8; 16];
        vst1q_s8(all.as_mut_ptr(), bytes);
        out.copy_from_nonoverlapping(all.as_ptr(), count);
    }
}

/// Writes `rows` rows of four bytes each, or of the first `count` where these are fewer.
///
/// # Safety
/// As many bytes may be written at `out` and at each multiple of `stride` from there.
#[inline(always)]
pub unsafe fn store_rows(out: *mut i8, stride: usize, bytes: int8x16_t, rows: usize, count: usize) {
    // SAFETY: the caller's.
    unsafe {
        let fours: [i32; 4] = std::mem::transmute(bytes);
        for (r, four) in fours.iter().enumerate().take(rows) {
            let out = out.add(r * stride);
            if count == 4 {
                out.cast::<i32>().write_unaligned(*four);
            } else {
                out.copy_from_nonoverlapping((four as *const i32).cast(), count);
            }
        }
    }
}
