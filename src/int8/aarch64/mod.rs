//! AArch64 kernels. Activations are signed here (see [`super::Act`]).
#![allow(unsafe_code)]

mod depthwise;
mod dotprod;
mod i8mm;
mod neon;
mod requant;

use super::Isa;
use super::depthwise::Run;
use super::gemm::Tile;
use super::pack::{PackedDepthwise, PackedGemm};

pub(super) fn gemm(isa: Isa, w: &PackedGemm, tile: &Tile) {
    // SAFETY: weights are packed only for instruction sets from `Isa::available`, and
    // `gemm::gemm` has checked that every row and output lies within its slice.
    unsafe {
        match isa {
            Isa::NeonI8mm => i8mm::gemm(w, tile),
            Isa::NeonDot => dotprod::gemm(w, tile),
            _ => neon::gemm(w, tile),
        }
    }
}

pub(super) fn depthwise(w: &PackedDepthwise, run: Run) {
    // SAFETY: NEON is part of AArch64; `depthwise::depthwise` has checked every tap and
    // output.
    unsafe { depthwise::depthwise(w, run) }
}
