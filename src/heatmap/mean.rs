//! Where the model looks in the long run: each class's mean map, exponential in time.
//!
//! With `x` the map of a heatmap that stands for `dt` seconds and `τ` the time constant,
//! `sum ← sum·e^(−dt/τ) + x·(1 − e^(−dt/τ))`, the weight likewise with 1 for `x`, and the
//! mean is `sum / weight`: right from the first map on, whatever the times between. Only
//! time in which a class has a map counts for it. Maps are averaged down to at most
//! [`GRID`] cells a side, finer than any feature grid, so that memory is bounded.

use super::{ClassScore, Heatmap};
use crate::frame::Rect;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most rows and columns of a mean map.
pub const GRID: usize = 64;
/// Most classes; above it, the one seen least recently is forgotten.
pub const MAX_CLASSES: usize = 256;
/// A map stands for no longer than this: after a gap nobody knows what was to be seen.
const MAX_STEP: Duration = Duration::from_secs(10);

/// The mean maps of one model looking at one scene.
#[derive(Debug)]
pub struct MeanMaps {
    time_constant: Duration,
    scene: Option<Scene>,
    /// By index.
    classes: BTreeMap<usize, ClassMean>,
    last: Option<Instant>,
    /// Heatmaps so far; tells which class was seen least recently.
    clock: u64,
}

/// What a mean is of: maps of another model or place have nothing to do with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    pub model_sha256: Arc<str>,
    pub picture: [u32; 2],
    pub covers: Rect,
    /// Rows and columns of the mean maps.
    pub height: usize,
    pub width: usize,
}

/// One class's mean.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassMean {
    pub label: String,
    /// `[height, width]`: the mean times `weight`. A step of a millionth of the time constant
    /// is lost in an `f32`.
    pub sum: Vec<f64>,
    /// 0–1: how much of the time constant has been seen.
    pub weight: f64,
    /// Time in which the class had a map, in s.
    pub seen_s: f64,
    used: u64,
}

impl ClassMean {
    pub fn new(label: String, sum: Vec<f64>, weight: f64, seen_s: f64) -> Self {
        Self { label, sum, weight, seen_s, used: 0 }
    }
}

impl MeanMaps {
    pub fn new(time_constant: Duration) -> Self {
        Self { time_constant, scene: None, classes: BTreeMap::new(), last: None, clock: 0 }
    }

    /// As [`MeanMaps::new`], with what an earlier run has seen.
    pub fn restored(
        time_constant: Duration,
        scene: Scene,
        classes: BTreeMap<usize, ClassMean>,
    ) -> Self {
        Self { scene: Some(scene), classes, ..Self::new(time_constant) }
    }

    pub fn scene(&self) -> Option<&Scene> {
        self.scene.as_ref()
    }

    /// By index.
    pub fn classes(&self) -> &BTreeMap<usize, ClassMean> {
        &self.classes
    }

    /// Takes up a heatmap. True: it shows another scene, and all that was seen is forgotten.
    pub fn add(&mut self, heatmap: &Heatmap) -> bool {
        let scene = Scene {
            model_sha256: heatmap.model_sha256.clone(),
            picture: heatmap.picture,
            covers: heatmap.covers,
            height: heatmap.height.min(GRID),
            width: heatmap.width.min(GRID),
        };
        let is_another = self.scene.as_ref().is_some_and(|known| *known != scene);
        if is_another {
            self.classes.clear();
        }
        let (step, time_constant) = (self.step(heatmap.captured_at), self.time_constant);
        self.clock += 1;
        for (c, class) in heatmap.classes.iter().enumerate() {
            let map = shrink(&heatmap.class_map(c), heatmap.height, heatmap.width, &scene);
            self.class(class, map.len()).add(&map, step, time_constant);
        }
        self.scene = Some(scene);
        is_another
    }

