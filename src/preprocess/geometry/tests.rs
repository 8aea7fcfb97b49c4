use super::*;
use proptest::prelude::*;

const FITS: [Fit; 3] = [Fit::Stretch, Fit::CenterCrop, Fit::Letterbox];

fn config(fit: Fit, crop: Option<[u32; 4]>, rotate: u32, mirror: bool) -> GeometryConfig {
    GeometryConfig { fit, crop, rotate, mirror }
}

fn geometry(fit: Fit, crop: Option<[u32; 4]>) -> Geometry {
    Geometry::new(&config(fit, crop, 0, false)).unwrap()
}

/// Every pixel tells where it is.
fn numbered(width: usize, height: usize) -> Picture {
    let pixel = |i: usize| [i % width, i / width, 7].map(|v| v as u8);
    Picture { width, height, rgb: (0..width * height).flat_map(pixel).collect() }
}

#[test]
fn upright_turns_clockwise_then_mirrors() {
    // Sizes beyond a tile, and slim ones.
    for (width, height) in [(3, 2), (1, 1), (1, 5), (70, 33), (40, 100)] {
        let picture = numbered(width, height);
        for rotate in [0, 90, 180, 270] {
            for mirror in [false, true] {
                let config = config(Fit::Stretch, None, rotate, mirror);
                let upright = Geometry::new(&config).unwrap().upright(picture.clone());
                let turned = if rotate % 180 == 0 { (width, height) } else { (height, width) };
                assert_eq!((upright.width, upright.height), turned);
                for y in 0..turned.1 {
                    for x in 0..turned.0 {
                        let unmirrored = if mirror { turned.0 - 1 - x } else { x };
                        let (from_x, from_y) = match rotate {
                            0 => (unmirrored, y),
                            90 => (y, height - 1 - unmirrored),
                            180 => (width - 1 - unmirrored, height - 1 - y),
                            _ => (width - 1 - y, unmirrored),
                        };
                        let expected = picture.pixel(from_x, from_y);
                        assert_eq!(upright.pixel(x, y), expected, "{rotate} {mirror} {x},{y}");
                    }
                }
            }
        }
    }
}

#[test]
fn placements() {
    let rect = |x, y, width, height| Rect { x, y, width, height };
    let full = Rect::full(299, 299);
    let crop = Some([100, 50, 200, 100]);
    for (fit, crop, picture, input, covers, content) in [
        (Fit::Stretch, None, [640, 480], [299, 299], rect(0, 0, 640, 480), full),
        (Fit::CenterCrop, None, [640, 480], [299, 299], rect(80, 0, 480, 480), full),
        (Fit::CenterCrop, None, [480, 640], [299, 299], rect(0, 80, 480, 480), full),
        (Fit::CenterCrop, None, [5, 4], [299, 299], rect(0, 0, 4, 4), full),
        (Fit::Letterbox, None, [640, 480], [299, 299], rect(0, 0, 640, 480), rect(0, 37, 299, 224)),
        (Fit::Letterbox, None, [480, 640], [299, 299], rect(0, 0, 480, 640), rect(37, 0, 224, 299)),
        (Fit::Stretch, crop, [640, 480], [299, 299], rect(100, 50, 200, 100), full),
        (Fit::CenterCrop, crop, [640, 480], [299, 299], rect(150, 50, 100, 100), full),
        (Fit::Letterbox, crop, [640, 480], [64, 128], rect(100, 50, 200, 100), rect(0, 0, 128, 64)),
        (Fit::Letterbox, None, [8192, 1], [10, 10], rect(0, 0, 8192, 1), rect(0, 4, 10, 1)),
        (Fit::CenterCrop, None, [8192, 1], [10, 10], rect(4095, 0, 1, 1), Rect::full(10, 10)),
        (Fit::CenterCrop, None, [1, 1], [3, 7], rect(0, 0, 1, 1), Rect::full(7, 3)),
    ] {
        let got = geometry(fit, crop).placement(picture, input).unwrap();
        let expected = Placement { picture, covers, content };
        assert_eq!(got, expected, "{fit:?} {crop:?} {picture:?} {input:?}");
    }
}

