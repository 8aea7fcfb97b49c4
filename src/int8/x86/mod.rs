//! x86-64 kernels.
#![allow(unsafe_code)]

mod avx2;
mod avx512;
pub(super) mod avx512_elementwise;
mod avxvnni;

use super::Isa;
use super::depthwise::Run;
use super::gemm::Tile;
use super::pack::{PackedDepthwise, PackedGemm};

pub(super) fn gemm(isa: Isa, w: &PackedGemm, tile: &Tile) {
    // SAFETY: weights are packed only for instruction sets from `Isa::available`, and
    // `gemm::gemm` has checked that every row and output lies within its slice.
    unsafe {
        match isa {
            Isa::Avx512Vnni => avx512::gemm(w, tile),
            Isa::AvxVnni => avxvnni::gemm(w, tile),
            _ => avx2::gemm(w, tile),
        }
    }
}

pub(super) fn depthwise(isa: Isa, w: &PackedDepthwise, run: Run) {
    // SAFETY: as above; `depthwise::depthwise` has checked every tap and output.
    unsafe {
        match isa {
            Isa::Avx512Vnni => avx512::depthwise(w, run),
            _ => avx2::depthwise(w, run),
        }
    }
}
