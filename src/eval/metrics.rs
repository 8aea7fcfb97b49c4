//! How alike two maps are, and figures over many photos.

use crate::heatmap::region::Threshold;
use serde::Serialize;

/// Pearson's correlation of two maps of one size, −1 to 1. Where one of them is flat it is
/// not defined: then 1 if both are, else 0.
pub fn pearson(a: &[f32], b: &[f32]) -> f64 {
    let mean = |x: &[f32]| x.iter().map(|&v| f64::from(v)).sum::<f64>() / x.len().max(1) as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut aa, mut ab, mut bb) = (0.0, 0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (f64::from(a) - mean_a, f64::from(b) - mean_b);
        aa += a * a;
        ab += a * b;
        bb += b * b;
    }
    match (aa > 0.0, bb > 0.0) {
        (true, true) => ab / (aa * bb).sqrt(),
        (false, false) => 1.0,
        _ => 0.0,
    }
}

/// Intersection over union, 0–1, of the parts of two maps of one size that reach `share`
/// (0–1) of their own maximum. Maps with nothing above 0 have no such part: 1 if that is
/// so of both, else 0.
pub fn iou_at(a: &[f32], b: &[f32], share: f32) -> f64 {
    let level = |map| Threshold::Share(share).level(map);
    let (Some(level_a), Some(level_b)) = (level(a), level(b)) else {
        return if level(a).is_none() && level(b).is_none() { 1.0 } else { 0.0 };
    };
    let (mut both, mut any) = (0u64, 0u64);
    for (&a, &b) in a.iter().zip(b) {
        both += u64::from(a >= level_a && b >= level_b);
        any += u64::from(a >= level_a || b >= level_b);
    }
    both as f64 / any as f64
}

/// Where a map `[height, width]` is largest, `[x, y]`; of equals the first in reading order.
pub fn peak(map: &[f32], width: usize) -> [usize; 2] {
    let mut best = 0;
    for (at, value) in map.iter().enumerate() {
        if *value > map[best] {
            best = at;
        }
    }
    [best % width.max(1), best / width.max(1)]
}

/// What many photos say together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub mean: f64,
    /// 10th percentile and median, linear between neighbours.
    pub p10: f64,
    pub p50: f64,
    pub min: f64,
    pub max: f64,
}

impl Summary {
    /// Of no values: all 0.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Self {
            mean: mean(&sorted),
            p10: percentile(&sorted, 10.0),
            p50: percentile(&sorted, 50.0),
            min: percentile(&sorted, 0.0),
            max: percentile(&sorted, 100.0),
        }
    }
}

/// Of no values: 0.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The value below which `percentage` (0–100) of `sorted` lie, linear between neighbours.
/// Of no values: 0.
pub fn percentile(sorted: &[f64], percentage: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let rank = percentage.clamp(0.0, 100.0) / 100.0 * last as f64;
    let (below, above) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    below + (above - below) * rank.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlation() {
        let check = |a: &[f32], b: &[f32], expected: f64| {
            let got = pearson(a, b);
            assert!((got - expected).abs() < 1e-12, "{a:?} {b:?}: {got}");
        };
        check(&[1.0, 2.0, 3.0], &[-5.0, 0.0, 5.0], 1.0);
        check(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0], -1.0);
        check(&[1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 2.0, 4.0], 0.8);
        check(&[1.0, 1.0], &[1.0, 2.0], 0.0);
        check(&[1.0, 1.0], &[7.0, 7.0], 1.0);
    }

    #[test]
    fn overlap_of_what_is_hot() {
        let check = |a: &[f32], b: &[f32], expected: f64| {
            assert_eq!(iou_at(a, b, 0.5), expected, "{a:?} {b:?}");
            assert_eq!(iou_at(b, a, 0.5), expected, "{b:?} {a:?}");
        };
        check(&[0.0, 1.0, 2.0, 0.9], &[0.0, 5.0, 10.0, 4.0], 1.0);
        check(&[0.0, 1.0, 2.0, 1.0], &[9.0, 0.0, 9.0, 0.0], 0.25);
        check(&[1.0, 0.0], &[0.0, 1.0], 0.0);
        check(&[-1.0, 0.0], &[-2.0, -3.0], 1.0);
        check(&[-1.0, 0.0], &[1.0, -3.0], 0.0);
    }

    #[test]
    fn peaks() {
        assert_eq!(peak(&[0.0, 3.0, 1.0, 2.0, 3.0, 0.0], 3), [1, 0]);
        assert_eq!(peak(&[-2.0, -3.0, -2.0, -1.0], 2), [1, 1]);
    }

    #[test]
    fn figures_over_photos() {
        let ten = Summary::of((0..=10).rev().map(f64::from));
        assert_eq!(ten, Summary { mean: 5.0, p10: 1.0, p50: 5.0, min: 0.0, max: 10.0 });
        assert_eq!(percentile(&[1.0, 2.0], 25.0), 1.25);
        assert_eq!(Summary::of([]).mean, 0.0);
    }
}
