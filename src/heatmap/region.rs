//! Where a map is hot: thresholds, connected regions with their boxes, contours.
//!
//! Everything here looks at the positive part of a map `[height, width]`: values that
//! are negative or not finite count as 0.

use crate::frame::Rect;
use std::collections::HashMap;

/// From which value on a map counts as hot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// Share of the map's maximum, 0–1.
    Share(f32),
    /// Value below which this percentage of the map lies, 0–100; between two values, linear.
    Percentile(f32),
    /// The level that parts the values into two groups of least variance each.
    /// Source: N. Otsu, "A Threshold Selection Method from Gray-Level Histograms", 1979.
    Otsu,
}

/// A connected hot part of a map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region {
    /// Smallest rectangle around it, in cells of the map.
    pub bounds: Rect,
    pub cells: usize,
    pub peak: f32,
    /// Sum of its values.
    pub mass: f32,
}

/// A closed line; the last point joins the first. In cells of the map: (0, 0) is its
/// top left corner, so that the first cell's centre is (0.5, 0.5).
pub type Contour = Vec<[f32; 2]>;

fn positive(value: f32) -> f32 {
    if value.is_finite() { value.max(0.0) } else { 0.0 }
}

/// The largest value of the positive part; 0 for a map without any.
pub fn peak(map: &[f32]) -> f32 {
    map.iter().copied().map(positive).fold(0.0, f32::max)
}

impl Threshold {
    /// The value itself, above 0; `None` for a map with nothing above 0.
    pub fn level(self, map: &[f32]) -> Option<f32> {
        let peak = peak(map);
        if peak == 0.0 {
            return None;
        }
        let level = match self {
            Self::Share(share) => share * peak,
            Self::Percentile(percentage) => percentile(map, percentage),
            Self::Otsu => otsu(map, peak),
        };
        // The peak may be smaller than the smallest normal number.
        Some(level.max(f32::MIN_POSITIVE).min(peak))
    }
}

