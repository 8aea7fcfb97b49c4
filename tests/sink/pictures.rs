//! What is drawn: pixels where they can be reckoned, and pictures that were looked at.

use crate::material::{class, heatmap, picture, spot};
use salientd::config::{Colormap, OverlayConfig, ThresholdKind, Upsample};
use salientd::frame::{Picture, Rect};
use salientd::heatmap::overlay::Overlay;
use salientd::heatmap::sheet::Sheet;
use salientd::heatmap::{Heatmap, colormap, encode};

/// Nothing but the map, fully opaque where it is hottest.
fn plain(colormap: Colormap, alpha: f32) -> OverlayConfig {
    OverlayConfig { colormap, alpha, label: false, ..OverlayConfig::default() }
}

fn map(width: usize, height: usize, values: &[f32], covers: Rect) -> Heatmap {
    Heatmap { width, height, values: values.into(), covers, ..heatmap(0) }
}

fn blended(picture: &Picture, heatmap: &Heatmap, config: &OverlayConfig) -> Picture {
    Overlay::new(config).render(picture, heatmap).clone()
}

fn grey(width: usize, height: usize, level: u8) -> Picture {
    Picture { width, height, rgb: vec![level; width * height * 3] }
}

/// The same by the definition: bilinear with half-pixel centres in `f64`, one pixel at a
/// time, colours looked up and mixed without rounding on the way.
fn reference(picture: &Picture, heatmap: &Heatmap, config: &OverlayConfig) -> Vec<[f64; 3]> {
    let table = colormap::table(config.colormap);
    let peak = heatmap.values.iter().copied().fold(0.0, f32::max);
    let cell =
        |x: usize, y: usize| f64::from((heatmap.values[y * heatmap.width + x] / peak).max(0.0));
    let tap = |at: u32, pixels: u32, cells: usize| {
        let at = (f64::from(at) + 0.5) * cells as f64 / f64::from(pixels) - 0.5;
        let at = at.clamp(0.0, cells as f64 - 1.0);
        (at as usize, (at as usize + 1).min(cells - 1), at.fract())
    };
    let covers = heatmap.covers;
    let mut out = Vec::new();
    for y in 0..picture.height as u32 {
        for x in 0..picture.width as u32 {
            let old = picture.pixel(x as usize, y as usize).map(f64::from);
            let inside = x >= covers.x
                && y >= covers.y
                && x < covers.x + covers.width
                && y < covers.y + covers.height;
            if !inside {
                out.push(old);
                continue;
            }
            let (x0, x1, u) = tap(x - covers.x, covers.width, heatmap.width);
            let (y0, y1, v) = tap(y - covers.y, covers.height, heatmap.height);
            let above = cell(x0, y0) * (1.0 - u) + cell(x1, y0) * u;
            let below = cell(x0, y1) * (1.0 - u) + cell(x1, y1) * u;
            let value = above * (1.0 - v) + below * v;
            let colour = table[(value * 255.0).round() as usize].map(f64::from);
            let opacity = value * f64::from(config.alpha);
            out.push(std::array::from_fn(|i| old[i] * (1.0 - opacity) + colour[i] * opacity));
        }
    }
    out
}

#[test]
fn the_map_lies_exactly_where_it_covers_the_picture() {
    let scene = picture(131, 67);
    let config = plain(Colormap::Viridis, 0.7);
    let covers = [
        Rect::full(131, 67),
        Rect { x: 32, y: 0, width: 67, height: 67 },
        Rect { x: 3, y: 5, width: 20, height: 9 },
        Rect { x: 130, y: 66, width: 1, height: 1 },
    ];
    for (width, height) in [(1, 1), (2, 3), (10, 10), (149, 149)] {
        for covers in covers {
            let heatmap = map(width, height, &spot(width, height, 0.3, 0.6), covers);
            let drawn = blended(&scene, &heatmap, &config);
            let expected = reference(&scene, &heatmap, &config);
            for (i, expected) in expected.iter().enumerate() {
                let drawn = drawn.pixel(i % 131, i / 131);
                let worst = (0..3).map(|c| (f64::from(drawn[c]) - expected[c]).abs());
                // Two levels of colour and opacity, each rounded to one of 256.
                assert!(worst.fold(0.0, f64::max) <= 3.0, "{covers:?}: {drawn:?} {expected:?}");
            }
        }
    }
}

#[test]
fn hot_is_opaque_and_cold_changes_nothing() {
    let scene = grey(4, 2, 77);
    let covers = Rect { x: 1, y: 0, width: 2, height: 2 };
    let heatmap = map(2, 1, &[-5.0, 2.0], covers);
    let config = plain(Colormap::Turbo, 1.0);
    // Two pixels lie in each cell's middle: no interpolation.
    let drawn = blended(&scene, &heatmap, &config);
    assert_eq!(drawn.pixel(1, 1), [77; 3]);
    assert_eq!(drawn.pixel(2, 0), [122, 4, 3]);
    assert_eq!(blended(&scene, &heatmap, &plain(Colormap::Turbo, 0.0)), scene);
}

