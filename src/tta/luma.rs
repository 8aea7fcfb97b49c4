//! Has the scene changed, and where? Mean luma on a coarse grid, compared after taking out
//! what exposure does to all of it.

/// Cells along each side of the grid.
const SIDE: usize = 32;
const CELLS: usize = SIDE * SIDE;

/// Regions along each side: change is told for each region.
pub const REGION_SIDE: usize = 8;
/// Regions in all, row by row.
pub const REGIONS: usize = REGION_SIDE * REGION_SIDE;

/// Mean luma of each cell of a picture, 0–255.
#[derive(Clone, Debug, PartialEq)]
pub struct LumaGrid {
    cells: Box<[f32; CELLS]>,
}

/// What became of one grid in another.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The largest difference of any cell of each region that exposure does not explain,
    /// in luma levels beyond what the noise of the whole picture makes likely.
    pub levels: [f32; REGIONS],
    /// Share of cells that differ by more than the levels asked about, 0–1.
    pub changed_share: f32,
}

impl LumaGrid {
    /// Of an RGB picture, `[height, width, 3]` (ITU-R BT.601 weights). Cells of a picture
    /// smaller than the grid repeat its pixels; an empty one is black.
    ///
    /// # Panics
    /// If `rgb` holds fewer than `height · width · 3` bytes.
    pub fn new(rgb: &[u8], width: usize, height: usize) -> Self {
        let mut cells = Box::new([0.0; CELLS]);
        if width == 0 || height == 0 {
            return Self { cells };
        }
        let span = |i: usize, size: usize| {
            let start = i * size / SIDE;
            start..((i + 1) * size / SIDE).max(start + 1)
        };
        for (i, cell) in cells.iter_mut().enumerate() {
            let (rows, columns) = (span(i / SIDE, height), span(i % SIDE, width));
            let count = rows.len() * columns.len();
            let mut sums = [0u32; 3];
            for y in rows {
                let row = &rgb[y * width * 3..][..width * 3];
                for pixel in row[columns.start * 3..columns.end * 3].chunks_exact(3) {
                    sums.iter_mut().zip(pixel).for_each(|(sum, &x)| *sum += u32::from(x));
                }
            }
            let [r, g, b] = sums.map(|sum| sum as f32 / count as f32);
            *cell = 0.299 * r + 0.587 * g + 0.114 * b;
        }
        Self { cells }
    }

    /// The largest difference of any cell, in luma levels; exposure counts as a change.
    pub fn largest_difference(&self, other: &Self) -> f32 {
        let pairs = self.cells.iter().zip(other.cells.iter());
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    /// What changed from `self` to `now`, a change of exposure (a gain and an offset for
    /// the whole picture) taken out; `levels` is what counts for `changed_share`.
    pub fn change_to(&self, now: &Self, levels: f32) -> Change {
        let (gain, offset) = exposure(&self.cells, &now.cells);
        let mut residuals = [0.0; CELLS];
        let pairs = self.cells.iter().zip(now.cells.iter());
        for (residual, (before, now)) in residuals.iter_mut().zip(pairs) {
            *residual = (now - gain * before - offset).abs();
        }
        // A cut makes every cell noisy: believe in no more noise than cameras have.
        let noise = (4.0 * 1.4826 * median(&residuals)).min(levels / 2.0);
        let changed = residuals.iter().filter(|&&r| r > levels).count();
        let mut worst = [0.0f32; REGIONS];
        for (i, residual) in residuals.iter().enumerate() {
            let scale = SIDE / REGION_SIDE;
            let region = (i / SIDE / scale) * REGION_SIDE + i % SIDE / scale;
            worst[region] = worst[region].max(residual - noise);
        }
        Change { levels: worst, changed_share: changed as f32 / CELLS as f32 }
    }
}

/// Gain and offset that carry most cells of `before` into `now`: quartiles first, then
/// least squares over the cells that agree, so that a moving object does not count.
fn exposure(before: &[f32; CELLS], now: &[f32; CELLS]) -> (f32, f32) {
    /// More than a stop either way is no longer the same picture.
    const GAIN: std::ops::RangeInclusive<f32> = 0.5..=2.0;
    /// Two levels are noise and rounding whatever the median says.
    const INLIER_FLOOR: f32 = 2.0;

    let clamp = |gain: f32| gain.clamp(*GAIN.start(), *GAIN.end());
    let [b, n] = [quartiles(before), quartiles(now)];
    let spread = [b[2] - b[0], n[2] - n[0]];
    let mut gain = if spread[0] > 4.0 { clamp(spread[1] / spread[0]) } else { 1.0 };
    let mut offset = n[1] - gain * b[1];
    for _ in 0..4 {
        let mut residuals = [0.0; CELLS];
        for (residual, (b, n)) in residuals.iter_mut().zip(before.iter().zip(now)) {
            *residual = (n - gain * b - offset).abs();
        }
        let limit = (2.5 * 1.4826 * median(&residuals)).max(INLIER_FLOOR);
        let agree = |i: &usize| residuals[*i] <= limit;
        let count = (0..CELLS).filter(agree).count() as f32;
        let mean = |x: &[f32; CELLS]| (0..CELLS).filter(agree).map(|i| x[i]).sum::<f32>() / count;
        let (mean_b, mean_n) = (mean(before), mean(now));
        let (mut variance, mut covariance) = (0.0, 0.0);
        for i in (0..CELLS).filter(agree) {
            variance += (before[i] - mean_b).powi(2);
            covariance += (before[i] - mean_b) * (now[i] - mean_n);
        }
        // A flat picture says nothing about gain.
        gain = if variance > count { clamp(covariance / variance) } else { 1.0 };
        offset = mean_n - gain * mean_b;
    }
    (gain, offset)
}

fn quartiles(values: &[f32; CELLS]) -> [f32; 3] {
    let mut sorted = *values;
    sorted.sort_unstable_by(f32::total_cmp);
    [sorted[CELLS / 4], sorted[CELLS / 2], sorted[CELLS * 3 / 4]]
}

fn median(values: &[f32; CELLS]) -> f32 {
    let mut values = *values;
    *values.select_nth_unstable_by(CELLS / 2, f32::total_cmp).1
}

/// Pictures to test with: smooth, with shapes, different for every seed.
#[cfg(test)]
pub(super) mod scene {
    pub const WIDTH: usize = 224;
    pub const HEIGHT: usize = 192;

