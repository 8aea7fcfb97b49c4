use super::*;
use std::time::{Instant, SystemTime};

fn layout(format: PixelFormat, width: u32, height: u32) -> FrameLayout {
    FrameLayout {
        format,
        width,
        height,
        stride_bytes: format.row_bytes(width),
        matrix: YuvMatrix::Bt601,
        range: YuvRange::Limited,
    }
}

fn frame(layout: FrameLayout, data: Vec<u8>) -> Frame {
    let (captured_at, captured_wall) = (Instant::now(), SystemTime::now());
    Frame { layout, data, sequence: 0, captured_at, captured_wall }
}

/// BT.601 and BT.709 as the recommendations state them, in f64. Luma below black is black.
fn reference([y, u, v]: [u8; 3], matrix: YuvMatrix, range: YuvRange) -> [u8; 3] {
    let (kr, kb) = match matrix {
        YuvMatrix::Bt601 => (0.299, 0.114),
        YuvMatrix::Bt709 => (0.2126, 0.0722),
    };
    let [y, u, v] = [y, u, v].map(f64::from);
    let (y, u, v) = match range {
        YuvRange::Limited => {
            ((y.max(16.0) - 16.0) / 219.0, (u - 128.0) / 224.0, (v - 128.0) / 224.0)
        }
        YuvRange::Full => (y / 255.0, (u - 128.0) / 255.0, (v - 128.0) / 255.0),
    };
    let r = y + 2.0 * (1.0 - kr) * v;
    let b = y + 2.0 * (1.0 - kb) * u;
    let g = (y - kr * r - kb * b) / (1.0 - kr - kb);
    [r, g, b].map(|c| (c * 255.0).round().clamp(0.0, 255.0) as u8)
}

/// Bytes of a picture whose 2 x 2 blocks have one colour each, in rows `padding` bytes longer
/// than need be.
fn encode(
    format: PixelFormat,
    width: usize,
    height: usize,
    yuv: impl Fn(usize, usize) -> [u8; 3],
    padding: usize,
) -> (FrameLayout, Vec<u8>) {
    let mut layout = layout(format, width as u32, height as u32);
    layout.stride_bytes += padding as u32;
    let stride = layout.stride_bytes as usize;
    let at = |x: usize, y: usize| yuv(x / 2 * 2, y / 2 * 2);
    let mut bytes = Vec::new();
    let mut row = |values: Vec<u8>, stride: usize| {
        let end = bytes.len() + stride;
        bytes.extend(values);
        bytes.resize(end, 0xaa);
    };
    let pairs = || (0..width).step_by(2);
    match format {
        PixelFormat::Yuyv | PixelFormat::Uyvy => {
            for y in 0..height {
                let packed = pairs().flat_map(|x| {
                    let [l, u, v] = at(x, y);
                    if format == PixelFormat::Yuyv { [l, u, l, v] } else { [u, l, v, l] }
                });
                row(packed.collect(), stride);
            }
        }
        _ => {
            for y in 0..height {
                row((0..width).map(|x| at(x, y)[0]).collect(), stride);
            }
            let rows = || (0..height).step_by(2);
            match format {
                PixelFormat::Nv12 => rows().for_each(|y| {
                    row(pairs().flat_map(|x| [at(x, y)[1], at(x, y)[2]]).collect(), stride);
                }),
                PixelFormat::Yu12 => [1, 2].into_iter().for_each(|c| {
                    rows().for_each(|y| row(pairs().map(|x| at(x, y)[c]).collect(), stride / 2));
                }),
                _ => {}
            }
        }
    }
    (layout, bytes)
}

#[test]
fn colours_are_exact_to_one_level_in_every_format_matrix_and_range() {
    use PixelFormat::{Grey, Nv12, Uyvy, Yu12, Yuyv};
    // Wide enough for every vector width, with all of Y and a spread of U and V.
    let (width, height) = (2 * 151, 2 * 37);
    let yuv =
        |x: usize, y: usize| [x * 255 / 300, y * 255 / 72, (x * 7 + y * 3) % 256].map(|v| v as u8);
    let mut decoder = Decoder::new();
    for format in [Yuyv, Uyvy, Nv12, Yu12, Grey] {
        for (matrix, range) in [
            (YuvMatrix::Bt601, YuvRange::Limited),
            (YuvMatrix::Bt601, YuvRange::Full),
            (YuvMatrix::Bt709, YuvRange::Limited),
            (YuvMatrix::Bt709, YuvRange::Full),
        ] {
            let (mut layout, bytes) = encode(format, width, height, yuv, 0);
            (layout.matrix, layout.range) = (matrix, range);
            let picture = decoder.decode(&frame(layout, bytes)).unwrap();
            for y in 0..height {
                for x in 0..width {
                    let [l, u, v] = yuv(x / 2 * 2, y / 2 * 2);
                    let coded = if format == Grey { [l, 128, 128] } else { [l, u, v] };
                    let (expected, got) = (reference(coded, matrix, range), picture.pixel(x, y));
                    let off = (0..3).map(|c| got[c].abs_diff(expected[c])).max();
                    assert!(
                        off <= Some(1),
                        "{format:?} {matrix:?} {range:?} {coded:?}: {got:?}, expected {expected:?}"
                    );
                }
            }
            decoder.recycle(picture);
        }
    }
}