#[test]
fn maps_without_anything_to_see_leave_the_picture_as_it_is() {
    let scene = picture(40, 30);
    let whole = Rect::full(40, 30);
    let cases = [
        ("negative", map(2, 1, &[-1.0, -0.5], whole)),
        ("zero", map(2, 1, &[0.0, 0.0], whole)),
        ("not a number", map(2, 1, &[f32::NAN, f32::NAN], whole)),
        ("too few values", map(2, 2, &[1.0], whole)),
        ("no cells", map(0, 0, &[], whole)),
        ("outside", map(1, 1, &[1.0], Rect { x: 40, y: 30, width: 9, height: 9 })),
        ("far outside", map(1, 1, &[1.0], Rect { x: u32::MAX, y: 0, width: 9, height: 9 })),
        ("nothing covered", map(1, 1, &[1.0], Rect { x: 0, y: 0, width: 0, height: 5 })),
    ];
    for (case, heatmap) in cases {
        assert_eq!(blended(&scene, &heatmap, &plain(Colormap::Turbo, 1.0)), scene, "{case}");
    }
}

#[test]
fn every_size_of_picture_and_cover_can_be_drawn() {
    let config = OverlayConfig { box_threshold: Some(0.4), ..OverlayConfig::default() };
    let mut overlay = Overlay::new(&config);
    let odd = [1.0, f32::NAN, f32::INFINITY, -f32::INFINITY, 0.5, 1e-40];
    for (width, height) in [(0, 0), (1, 1), (1, 50), (300, 1), (64, 64), (3840, 2160), (17, 13)] {
        let scene = picture(width, height);
        for covers in [
            Rect::full(width as u32, height as u32),
            Rect { x: 9, y: 9, width: 4000, height: 4000 },
        ] {
            let heatmap = map(3, 2, &odd, covers);
            assert_eq!(overlay.render(&scene, &heatmap).rgb.len(), width * height * 3);
        }
    }
}

#[test]
fn the_map_alone_is_its_values_in_colours() {
    let table = colormap::table(Colormap::Jet);
    let heatmap = map(3, 1, &[-1.0, 2.0, 1.0], Rect::full(3, 1));
    let picture = Overlay::new(&plain(Colormap::Jet, 0.1)).map_picture(&heatmap, 0);
    assert_eq!([0, 1, 2].map(|x| picture.pixel(x, 0)), [table[0], table[255], table[128]]);
}

#[test]
fn a_class_is_drawn_from_its_own_map() {
    let classes = vec![class(0, "a", 0.6), class(1, "b", 0.4)];
    let both = Heatmap { classes, ..map(2, 1, &[1.0, 0.0, 0.0, 1.0], Rect::full(2, 1)) };
    let mut overlay = Overlay::new(&plain(Colormap::Grey, 1.0));
    for (class, lit) in [(0, [255, 0]), (1, [0, 255])] {
        let mut picture = grey(2, 1, 0);
        overlay.blend(&mut picture, &both, class);
        assert_eq!([0, 1].map(|x| picture.pixel(x, 0)[0]), lit);
    }
}

#[test]
fn boxes_surround_what_is_hot() {
    let mut values = vec![0.0; 100];
    values[3 * 10 + 4] = 1.0;
    values[4 * 10 + 5] = 0.6;
    values[9 * 10 + 9] = 0.3;
    let heatmap = map(10, 10, &values, Rect { x: 20, y: 10, width: 200, height: 100 });
    let config = OverlayConfig { box_threshold: Some(0.5), ..plain(Colormap::Turbo, 0.0) };
    let drawn = blended(&grey(240, 120, 77), &heatmap, &config);
    let white: Vec<(usize, usize)> = (0..240 * 120)
        .map(|i| (i % 240, i / 240))
        .filter(|&(x, y)| drawn.pixel(x, y) == [255; 3])
        .collect();
    let span = |side: fn(&(usize, usize)) -> usize| {
        (white.iter().map(side).min().unwrap(), white.iter().map(side).max().unwrap())
    };
    // Cells 4–5 of 10 across 200 pixels from 20 on; rows 3–4 across 100 from 10 on.
    assert_eq!((span(|p| p.0), span(|p| p.1)), ((100, 139), (40, 59)));
    assert_eq!(white.len(), 2 * 40 + 2 * 18);
}

#[test]
fn contours_run_where_the_map_crosses_the_threshold() {
    let mut values = vec![0.0; 100];
    values[3 * 10 + 4] = 1.0;
    let heatmap = map(10, 10, &values, Rect { x: 20, y: 10, width: 200, height: 100 });
    let white = |contours, threshold| {
        let plain = plain(Colormap::Turbo, 0.0);
        let config = OverlayConfig { box_threshold: Some(0.5), contours, threshold, ..plain };
        let drawn = blended(&grey(240, 120, 77), &heatmap, &config);
        // A diamond around the cell's centre: the middle of a side, and the centre.
        [drawn.pixel(115, 47), drawn.pixel(110, 45)].map(|pixel| pixel == [255; 3])
    };
    assert_eq!(white(false, ThresholdKind::Share), [false, false]);
    assert_eq!(white(true, ThresholdKind::Share), [true, false]);
    // Half of the map lies at 0, so the line is as far out as it can be.
    assert_eq!(white(true, ThresholdKind::Percentile), [false, false]);
}

