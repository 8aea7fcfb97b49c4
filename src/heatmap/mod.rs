//! From features to heatmaps: class activation maps, filters, regions, colours, overlay.
//! No I/O, no clock.

pub mod colormap;
pub mod encode;
pub mod filter;
pub mod guided;
mod legend;
pub mod mean;
pub mod method;
pub mod overlay;
pub mod region;
pub mod sheet;
pub mod text;
pub mod zone;

use crate::frame::Rect;
use serde::Serialize;
use std::time::{Instant, SystemTime};

/// Maps of one or more classes over one picture, ready to publish.
#[derive(Clone, Debug)]
pub struct Heatmap {
    /// Rows and columns of each map.
    pub height: usize,
    pub width: usize,
    /// `[height, width, classes]`, row by row; filtered as configured.
    pub values: Vec<f32>,
    /// In the order of the last axis of `values`; never empty, best first.
    pub classes: Vec<ClassScore>,
    /// The part of the upright picture that the maps cover.
    pub covers: Rect,
    /// Size of the upright picture, `[width, height]`.
    pub picture: [u32; 2],
    /// The views that were merged, with what each cost.
    pub views: Vec<ViewReport>,
    /// Where the mass of each map lies, by zone.
    pub zones: Vec<zone::ZoneShare>,
    /// Sequence number of the frame that this is published for. Where a frame did not
    /// differ from one inferred before, that one's map goes with it: the ages of the views
    /// say so, and nothing was spent.
    pub sequence: u64,
    pub captured_at: Instant,
    pub captured_wall: SystemTime,
    /// From decoded frame to merged map, in ms.
    pub spent_ms: f64,
    /// What `spent_ms` was to stay within; absent: no limit.
    pub budget_ms: Option<f64>,
    /// The share of the budget that heat leaves, 0–1; absent: heat does not matter.
    pub heat_factor: Option<f64>,
    /// SHA-256 of the model file, hexadecimal.
    pub model_sha256: std::sync::Arc<str>,
}

/// A class as it goes with its map.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassScore {
    pub index: usize,
    pub label: String,
    /// Merged over the views.
    pub logit: f32,
    /// Softmax over all classes of the merged logits, 0–1.
    pub probability: f32,
}

/// One view's part in a heatmap.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ViewReport {
    pub scale: f32,
    pub hflip: bool,
    /// Share in the merged map.
    pub weight: f32,
    /// Forward pass and its map, in ms; 0 for a view kept from an earlier frame.
    pub spent_ms: f64,
    /// Age of the frame that it was computed on, in ms; 0: this frame.
    pub age_ms: f64,
}

/// A view for people, with its age where it was kept: `1.5f`, `0.5@98ms`, `2@1.3s`.
pub fn view_text(scale: f32, hflip: bool, age_ms: f64) -> String {
    let flip = if hflip { "f" } else { "" };
    let age = match age_ms {
        ms if ms > 0.0 && ms < 999.5 => format!("@{ms:.0}ms"),
        ms if ms > 0.0 => format!("@{:.1}s", ms / 1e3),
        _ => String::new(),
    };
    format!("{scale}{flip}{age}")
}

impl Heatmap {
    /// The map of the `c`-th class, `[height, width]`.
    pub fn class_map(&self, c: usize) -> Vec<f32> {
        self.values.iter().skip(c).step_by(self.classes.len()).copied().collect()
    }
}

#[cfg(test)]
impl Heatmap {
    /// One cell of one class over a picture of one pixel, for tests to change.
    pub(crate) fn of_one_cell(captured_at: Instant) -> Self {
        Self {
            height: 1,
            width: 1,
            values: vec![1.0],
            classes: vec![ClassScore { index: 0, label: "a".into(), logit: 1.0, probability: 1.0 }],
            covers: Rect::full(1, 1),
            picture: [1, 1],
            views: Vec::new(),
            zones: Vec::new(),
            sequence: 0,
            captured_at,
            captured_wall: SystemTime::UNIX_EPOCH,
            spent_ms: 0.0,
            budget_ms: None,
            heat_factor: None,
            model_sha256: "".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_in_words() {
        for (scale, hflip, age_ms, expected) in [
            (1.0, false, 0.0, "1"),
            (1.5, true, 0.0, "1.5f"),
            (0.5, false, 98.2, "0.5@98ms"),
            (0.5, false, 999.4, "0.5@999ms"),
            (2.0, true, 999.6, "2f@1.0s"),
            (2.0, false, 31_240.0, "2@31.2s"),
            (2.0, false, f64::NAN, "2"),
        ] {
            assert_eq!(view_text(scale, hflip, age_ms), expected);
        }
    }
}
