//! Heatmaps and pictures to publish.

use salientd::frame::{Picture, Rect};
use salientd::heatmap::{ClassScore, Heatmap, ViewReport};
use salientd::sink::Published;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// 2026-11-23T12:16:17.000042Z, and one second later for each sequence number.
pub const START_S: u64 = 1_795_436_177;

/// A scene with something in every part of it.
pub fn picture(width: usize, height: usize) -> Picture {
    let mut picture = Picture::new(width, height);
    for (i, pixel) in picture.rgb.chunks_exact_mut(3).enumerate() {
        let (x, y) = (i % width, i / width);
        let check = if (x / 40 + y / 40) % 2 == 0 { 40 } else { 0 };
        let sky = (y * 120 / height) as u8;
        pixel.copy_from_slice(&[70 + sky + check, 90 + sky / 2 + check, 150 - sky / 2 + check]);
    }
    picture
}

/// A warm spot at (`x`, `y`) in 0–1 of each map, cold (negative) far away from it.
pub fn spot(width: usize, height: usize, x: f32, y: f32) -> Vec<f32> {
    let value = |i: usize| {
        let dx = ((i % width) as f32 + 0.5) / width as f32 - x;
        let dy = ((i / width) as f32 + 0.5) / height as f32 - y;
        (-(dx * dx + dy * dy) * 18.0).exp() * 1.2 - 0.2
    };
    (0..width * height).map(value).collect()
}

pub fn class(index: usize, label: &str, probability: f32) -> ClassScore {
    ClassScore { index, label: label.into(), logit: 3.25, probability }
}

/// A heatmap of one class over the middle square of a 1280×720 picture.
pub fn heatmap(sequence: u64) -> Heatmap {
    Heatmap {
        height: 149,
        width: 149,
        values: spot(149, 149, 0.4, 0.55),
        classes: vec![class(3, "English springer", 0.93)],
        covers: Rect { x: 280, y: 0, width: 720, height: 720 },
        picture: [1280, 720],
        views: views(),
        zones: Vec::new(),
        sequence,
        captured_at: Instant::now(),
        captured_wall: UNIX_EPOCH + Duration::new(START_S + sequence, 42_000),
        spent_ms: 412.5,
        budget_ms: None,
        heat_factor: None,
        model_sha256: "0123456789abcdef".repeat(4).into(),
    }
}

fn views() -> Vec<ViewReport> {
    let view =
        |scale, hflip| ViewReport { scale, hflip, weight: 0.125, spent_ms: 50.0, age_ms: 0.0 };
    [0.5, 1.0, 1.5, 2.0].into_iter().flat_map(|s| [view(s, false), view(s, true)]).collect()
}

/// A small heatmap, so that many of them fit anywhere.
pub fn small_heatmap(sequence: u64) -> Heatmap {
    let values = (0..6).map(|i| sequence as f32 + i as f32 / 8.0).collect();
    let covers = Rect { x: 0, y: 0, width: 30, height: 20 };
    Heatmap { height: 2, width: 3, values, covers, picture: [30, 20], ..heatmap(sequence) }
}

pub fn published(heatmap: Heatmap) -> Published {
    let [width, height] = heatmap.picture;
    let picture = Arc::new(picture(width as usize, height as usize));
    Published { picture, heatmap: Arc::new(heatmap) }
}