#[test]
fn the_legend_keeps_to_its_quarter_however_much_there_is_to_say() {
    let (width, height) = (640, 360);
    let mut busy = map(1, 1, &[0.0], Rect::full(width as u32, height as u32));
    busy.classes = vec![class(0, &"W".repeat(200), 0.9)];
    busy.views = busy.views.iter().cycle().take(400).cloned().collect();
    let drawn = blended(&grey(width, height, 77), &busy, &OverlayConfig::default());
    let changed: Vec<(usize, usize)> = (0..width * height)
        .map(|i| (i % width, i / width))
        .filter(|&(x, y)| drawn.pixel(x, y) != [77; 3])
        .collect();
    // All of it, but for less than a line's height and a letter's width.
    let (right, bottom) = changed.iter().fold((0, 0), |(x, y), at| (x.max(at.0), y.max(at.1)));
    assert!((300..320).contains(&right) && (160..180).contains(&bottom), "{right} {bottom}");
}

#[test]
fn a_sheet_has_a_row_for_each_image_and_an_end() {
    let mut sheet = Sheet::new(&OverlayConfig::default());
    let (scene, heatmap) = (picture(320, 180), heatmap(0));
    for row in 0..100 {
        assert!(sheet.push(&scene, &heatmap, "x"), "row {row}");
    }
    assert!(!sheet.push(&scene, &heatmap, "x"));
    let page = sheet.into_picture();
    assert_eq!((page.width, page.height), (816, 100 * (144 + 36) + 12));
    assert_eq!(page.rgb.len(), page.width * page.height * 3);
    let mut odd = Sheet::new(&OverlayConfig::default());
    for (width, height) in [(0, 0), (1, 1), (1, 4000), (5000, 2)] {
        assert!(odd.push(&picture(width, height), &heatmap, "odd"));
    }
}

/// A picture like the one of its name beside this file: but for one in a thousand pixels within
/// two levels, as rounding differs between processors. What is drawn otherwise on purpose is put
/// there by hand, out of the folder `SALIENTD_PICTURES`, and looked at.
fn looks_as_it_did(name: &str, drawn: &Picture) {
    if let Some(dir) = std::env::var_os("SALIENTD_PICTURES") {
        let mut bytes = Vec::new();
        encode::png(drawn, &mut bytes).unwrap();
        std::fs::write(std::path::Path::new(&dir).join(name), bytes).unwrap();
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sink").join(name);
    let known = image::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).to_rgb8();
    assert_eq!((drawn.width as u32, drawn.height as u32), known.dimensions(), "{name}");
    let far = |(a, b): &(&u8, &u8)| a.abs_diff(**b) > 2;
    let off = drawn.rgb.iter().zip(known.as_raw()).filter(far).count();
    assert!(off <= drawn.rgb.len() / 1000, "{name}: {off} of {} values", drawn.rgb.len());
}

#[test]
fn everything_drawn_looks_as_it_did() {
    let scene = picture(640, 360);
    let covers = Rect { x: 140, y: 0, width: 360, height: 360 };
    let mut busy = Heatmap { covers, picture: [640, 360], ..heatmap(42) };
    busy.classes = vec![
        class(3, "English springer", 0.93),
        class(7, "garbage truck", 0.05),
        class(
            9,
            "Öl-Förderpumpe mit einem sehr langen Namen, der nicht auf das Bild passt, wie man sieht, wenn man hinsieht",
            0.01,
        ),
    ];
    let second = spot(149, 149, 0.8, 0.2);
    let triples = busy.values.iter().zip(&second).flat_map(|(&a, &b)| [a.max(b), b, a]);
    busy.values = triples.collect();
    busy.views[3].age_ms = 200.0;
    let boxes = OverlayConfig { box_threshold: Some(0.5), ..OverlayConfig::default() };
    looks_as_it_did("overlay.png", &blended(&scene, &busy, &boxes));
    let small = Heatmap { covers: Rect { x: 35, y: 0, width: 90, height: 90 }, ..heatmap(1) };
    let guided = OverlayConfig {
        upsample: Upsample::Guided,
        contours: true,
        colormap: Colormap::Viridis,
        ..boxes
    };
    looks_as_it_did("guided.png", &blended(&picture(160, 90), &small, &guided));

    let mut sheet = Sheet::new(&OverlayConfig::default());
    sheet.push(&scene, &busy, "a_wide_picture.jpg");
    let tall = Heatmap { covers: Rect::full(300, 500), ..heatmap(2) };
    sheet.push(&picture(300, 500), &tall, "a_tall_picture_with_a_very_long_file_name.jpg");
    looks_as_it_did("sheet.png", &sheet.into_picture());
}
