//! Matrix product with requantization: the pointwise convolution, and any other
//! convolution once its windows are gathered into rows.

use super::pack::PackedGemm;
use super::{Act, Isa, gemm_scalar};

/// `out[r, ..n] = requantize(bias + rows[r, ..k] · weights)` for `count` rows.
///
/// `rows` is read at `r · row_stride .. + k_padded()`: what lies beyond `k` meets zero
/// weights. `out` is written at `r · out_stride .. + n`.
///
/// # Panics
/// Where a row would be read or written out of bounds.
pub fn gemm(
    w: &PackedGemm,
    rows: &[Act],
    row_stride: usize,
    count: usize,
    out: &mut [Act],
    out_stride: usize,
) {
    if count == 0 {
        return;
    }
    assert!((count - 1) * row_stride + w.k_padded() <= rows.len(), "rows too short");
    assert!((count - 1) * out_stride + w.n <= out.len(), "output too short");
    let tile = Tile { rows: rows.as_ptr(), row_stride, count, out: out.as_mut_ptr(), out_stride };
    match w.isa {
        Isa::Scalar => gemm_scalar::gemm(w, rows, row_stride, count, out, out_stride),
        #[cfg(target_arch = "x86_64")]
        isa => super::x86::gemm(isa, w, &tile),
        #[cfg(target_arch = "aarch64")]
        isa => super::aarch64::gemm(isa, w, &tile),
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        isa => unreachable!("{isa} is not detected here"),
    }
}

/// The operands of [`gemm`] as the kernels take them, bounds checked.
#[derive(Clone, Copy)]
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]
pub(super) struct Tile {
    pub rows: *const Act,
    pub row_stride: usize,
    pub count: usize,
    pub out: *mut Act,
    pub out_stride: usize,
}

/// Splits `count` rows into tiles of at most `most`, as even as can be: a last tile of one
/// row would cost almost as much as a full one.
pub(super) fn even_tiles(count: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = count.div_ceil(most);
    (0..tiles).map(move |t| {
        let start = t * count / tiles;
        (start, (t + 1) * count / tiles - start)
    })
}
