//! Depthwise convolution of any kernel size, stride and padding.
//!
//! The caller says where each tap's pixels lie (an indirection as in XNNPACK, Dukhan 2019,
//! arXiv:1907.02129), so padding is a pointer to a pixel of zeros, not a case in the
//! kernel.

use super::pack::PackedDepthwise;
use super::{Act, Isa, depthwise_scalar};

/// A run of output pixels: tap `t` of pixel `i` lies at `taps[t] + i · step`.
///
/// The kernels read `channels` bytes from there, and write `channels` bytes to
/// `out + i · out_step`.
pub struct Run<'a> {
    /// One byte offset into `input` per tap.
    pub taps: &'a [usize],
    pub step: usize,
    pub count: usize,
    pub input: &'a [Act],
    pub out: &'a mut [Act],
    pub out_step: usize,
}

/// Most taps of a kernel: 7×7 and some.
pub const MAX_TAPS: usize = 64;

/// Computes one run.
///
/// # Panics
/// Where a tap or an output pixel is out of bounds.
pub fn depthwise(w: &PackedDepthwise, run: Run) {
    if run.count == 0 {
        return;
    }
    assert!(run.taps.len() == w.taps && w.taps <= MAX_TAPS, "{} taps", run.taps.len());
    let last = (run.count - 1) * run.step + w.channels;
    assert!(run.taps.iter().all(|t| t + last <= run.input.len()), "tap out of bounds");
    assert!((run.count - 1) * run.out_step + w.channels <= run.out.len(), "output too short");
    match w.isa {
        Isa::Scalar => depthwise_scalar::depthwise(w, run),
        #[cfg(target_arch = "x86_64")]
        isa => super::x86::depthwise(isa, w, run),
        #[cfg(target_arch = "aarch64")]
        _ => super::aarch64::depthwise(w, run),
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        isa => unreachable!("{isa} is not detected here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::int8::pack::Requant;
    use crate::int8::{Clamp, load, store};
    use proptest::prelude::*;

    #[allow(clippy::too_many_arguments)]
    fn convolve(
        isa: Isa,
        stride: usize,
        weights: &[i8],
        taps: usize,
        channels: usize,
        input: &[u8],
        count: usize,
        zero: i32,
        clamp: Clamp,
    ) -> Vec<i32> {
        let bias: Vec<i32> = (0..channels).map(|c| c as i32 * 37 - 500).collect();
        let multiplier: Vec<f32> = (0..channels).map(|c| (c + 1) as f32 / 9e3).collect();
        let q = Requant { input_zero: zero, bias: &bias, multiplier: &multiplier, clamp };
        let packed = PackedDepthwise::new(isa, weights, taps, channels, &q).unwrap();
        let input: Vec<Act> = input.iter().map(|&b| store(b as i32)).collect();
        let mut out = vec![store(3); count * (channels + 1)];
        // Of a 3×3 kernel, windows as they slide over a picture; else any order of taps.
        let (at, step): (Vec<usize>, usize) = match taps {
            9 => ((0..9).map(|t| (t / 3 * 7 + t % 3) * channels).collect(), channels * stride),
            _ => ((0..taps).map(|t| (taps - 1 - t) * channels).collect(), channels * stride),
        };
        let run =
            Run { taps: &at, step, count, input: &input, out: &mut out, out_step: channels + 1 };
        depthwise(&packed, run);
        out.into_iter().map(load).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn every_kernel_gives_the_bits_of_the_scalar_one(
            taps in prop_oneof![Just(9usize), Just(25), 1usize..50], channels in 1usize..150,
            count in 1usize..8, stride in 1usize..3, zero in prop_oneof![Just(0), Just(255), 0..=255],
            out_zero in 0..=255, data in proptest::collection::vec(prop_oneof![Just(0u8), Just(128), Just(255), any::<u8>()], 64),
        ) {
            let pick = |i: usize| data[(i * 31 + i / 64) % 64];
            let weights: Vec<i8> = (0..taps * channels).map(|i| pick(i * 7) as i8).collect();
            let input: Vec<u8> = (0..channels * (taps.max(17) + 2 * count)).map(|i| pick(i * 13)).collect();
            let clamp = Clamp::new(out_zero, 5, 250);
            let expected = convolve(Isa::Scalar, stride, &weights, taps, channels, &input, count, zero, clamp);
            for isa in Isa::available() {
                let got = convolve(isa, stride, &weights, taps, channels, &input, count, zero, clamp);
                prop_assert_eq!(&got, &expected, "{}", isa);
            }
        }
    }
}