    /// The means of a heatmap's classes as a heatmap of the same frame; classes never seen
    /// are 0. `None` before the first heatmap of this scene.
    pub fn heatmap(&self, of: &Heatmap) -> Option<Heatmap> {
        let scene = self.scene.as_ref()?;
        if (scene.covers, scene.picture) != (of.covers, of.picture) {
            return None;
        }
        let cells = scene.height * scene.width;
        let maps: Vec<Vec<f32>> = of
            .classes
            .iter()
            .map(|c| self.classes.get(&c.index).map_or(vec![0.0; cells], ClassMean::mean))
            .collect();
        let values = (0..cells).flat_map(|i| maps.iter().map(move |map| map[i])).collect();
        Some(Heatmap { height: scene.height, width: scene.width, values, ..of.clone() })
    }

    /// What the heatmap captured at `now` stands for.
    fn step(&mut self, now: Instant) -> Duration {
        let last = self.last.replace(now);
        // The first stands for the shortest time that makes a weight.
        let step = last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        step.clamp(Duration::from_millis(1), MAX_STEP)
    }

    fn class(&mut self, class: &ClassScore, cells: usize) -> &mut ClassMean {
        let is_new = !self.classes.contains_key(&class.index);
        if is_new && self.classes.len() >= MAX_CLASSES {
            let oldest = self.classes.iter().min_by_key(|(_, mean)| mean.used).map(|(i, _)| *i);
            oldest.and_then(|index| self.classes.remove(&index));
        }
        let new = || ClassMean::new(class.label.clone(), vec![0.0; cells], 0.0, 0.0);
        let mean = self.classes.entry(class.index).or_insert_with(new);
        mean.used = self.clock;
        mean
    }
}

impl ClassMean {
    /// `[height, width]`.
    pub fn mean(&self) -> Vec<f32> {
        let scale = if self.weight > 0.0 { 1.0 / self.weight } else { 0.0 };
        self.sum.iter().map(|sum| (sum * scale) as f32).collect()
    }

    fn add(&mut self, map: &[f32], step: Duration, time_constant: Duration) {
        // 1 − e^(−dt/τ) without losing its digits where dt is a millionth of τ.
        let share = -(-step.as_secs_f64() / time_constant.as_secs_f64()).exp_m1();
        for (sum, &value) in self.sum.iter_mut().zip(map) {
            let value = if value.is_finite() { f64::from(value) } else { 0.0 };
            *sum += (value - *sum) * share;
        }
        self.weight += (1.0 - self.weight) * share;
        self.seen_s += step.as_secs_f64();
    }
}

/// The map averaged by area onto the scene's grid; its mean stays what it is.
fn shrink(map: &[f32], height: usize, width: usize, scene: &Scene) -> Vec<f32> {
    if (height, width) == (scene.height, scene.width) {
        return map.to_vec();
    }
    let columns = overlaps(width, scene.width);
    let rows = overlaps(height, scene.height);
    let cell = |row: &[(usize, f32)], column: &[(usize, f32)]| {
        let along =
            |y: usize| column.iter().map(|&(x, part)| map[y * width + x] * part).sum::<f32>();
        row.iter().map(|&(y, part)| along(y) * part).sum()
    };
    rows.iter().flat_map(|row| columns.iter().map(move |column| cell(row, column))).collect()
}

