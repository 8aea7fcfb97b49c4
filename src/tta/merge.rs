//! Many views' small maps into one map of the picture's size.

use super::view::View;
use crate::bilinear::{Axis, blend};

/// How much a view counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weight<'a> {
    /// The same at every pixel.
    Uniform(f32),
    /// Per region, `[rows, columns]`, blended bilinearly in between: where the regions'
    /// weights over all views sum to one, so do the pixels'.
    Regions { rows: usize, columns: usize, values: &'a [f32] },
}

impl Weight<'_> {
    /// Its mean over the picture: what the view's logits count.
    pub fn mean(self) -> f32 {
        match self {
            Weight::Uniform(weight) => weight,
            Weight::Regions { values, .. } => {
                values.iter().sum::<f32>() / values.len().max(1) as f32
            }
        }
    }
}

/// Adds up weighted maps: un-flips each, resizes it as TensorFlow does (see
/// [`crate::bilinear`]) and accumulates in f32. Maps stay signed.
///
/// Buffers are kept from one frame to the next; they grow to the largest map seen.
#[derive(Debug, Default)]
pub struct MapMerger {
    height: usize,
    width: usize,
    channels: usize,
    /// `[height, width, channels]`
    map: Vec<f32>,
    axes: Axes,
    /// The small map and the weights of its regions, resized along x.
    wide_map: Wide,
    wide_weights: Wide,
    /// One row of each, resized along y as well.
    map_row: Vec<f32>,
    weight_row: Vec<f32>,
}

impl MapMerger {
    /// Starts a frame: a zero map `[height, width, channels]`.
    pub fn begin(&mut self, height: usize, width: usize, channels: usize) {
        if (self.height, self.width) != (height, width) {
            self.axes = Axes::default();
        }
        (self.height, self.width, self.channels) = (height, width, channels);
        self.map.clear();
        self.map.resize(height * width * channels, 0.0);
    }

    /// Adds a view's map `[rows, columns, channels]`.
    ///
    /// # Panics
    /// If `map` or the weights are fewer than their shape says.
    pub fn add(
        &mut self,
        view: View,
        weight: Weight<'_>,
        [rows, columns]: [usize; 2],
        map: &[f32],
    ) {
        assert_eq!(map.len(), rows * columns * self.channels, "map of view {view}");
        if self.map.is_empty() || map.is_empty() {
            return;
        }
        let x = self.axes.axis(columns, self.width, view.hflip);
        self.wide_map.fill(x, rows, self.channels, map);
        match weight {
            Weight::Uniform(weight) => self.add_uniform(rows, weight),
            Weight::Regions { rows: weight_rows, columns, values } => {
                let x = self.axes.axis(columns, self.width, false);
                self.wide_weights.fill(x, weight_rows, 1, values);
                self.add_regions(rows, weight_rows);
            }
        }
    }

    fn add_uniform(&mut self, rows: usize, weight: f32) {
        let y = self.axes.axis(rows, self.height, false);
        let out = self.map.chunks_exact_mut(self.wide_map.stride);
        for (out, tap) in out.zip(y.taps()) {
            let (lo, hi) = (self.wide_map.row(tap.lo), self.wide_map.row(tap.hi));
            for ((out, lo), hi) in out.iter_mut().zip(lo).zip(hi) {
                *out += weight * (lo + (hi - lo) * tap.t);
            }
        }
    }

    fn add_regions(&mut self, rows: usize, weight_rows: usize) {
        let stride = self.wide_map.stride;
        self.map_row.resize(stride, 0.0);
        self.weight_row.resize(self.width, 0.0);
        for (i, out) in self.map.chunks_exact_mut(stride).enumerate() {
            let tap = self.axes.axis(rows, self.height, false).taps()[i];
            let (lo, hi) = (self.wide_map.row(tap.lo), self.wide_map.row(tap.hi));
            blend(lo, hi, tap.t, &mut self.map_row);
            let tap = self.axes.axis(weight_rows, self.height, false).taps()[i];
            let (lo, hi) = (self.wide_weights.row(tap.lo), self.wide_weights.row(tap.hi));
            blend(lo, hi, tap.t, &mut self.weight_row);

            if self.channels == 1 {
                let row = self.map_row.iter().zip(&self.weight_row);
                out.iter_mut().zip(row).for_each(|(out, (value, weight))| *out += weight * value);
                continue;
            }
            let pixels = self.map_row.chunks_exact(self.channels).zip(&self.weight_row);
            for (out, (pixel, weight)) in out.chunks_exact_mut(self.channels).zip(pixels) {
                for (out, value) in out.iter_mut().zip(pixel) {
                    *out += weight * value;
                }
            }
        }
    }

    /// The merged map, `[height, width, channels]`.
    pub fn map(&self) -> &[f32] {
        &self.map
    }
}

/// Axes made so far, most of a daemon's life the same few: rows and columns of each
/// view's map. Cleared when the picture changes size.
#[derive(Debug, Default)]
struct Axes(Vec<(bool, Axis)>);

impl Axes {
    /// More than every view of a rich configuration needs; then it starts anew.
    const LIMIT: usize = 64;