#[test]
fn a_bad_setting_is_named_with_its_range() {
    let check = |crop, expected: &str| {
        let error = geometry(Fit::Stretch, Some(crop)).placement([640, 480], [299, 299]);
        assert_eq!(error.unwrap_err().to_string(), expected);
    };
    let upright = "(the upright picture is 640x480)";
    check(
        [600, 0, 100, 480],
        &format!(
            "geometry.crop = [600, 0, 100, 480]: x + width is 700, allowed 100 to 640 {upright}"
        ),
    );
    check(
        [0, 470, 640, 11],
        &format!(
            "geometry.crop = [0, 470, 640, 11]: y + height is 481, allowed 11 to 480 {upright}"
        ),
    );
    check(
        [0, 0, 0, 480],
        &format!("geometry.crop = [0, 0, 0, 480]: width is 0, allowed 1 to 640 {upright}"),
    );
    check(
        [u32::MAX, 0, 1, 1],
        &format!(
            "geometry.crop = [4294967295, 0, 1, 1]: x + width is 4294967296, allowed 1 to 640 {upright}"
        ),
    );
    let turned = Geometry::new(&config(Fit::Stretch, None, 45, false)).unwrap_err();
    assert_eq!(
        turned.to_string(),
        "geometry.rotate = 45: not a quarter turn, allowed: 0, 90, 180, 270"
    );
    let empty = geometry(Fit::Stretch, None).placement([0, 480], [299, 299]).unwrap_err();
    assert_eq!(empty.to_string(), "a picture of 0x480 cannot fill a model input of 299x299");
}

#[test]
fn a_picture_of_the_models_size_is_not_touched() {
    let picture = numbered(20, 10);
    for fit in FITS {
        let mut geometry = geometry(fit, None);
        let (placement, base) = geometry.fit(&picture, [10, 20]).unwrap();
        assert!(std::ptr::eq(base, &picture), "{fit:?}");
        assert_eq!((placement.covers, placement.content), (Rect::full(20, 10), Rect::full(20, 10)));
    }
}

#[test]
fn padding_is_grey_and_content_is_exactly_the_picture() {
    let white = Picture { width: 64, height: 16, rgb: vec![255; 64 * 16 * 3] };
    let mut geometry = geometry(Fit::Letterbox, None);
    for input in [[32, 32], [64, 16], [32, 32], [9, 33]] {
        let (placement, base) = geometry.fit(&white, input).unwrap();
        assert_eq!([base.height, base.width], input);
        let Rect { x, y, width, height } = placement.content;
        for row in 0..base.height {
            for column in 0..base.width {
                let inside = (x..x + width).contains(&(column as u32))
                    && (y..y + height).contains(&(row as u32));
                let expected = if inside { 255 } else { PADDING };
                assert_eq!(base.pixel(column, row), [expected; 3], "{input:?} {column},{row}");
            }
        }
    }
}

#[test]
fn a_crop_without_resizing_is_copied_pixel_for_pixel() {
    let picture = numbered(40, 30);
    let mut geometry = geometry(Fit::Stretch, Some([5, 7, 16, 8]));
    let (_, base) = geometry.fit(&picture, [8, 16]).unwrap();
    for (x, y) in (0..8).flat_map(|y| (0..16).map(move |x| (x, y))) {
        assert_eq!(base.pixel(x, y), picture.pixel(x + 5, y + 7));
    }
}

#[test]
fn what_is_outside_of_the_crop_changes_nothing() {
    let crop @ [x, y, width, height] = [20, 10, 64, 48];
    let dark = numbered(120, 90);
    let mut framed = dark.clone();
    for (i, pixel) in framed.rgb.chunks_exact_mut(3).enumerate() {
        let (column, row) = (i as u32 % 120, i as u32 / 120);
        if !((x..x + width).contains(&column) && (y..y + height).contains(&row)) {
            pixel.fill(255);
        }
    }
    for fit in FITS {
        let mut geometry = geometry(fit, Some(crop));
        // Smaller, larger, and as it is along one side.
        for input in [[12, 16], [100, 150], [48, 10]] {
            let (_, base) = geometry.fit(&dark, input).unwrap();
            let expected = base.clone();
            assert_eq!(geometry.fit(&framed, input).unwrap().1, &expected, "{fit:?} {input:?}");
        }
    }
}