/// For each of `output` cells, the `input` cells it lies over, with their parts of it.
fn overlaps(input: usize, output: usize) -> Vec<Vec<(usize, f32)>> {
    let ratio = input as f64 / output as f64;
    let parts = |i: usize| {
        let (low, high) = (i as f64 * ratio, (i + 1) as f64 * ratio);
        let cells = low.floor() as usize..(high.ceil() as usize).min(input);
        let part = |x: usize| (high.min((x + 1) as f64) - low.max(x as f64)) / ratio;
        cells.map(|x| (x, part(x) as f32)).collect()
    };
    (0..output).map(parts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Rect;

    /// One class, `index`, whose map is `side` x `side` and everywhere `value` but in its last cell.
    fn heatmap(index: usize, side: usize, value: f32, last: f32, at: Instant) -> Heatmap {
        let mut values = vec![value; side * side];
        values[side * side - 1] = last;
        Heatmap {
            height: side,
            width: side,
            values,
            classes: vec![ClassScore { index, label: "a".into(), logit: 1.0, probability: 1.0 }],
            covers: Rect::full(16, 16),
            picture: [16, 16],
            ..Heatmap::of_one_cell(at)
        }
    }

    #[test]
    fn a_mean_forgets_with_its_time_constant() {
        let (mut means, start) = (MeanMaps::new(Duration::from_secs(10)), Instant::now());
        for (second, value) in [1.0, 1.0, 4.0].into_iter().enumerate() {
            let at = start + Duration::from_secs(second as u64);
            means.add(&heatmap(3, 2, value, f32::NAN, at));
        }
        // The first stands for a millisecond, the others for a second: what each weighs in the end.
        let share = 1.0 - (-0.1f64).exp();
        let weights = [1e-4 * (1.0 - share).powi(2), share * (1.0 - share), share];
        let sum: f64 = weights.iter().sum();
        let expected = (weights[0] + weights[1] + 4.0 * weights[2]) / sum;
        let class = &means.classes()[&3];
        assert!(
            (class.weight - sum).abs() < 1e-6 && (class.seen_s - 2.001).abs() < 1e-9,
            "{class:?}"
        );
        let mean = class.mean();
        assert!((f64::from(mean[0]) - expected).abs() < 1e-4, "{mean:?}, expected {expected}");
        assert_eq!(mean[3], 0.0, "what is no number");
    }

    #[test]
    fn large_maps_are_averaged_by_area() {
        let (mut means, side) = (MeanMaps::new(Duration::from_secs(10)), 3 * GRID / 2);
        means.add(&heatmap(0, side, 1.0, 10.0, Instant::now()));
        let mean = means.classes()[&0].mean();
        assert_eq!(mean.len(), GRID * GRID);
        // A cell is one and a half of theirs on each side; the last holds all of the last.
        assert!((mean[0] - 1.0).abs() < 1e-4, "{}", mean[0]);
        assert!((mean[GRID * GRID - 1] - (1.0 + 9.0 / 2.25)).abs() < 1e-3);
        assert!((mean[GRID * GRID - 2] - 1.0).abs() < 1e-4);
    }

    #[test]
    fn means_are_shown_on_the_grid_of_the_frame_they_belong_to() {
        let (mut means, now) = (MeanMaps::new(Duration::from_secs(10)), Instant::now());
        let known = heatmap(1, 2, 1.0, 2.0, now);
        assert!(means.heatmap(&known).is_none());
        assert!(!means.add(&known), "the first scene is no other scene");
        let mut both = known.clone();
        both.classes.push(ClassScore { index: 8, ..both.classes[0].clone() });
        let shown = means.heatmap(&both).unwrap();
        assert_eq!((shown.height, shown.width, shown.values.len()), (2, 2, 8));
        let rounded: Vec<f32> = shown.values.iter().map(|value| value.round()).collect();
        assert_eq!(rounded, [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 2.0, 0.0]);
        let elsewhere = Heatmap { covers: Rect { x: 1, ..known.covers }, ..known.clone() };
        assert!(means.heatmap(&elsewhere).is_none());
        assert!(means.add(&elsewhere), "another scene");
        assert_eq!(means.classes().len(), 1);
    }

    #[test]
    fn of_too_many_classes_the_one_not_seen_for_longest_goes() {
        let (mut means, now) = (MeanMaps::new(Duration::from_secs(10)), Instant::now());
        for index in 0..MAX_CLASSES {
            means.add(&heatmap(index, 1, 1.0, 1.0, now));
        }
        means.add(&heatmap(0, 1, 1.0, 1.0, now));
        means.add(&heatmap(MAX_CLASSES, 1, 1.0, 1.0, now));
        let kept = means.classes();
        assert_eq!(kept.len(), MAX_CLASSES);
        assert!(kept.contains_key(&0) && !kept.contains_key(&1) && kept.contains_key(&MAX_CLASSES));
    }

    #[test]
    fn a_long_gap_counts_for_no_more_than_the_longest_step() {
        let (mut means, start) = (MeanMaps::new(Duration::from_secs(10)), Instant::now());
        means.add(&heatmap(0, 1, 1.0, 1.0, start));
        means.add(&heatmap(0, 1, 1.0, 1.0, start + Duration::from_secs(3600)));
        let seen_s = means.classes()[&0].seen_s;
        assert!((seen_s - MAX_STEP.as_secs_f64() - 0.001).abs() < 1e-9, "{seen_s}");
    }
}
