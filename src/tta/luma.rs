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
