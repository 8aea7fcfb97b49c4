//! Operators that touch each value once: residual add, rescaling, pooling and the borders
//! between float and int8. Plain loops: the compiler vectorises them for each
//! instruction set (`vectorised!`), and they stay far below the products' time.
#![allow(unsafe_code)]

use super::{ACT_OFFSET, Act, Clamp, Isa, Quant};

/// Compiles one loop for each x86-64 level that matters and picks at run time.
macro_rules! vectorised {
    ($(#[$doc:meta])* pub fn $name:ident(isa, $($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        pub fn $name(isa: Isa, $($arg: $ty),*) {
            #[inline(always)]
            fn body($($arg: $ty),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
                fn avx512($($arg: $ty),*) { body($($arg),*) }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) { body($($arg),*) }
                // SAFETY: an `Isa` comes from `Isa::available`.
                match isa {
                    Isa::Avx512Vnni => return unsafe { avx512($($arg),*) },
                    Isa::Avx2 | Isa::AvxVnni => return unsafe { avx2($($arg),*) },
                    _ => {}
                }
            }
            let _ = isa;
            body($($arg),*)
        }
    };
}

/// `round_ties_even(x)` as an integer; |x| is cut to 10⁹ and NaN becomes −10⁹.
// `clamp` would leave NaN a NaN.
#[allow(clippy::manual_clamp)]
#[inline(always)]
fn round(x: f32) -> i32 {
    // SAFETY: `max` and `min` leave a number within the range of i32.
    unsafe { x.max(-1e9).min(1e9).round_ties_even().to_int_unchecked() }
}

#[inline(always)]
fn finish(x: f32, clamp: Clamp) -> Act {
    (round(x) + clamp.zero_point).max(clamp.low).min(clamp.high) as Act
}

/// The input side of [`add`] and [`rescale`]: `(q − zero_point) · ratio`, where `ratio` is
/// the input's scale over the output's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    zero_point: i32,
    ratio: f32,
}

impl Term {
    pub fn new(input: Quant, output_scale: f32) -> Self {
        Self { zero_point: input.zero_point - ACT_OFFSET, ratio: input.scale / output_scale }
    }

    #[inline(always)]
    fn of(self, stored: Act) -> f32 {
        (stored as i32 - self.zero_point) as f32 * self.ratio
    }
}

vectorised! {
    /// Residual addition of two tensors of one shape.
    pub fn add(isa, a: &[Act], ta: Term, b: &[Act], tb: Term, clamp: Clamp, out: &mut [Act]) {
        for ((o, &x), &y) in out.iter_mut().zip(a).zip(b) {
            *o = finish(ta.of(x) + tb.of(y), clamp);
        }
    }
}

vectorised! {
    /// Into another scale and zero point, through a ReLU or Clip given by `clamp`.
    pub fn rescale(isa, x: &[Act], term: Term, clamp: Clamp, out: &mut [Act]) {
        for (o, &x) in out.iter_mut().zip(x) {
            *o = finish(term.of(x), clamp);
        }
    }
}

vectorised! {
    /// A ReLU or Clip within one scale and zero point.
    pub fn clip(isa, x: &[Act], low: Act, high: Act, out: &mut [Act]) {
        for (o, &x) in out.iter_mut().zip(x) {
            *o = x.max(low).min(high);
        }
    }
}

vectorised! {
    /// `out = max(out, x)`.
    pub fn max_into(isa, out: &mut [Act], x: &[Act]) {
        for (o, &x) in out.iter_mut().zip(x) {
            *o = (*o).max(x);
        }
    }
}

vectorised! {
    /// QuantizeLinear.
    pub fn quantize(isa, x: &[f32], quant: Quant, out: &mut [Act]) {
        let clamp = Clamp::new(quant.zero_point, 0, 255);
        for (o, &x) in out.iter_mut().zip(x) {
            *o = finish(x / quant.scale, clamp);
        }
    }
}

vectorised! {
    /// DequantizeLinear.
    pub fn dequantize(isa, x: &[Act], quant: Quant, out: &mut [f32]) {
        let zero_point = quant.zero_point - ACT_OFFSET;
        for (o, &x) in out.iter_mut().zip(x) {
            *o = (x as i32 - zero_point) as f32 * quant.scale;
        }
    }
}
