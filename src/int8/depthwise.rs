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
