//! Operators that touch each value once: residual add, rescaling, pooling and the borders
//! between float and int8. Plain loops: the compiler vectorises them for each
//! instruction set (`vectorised!`). Where that is half as fast as can be, and the operator
//! shows in a pass's time, there is a kernel besides.
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
pub(super) fn round(x: f32) -> i32 {
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
    pub(super) zero_point: i32,
    pub(super) ratio: f32,
}

impl Term {
    pub fn new(input: Quant, output_scale: f32) -> Self {
        Self { zero_point: input.zero_point - ACT_OFFSET, ratio: input.scale / output_scale }
    }

    /// Whether results stay so far below 2³¹ that no kernel has to cut them.
    #[cfg(target_arch = "x86_64")]
    fn is_moderate(self) -> bool {
        self.ratio.abs() < 1e6
    }

    #[inline(always)]
    fn of(self, stored: Act) -> f32 {
        (stored as i32 - self.zero_point) as f32 * self.ratio
    }
}

/// From one scale and zero point into another, through a ReLU or Clip given by `clamp`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rescale {
    pub term: Term,
    pub clamp: Clamp,
}

impl Rescale {
    /// The byte that means 0.0 afterwards.
    pub fn zero(&self) -> Act {
        self.clamp.zero_point as Act
    }
}

/// Residual addition of two tensors of one shape.
pub fn add(isa: Isa, a: &[Act], ta: Term, b: &[Act], tb: Term, clamp: Clamp, out: &mut [Act]) {
    let (a, b) = (&a[..out.len()], &b[..out.len()]);
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512Vnni && ta.is_moderate() && tb.is_moderate() {
        // SAFETY: an `Isa` comes from `Isa::available`; the lengths are equal.
        return unsafe { super::x86::avx512_elementwise::add(a, ta, b, tb, clamp, out) };
    }
    add_plain(isa, a, ta, b, tb, clamp, out);
}

/// See [`Rescale`].
pub fn rescale(isa: Isa, x: &[Act], by: Rescale, out: &mut [Act]) {
    let x = &x[..out.len()];
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512Vnni && by.term.is_moderate() {
        // SAFETY: as above.
        return unsafe { super::x86::avx512_elementwise::rescale(x, by, out) };
    }
    rescale_plain(isa, x, by, out);
}

vectorised! {
    /// The definition of [`add`].
    pub fn add_plain(isa, a: &[Act], ta: Term, b: &[Act], tb: Term, clamp: Clamp, out: &mut [Act]) {
        for ((o, &x), &y) in out.iter_mut().zip(a).zip(b) {
            *o = finish(ta.of(x) + tb.of(y), clamp);
        }
    }
}

vectorised! {
    /// The definition of [`rescale`].
    pub fn rescale_plain(isa, x: &[Act], by: Rescale, out: &mut [Act]) {
        for (o, &x) in out.iter_mut().zip(x) {
            *o = finish(by.term.of(x), by.clamp);
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
    /// `out[i, ..c]` is the largest of `taps` pixels of `line[_, ..c]`, the first of them
    /// `i · step` bytes into it, each `apart` bytes after the one before.
    pub fn max_along(isa, line: &[Act], c: usize, step: usize, taps: usize, apart: usize, out: &mut [Act]) {
        for (i, out) in out.chunks_exact_mut(c).enumerate() {
            let window = &line[i * step..];
            out.copy_from_slice(&window[..c]);
            for t in 1..taps {
                for (o, &x) in out.iter_mut().zip(&window[t * apart..]) {
                    *o = (*o).max(x);
                }
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::int8::{load, store};
    use proptest::prelude::*;

    /// The definition, value by value, in the order in which ONNX has the operators.
    fn sum(a: Act, ta: Term, b: Act, tb: Term, clamp: Clamp) -> Act {
        let real = |x: Act, t: Term| (load(x) - ACT_OFFSET - t.zero_point) as f32 * t.ratio;
        let rounded = (real(a, ta) + real(b, tb)).round_ties_even();
        let q = rounded.clamp(-1e9, 1e9) as i32 + clamp.zero_point;
        q.clamp(clamp.low, clamp.high) as Act
    }

    fn ends() -> impl Strategy<Value = i32> {
        prop_oneof![Just(0), Just(255), 0..=255]
    }

    /// From what rounds to nothing to what saturates at once, past 2³¹ included.
    fn scales() -> impl Strategy<Value = f32> {
        prop_oneof![Just(1.0f32), Just(0.5), 1e-3f32..2.0, Just(1e-12), Just(3e7), Just(1e30)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn sums_and_rescalings_have_the_bits_of_their_definition(
            za in ends(), zb in ends(), zero in ends(), low in 0..=128, high in 129..=255,
            sa in scales(), sb in scales(),
            data in proptest::collection::vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 0..200),
        ) {
            let term = |scale, zero_point| Term::new(Quant { scale, zero_point }, 1.0);
            let (ta, tb, clamp) = (term(sa, za), term(sb, zb), Clamp::new(zero, low, high));
            let a: Vec<Act> = data.iter().map(|&x| store(x.into())).collect();
            let b: Vec<Act> = a.iter().rev().copied().collect();
            let expected: Vec<Act> =
                a.iter().zip(&b).map(|(&a, &b)| sum(a, ta, b, tb, clamp)).collect();
            let nothing = term(1.0, 0);
            let alone: Vec<Act> =
                a.iter().map(|&a| sum(a, ta, store(0), nothing, clamp)).collect();
            for isa in Isa::available() {
                let mut out = vec![store(9); a.len()];
                add(isa, &a, ta, &b, tb, clamp, &mut out);
                prop_assert_eq!(&out, &expected, "{}", isa);
                rescale(isa, &a, Rescale { term: ta, clamp }, &mut out);
                prop_assert_eq!(&out, &alone, "{}", isa);
            }
        }
    }

    #[test]
    fn what_is_no_number_becomes_the_least() {
        let quant = Quant { scale: 0.5, zero_point: 77 };
        let reals = [f32::NAN, -f32::NAN, f32::NEG_INFINITY, f32::INFINITY, 1.0];
        for isa in Isa::available() {
            let mut out = [store(9); 5];
            quantize(isa, &reals, quant, &mut out);
            assert_eq!(out.map(load), [0, 0, 0, 255, 79], "{isa}");
            assert_eq!(reals.map(|real| quant.quantize(real)), out, "{isa}");
        }
    }

    #[test]
    fn every_byte_with_every_zero_point() {
        let all: Vec<Act> = (0..=255).map(store).collect();
        for zero_point in 0..=255 {
            let term = Term::new(Quant { scale: 0.37, zero_point }, 0.5);
            let by = Rescale { term, clamp: Clamp::new(255 - zero_point, 0, 255) };
            for isa in Isa::available() {
                let mut out = vec![store(0); 256];
                rescale(isa, &all, by, &mut out);
                for (&x, &q) in all.iter().zip(&out) {
                    let real = (load(x) - zero_point) as f32 * (0.37f32 / 0.5);
                    let expected = (real.round_ties_even() as i32 + 255 - zero_point).clamp(0, 255);
                    assert_eq!(load(q), expected, "{isa}: {x} with {zero_point}");
                }
            }
        }
    }
}
