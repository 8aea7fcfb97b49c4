//! Depthwise convolution of any kernel size, stride and padding.
//!
//! The caller says where each tap's pixels lie (an indirection as in XNNPACK, Dukhan 2019,
//! arXiv:1907.02129), so padding is a pointer to a pixel of zeros, not a case in the
//! kernel.

use super::pack::PackedDepthwise;
use super::{Act, Isa, depthwise_scalar};

/// A run of output pixels, in one row or in two: tap `t` of pixel `i` of row `r` lies at
/// `taps[r · taps of the kernel + t] + i · step`.
///
/// The kernels read `channels` bytes from there, and write `channels` bytes to
/// `out + r · out_row + i · out_step`.
pub struct Run<'a> {
    /// One byte offset into `input` per tap.
    pub taps: &'a [usize],
    pub step: usize,
    pub count: usize,
    pub input: &'a [Act],
    pub out: &'a mut [Act],
    pub out_step: usize,
    /// 1 or 2: two rows of a sliding window read most of the same pixels.
    pub rows: usize,
    pub out_row: usize,
}

impl Run<'_> {
    /// One of the rows by itself.
    pub fn row(&mut self, r: usize) -> Run<'_> {
        let taps = self.taps.len() / self.rows;
        let out = &mut self.out[r * self.out_row..];
        Run { taps: &self.taps[r * taps..][..taps], out, rows: 1, out_row: 0, ..*self }
    }
}

/// Most taps of a kernel: 7×7 and some.
pub const MAX_TAPS: usize = 64;

/// Computes one run.
///
/// # Panics
/// Where a tap or an output pixel is out of bounds.
pub fn depthwise(w: &PackedDepthwise, mut run: Run) {
    if run.count == 0 {
        return;
    }
    assert!((1..=2).contains(&run.rows) && w.taps <= MAX_TAPS);
    assert_eq!(run.taps.len(), run.rows * w.taps);
    let last = (run.count - 1) * run.step + w.channels;
    assert!(run.taps.iter().all(|t| t + last <= run.input.len()), "tap out of bounds");
    let end = (run.rows - 1) * run.out_row + (run.count - 1) * run.out_step + w.channels;
    assert!(end <= run.out.len(), "output too short");
    #[cfg(target_arch = "x86_64")]
    if w.isa == Isa::Avx512Vnni {
        return super::x86::depthwise(w.isa, w, run);
    }
    for r in 0..run.rows {
        let run = run.row(r);
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::int8::aligned::Shelf;
    use crate::int8::pack::Requant;
    use crate::int8::{Clamp, load, store};
    use proptest::prelude::*;

    /// A problem for every kernel alike.
    struct Case {
        weights: Vec<i8>,
        taps: usize,
        channels: usize,
        /// Columns of the output, and rows: 1 or 2.
        count: usize,
        rows: usize,
        stride: usize,
        zero: i32,
        clamp: Clamp,
        input: Vec<Act>,
    }

    fn convolve(isa: Isa, case: &Case) -> Vec<i32> {
        let &Case { taps, channels, count, rows, stride, .. } = case;
        let bias: Vec<i32> = (0..channels).map(|c| c as i32 * 37 - 500).collect();
        let multiplier: Vec<f32> = (0..channels).map(|c| (c + 1) as f32 / 9e3).collect();
        let (bias, multiplier) = (&bias[..], &multiplier[..]);
        let q = Requant { input_zero: case.zero, bias, multiplier, clamp: case.clamp };
        let packed =
            PackedDepthwise::new(isa, &mut Shelf::default(), &case.weights, taps, channels, &q)
                .unwrap();
        // Of a 3×3 kernel, windows as they slide over a picture; else any order of taps.
        let line = 2 * count + 3;
        let at = |r: usize, t: usize| match taps {
            9 => ((r * stride + t / 3) * line + t % 3) * channels,
            _ => (taps - 1 - t + r) * channels,
        };
        let at: Vec<usize> = (0..rows * taps).map(|i| at(i / taps, i % taps)).collect();
        let (out_step, step) = (channels + 1, channels * stride);
        let out_row = count * out_step + 2;
        let mut out = vec![store(3); rows * out_row];
        let (taps, input) = (&at[..], &case.input[..]);
        depthwise(
            &packed,
            Run { taps, step, count, input, out: &mut out, out_step, rows, out_row },
        );
        out.into_iter().map(load).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn every_kernel_gives_the_bits_of_the_scalar_one(
            taps in prop_oneof![Just(9usize), Just(25), 1usize..50], channels in 1usize..150,
            count in 1usize..8, rows in 1usize..3, stride in 1usize..3,
            zero in prop_oneof![Just(0), Just(255), 0..=255], out_zero in 0..=255,
            data in proptest::collection::vec(prop_oneof![Just(0u8), Just(128), Just(255), any::<u8>()], 64),
        ) {
            let pick = |i: usize| data[(i * 31 + i / 64) % 64];
            let weights = (0..taps * channels).map(|i| pick(i * 7) as i8).collect();
            let pixels = (taps + 2 * count + 2).max((2 * count + 3) * 6);
            let input = (0..channels * pixels).map(|i| store(pick(i * 13) as i32)).collect();
            let clamp = Clamp::new(out_zero, 5, 250);
            let case = Case { weights, taps, channels, count, rows, stride, zero, clamp, input };
            let expected = convolve(Isa::Scalar, &case);
            for isa in Isa::available() {
                prop_assert_eq!(&convolve(isa, &case), &expected, "{}", isa);
            }
        }
    }
}
