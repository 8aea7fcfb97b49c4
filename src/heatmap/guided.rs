//! A map that follows the edges of its picture: the guided filter.
//!
//! Within every window the map is taken to be linear in the picture's brightness I,
//! `a·I + b`, with the a and b of least squares and a penalty on a; each cell gets the mean of
//! what its windows say. So the map keeps its shape where the picture is even, and steps where
//! the picture does. All sums are running sums: the cost does not depend on the window.
//! Source: K. He, J. Sun, X. Tang, "Guided Image Filtering", TPAMI 2013.

use crate::frame::{Picture, Rect};

/// A window reaches so many cells to each side: a part of the map's shorter side. A feature
/// of Xception covers a tenth of the map, and its edge may lie anywhere within.
const RADIUS_PART: usize = 16;
/// The penalty ε on a², for brightness of 0–1: contrasts below its root are no edges.
const EPSILON: f32 = 1e-3;

/// Refines maps; keeps its buffers from one to the next.
#[derive(Default)]
pub struct GuidedFilter {
    guide: Vec<f32>,
    mean_guide: Vec<f32>,
    mean_map: Vec<f32>,
    /// E\[I²\], then a; E\[I·p\], then b.
    slopes: Vec<f32>,
    offsets: Vec<f32>,
    scratch: Vec<f32>,
}

impl GuidedFilter {
    /// Refines `map`, `[height, width]`, which covers the part `covers` of `picture`. Values
    /// stay within the map's own range; those that are not finite count as 0.
    pub fn refine(&mut self, picture: &Picture, covers: Rect, map: &mut [f32], width: usize) {
        let height = map.len().checked_div(width).unwrap_or(0);
        if !self.look(picture, covers, width, height) {
            return;
        }
        map.iter_mut().filter(|value| !value.is_finite()).for_each(|value| *value = 0.0);
        let least = map.iter().copied().fold(f32::INFINITY, f32::min);
        let most = map.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        self.fit(map, width);
        for ((value, guide), (a, b)) in
            map.iter_mut().zip(&self.guide).zip(self.slopes.iter().zip(&self.offsets))
        {
            *value = (a * guide + b).clamp(least, most);
        }
    }

    /// Leaves the windows' mean a in `slopes`, and their mean b in `offsets`.
    fn fit(&mut self, map: &[f32], width: usize) {
        let radius = (width.min(map.len() / width) / RADIUS_PART).max(1);
        let Self { guide, mean_guide, mean_map, slopes, offsets, scratch } = self;
        let mut mean = |out: &mut Vec<f32>, values: &mut dyn Iterator<Item = f32>| {
            out.clear();
            out.extend(values);
            box_mean(out, width, radius, scratch);
        };
        mean(mean_guide, &mut guide.iter().copied());
        mean(mean_map, &mut map.iter().copied());
        mean(slopes, &mut guide.iter().map(|i| i * i));
        mean(offsets, &mut guide.iter().zip(map).map(|(i, p)| i * p));
        for ((a, b), (i, p)) in
            slopes.iter_mut().zip(offsets.iter_mut()).zip(mean_guide.iter().zip(mean_map.iter()))
        {
            let (variance, covariance) = (*a - i * i, *b - i * p);
            // Rounding can leave a variance a little below 0.
            *a = covariance / (variance.max(0.0) + EPSILON);
            *b = p - *a * i;
        }
        box_mean(slopes, width, radius, scratch);
        box_mean(offsets, width, radius, scratch);
    }