    pub struct Random(pub u64);

    impl Random {
        /// Four numbers in 0–1.
        fn step(&mut self) -> [f32; 4] {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            [0, 16, 32, 48].map(|shift| f32::from((mixed >> shift) as u16) / 65536.0)
        }

        /// Uniform in 0–1.
        pub fn uniform(&mut self) -> f32 {
            self.step()[3]
        }

        /// Nearly normal: mean 0, deviation 1.
        pub fn normal(&mut self) -> f32 {
            3f32.sqrt() * (self.step().iter().sum::<f32>() - 2.0)
        }
    }

    /// A gradient and ten rectangles.
    pub fn picture(seed: u64) -> Vec<f32> {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(99));
        random.uniform();
        let (base, x_slope, y_slope) =
            (60.0 + 60.0 * random.uniform(), 60.0 * random.uniform(), 60.0 * random.uniform());
        let mut picture = vec![0.0; WIDTH * HEIGHT];
        for (i, value) in picture.iter_mut().enumerate() {
            let (x, y) = ((i % WIDTH) as f32 / WIDTH as f32, (i / WIDTH) as f32 / HEIGHT as f32);
            *value = base + x_slope * x + y_slope * y;
        }
        for _ in 0..10 {
            let [x, y, w, h] = std::array::from_fn(|_| random.uniform());
            let luma = 30.0 + 180.0 * random.uniform();
            let size = [0.1 + 0.3 * w, 0.1 + 0.3 * h];
            fill(&mut picture, [x * (1.0 - size[0]), y * (1.0 - size[1])], size, luma);
        }
        picture
    }

    /// A rectangle, in shares of width and height.
    pub fn fill(picture: &mut [f32], at: [f32; 2], size: [f32; 2], luma: f32) {
        let pixels = |share: f32, whole: usize| (share * whole as f32) as usize;
        let columns = pixels(at[0], WIDTH)..pixels(at[0] + size[0], WIDTH);
        for y in pixels(at[1], HEIGHT)..pixels(at[1] + size[1], HEIGHT) {
            picture[y * WIDTH..][columns.clone()].fill(luma);
        }
    }

    /// What a camera makes of it: gain, offset, noise.
    pub fn shoot(
        picture: &[f32],
        gain: f32,
        offset: f32,
        noise: f32,
        seed: u64,
    ) -> super::LumaGrid {
        let mut random = Random(seed);
        let mut rgb = Vec::with_capacity(3 * picture.len());
        for luma in picture {
            let grey = (gain * luma + offset + noise * random.normal()).round();
            rgb.extend([grey.clamp(0.0, 255.0) as u8; 3]);
        }
        super::LumaGrid::new(&rgb, WIDTH, HEIGHT)
    }
}

#[cfg(test)]
mod tests {
    use super::scene::{Random, fill, picture, shoot};
    use super::*;

    const LEVELS: f32 = 6.0;

    /// Regions that a rolling view would lose something in.
    fn touched(change: &Change) -> Vec<usize> {
        (0..REGIONS).filter(|&region| change.levels[region] > LEVELS / 2.0).collect()
    }