fn percentile(map: &[f32], percentage: f32) -> f32 {
    let mut values: Vec<f32> = map.iter().copied().map(positive).collect();
    values.sort_unstable_by(f32::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let rank = f64::from(percentage.clamp(0.0, 100.0)) / 100.0 * last as f64;
    let (below, above) = (values[rank.floor() as usize], values[rank.ceil() as usize]);
    below + (above - below) * rank.fract() as f32
}

fn otsu(map: &[f32], peak: f32) -> f32 {
    const BINS: usize = 256;
    let mut histogram = [0u32; BINS];
    for &value in map {
        let bin = (positive(value) / peak * BINS as f32) as usize;
        histogram[bin.min(BINS - 1)] += 1;
    }
    let total = map.len() as f64;
    let moments = histogram.iter().enumerate().map(|(bin, &n)| bin as f64 * f64::from(n));
    let total_moment: f64 = moments.sum();
    let (mut below, mut moment_below) = (0.0, 0.0);
    let (mut best, mut best_spread) = (0, -1.0);
    for (bin, &count) in histogram.iter().enumerate().take(BINS - 1) {
        below += f64::from(count);
        moment_below += bin as f64 * f64::from(count);
        let above = total - below;
        // Between-class variance, up to a constant factor.
        let spread = (moment_below * total - total_moment * below).powi(2) / (below * above);
        if spread > best_spread {
            (best, best_spread) = (bin, spread);
        }
    }
    (best + 1) as f32 / BINS as f32 * peak
}

/// The regions at or above `level` (> 0), heaviest first. Cells touch by side or corner.
pub fn regions(map: &[f32], width: usize, level: f32) -> Vec<Region> {
    let height = map.len().checked_div(width).unwrap_or(0);
    let mut seen: Vec<bool> = map.iter().map(|&value| positive(value) < level).collect();
    let mut found = Vec::new();
    let mut open = Vec::new();
    for start in 0..width * height {
        if seen[start] {
            continue;
        }
        seen[start] = true;
        open.push(start);
        let mut region = Growing::default();
        while let Some(at) = open.pop() {
            let (x, y) = (at % width, at / width);
            region.add(x, y, map[at]);
            for near_y in y.saturating_sub(1)..(y + 2).min(height) {
                for near_x in x.saturating_sub(1)..(x + 2).min(width) {
                    let near = near_y * width + near_x;
                    if !std::mem::replace(&mut seen[near], true) {
                        open.push(near);
                    }
                }
            }
        }
        found.push(region.finish());
    }
    found.sort_by(|a, b| b.mass.total_cmp(&a.mass));
    found
}

struct Growing {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
    cells: usize,
    peak: f32,
    mass: f32,
}

impl Default for Growing {
    fn default() -> Self {
        let (left, top) = (usize::MAX, usize::MAX);
        Self { left, top, right: 0, bottom: 0, cells: 0, peak: 0.0, mass: 0.0 }
    }
}

impl Growing {
    fn add(&mut self, x: usize, y: usize, value: f32) {
        (self.left, self.right) = (self.left.min(x), self.right.max(x + 1));
        (self.top, self.bottom) = (self.top.min(y), self.bottom.max(y + 1));
        self.cells += 1;
        self.peak = self.peak.max(value);
        self.mass += value;
    }

    fn finish(self) -> Region {
        let bounds = Rect {
            x: self.left as u32,
            y: self.top as u32,
            width: (self.right - self.left) as u32,
            height: (self.bottom - self.top) as u32,
        };
        Region { bounds, cells: self.cells, peak: self.peak, mass: self.mass }
    }
}

/// The part of the picture that `cells` of a `[height, width]` map cover, where the
/// whole map covers `covers`; whole pixels, outwards.
pub fn in_picture(cells: Rect, width: usize, height: usize, covers: Rect) -> Rect {
    let span = |start: u32, length: u32, of: usize, offset: u32, pixels: u32| {
        let (of, pixels) = (of.max(1) as u64, u64::from(pixels));
        let from = u64::from(start) * pixels / of;
        let to = ((u64::from(start) + u64::from(length)) * pixels).div_ceil(of);
        (offset + from as u32, (to - from) as u32)
    };
    let (x, width) = span(cells.x, cells.width, width, covers.x, covers.width);
    let (y, height) = span(cells.y, cells.height, height, covers.y, covers.height);
    Rect { x, y, width, height }
}

/// The lines on which the map, linear between cell centres and 0 around it, crosses
/// `level` (> 0): marching squares. Every line is closed; on the picture, outlines run
/// clockwise and the borders of holes the other way.
pub fn contours(map: &[f32], width: usize, level: f32) -> Vec<Contour> {
    let squares = Squares { map, width, height: map.len().checked_div(width).unwrap_or(0), level };
    let mut next = squares.links();
    // In the order of the grid, so that the same map always gives the same lines.
    let mut starts: Vec<Edge> = next.keys().copied().collect();
    starts.sort_unstable();
    let mut lines = Vec::new();
    for start in starts {
        let mut line = Contour::new();
        let mut at = start;
        while let Some(following) = next.remove(&at) {
            line.push(squares.crossing(at));
            at = following;
        }
        if !line.is_empty() {
            lines.push(line);
        }
    }
    lines
}

/// An edge of the grid of cell centres: from (x, y) rightwards or downwards, in a grid
/// with one row and column of zeros around the map.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Edge {
    y: usize,
    x: usize,
    downwards: bool,
}

struct Squares<'a> {
    map: &'a [f32],
    width: usize,
    height: usize,
    level: f32,
}