    /// Fills `guide` with the picture's brightness, 0–1, one value a cell: the mean of the
    /// cell's pixels. False if there is none.
    fn look(&mut self, picture: &Picture, covers: Rect, width: usize, height: usize) -> bool {
        let [x, y, w, h] = [covers.x, covers.y, covers.width, covers.height].map(|n| n as usize);
        let fits = x + w <= picture.width && y + h <= picture.height;
        if !fits || width * height * w * h == 0 {
            return false;
        }
        let span = |at: usize, cells: usize, pixels: usize| {
            let from = at * pixels / cells;
            from..((at + 1) * pixels / cells).max(from + 1)
        };
        self.guide.clear();
        for row in 0..height {
            for column in 0..width {
                let (rows, columns) = (span(row, height, h), span(column, width, w));
                let pixels = (rows.len() * columns.len()) as f32;
                let mut sum = 0;
                for at_y in rows {
                    let start = ((y + at_y) * picture.width + x + columns.start) * 3;
                    let row = &picture.rgb[start..start + columns.len() * 3];
                    sum += row.as_chunks::<3>().0.iter().map(luma).sum::<u32>();
                }
                self.guide.push(sum as f32 / pixels / LUMA_FULL);
            }
        }
        true
    }
}

/// White's luma in [`luma`]'s units.
const LUMA_FULL: f32 = 255.0 * 256.0;

/// ITU-R BT.601, in 256ths.
fn luma(&[r, g, b]: &[u8; 3]) -> u32 {
    77 * u32::from(r) + 150 * u32::from(g) + 29 * u32::from(b)
}

/// Each value becomes the mean of its window of `2·radius + 1` to a side, of as much of it as
/// there is: first along the rows, then down the columns.
fn box_mean(values: &mut [f32], width: usize, radius: usize, scratch: &mut Vec<f32>) {
    let height = values.len() / width;
    scratch.resize(values.len(), 0.0);
    for (row, out) in values.chunks_exact(width).zip(scratch.chunks_exact_mut(width)) {
        let mut sum: f32 = row[..radius.min(width)].iter().sum();
        for (x, mean) in out.iter_mut().enumerate() {
            sum += row.get(x + radius).copied().unwrap_or(0.0);
            *mean = sum / (window(x, radius, width) as f32);
            sum -= x.checked_sub(radius).map_or(0.0, |gone| row[gone]);
        }
    }
    // All columns at once, row by row: one running sum for each.
    let rows = |y: usize| &scratch[y * width..][..width];
    let mut sums = vec![0.0f32; width];
    let add = |sums: &mut [f32], row: &[f32], sign: f32| {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += sign * value);
    };
    (0..radius.min(height)).for_each(|y| add(&mut sums, rows(y), 1.0));
    for y in 0..height {
        if y + radius < height {
            add(&mut sums, rows(y + radius), 1.0);
        }
        let share = 1.0 / window(y, radius, height) as f32;
        let out = &mut values[y * width..][..width];
        out.iter_mut().zip(&sums).for_each(|(value, sum)| *value = sum * share);
        if let Some(gone) = y.checked_sub(radius) {
            add(&mut sums, rows(gone), -1.0);
        }
    }
}