    fn axis(&mut self, input: usize, output: usize, mirrored: bool) -> &Axis {
        let same = |(flip, axis): &(bool, Axis)| {
            *flip == mirrored && axis.input() == input && axis.taps().len() == output
        };
        let at = self.0.iter().position(same).unwrap_or_else(|| {
            if self.0.len() == Self::LIMIT {
                self.0.clear();
            }
            let axis = Axis::new(input, output);
            self.0.push((mirrored, if mirrored { axis.mirrored() } else { axis }));
            self.0.len() - 1
        });
        &self.0[at].1
    }
}

/// Rows resized along x, not yet along y.
#[derive(Debug, Default)]
struct Wide {
    /// Values in a row.
    stride: usize,
    values: Vec<f32>,
}

impl Wide {
    /// Resizes `source` `[rows, x.input(), channels]` to `[rows, x.taps(), channels]`.
    fn fill(&mut self, x: &Axis, rows: usize, channels: usize, source: &[f32]) {
        self.stride = x.taps().len() * channels;
        self.values.resize(rows * self.stride, 0.0);
        let narrow = source.chunks_exact(x.input() * channels);
        for (row, source) in self.values.chunks_exact_mut(self.stride).zip(narrow) {
            x.resize_row(source, channels, row);
        }
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.stride..][..self.stride]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLIPPED: View = View { scale: 1.0, hflip: true };

    #[test]
    fn a_weight_counts_with_its_mean() {
        assert_eq!(Weight::Uniform(0.25).mean(), 0.25);
        assert_eq!(
            Weight::Regions { rows: 1, columns: 4, values: &[0.0, 0.5, 0.5, 1.0] }.mean(),
            0.5
        );
        assert_eq!(Weight::Regions { rows: 0, columns: 0, values: &[] }.mean(), 0.0);
    }

    #[test]
    fn views_are_unflipped_resized_and_weighed() {
        let mut merger = MapMerger::default();
        for _ in 0..2 {
            merger.begin(2, 4, 1);
            merger.add(View::IDENTITY, Weight::Uniform(0.5), [1, 2], &[1.0, 5.0]);
            merger.add(FLIPPED, Weight::Uniform(0.5), [2, 1], &[8.0, -8.0]);
            assert_eq!(merger.map(), [4.5, 5.0, 6.0, 6.5, -3.5, -3.0, -2.0, -1.5]);
        }
    }

    #[test]
    fn a_flipped_view_of_a_mirrored_map_is_the_plain_view() {
        let plain: Vec<f32> = (0..3 * 5 * 2).map(|i| (i * 37 % 11) as f32).collect();
        let mirrored: Vec<f32> = plain
            .chunks(10)
            .flat_map(|row| row.chunks(2).rev().flatten().copied().collect::<Vec<_>>())
            .collect();
        let [mut a, mut b] = [MapMerger::default(), MapMerger::default()];
        a.begin(17, 23, 2);
        a.add(View::IDENTITY, Weight::Uniform(1.0), [3, 5], &plain);
        b.begin(17, 23, 2);
        b.add(FLIPPED, Weight::Uniform(1.0), [3, 5], &mirrored);
        assert_eq!(a.map(), b.map());
    }

    #[test]
    fn weights_by_region_sum_to_one_at_every_pixel() {
        let share = [0.0, 0.25, 0.5, 1.0];
        let rest = share.map(|w| 1.0 - w);
        let mut merger = MapMerger::default();
        merger.begin(9, 13, 2);
        for values in [&share, &rest] {
            let weight = Weight::Regions { rows: 2, columns: 2, values };
            merger.add(FLIPPED, weight, [2, 3], &[3.0; 12]);
        }
        assert!(merger.map().iter().all(|v| (v - 3.0).abs() < 1e-6), "{:?}", merger.map());
        // The corner of a region whose weight is 0 shows nothing of the view.
        merger.begin(9, 13, 2);
        let weight = Weight::Regions { rows: 2, columns: 2, values: &share };
        merger.add(View::IDENTITY, weight, [2, 3], &[3.0; 12]);
        assert_eq!(merger.map()[..2], [0.0, 0.0]);
        assert_eq!(merger.map()[9 * 13 * 2 - 2..], [3.0, 3.0]);
    }

    #[test]
    fn uniform_and_equal_regions_agree() {
        let map: Vec<f32> = (0..30).map(|i| (i as f32).sin()).collect();
        let [mut a, mut b] = [MapMerger::default(), MapMerger::default()];
        a.begin(21, 19, 3);
        a.add(FLIPPED, Weight::Uniform(0.3), [2, 5], &map);
        b.begin(21, 19, 3);
        let regions = Weight::Regions { rows: 4, columns: 4, values: &[0.3; 16] };
        b.add(FLIPPED, regions, [2, 5], &map);
        let worst = a.map().iter().zip(b.map()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-6, "{worst}");
    }

    #[test]
    fn nothing_to_draw_is_no_error() {
        let mut merger = MapMerger::default();
        merger.begin(0, 5, 1);
        merger.add(View::IDENTITY, Weight::Uniform(1.0), [1, 1], &[1.0]);
        assert!(merger.map().is_empty());
        merger.begin(2, 2, 1);
        merger.add(View::IDENTITY, Weight::Uniform(1.0), [0, 3], &[]);
        assert_eq!(merger.map(), [0.0; 4]);
    }
}