#[test]
fn shrinking_averages_so_that_texture_does_not_alias() {
    // Columns black and white in turn: without antialias some would win.
    let stripes: Vec<u8> = (0..256 * 64).flat_map(|i| [255 * (i % 2) as u8; 3]).collect();
    let picture = Picture { width: 256, height: 64, rgb: stripes };
    let mut geometry = geometry(Fit::Stretch, None);
    let (_, base) = geometry.fit(&picture, [16, 50]).unwrap();
    assert!(base.rgb.iter().all(|v| (100..=155).contains(v)));
}

proptest! {
    #[test]
    fn placements_hold_for_any_shape(
        fit in 0..3usize,
        width in 1..3000u32,
        height in 1..3000u32,
        slim in 0..3usize,
        crop in any::<Option<[u32; 4]>>(),
        input_width in 1..600usize,
        input_height in 1..600usize,
        point in [0.0..1.0, 0.0..1.0f64],
    ) {
        let [width, height] = [[width, height], [width, 1], [1, height]][slim];
        let crop = crop.map(|[x, y, w, h]| {
            let (x, y) = (x % width, y % height);
            [x, y, 1 + w % (width - x), 1 + h % (height - y)]
        });
        let input = [input_height, input_width];
        let placement = geometry(FITS[fit], crop).placement([width, height], input).unwrap();
        let Placement { covers, content, .. } = placement;
        let [x, y, w, h] = crop.unwrap_or([0, 0, width, height]);
        let inside = |r: Rect, x: u32, y: u32, w: u32, h: u32| {
            r.width > 0 && r.height > 0 && r.x >= x && r.y >= y
                && r.x + r.width <= x + w && r.y + r.height <= y + h
        };
        prop_assert!(inside(covers, x, y, w, h));
        prop_assert!(inside(content, 0, 0, input_width as u32, input_height as u32));
        let whole = Rect::full(input_width as u32, input_height as u32);
        match FITS[fit] {
            Fit::Stretch => prop_assert!(content == whole && [covers.width, covers.height] == [w, h]),
            Fit::CenterCrop => prop_assert!(content == whole && (covers.width == w || covers.height == h)),
            Fit::Letterbox => prop_assert!(
                [covers.width, covers.height] == [w, h]
                    && (content.width == whole.width || content.height == whole.height)
            ),
        }
        // Centred to the pixel.
        if FITS[fit] == Fit::Letterbox {
            prop_assert!((whole.width - content.width).abs_diff(2 * content.x) <= 1);
            prop_assert!((whole.height - content.height).abs_diff(2 * content.y) <= 1);
        }
        let there = input_to_picture(&placement, [point[0] * 600.0, point[1] * 600.0]);
        let back = picture_to_input(&placement, there);
        prop_assert!((back[0] - point[0] * 600.0).abs() < 1e-6 && (back[1] - point[1] * 600.0).abs() < 1e-6);
        let corner = |r: Rect| [f64::from(r.x), f64::from(r.y)];
        prop_assert_eq!(input_to_picture(&placement, corner(content)), corner(covers));
    }

    #[test]
    fn any_picture_fills_any_input(
        fit in 0..3usize,
        size in [1..80usize, 1..80usize],
        input in [1..80usize, 1..80usize],
        rotate in 0..4u32,
        mirror in any::<bool>(),
        level in any::<u8>(),
    ) {
        let config = config(FITS[fit], None, rotate * 90, mirror);
        let mut geometry = Geometry::new(&config).unwrap();
        let [width, height] = size;
        let flat = Picture { width, height, rgb: vec![level; width * height * 3] };
        let upright = geometry.upright(flat);
        let (placement, base) = geometry.fit(&upright, input).unwrap();
        prop_assert_eq!(base.rgb.len(), input[0] * input[1] * 3);
        // A flat picture stays flat wherever the content is.
        let Rect { x, y, .. } = placement.content;
        prop_assert_eq!(base.pixel(x as usize, y as usize), [level; 3]);
    }
}