    #[test]
    fn noise_and_exposure_are_no_change() {
        for seed in 0..10 {
            let scene = picture(seed);
            let before = shoot(&scene, 1.0, 0.0, 2.0, seed);
            for (gain, offset, noise) in [
                (1.0, 0.0, 2.0),
                (1.0, 0.0, 6.0),
                (1.15, 0.0, 2.0),
                (0.6, 4.0, 2.0),
                (1.0, 20.0, 2.0),
            ] {
                let change =
                    before.change_to(&shoot(&scene, gain, offset, noise, seed + 50), LEVELS);
                let what = format!("scene {seed}, gain {gain} offset {offset} noise {noise}");
                assert_eq!(touched(&change), [0; 0], "{what}");
                assert_eq!(change.changed_share, 0.0, "{what}");
            }
        }
    }

    /// A quarter of the picture is another, and the rest is what gain and offset make of it.
    #[test]
    fn exposure_is_that_of_the_cells_that_agree() {
        // Four rounds from a wrong start miss the last two.
        for (levels, gain, offset, other) in [
            (0.0..200.0, 1.0, 0.0, 90.0),
            (0.0..200.0, 1.6, -20.0, 90.0),
            (0.0..200.0, 0.7, 30.0, 200.0),
            (50.0..200.0, 1.6, -20.0, 10.0),
        ] {
            let step = (levels.end - levels.start) / CELLS as f32;
            let before: [f32; CELLS] =
                std::array::from_fn(|i| levels.start + (i * 37 % CELLS) as f32 * step);
            let mut now = before.map(|b| gain * b + offset);
            for (i, cell) in now.iter_mut().enumerate().filter(|(i, _)| i % 4 == 0) {
                *cell = other + (i % 7) as f32;
            }
            let found = exposure(&before, &now);
            assert!((found.0 - gain).abs() < 0.02 && (found.1 - offset).abs() < 2.0, "{found:?}");
        }
    }

    #[test]
    fn quartiles_and_median_are_of_sorted_cells() {
        let values = std::array::from_fn(|i| (i * 37 % CELLS) as f32);
        let at = |share: f32| share * CELLS as f32;
        assert_eq!(quartiles(&values), [at(0.25), at(0.5), at(0.75)]);
        assert_eq!(median(&values), at(0.5));
    }

    #[test]
    fn a_thing_in_a_corner_changes_that_corner() {
        for seed in 0..10 {
            let mut scene = picture(seed);
            fill(&mut scene, [0.75, 0.75], [0.25, 0.25], 128.0);
            let before = shoot(&scene, 1.0, 0.0, 2.0, seed);
            fill(&mut scene, [0.75, 0.75], [0.25, 0.25], 150.0);
            for gain in [1.0, 0.8] {
                let change = before.change_to(&shoot(&scene, gain, 0.0, 2.0, seed + 50), LEVELS);
                assert_eq!(touched(&change), [54, 55, 62, 63], "scene {seed}, gain {gain}");
            }
        }
    }

    #[test]
    fn another_scene_is_a_change_of_most_of_it() {
        for seed in 0..40 {
            let before = shoot(&picture(seed), 1.0, 0.0, 2.0, 1);
            let after = shoot(&picture(seed + 1), 1.0, 0.0, 2.0, 2);
            let share = before.change_to(&after, LEVELS).changed_share;
            assert!(share > 0.5, "scene {seed} to the next: only {share} changed");
        }
    }

    #[test]
    fn cells_are_mean_luma() {
        let white = LumaGrid::new(&[255; 64 * 32 * 3], 64, 32);
        assert!(white.cells.iter().all(|luma| (luma - 255.0).abs() < 1e-3));
        let mut rgb = vec![0; 64 * 64 * 3];
        rgb[..6].copy_from_slice(&[200, 0, 0, 0, 100, 0]);
        let cell = LumaGrid::new(&rgb, 64, 64).cells[0];
        assert!((cell - (0.299 * 200.0 + 0.587 * 100.0) / 4.0).abs() < 1e-3, "{cell}");
    }

    #[test]
    fn tiny_and_odd_pictures_have_a_grid() {
        let mut random = Random(3);
        for [width, height] in [[0, 5], [1, 1], [3, 40], [33, 31], [299, 299]] {
            let rgb: Vec<u8> =
                (0..width * height * 3).map(|_| (255.0 * random.uniform()) as u8).collect();
            let grid = LumaGrid::new(&rgb, width, height);
            let change = grid.change_to(&grid, LEVELS);
            assert_eq!((touched(&change), change.changed_share), (vec![], 0.0));
            assert_eq!(grid.largest_difference(&grid), 0.0);
        }
    }
}
