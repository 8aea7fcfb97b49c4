//! How much of a map lies in a zone: the share of its positive mass.
//!
//! A zone is a simple polygon in fractions of the upright picture. It is laid over the
//! cells of a map once for each size and place of map: `coverage[i]` is the part of cell
//! `i`'s area within the polygon, 0–1, exact but for rounding. With `v` a class's map,
//! `share = Σ coverage·max(v, 0) / Σ max(v, 0)`. So the shares of zones that together tile
//! what the map covers add up to 1, and a zone beside it has the share 0.

use super::Heatmap;
use crate::config::ZoneConfig;
use crate::frame::Rect;
use std::sync::Arc;

/// A zone's part of a heatmap.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneShare {
    pub name: Arc<str>,
    /// Share of the positive mass of each class's map, 0–1, in the order of the heatmap's
    /// classes; `None` where a map has none.
    pub shares: Vec<Option<f32>>,
}

/// The configured zones, laid over the maps that came last.
#[derive(Debug, Default)]
pub struct Zones {
    zones: Vec<Zone>,
    grid: Option<Grid>,
}

#[derive(Debug)]
struct Zone {
    name: Arc<str>,
    polygon: Vec<[f64; 2]>,
    /// Cells with the part of each that is within, those without any left out.
    coverage: Vec<(u32, f32)>,
}

/// Where a map's cells lie in the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Grid {
    height: usize,
    width: usize,
    covers: Rect,
    picture: [u32; 2],
}

impl Zones {
    pub fn new(config: &[ZoneConfig]) -> Self {
        let zone = |z: &ZoneConfig| Zone {
            name: z.name.as_str().into(),
            polygon: z.polygon.clone(),
            coverage: Vec::new(),
        };
        Self { zones: config.iter().map(zone).collect(), grid: None }
    }

    /// Each zone's share of each class's positive mass, in the order of the configuration.
    pub fn shares(&mut self, heatmap: &Heatmap) -> Vec<ZoneShare> {
        if self.zones.is_empty() {
            return Vec::new();
        }
        let grid = Grid {
            height: heatmap.height,
            width: heatmap.width,
            covers: heatmap.covers,
            picture: heatmap.picture,
        };
        if self.grid != Some(grid) {
            for zone in &mut self.zones {
                zone.coverage = grid.coverage(&zone.polygon);
            }
            self.grid = Some(grid);
        }
        let classes = heatmap.classes.len();
        let cells = heatmap.values.chunks_exact(classes.max(1));
        let whole = mass(classes, cells.map(|cell| (cell, 1.0)));
        let share = |zone: &Zone| {
            let cell = |i: u32| &heatmap.values[i as usize * classes..][..classes];
            let within = mass(classes, zone.coverage.iter().map(|&(i, part)| (cell(i), part)));
            let shares = within.iter().zip(&whole);
            let shares = shares.map(|(&part, &all)| (all > 0.0).then(|| (part / all) as f32));
            ZoneShare { name: zone.name.clone(), shares: shares.collect() }
        };
        self.zones.iter().map(share).collect()
    }
}

/// Positive mass of each class over cells and the part of each that counts.
fn mass<'a>(classes: usize, cells: impl Iterator<Item = (&'a [f32], f32)>) -> Vec<f64> {
    let mut sums = vec![0.0; classes];
    for (values, part) in cells {
        for (sum, &value) in sums.iter_mut().zip(values) {
            if value > 0.0 && value.is_finite() {
                *sum += f64::from(value) * f64::from(part);
            }
        }
    }
    sums
}

impl Grid {
    fn coverage(&self, polygon: &[[f64; 2]]) -> Vec<(u32, f32)> {
        let [picture_width, picture_height] = self.picture.map(f64::from);
        let column = self.width as f64 / f64::from(self.covers.width);
        let row = self.height as f64 / f64::from(self.covers.height);
        let in_cells = |&[x, y]: &[f64; 2]| {
            [
                (x * picture_width - f64::from(self.covers.x)) * column,
                (y * picture_height - f64::from(self.covers.y)) * row,
            ]
        };
        let polygon: Vec<[f64; 2]> = polygon.iter().map(in_cells).collect();
        let mut coverage = Vec::new();
        for y in span(&polygon, 1, self.height) {
            let strip = slab(&polygon, 1, y as f64);
            for x in span(&strip, 0, self.width) {
                let part = area(&slab(&strip, 0, x as f64)).min(1.0);
                if part > 0.0 {
                    coverage.push(((y * self.width + x) as u32, part as f32));
                }
            }
        }
        coverage
    }
}

