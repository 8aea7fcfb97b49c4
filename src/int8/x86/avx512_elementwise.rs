//! AVX-512: residual addition and change of scale, 64 values at a time. The scalar twins
//! are the loops in `elementwise`.

use crate::int8::Clamp;
use crate::int8::elementwise::{Rescale, Term};
use std::arch::x86_64::*;

/// # Safety
/// Needs the target features; `a` and `b` are as long as `out`, and sums stay below 2³¹.
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn add(a: &[u8], ta: Term, b: &[u8], tb: Term, clamp: Clamp, out: &mut [u8]) {
    let (ta, tb, finish) = (Real::new(ta), Real::new(tb), Finish::new(clamp));
    for at in (0..out.len()).step_by(64) {
        let keep = u64::MAX >> (64 - (out.len() - at).min(64));
        // SAFETY: the mask keeps loads and stores within the slices.
        unsafe {
            let a = ta.of(_mm512_maskz_loadu_epi8(keep, a.as_ptr().add(at).cast()));
            let b = tb.of(_mm512_maskz_loadu_epi8(keep, b.as_ptr().add(at).cast()));
            let sums = [0, 1, 2, 3].map(|i| _mm512_add_ps(a[i], b[i]));
            _mm512_mask_storeu_epi8(out.as_mut_ptr().add(at).cast(), keep, finish.bytes(sums));
        }
    }
}

/// # Safety
/// Needs the target features; `x` is as long as `out`, and results stay below 2³¹.
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn rescale(x: &[u8], by: Rescale, out: &mut [u8]) {
    let (term, finish) = (Real::new(by.term), Finish::new(by.clamp));
    for at in (0..out.len()).step_by(64) {
        let keep = u64::MAX >> (64 - (out.len() - at).min(64));
        // SAFETY: as above.
        unsafe {
            let x = term.of(_mm512_maskz_loadu_epi8(keep, x.as_ptr().add(at).cast()));
            _mm512_mask_storeu_epi8(out.as_mut_ptr().add(at).cast(), keep, finish.bytes(x));
        }
    }
}

/// 2²³: the exponent from which on a float's last bit counts ones.
const ONES: f32 = 8_388_608.0;

/// A [`Term`] in registers.
struct Real {
    zero: __m512,
    ratio: __m512,
}

impl Real {
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn new(term: Term) -> Self {
        let zero = _mm512_set1_ps(ONES + term.zero_point as f32);
        Self { zero, ratio: _mm512_set1_ps(term.ratio) }
    }

    /// `(x − zero_point) · ratio` of 64 bytes, in the order in which packing puts them back.
    /// A byte below the exponent of 2²³ is the float 2²³ + x, and its difference to
    /// 2²³ + zero_point is exact: two instructions instead of three.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn of(&self, x: __m512i) -> [__m512; 4] {
        let nothing = _mm512_setzero_si512();
        let exponent = _mm512_set1_epi16((ONES.to_bits() >> 16) as i16);
        let halves = [_mm512_unpacklo_epi8(x, nothing), _mm512_unpackhi_epi8(x, nothing)];
        let real =
            |bits| _mm512_mul_ps(_mm512_sub_ps(_mm512_castsi512_ps(bits), self.zero), self.ratio);
        [
            real(_mm512_unpacklo_epi16(halves[0], exponent)),
            real(_mm512_unpackhi_epi16(halves[0], exponent)),
            real(_mm512_unpacklo_epi16(halves[1], exponent)),
            real(_mm512_unpackhi_epi16(halves[1], exponent)),
        ]
    }
}

/// A [`Clamp`] in registers.
struct Finish {
    zero_point: __m512i,
    low: __m512i,
    high: __m512i,
}

impl Finish {
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn new(clamp: Clamp) -> Self {
        Self {
            zero_point: _mm512_set1_epi16(clamp.zero_point as i16),
            low: _mm512_set1_epi8(clamp.low as i8),
            high: _mm512_set1_epi8(clamp.high as i8),
        }
    }

    /// Rounded to even, shifted, clamped.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn bytes(&self, x: [__m512; 4]) -> __m512i {
        let half = |a, b| {
            let q = _mm512_packs_epi32(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
            _mm512_adds_epi16(q, self.zero_point)
        };
        let bytes = _mm512_packus_epi16(half(x[0], x[1]), half(x[2], x[3]));
        _mm512_min_epu8(_mm512_max_epu8(bytes, self.low), self.high)
    }
}
