use super::*;
use proptest::prelude::*;

/// The formula, one value at a time, as plainly as it can be written.
fn plain(image: &[f32], from: [usize; 2], channels: usize, to: [usize; 2]) -> Vec<f32> {
    let source = |i: usize, input: usize, output: usize| {
        let src = (i as f32 + 0.5) * (input as f32 / output as f32) - 0.5;
        let lo = (src.floor() as i64).max(0) as usize;
        let hi = (src.ceil() as i64).clamp(0, input as i64 - 1) as usize;
        (lo.min(input - 1), hi, src - src.floor())
    };
    let at = |y: usize, x: usize, c: usize| image[(y * from[1] + x) * channels + c];
    let mut out = Vec::new();
    for i in 0..to[0] {
        let (top, bottom, ty) = source(i, from[0], to[0]);
        for j in 0..to[1] {
            let (left, right, tx) = source(j, from[1], to[1]);
            for c in 0..channels {
                let upper = at(top, left, c) + (at(top, right, c) - at(top, left, c)) * tx;
                let lower = at(bottom, left, c) + (at(bottom, right, c) - at(bottom, left, c)) * tx;
                out.push(upper + (lower - upper) * ty);
            }
        }
    }
    out
}

fn scaling(colour: ColourOrder, layout: ChannelLayout) -> InputScaling {
    InputScaling { mean: [127.5, 100.0, 3.0], std: [127.5, 58.0, 1.0], colour, layout }
}

fn picture(height: usize, width: usize, seed: u64) -> Picture {
    let mut state = seed | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    Picture { width, height, rgb: (0..width * height * 3).map(|_| byte()).collect() }
}

/// Flip, resize, order, normalise: each on its own.
fn plain_view(base: &Picture, view: [usize; 2], hflip: bool, scaling: &InputScaling) -> Vec<f32> {
    let mut image: Vec<f32> = base.rgb.iter().map(|&v| f32::from(v)).collect();
    if hflip {
        for row in image.chunks_exact_mut(base.width * 3) {
            let mirrored: Vec<f32> = row.chunks_exact(3).rev().flatten().copied().collect();
            row.copy_from_slice(&mirrored);
        }
    }
    let resized = plain(&image, [base.height, base.width], 3, view);
    let value = |at: usize, c: usize| {
        let from = if scaling.colour == ColourOrder::Bgr { 2 - c } else { c };
        (resized[at * 3 + from] - scaling.mean[c]) / scaling.std[c]
    };
    let n = view[0] * view[1];
    match scaling.layout {
        ChannelLayout::Hwc => {
            (0..n).flat_map(|at| (0..3).map(move |c| (at, c))).map(|(at, c)| value(at, c)).collect()
        }
        ChannelLayout::Chw => {
            (0..3).flat_map(|c| (0..n).map(move |at| (at, c))).map(|(at, c)| value(at, c)).collect()
        }
    }
}

fn check_view(base: [usize; 2], view: [usize; 2]) {
    let picture = picture(base[0], base[1], 99);
    for colour in [ColourOrder::Rgb, ColourOrder::Bgr] {
        for layout in [ChannelLayout::Hwc, ChannelLayout::Chw] {
            for hflip in [false, true] {
                let scaling = scaling(colour, layout);
                let mut resizer = ViewResizer::new(base, view, hflip, &scaling).unwrap();
                let mut got = vec![f32::NAN; view[0] * view[1] * 3];
                // Twice: nothing is left over from a frame before.
                resizer.resize(&Picture::new(base[1], base[0]), &mut got).unwrap();
                resizer.resize(&picture, &mut got).unwrap();
                let expected = plain_view(&picture, view, hflip, &scaling);
                assert_eq!(got, expected, "{base:?} {view:?} {colour:?} {layout:?} {hflip}");
            }
        }
    }
}

#[test]
fn views_equal_the_plain_formula_to_the_bit() {
    for (base, view) in [
        ([7, 9], [3, 4]),
        ([7, 9], [7, 9]),
        ([7, 9], [10, 13]),
        ([7, 9], [14, 18]),
        ([1, 1], [5, 3]),
        ([5, 3], [1, 1]),
        ([4, 4], [4, 9]),
        ([4, 4], [9, 4]),
        ([299, 33], [149, 16]),
    ] {
        check_view(base, view);
    }
}