/// The cells of `0..cells` that the polygon can reach along an axis (0: x, 1: y).
fn span(polygon: &[[f64; 2]], axis: usize, cells: usize) -> std::ops::Range<usize> {
    let along = || polygon.iter().map(|p| p[axis]);
    let low = along().fold(f64::INFINITY, f64::min).floor().max(0.0);
    let high = along().fold(f64::NEG_INFINITY, f64::max).ceil().min(cells as f64);
    if low < high { low as usize..high as usize } else { 0..0 }
}

/// What of the polygon lies between `low` and `low + 1` along an axis. Parts that fall
/// apart stay joined by sides without area.
fn slab(polygon: &[[f64; 2]], axis: usize, low: f64) -> Vec<[f64; 2]> {
    let above = clip(polygon, axis, low, 1.0);
    clip(&above, axis, low + 1.0, -1.0)
}

/// What of the polygon lies where `(p[axis] − at)·sign ≥ 0`.
/// Source: I. Sutherland and G. Hodgman, "Reentrant Polygon Clipping", 1974.
fn clip(polygon: &[[f64; 2]], axis: usize, at: f64, sign: f64) -> Vec<[f64; 2]> {
    let mut out = Vec::with_capacity(polygon.len() + 4);
    let Some(&last) = polygon.last() else { return out };
    let mut from = last;
    for &to in polygon {
        let (a, b) = ((from[axis] - at) * sign, (to[axis] - at) * sign);
        if (a < 0.0) != (b < 0.0) {
            let t = a / (a - b);
            let mut crossing = [0, 1].map(|k| from[k] + (to[k] - from[k]) * t);
            crossing[axis] = at;
            out.push(crossing);
        }
        if b >= 0.0 {
            out.push(to);
        }
        from = to;
    }
    out
}

