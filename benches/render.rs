//! Overlay and encoders on a 1280×720 picture, as `cargo bench --bench render`; docs/rendering.md.

use criterion::{Criterion, criterion_group, criterion_main};
use salientd::config::{OverlayConfig, Upsample};
use salientd::frame::{Picture, Rect};
use salientd::heatmap::overlay::Overlay;
use salientd::heatmap::{ClassScore, Heatmap, ViewReport, encode};
use std::hint::black_box;
use std::time::{Instant, SystemTime};

const WIDTH: usize = 1280;
const HEIGHT: usize = 720;
const MAP: usize = 299;

/// Smooth shapes with the noise of a camera, so that the JPEG has the work of a photo.
fn scene() -> Picture {
    let mut picture = Picture::new(WIDTH, HEIGHT);
    let mut noise = 1u32;
    for (i, pixel) in picture.rgb.chunks_exact_mut(3).enumerate() {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (x, y) = ((i % WIDTH) as f32, (i / WIDTH) as f32);
        let wave = ((x / 37.0).sin() + (y / 23.0).cos() + ((x + y) / 11.0).sin()) * 30.0;
        let level = 128.0 + wave + (noise >> 28) as f32;
        pixel.copy_from_slice(&[level as u8, (level * 0.8) as u8, (level * 0.6) as u8]);
    }
    picture
}

fn heatmap(covers: Rect) -> Heatmap {
    let value = |i: usize| {
        let (x, y) = ((i % MAP) as f32 / MAP as f32 - 0.4, (i / MAP) as f32 / MAP as f32 - 0.6);
        (-(x * x + y * y) * 10.0).exp()
    };
    let view = ViewReport { scale: 1.0, hflip: false, weight: 1.0, spent_ms: 50.0, age_ms: 0.0 };
    Heatmap {
        height: MAP,
        width: MAP,
        values: (0..MAP * MAP).map(value).collect(),
        classes: vec![ClassScore { index: 0, label: "tench".into(), logit: 9.0, probability: 0.9 }],
        covers,
        picture: [WIDTH as u32, HEIGHT as u32],
        views: vec![view; 8],
        zones: Vec::new(),
        sequence: 0,
        captured_at: Instant::now(),
        captured_wall: SystemTime::now(),
        spent_ms: 400.0,
        budget_ms: None,
        heat_factor: None,
        model_sha256: "".into(),
    }
}

/// The encoder that was not chosen.
fn other_jpeg(picture: &Picture, out: &mut Vec<u8>) {
    out.clear();
    let mut encoder = jpeg_encoder::Encoder::new(out, encode::JPEG_QUALITY);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::R_4_2_0);
    let (width, height, colours) = (WIDTH as u16, HEIGHT as u16, jpeg_encoder::ColorType::Rgb);
    encoder.encode(&picture.rgb, width, height, colours).unwrap();
}

fn render(criterion: &mut Criterion) {
    let scene = scene();
    let config = OverlayConfig { box_threshold: Some(0.5), ..OverlayConfig::default() };
    let mut overlay = Overlay::new(&config);
    let square = heatmap(Rect { x: 280, y: 0, width: 720, height: 720 });
    let whole = heatmap(Rect::full(WIDTH as u32, HEIGHT as u32));
    let mut bytes = Vec::new();
    criterion.bench_function("overlay, centre square", |b| {
        b.iter(|| black_box(overlay.render(&scene, &square)).width);
    });
    criterion.bench_function("overlay, whole picture", |b| {
        b.iter(|| black_box(overlay.render(&scene, &whole)).width);
    });
    let mut guided = Overlay::new(&OverlayConfig { upsample: Upsample::Guided, ..config });
    criterion.bench_function("overlay, whole picture, guided", |b| {
        b.iter(|| black_box(guided.render(&scene, &whole)).width);
    });
    let drawn = overlay.render(&scene, &whole).clone();
    criterion.bench_function("jpeg", |b| {
        b.iter(|| encode::jpeg(&drawn, encode::JPEG_QUALITY, &mut bytes).unwrap());
    });
    println!("jpeg: {} bytes", bytes.len());
    criterion.bench_function("jpeg by jpeg-encoder", |b| b.iter(|| other_jpeg(&drawn, &mut bytes)));
    println!("jpeg by jpeg-encoder: {} bytes", bytes.len());
    criterion.bench_function("overlay, whole picture, and jpeg", |b| {
        b.iter(|| {
            let drawn = overlay.render(&scene, &whole);
            encode::jpeg(drawn, encode::JPEG_QUALITY, &mut bytes).unwrap();
        });
    });
    criterion.bench_function("png", |b| b.iter(|| encode::png(&drawn, &mut bytes).unwrap()));
}

criterion_group!(benches, render);
criterion_main!(benches);