#[test]
fn odd_sizes_and_padded_rows_show_the_same_picture() {
    let yuv = |x: usize, y: usize| [40 + 10 * x as u8, 90 + 8 * y as u8, 200];
    let mut decoder = Decoder::new();
    for format in [
        PixelFormat::Yuyv,
        PixelFormat::Uyvy,
        PixelFormat::Nv12,
        PixelFormat::Yu12,
        PixelFormat::Grey,
    ] {
        for (width, height) in [(1, 1), (2, 1), (1, 2), (5, 3), (6, 18), (7, 17)] {
            for padding in [0, 2, 64] {
                let (layout, bytes) = encode(format, width, height, yuv, padding);
                let least = layout.min_bytes() as usize;
                // The last row's padding may be missing; any byte less is an error.
                let cut = bytes[..least].to_vec();
                let picture = decoder.decode(&frame(layout, cut)).unwrap();
                for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
                    let [l, u, v] = yuv(x / 2 * 2, y / 2 * 2);
                    let coded = if format == PixelFormat::Grey { [l, 128, 128] } else { [l, u, v] };
                    let expected = reference(coded, layout.matrix, layout.range);
                    let off = (0..3).map(|c| picture.pixel(x, y)[c].abs_diff(expected[c])).max();
                    assert!(off <= Some(1), "{format:?} {width}x{height}+{padding} at {x}, {y}");
                }
                let short = decoder.decode(&frame(layout, bytes[..least - 1].to_vec()));
                assert!(matches!(short, Err(DecodeError::Short { .. })), "{format:?}");
            }
        }
    }
}

#[test]
fn rgb_is_copied_swapped_and_stretched() {
    let padded = vec![1, 2, 3, 4, 5, 6, 99, 16, 235, 20, 0, 255, 127];
    for (format, range, expected) in [
        (PixelFormat::Rgb3, YuvRange::Full, [1, 2, 3, 4, 5, 6, 16, 235, 20, 0, 255, 127]),
        (PixelFormat::Bgr3, YuvRange::Full, [3, 2, 1, 6, 5, 4, 20, 235, 16, 127, 255, 0]),
        (PixelFormat::Rgb3, YuvRange::Limited, [0, 0, 0, 0, 0, 0, 0, 255, 5, 0, 255, 129]),
    ] {
        let layout = FrameLayout { stride_bytes: 7, range, ..layout(format, 2, 2) };
        let picture = Decoder::new().decode(&frame(layout, padded.clone())).unwrap();
        assert_eq!(picture.rgb, expected, "{format:?} {range:?}");
    }
}

/// 48x32, one colour.
fn jpeg(rgb: [u8; 3]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, 95);
    encoder.encode(&rgb.repeat(48 * 32), 48, 32, jpeg_encoder::ColorType::Rgb).unwrap();
    bytes
}

/// Takes the Huffman tables out, as webcams do.
fn without_tables(jpeg: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (jpeg[..2].to_vec(), 2);
    while jpeg[at + 1] != 0xda {
        let end = at + 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        if jpeg[at + 1] != 0xc4 {
            out.extend(&jpeg[at..end]);
        }
        at = end;
    }
    out.extend(&jpeg[at..]);
    out
}

