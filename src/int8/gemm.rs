//! Matrix product with requantization: the pointwise convolution, and any other
//! convolution once its windows are gathered into rows.

use super::pack::PackedGemm;
use super::{Act, Isa, gemm_scalar};

/// The left operand: row `r`'s run `i` starts at `rows[r · row_stride + i · run_stride]`.
///
/// Kernels read [`PackedGemm::run_bytes`] from there; what lies beyond the run meets zero
/// weights.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub rows: &'a [Act],
    pub row_stride: usize,
    pub run_stride: usize,
    pub count: usize,
}

/// `out[r, ..n] = requantize(bias + rows[r, ..] · weights)` for every row; `out` is written
/// at `r · out_stride .. + n`.
///
/// # Panics
/// Where a row would be read or written out of bounds.
pub fn gemm(w: &PackedGemm, left: Rows, out: &mut [Act], out_stride: usize) {
    let Rows { rows, row_stride, run_stride, count } = left;
    if count == 0 {
        return;
    }
    let last = (count - 1) * row_stride + (w.runs - 1) * run_stride;
    assert!(last + w.run_bytes() <= rows.len(), "rows too short");
    assert!((count - 1) * out_stride + w.n <= out.len(), "output too short");
    let tile = Tile {
        rows: rows.as_ptr(),
        row_stride,
        run_stride,
        count,
        out: out.as_mut_ptr(),
        out_stride,
    };
    match w.isa {
        Isa::Scalar => gemm_scalar::gemm(w, left, out, out_stride),
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
    pub run_stride: usize,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::int8::aligned::Shelf;
    use crate::int8::pack::Requant;
    use crate::int8::{Clamp, Isa, load, store};
    use proptest::prelude::*;

    /// Small deterministic numbers from a seed, so that a failing shape can be repeated.
    fn noise(seed: u64, n: usize) -> impl Iterator<Item = u8> {
        let mut s = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..n).map(move |_| {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            (s >> 32) as u8
        })
    }

    fn product(
        isa: Isa,
        m: usize,
        [runs, run]: [usize; 2],
        n: usize,
        zero: i32,
        clamp: Clamp,
        seed: u64,
    ) -> Vec<i32> {
        // Extremes are as likely as anything: −128 · 0 and −128 · 255 among them.
        let corner = |b: u8, ends: [i32; 2]| match b % 5 {
            0 => ends[0],
            1 => ends[1],
            _ => ends[0] + b as i32,
        };
        let k = runs * run;
        let weights: Vec<i8> = noise(seed, n * k).map(|b| corner(b, [-128, 127]) as i8).collect();
        let stride = k + seed as usize % 3;
        // Runs may lie apart, or overlap as kernel rows at stride 1 do not but could.
        let run_stride = run + seed as usize % 5;
        let rows: Vec<Act> = noise(seed + 1, m * stride + runs * 5 + 64)
            .map(|b| store(corner(b, [0, 255])))
            .collect();
        let bias: Vec<i32> = noise(seed + 2, n).map(|b| (b as i32 - 128) * 300).collect();
        let multiplier: Vec<f32> =
            noise(seed + 3, n).map(|b| (b as f32 + 1.0) / (k as f32 * 4000.0)).collect();
        let q = Requant { input_zero: zero, bias: &bias, multiplier: &multiplier, clamp };
        let packed =
            PackedGemm::new(isa, &mut Shelf::default(), &weights, n, [runs, run], &q).unwrap();
        let mut out = vec![store(77); m * (n + 2) + 1];
        let left = Rows { rows: &rows, row_stride: stride, run_stride, count: m };
        gemm(&packed, left, &mut out, n + 2);
        out.into_iter().map(load).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn every_kernel_gives_the_bits_of_the_scalar_one(
            m in 1usize..40, runs in 1usize..4, run in 1usize..70, n in 1usize..70,
            zero in prop_oneof![Just(0), Just(255), 0..=255], out_zero in 0..=255,
            low in 0..=128, high in 129..=255, seed in 0u64..1 << 40,
        ) {
            let clamp = Clamp::new(out_zero, low, high);
            let expected = product(Isa::Scalar, m, [runs, run], n, zero, clamp, seed);
            for isa in Isa::available() {
                prop_assert_eq!(&product(isa, m, [runs, run], n, zero, clamp, seed), &expected, "{}", isa);
            }
        }
    }

    #[test]
    fn saturates_at_both_ends() {
        for isa in Isa::available() {
            for (weight, expected) in [(127, 255), (-128, 0)] {
                let q = Requant {
                    input_zero: 0,
                    bias: &[0; 33],
                    multiplier: &[1.0; 33],
                    clamp: Clamp::new(10, 0, 255),
                };
                let packed =
                    PackedGemm::new(isa, &mut Shelf::default(), &[weight; 33 * 5], 33, [1, 5], &q)
                        .unwrap();
                let mut out = vec![store(1); 33];
                let rows = [store(255); 80];
                let left = Rows { rows: &rows, row_stride: 5, run_stride: 0, count: 1 };
                gemm(&packed, left, &mut out, 33);
                assert!(out.iter().all(|&o| load(o) == expected), "{isa}: {out:?}");
            }
        }
    }

    #[test]
    fn tiles_are_even_and_cover_all_rows() {
        for count in 1..100 {
            for most in 1..15 {
                let tiles: Vec<_> = even_tiles(count, most).collect();
                assert_eq!(tiles.iter().map(|t| t.1).sum::<usize>(), count);
                assert!(tiles.windows(2).all(|w| w[0].0 + w[0].1 == w[1].0));
                let (least, largest) =
                    (tiles.iter().map(|t| t.1).min(), tiles.iter().map(|t| t.1).max());
                assert!(largest <= Some(most) && largest <= least.map(|l| l + 1));
            }
        }
    }
}