/// How many of `length` places lie within `radius` of `at`.
fn window(at: usize, radius: usize, length: usize) -> usize {
    (at + radius + 1).min(length) - at.saturating_sub(radius)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As defined: the mean over each window, summed anew.
    fn box_mean_slowly(values: &[f32], width: usize, radius: usize) -> Vec<f32> {
        let height = values.len() / width;
        let near = |at: usize, length| at.saturating_sub(radius)..(at + radius + 1).min(length);
        let mean = |i: usize| {
            let cells: Vec<f32> = near(i / width, height)
                .flat_map(|y| near(i % width, width).map(move |x| values[y * width + x]))
                .collect();
            cells.iter().sum::<f32>() / cells.len() as f32
        };
        (0..values.len()).map(mean).collect()
    }

    #[test]
    fn running_sums_are_means_of_windows() {
        for (width, height, radius) in [(1, 1, 1), (7, 5, 2), (5, 9, 3), (3, 2, 6), (40, 1, 4)] {
            let values: Vec<f32> = (0..width * height).map(|i| (i * 37 % 23) as f32).collect();
            let mut means = values.clone();
            box_mean(&mut means, width, radius, &mut Vec::new());
            for (mean, expected) in means.iter().zip(box_mean_slowly(&values, width, radius)) {
                assert!((mean - expected).abs() < 1e-4, "{width}x{height}, {radius}");
            }
        }
    }

    const SIDE: usize = 64;

    /// Black on the left, white from column 40 of 64 on, in a picture of 3 pixels a cell with
    /// a margin that the map does not cover.
    fn step() -> (Picture, Rect) {
        let mut picture = Picture::new(SIDE * 3 + 10, SIDE * 3);
        let width = picture.width;
        for (i, pixel) in picture.rgb.chunks_exact_mut(3).enumerate() {
            pixel.fill(if i % width >= 10 + 40 * 3 { 255 } else { 0 });
        }
        (picture, Rect { x: 10, y: 0, width: SIDE as u32 * 3, height: SIDE as u32 * 3 })
    }

    /// A smooth slope whose middle lies at column 38.
    fn slope() -> Vec<f32> {
        let value = |x: f32| 2.0 / (1.0 + (-(x - 38.0) / 4.0).exp());
        (0..SIDE * SIDE).map(|i| value((i % SIDE) as f32)).collect()
    }

    #[test]
    fn a_soft_border_moves_to_the_pictures_edge_and_sharpens() {
        let (picture, covers) = step();
        let (before, mut after) = (slope(), slope());
        GuidedFilter::default().refine(&picture, covers, &mut after, SIDE);
        let rise = |map: &[f32]| map[20 * SIDE + 40] - map[20 * SIDE + 39];
        assert!(rise(&after) > 4.0 * rise(&before), "{} {}", rise(&before), rise(&after));
        let most = before.iter().copied().fold(0.0, f32::max);
        assert!(after.iter().all(|value| (0.0..=most).contains(value)));
    }

    #[test]
    fn an_even_picture_smooths_and_moves_no_mass() {
        let picture = Picture { width: 64, height: 64, rgb: vec![90; 64 * 64 * 3] };
        let mut map = vec![0.0; SIDE * SIDE];
        map[32 * SIDE + 32] = 1.0;
        GuidedFilter::default().refine(&picture, Rect::full(64, 64), &mut map, SIDE);
        assert!((map.iter().sum::<f32>() - 1.0).abs() < 1e-3);
        assert!((map[32 * SIDE + 30] - map[32 * SIDE + 34]).abs() < 1e-6);
    }

    /// Five by three pixels that the map covers, for two by two cells: of two or three columns,
    /// and of one or two rows.
    #[test]
    fn a_cells_brightness_is_the_mean_of_its_pixels() {
        let pixels = [
            [9, 9, 9, 9, 9, 9],
            [9, 10, 30, 1, 2, 6],
            [9, 40, 50, 60, 70, 80],
            [9, 42, 52, 62, 72, 82],
        ];
        let rgb = pixels.iter().flatten().flat_map(|&grey| [grey; 3]).collect();
        let picture = Picture { width: 6, height: 4, rgb };
        let mut filter = GuidedFilter::default();
        assert!(filter.look(&picture, Rect { x: 1, y: 1, width: 5, height: 3 }, 2, 2));
        for (cell, mean) in filter.guide.iter().zip([20.0, 3.0, 46.0, 71.0]) {
            assert!((cell * 255.0 - mean).abs() < 1e-4, "{cell} {mean}");
        }
    }

    #[test]
    fn what_cannot_guide_leaves_the_map_alone() {
        let (picture, covers) = step();
        let beyond = Rect { x: 20, ..covers };
        let below = Rect { y: 1, ..covers };
        for (covers, width) in
            [(beyond, SIDE), (below, SIDE), (Rect { width: 0, ..covers }, SIDE), (covers, 0)]
        {
            let mut map = if width == 0 { Vec::new() } else { slope() };
            let before = map.clone();
            GuidedFilter::default().refine(&picture, covers, &mut map, width);
            assert_eq!(map, before);
        }
        // A map larger than its picture, with values that are none.
        let mut map = vec![f32::NAN, -1.0, f32::INFINITY, 3.0, 0.0, 1.0, 2.0, 3.0, 3.0];
        GuidedFilter::default().refine(&Picture::new(1, 1), Rect::full(1, 1), &mut map, 3);
        assert!(map.iter().all(|value| (-1.0..=3.0).contains(value)), "{map:?}");
    }
}