#[test]
fn jpeg_frames_decode_with_and_without_tables_and_with_padding() {
    let whole = jpeg([200, 60, 30]);
    let bare = without_tables(&whole);
    assert!(bare.len() + 300 < whole.len());
    let padded = [&whole[..], &[0; 4096]].concat();
    let mut decoder = Decoder::new();
    for (name, data) in [("whole", whole), ("without tables", bare), ("padded", padded)] {
        let picture = decoder.decode(&frame(layout(PixelFormat::Mjpg, 48, 32), data)).unwrap();
        assert_eq!((picture.width, picture.height), (48, 32), "{name}");
        for (x, y) in [(0, 0), (47, 31), (20, 10)] {
            let off = (0..3).map(|c| picture.pixel(x, y)[c].abs_diff([200, 60, 30][c])).max();
            assert!(off <= Some(3), "{name}: {:?}", picture.pixel(x, y));
        }
    }
}

#[test]
fn what_is_wrong_with_a_frame_is_said_with_its_numbers() {
    use PixelFormat::*;
    let whole = jpeg([1, 2, 3]);
    let in_scan = whole.len() - 10;
    let no_scan = [&whole[..2], &[0xff, 0xe0]].concat();
    let mut stride = layout(Yuyv, 640, 480);
    stride.stride_bytes = 640;
    // As found by fuzzing: one row needs 33 bytes, and would have been filled up to 4 GB.
    let mut endless = layout(Grey, 33, 1);
    endless.stride_bytes = 0xfaff_ff1f;
    let cases: Vec<(FrameLayout, Vec<u8>, &str)> = vec![
        (
            layout(Nv12, 640, 480),
            vec![0; 100],
            "640x480 NV12: short frame of 100 bytes, expected 460800",
        ),
        (layout(Yuyv, 640, 480), vec![], "640x480 YUYV: short frame of 0 bytes, expected 614400"),
        (stride, vec![0; 640 * 480], "640x480 YUYV: a stride of 640 bytes, expected 1280 to 49152"),
        (endless, vec![0; 33], "33x1 GREY: a stride of 4211080991 bytes, expected 33 to 49152"),
        (layout(Grey, 0, 480), vec![], "0x480 GREY: each side must be 1 to 8192 pixels"),
        (
            layout(Rgb3, u32::MAX, u32::MAX),
            vec![],
            "4294967295x4294967295 RGB3: each side must be 1 to 8192 pixels",
        ),
        (
            layout(Mjpg, 48, 32),
            vec![],
            "MJPG: corrupt frame of 0 bytes: it does not start with the marker SOI",
        ),
        (
            layout(Mjpg, 48, 32),
            no_scan,
            "MJPG: corrupt frame of 4 bytes: no scan: the headers end too early",
        ),
        (
            layout(Mjpg, 48, 32),
            whole[..in_scan].to_vec(),
            "MJPG: corrupt frame of LEN bytes: cut short: no marker EOI at its end",
        ),
        (layout(Mjpg, 640, 480), whole, "MJPG: the picture is 48x32, expected 640x480"),
    ];
    for (layout, data, expected) in cases {
        let expected = expected.replace("LEN", &data.len().to_string());
        let error = Decoder::new().decode(&frame(layout, data)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn damage_inside_a_jpeg_is_an_error_or_a_picture_and_never_a_panic() {
    let whole = jpeg([10, 200, 90]);
    let mut decoder = Decoder::new();
    for at in 0..whole.len() {
        for value in [0x00, 0xff, whole[at] ^ 0x10] {
            let mut data = whole.clone();
            data[at] = value;
            if let Ok(picture) = decoder.decode(&frame(layout(PixelFormat::Mjpg, 48, 32), data)) {
                assert_eq!(picture.rgb.len(), 48 * 32 * 3);
                decoder.recycle(picture);
            }
        }
    }
}

#[test]
fn a_steady_stream_reuses_its_buffers() {
    let mut decoder = Decoder::new();
    let (layout, data) = encode(PixelFormat::Yuyv, 64, 48, |_, _| [1, 2, 3], 0);
    let frame = frame(layout, data);
    let first = decoder.decode(&frame).unwrap();
    let address = first.rgb.as_ptr();
    decoder.recycle(first);
    assert_eq!(decoder.decode(&frame).unwrap().rgb.as_ptr(), address);
}

mod any_bytes {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_in_any_layout_are_a_picture_or_an_error(
            format in 0..8usize,
            width in 0..70u32,
            height in 0..70u32,
            stride in 0..300u32,
            data in proptest::collection::vec(any::<u8>(), 0..20_000),
        ) {
            let format = PixelFormat::ALL[format];
            let layout = FrameLayout { stride_bytes: stride, ..layout(format, width, height) };
            if let Ok(picture) = Decoder::new().decode(&frame(layout, data)) {
                prop_assert_eq!(picture.rgb.len(), (width * height * 3) as usize);
            }
        }
    }
}