/// Shoelace formula; whichever way round.
fn area(polygon: &[[f64; 2]]) -> f64 {
    let next = polygon.iter().cycle().skip(1);
    let twice: f64 = polygon.iter().zip(next).map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum();
    twice.abs() / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heatmap::ClassScore;
    use proptest::prelude::*;
    use std::time::Instant;

    fn map(height: usize, width: usize, values: Vec<f32>, covers: Rect) -> Heatmap {
        let classes = values.len() / (height * width);
        let class =
            |index| ClassScore { index, label: index.to_string(), logit: 0.0, probability: 0.5 };
        let classes = (0..classes).map(class).collect();
        let picture = [100, 80];
        Heatmap {
            height,
            width,
            values,
            classes,
            covers,
            picture,
            ..Heatmap::of_one_cell(Instant::now())
        }
    }

    fn zone(polygon: &[[f64; 2]]) -> ZoneConfig {
        ZoneConfig { name: "z".into(), polygon: polygon.to_vec() }
    }

    #[test]
    fn shares_known_by_hand() {
        let whole = Rect::full(100, 80);
        // The right half of the picture.
        let right = Rect { x: 50, y: 0, width: 50, height: 80 };
        let left_half = [[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]];
        let triangle = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]];
        // Two prongs: in the lower half it falls into two parts.
        let fork = [
            [0.0, 0.0],
            [1.0, 0.0],
            [1.0, 1.0],
            [0.75, 1.0],
            [0.75, 0.5],
            [0.25, 0.5],
            [0.25, 1.0],
            [0.0, 1.0],
        ];
        let ones = |n| vec![1.0; n];
        type Case<'a> = (&'a str, Heatmap, &'a [[f64; 2]], Vec<Option<f32>>);
        let cases: Vec<Case> = vec![
            ("half of a flat map", map(2, 2, ones(4), whole), &left_half, vec![Some(0.5)]),
            ("across cells", map(1, 3, ones(3), whole), &left_half, vec![Some(0.5)]),
            ("all in it", map(1, 2, vec![2.0, 0.0], whole), &left_half, vec![Some(1.0)]),
            (
                "each class by itself",
                map(1, 2, vec![1.0, 0.0, 3.0, 4.0], whole),
                &[[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]],
                vec![Some(0.75), Some(1.0)],
            ),
            ("negative is no mass", map(1, 2, vec![-5.0, 2.0], whole), &left_half, vec![Some(0.0)]),
            ("nothing anywhere", map(1, 2, vec![-5.0, 0.0], whole), &left_half, vec![None]),
            ("not finite", map(1, 2, vec![f32::NAN, f32::INFINITY], whole), &left_half, vec![None]),
            ("beside it", map(2, 2, ones(4), right), &left_half, vec![Some(0.0)]),
            ("triangle", map(1, 1, ones(1), whole), &triangle, vec![Some(0.5)]),
            (
                "triangle in cells",
                map(2, 2, vec![1.0, 0.0, 0.0, 3.0], whole),
                &triangle,
                vec![Some(0.25)],
            ),
            ("fork, lower half", map(2, 1, vec![0.0, 1.0], whole), &fork, vec![Some(0.5)]),
            (
                "two classes",
                map(1, 2, vec![1.0, 3.0, 3.0, 1.0], whole),
                &left_half,
                vec![Some(0.25), Some(0.75)],
            ),
        ];
        for (name, map, polygon, expected) in cases {
            let shares = Zones::new(&[zone(polygon)]).shares(&map);
            assert_eq!(shares[0].shares, expected, "{name}");
        }
    }

    #[test]
    fn follows_maps_of_another_size() {
        let mut zones = Zones::new(&[zone(&[[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]])]);
        for (height, width) in [(2, 2), (5, 7), (2, 2)] {
            let shares =
                zones.shares(&map(height, width, vec![1.0; height * width], Rect::full(100, 80)));
            assert!((shares[0].shares[0].unwrap() - 0.5).abs() < 1e-6, "{height}x{width}");
        }
    }

    /// A star around (0.5, 0.5), which is simple whatever the radii.
    fn star() -> impl Strategy<Value = Vec<[f64; 2]>> {
        prop::collection::vec(0.05..0.5f64, 3..12).prop_map(|radii| {
            let n = radii.len() as f64;
            let corner = |(i, r): (usize, f64)| {
                let angle = i as f64 / n * std::f64::consts::TAU;
                [0.5 + r * angle.cos(), 0.5 + r * angle.sin()]
            };
            radii.into_iter().enumerate().map(corner).collect()
        })
    }

    proptest! {
        /// No mass is lost or counted twice: the star and the sectors of the picture around
        /// it, each bounded by neighbouring rays, tile the picture.
        #[test]
        fn zones_that_tile_the_picture_share_all_of_the_mass(
            star in star(),
            values in prop::collection::vec(-1.0..4.0f32, 42),
        ) {
            let out = |p: [f64; 2]| {
                let (dx, dy) = (p[0] - 0.5, p[1] - 0.5);
                let far = 0.5 / dx.abs().max(dy.abs());
                [0.5 + dx * far, 0.5 + dy * far]
            };
            let mut zones = vec![zone(&star)];
            for i in 0..star.len() {
                let (a, b) = (star[i], star[(i + 1) % star.len()]);
                let mut sector = vec![a, out(a)];
                sector.extend(corners_between(out(a), out(b)));
                sector.extend([out(b), b]);
                zones.push(zone(&sector));
            }
            let map = map(6, 7, values, Rect::full(100, 80));
            prop_assume!(map.values.iter().any(|v| *v > 0.0));
            let shares = Zones::new(&zones).shares(&map);
            let sum: f32 = shares.iter().map(|z| z.shares[0].unwrap()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-4, "{sum}");
        }

        /// The cells' coverage adds up to the polygon's area.
        #[test]
        fn coverage_is_area(star in star(), height in 1..40usize, width in 1..40usize) {
            let grid = Grid { height, width, covers: Rect::full(100, 80), picture: [100, 80] };
            let covered: f64 = grid.coverage(&star).iter().map(|(_, part)| f64::from(*part)).sum();
            let expected = area(&star) * (height * width) as f64;
            prop_assert!((covered - expected).abs() < 1e-4 * (1.0 + expected), "{covered} {expected}");
        }
    }

    /// Corners of the unit square passed clockwise (on a screen) from one border point to
    /// the next, less than a whole turn on.
    fn corners_between(from: [f64; 2], to: [f64; 2]) -> Vec<[f64; 2]> {
        let angle = |p: [f64; 2]| (p[1] - 0.5).atan2(p[0] - 0.5).rem_euclid(std::f64::consts::TAU);
        let turn = |p: [f64; 2]| (angle(p) - angle(from)).rem_euclid(std::f64::consts::TAU);
        let mut corners = vec![[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]];
        corners.retain(|c| turn(*c) > 1e-12 && turn(*c) < turn(to));
        corners.sort_by(|a, b| turn(*a).total_cmp(&turn(*b)));
        corners
    }
}
