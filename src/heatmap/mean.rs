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