impl Squares<'_> {
    fn value(&self, x: usize, y: usize) -> f32 {
        if x == 0 || y == 0 || x > self.width || y > self.height {
            return 0.0;
        }
        positive(self.map[(y - 1) * self.width + x - 1])
    }

    /// For every crossed edge the one that follows it on its line.
    fn links(&self) -> HashMap<Edge, Edge> {
        let mut links = HashMap::new();
        if self.width == 0 {
            return links;
        }
        for y in 0..=self.height {
            for x in 0..=self.width {
                self.link_square(x, y, &mut links);
            }
        }
        links
    }

    /// Corners and edges clockwise from the top left. A line goes through a square from
    /// an edge on which the clockwise walk leaves the hot part to one on which it comes
    /// back; the neighbour walks the shared edge the other way, so that lines join.
    fn link_square(&self, x: usize, y: usize, links: &mut HashMap<Edge, Edge>) {
        let corners = [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)];
        let values = corners.map(|(x, y)| self.value(x, y));
        let hot = values.map(|value| value >= self.level);
        let edges = [
            Edge { x, y, downwards: false },
            Edge { x: x + 1, y, downwards: true },
            Edge { x, y: y + 1, downwards: false },
            Edge { x, y, downwards: true },
        ];
        let leaves = |k: usize| hot[k % 4] && !hot[(k + 1) % 4];
        let returns = |k: usize| !hot[k % 4] && hot[(k + 1) % 4];
        let saddle = hot[0] == hot[2] && hot[1] == hot[3] && hot[0] != hot[1];
        let hot_centre = values.iter().sum::<f32>() / 4.0 >= self.level;
        for k in (0..4).filter(|&k| leaves(k)) {
            // In a saddle either the hot corners are joined, or the cold ones.
            let back = if saddle && !hot_centre { 3 } else { 1 };
            let step = if saddle { back } else { (1..4).find(|n| returns(k + n)).unwrap_or(1) };
            links.insert(edges[k], edges[(k + step) % 4]);
        }
    }

    /// The point on `edge` where the map is at the level.
    fn crossing(&self, edge: Edge) -> [f32; 2] {
        let (dx, dy) = if edge.downwards { (0, 1) } else { (1, 0) };
        let from = self.value(edge.x, edge.y);
        let to = self.value(edge.x + dx, edge.y + dy);
        let share = (self.level - from) / (to - from);
        // The first column of the map is column 1 of the grid, its centre at 0.5.
        let place = |at: usize, step: usize, end: usize| {
            (at as f32 - 0.5 + step as f32 * share).clamp(0.0, end as f32)
        };
        [place(edge.x, dx, self.width), place(edge.y, dy, self.height)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_below_all_normal_numbers_is_a_level() {
        let map = [0.0, f32::MIN_POSITIVE / 4.0];
        for threshold in [Threshold::Share(0.5), Threshold::Percentile(90.0), Threshold::Otsu] {
            assert_eq!(threshold.level(&map), Some(map[1]));
        }
    }

    /// Digits as values, anything else as 0.
    fn map(rows: &[&str]) -> (Vec<f32>, usize) {
        let digit = |c: char| c.to_digit(10).unwrap_or(0) as f32;
        (rows.iter().flat_map(|row| row.chars().map(digit)).collect(), rows[0].len())
    }

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect { x, y, width, height }
    }

    #[test]
    fn thresholds_give_their_level() {
        let ramp: Vec<f32> = (0..=100).map(|i| i as f32).collect();
        let two: Vec<f32> =
            (0..100).map(|i| if i < 60 { 1.0 + (i % 3) as f32 } else { 90.0 }).collect();
        let cases = [
            (Threshold::Share(0.4), &ramp[..], Some(40.0..=40.0)),
            (Threshold::Share(0.0), &ramp, Some(f32::MIN_POSITIVE..=f32::MIN_POSITIVE)),
            (Threshold::Percentile(95.0), &ramp, Some(95.0..=95.0)),
            (Threshold::Percentile(12.5), &[0.0, 1.0, 2.0, 3.0, 4.0], Some(0.5..=0.5)),
            (Threshold::Otsu, &two, Some(3.0..=89.0)),
            // By hand: the variance between the classes is greatest above the bin of 32.
            (
                Threshold::Otsu,
                &[16.0, 16.0, 16.0, 16.0, 32.0, 32.0, 32.0, 32.0, 200.0, 200.0, 256.0],
                Some(33.0..=33.0),
            ),
            (Threshold::Otsu, &[5.0], Some(f32::MIN_POSITIVE..=5.0)),
            (Threshold::Share(0.5), &[-3.0, -1.0, f32::NAN], None),
            (Threshold::Otsu, &[0.0; 9], None),
            (Threshold::Percentile(50.0), &[], None),
        ];
        for (threshold, map, expected) in cases {
            let level = threshold.level(map);
            let fits = match (&level, &expected) {
                (Some(level), Some(range)) => range.contains(level),
                (None, None) => true,
                _ => false,
            };
            assert!(fits, "{threshold:?} gave {level:?}, expected {expected:?}");
        }
    }

    #[test]
    fn regions_are_the_connected_parts_heaviest_first() {
        let (map, width) = map(&["9..1.", ".8...", "....7", "...7.", "1...."]);
        let found = regions(&map, width, 2.0);
        assert_eq!(
            found,
            [
                Region { bounds: rect(0, 0, 2, 2), cells: 2, peak: 9.0, mass: 17.0 },
                Region { bounds: rect(3, 2, 2, 2), cells: 2, peak: 7.0, mass: 14.0 },
            ]
        );
        assert_eq!(regions(&[-1.0, f32::NAN, f32::INFINITY], 3, 0.5), []);
        assert_eq!(regions(&[], 0, 0.5), []);
    }

    #[test]
    fn boxes_lie_where_the_map_covers_the_picture() {
        let covers = rect(280, 10, 720, 700);
        assert_eq!(in_picture(rect(0, 0, 7, 7), 7, 7, covers), covers);
        assert_eq!(in_picture(rect(1, 2, 2, 1), 7, 7, covers), rect(280 + 102, 10 + 200, 207, 100));
        assert_eq!(in_picture(rect(0, 0, 1, 1), 0, 0, rect(0, 0, 5, 5)), rect(0, 0, 5, 5));
    }

    /// The area inside (shoelace formula); positive where the line runs clockwise.
    fn area(line: &Contour) -> f32 {
        let pairs = line.iter().zip(line.iter().cycle().skip(1));
        pairs.map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum::<f32>() / 2.0
    }

    #[test]
    fn a_contour_lies_halfway_between_hot_and_cold_centres() {
        let (map, width) = map(&["....", ".22.", ".22.", "...."]);
        let lines = contours(&map, width, 1.0);
        assert_eq!(lines.len(), 1);
        for [x, y] in &lines[0] {
            let on = |v: f32| (v - 1.0).abs() < 1e-6 || (v - 3.0).abs() < 1e-6;
            assert!(on(*x) || on(*y), "{x} {y}");
        }
        // A square of side 2 with its corners cut at half a cell.
        assert!((area(&lines[0]) - 3.5).abs() < 1e-5, "{}", area(&lines[0]));
    }

    #[test]
    fn holes_saddles_and_edges_give_closed_lines() {
        let cases: [(&[&str], usize); 5] = [
            (&["999", "9.9", "999"], 2),
            (&["9.", ".9"], 1), // centre 4.5: joined
            (&["3.", ".3"], 2), // centre 1.5: apart
            (&["9"], 1),
            (&["...", "..."], 0),
        ];
        for (rows, count) in cases {
            let (map, width) = map(rows);
            let lines = contours(&map, width, 2.0);
            assert_eq!(lines.len(), count, "{rows:?}");
            for line in &lines {
                assert!(line.len() >= 4, "{rows:?}: {line:?}");
                let inside = |[x, y]: &[f32; 2]| {
                    (0.0..=width as f32).contains(x) && (0.0..=rows.len() as f32).contains(y)
                };
                assert!(line.iter().all(inside), "{rows:?}: {line:?}");
            }
        }
        // The hole runs the other way round than the outline.
        let (ring, width) = map(cases[0].0);
        let areas: Vec<bool> = contours(&ring, width, 2.0).iter().map(|l| area(l) > 0.0).collect();
        assert_eq!(areas, [true, false]);
    }
}