#[test]
fn tensorflow_numbers() {
    // tf.image.resize(x, size), by hand. Doubling [0, 100]: src = −0.25, 0.25, 0.75, 1.25.
    let check = |row: &[f32], to: usize, expected: &[f32]| {
        let mut out = vec![0.0; to];
        resize_map(row, [1, row.len()], 1, [1, to], &mut out).unwrap();
        assert_eq!(out, expected, "{row:?} to {to}");
        // Columns are treated as rows are.
        resize_map(row, [row.len(), 1], 1, [to, 1], &mut out).unwrap();
        assert_eq!(out, expected, "{row:?} to {to}, upright");
    };
    check(&[0.0, 100.0], 4, &[0.0, 25.0, 75.0, 100.0]);
    // Halving takes the mean of two neighbours and no more: no antialias.
    check(&[0.0, 10.0, 40.0, 80.0], 2, &[5.0, 60.0]);
    // A third: src = 1 and 4, whole numbers: the pixels themselves.
    check(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, &[2.0, 5.0]);
    // One and a half: src = −1/6, 0.5, 7/6.
    check(&[0.0, 60.0], 3, &[0.0, 30.0, 60.0]);
    check(&[5.0], 3, &[5.0, 5.0, 5.0]);
}

#[test]
fn sizes_are_truncated_as_f32_has_them() {
    for (scale, size, expected) in [
        (0.5, [299, 299], [149, 149]),
        (1.5, [299, 299], [448, 448]),
        (2.0, [299, 299], [598, 598]),
        (1.0, [7, 9], [7, 9]),
        // In f32 the product rounds to 10 exactly; in f64 it is above 10 by less than f32 sees.
        (0.1, [100, 30], [10, 3]),
        (0.7, [10, 20], [7, 14]),
        (1.1, [10, 10], [11, 11]),
        (0.01, [50, 50], [0, 0]),
    ] {
        assert_eq!(view_size(scale, size), expected, "{scale} of {size:?}");
    }
}

#[test]
fn wrong_sizes_are_errors() {
    let scaling = scaling(ColourOrder::Rgb, ChannelLayout::Hwc);
    let zero = ViewResizer::new([4, 4], [0, 4], false, &scaling).unwrap_err();
    assert_eq!(zero.to_string(), "a view of 0x4 from a picture of 4x4: no side may be zero");
    let mut resizer = ViewResizer::new([4, 4], [2, 2], false, &scaling).unwrap();
    let error = resizer.resize(&Picture::new(4, 3), &mut [0.0; 12]).unwrap_err();
    assert_eq!(error.to_string(), "the base picture has 36 values, expected 48");
    let error = resizer.resize(&Picture::new(4, 4), &mut [0.0; 11]).unwrap_err();
    assert_eq!(error.to_string(), "the view's input has 11 values, expected 12");
    let error = resize_map(&[0.0; 5], [2, 3], 1, [4, 4], &mut [0.0; 16]).unwrap_err();
    assert_eq!(error.to_string(), "the map has 5 values, expected 6");
}

#[test]
fn unflip_mirrors_and_undoes_itself() {
    let mut map: Vec<f32> = (0..12).map(|v| v as f32).collect();
    unflip(&mut map, 3, 2);
    assert_eq!(map, [4.0, 5.0, 2.0, 3.0, 0.0, 1.0, 10.0, 11.0, 8.0, 9.0, 6.0, 7.0]);
    unflip(&mut map, 3, 2);
    assert!(map.iter().enumerate().all(|(i, &v)| v == i as f32));
    unflip(&mut [], 0, 3);
    unflip(&mut [1.0], 1, 1);
}

proptest! {
    #[test]
    fn maps_equal_the_plain_formula_to_the_bit(
        from in [1..12usize, 1..12usize],
        to in [1..40usize, 1..40usize],
        channels in 1..4usize,
        seed in any::<u64>(),
    ) {
        let bytes = picture(from[0] * channels, from[1], seed).rgb;
        let map: Vec<f32> =
            bytes.iter().take(from[0] * from[1] * channels).map(|&v| f32::from(v) / 7.0 - 9.0).collect();
        let mut out = vec![0.0; to[0] * to[1] * channels];
        resize_map(&map, from, channels, to, &mut out).unwrap();
        prop_assert_eq!(out, plain(&map, from, channels, to));
    }

    #[test]
    fn any_view_equals_the_plain_formula(
        base in [1..20usize, 1..20usize],
        view in [1..40usize, 1..40usize],
    ) {
        check_view(base, view);
    }
}
