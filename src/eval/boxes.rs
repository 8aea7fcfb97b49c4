//! Boxes of photos, and boxes around what is hot in a map.

use crate::frame::Placement;

/// A rectangle; a point or cell on its left or top edge is inside, one on the others not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Bounds {
    pub fn area(&self) -> f64 {
        (self.right - self.left).max(0.0) * (self.bottom - self.top).max(0.0)
    }

    pub fn contains(&self, [x, y]: [f64; 2]) -> bool {
        (self.left..self.right).contains(&x) && (self.top..self.bottom).contains(&y)
    }

    /// Intersection over union, 0–1.
    pub fn iou(&self, other: &Self) -> f64 {
        let both = Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        }
        .area();
        let any = self.area() + other.area() - both;
        if any > 0.0 { both / any } else { 0.0 }
    }

    /// The best IoU with one of `others`; 0 where there is none.
    pub fn best_iou(&self, others: &[Self]) -> f64 {
        others.iter().map(|other| self.iou(other)).fold(0.0, f64::max)
    }
}

/// A map's cells over a photo: `height` × `width` cells over a part of it. Everything is
/// measured in cells, which need not be square: IoU and hits are the same in pixels.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    pub height: usize,
    pub width: usize,
    pub placement: Placement,
}

impl Grid {
    /// Bounds in the photo's pixels as bounds in cells; they may reach beyond the grid.
    pub fn cells(&self, pixels: &Bounds) -> Bounds {
        let covers = self.placement.covers;
        let x = |px: f64| (px - f64::from(covers.x)) * self.width as f64 / f64::from(covers.width);
        let y =
            |px: f64| (px - f64::from(covers.y)) * self.height as f64 / f64::from(covers.height);
        Bounds {
            left: x(pixels.left),
            top: y(pixels.top),
            right: x(pixels.right),
            bottom: y(pixels.bottom),
        }
    }

    /// A point in cells as a point in the photo's pixels.
    pub fn pixel(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let covers = self.placement.covers;
        let across = f64::from(covers.width) / self.width as f64;
        let down = f64::from(covers.height) / self.height as f64;
        [f64::from(covers.x) + x * across, f64::from(covers.y) + y * down]
    }

    /// The whole photo, in cells.
    pub fn photo(&self) -> Bounds {
        let [width, height] = self.placement.picture.map(f64::from);
        self.cells(&Bounds { left: 0.0, top: 0.0, right: width, bottom: height })
    }
}

/// The boxes around the connected parts (by side or corner) of a map `[height, width]` that
/// reach a level, for every level of a falling sequence: `visit(i, boxes)` for the i-th.
///
/// Cells are added in falling order to a forest of parts (union–find), so that all levels
/// together cost one sort of the map.
pub fn boxes_at_levels(
    map: &[f32],
    width: usize,
    falling: impl IntoIterator<Item = f32>,
    mut visit: impl FnMut(usize, &mut dyn Iterator<Item = Bounds>),
) {
    let mut parts = Parts::new(map.len(), width);
    let mut order: Vec<u32> = (0..map.len() as u32).collect();
    order.sort_by(|&a, &b| map[b as usize].total_cmp(&map[a as usize]));
    let mut next = order.into_iter().peekable();
    for (i, level) in falling.into_iter().enumerate() {
        while let Some(cell) = next.next_if(|&cell| map[cell as usize] >= level) {
            parts.add(cell);
        }
        visit(i, &mut parts.boxes());
    }
}

/// Stands for a cell that is not hot yet.
const COLD: u32 = u32::MAX;

struct Parts {
    width: usize,
    /// Per cell the one that it was joined to; a part's root points at itself.
    parent: Vec<u32>,
    /// Per root, its part's `[left, top, right, bottom]`; right and bottom belong to it.
    extent: Vec<[u16; 4]>,
    roots: Vec<u32>,
}

impl Parts {
    fn new(cells: usize, width: usize) -> Self {
        Self { width, parent: vec![COLD; cells], extent: vec![[0; 4]; cells], roots: Vec::new() }
    }

    fn add(&mut self, cell: u32) {
        let (x, y) = (cell as usize % self.width, cell as usize / self.width);
        let at = [x as u16, y as u16];
        self.parent[cell as usize] = cell;
        self.extent[cell as usize] = [at[0], at[1], at[0], at[1]];
        self.roots.push(cell);
        let height = self.parent.len() / self.width;
        for near_y in y.saturating_sub(1)..(y + 2).min(height) {
            for near_x in x.saturating_sub(1)..(x + 2).min(self.width) {
                let near = near_y * self.width + near_x;
                if self.parent[near] != COLD {
                    self.join(cell, near as u32);
                }
            }
        }
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            // The older root stays: its part is the larger one more often than not.
            self.parent[a as usize] = b;
            let ([l, t, r, d], other) = (self.extent[a as usize], &mut self.extent[b as usize]);
            *other = [other[0].min(l), other[1].min(t), other[2].max(r), other[3].max(d)];
        }
    }

    fn root(&mut self, mut cell: u32) -> u32 {
        while self.parent[cell as usize] != cell {
            let above = self.parent[self.parent[cell as usize] as usize];
            self.parent[cell as usize] = above;
            cell = above;
        }
        cell
    }

    fn boxes(&mut self) -> impl Iterator<Item = Bounds> {
        let Self { parent, extent, roots, .. } = self;
        roots.retain(|&cell| parent[cell as usize] == cell);
        roots.iter().map(|&root| {
            let [left, top, right, bottom] = extent[root as usize].map(f64::from);
            Bounds { left, top, right: right + 1.0, bottom: bottom + 1.0 }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Rect;
    use crate::heatmap::region::regions;
    use proptest::prelude::*;

    fn bounds([left, top, right, bottom]: [f64; 4]) -> Bounds {
        Bounds { left, top, right, bottom }
    }

    #[test]
    fn overlap_of_boxes() {
        let check = |a, b, expected: f64| {
            let (a, b) = (bounds(a), bounds(b));
            assert_eq!([a.iou(&b), b.iou(&a)], [expected; 2], "{a:?} {b:?}");
        };
        check([0.0, 0.0, 4.0, 2.0], [0.0, 0.0, 4.0, 2.0], 1.0);
        check([0.0, 0.0, 4.0, 2.0], [2.0, 0.0, 6.0, 2.0], 1.0 / 3.0);
        check([0.0, 0.0, 4.0, 2.0], [4.0, 0.0, 6.0, 2.0], 0.0);
        check([0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 2.0, 3.0], 0.125);
        check([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], 0.0);
        assert!(bounds([1.0, 1.0, 2.0, 2.0]).contains([1.0, 1.9]));
        assert!(!bounds([1.0, 1.0, 2.0, 2.0]).contains([2.0, 1.5]));
    }

    #[test]
    fn pixels_become_cells() {
        let placement = Placement {
            picture: [400, 200],
            covers: Rect { x: 100, y: 0, width: 200, height: 200 },
            content: Rect::full(10, 10),
        };
        let grid = Grid { height: 10, width: 10, placement };
        assert_eq!(grid.photo(), bounds([-5.0, 0.0, 15.0, 10.0]));
        assert_eq!(grid.pixel([0.5, 9.5]), [110.0, 190.0]);
        assert_eq!(grid.cells(&bounds([100.0, 20.0, 140.0, 200.0])), bounds([0.0, 1.0, 2.0, 10.0]));
    }

    proptest! {
        /// The same boxes as looking for connected regions level by level.
        #[test]
        fn boxes_are_those_of_regions(
            map in prop::collection::vec(0u8..6, 1..60), width in 1usize..9,
        ) {
            let height = map.len().div_ceil(width);
            let mut map: Vec<f32> = map.into_iter().map(f32::from).collect();
            map.resize(width * height, 3.0);
            let levels = [5.0, 4.0, 2.5, 2.0, 1.0];
            boxes_at_levels(&map, width, levels, |i, boxes| {
                let sorted = |mut boxes: Vec<[u32; 4]>| { boxes.sort_unstable(); boxes };
                let got = boxes
                    .map(|b| [b.left, b.top, b.right - b.left, b.bottom - b.top].map(|v| v as u32));
                let wanted = regions(&map, width, levels[i]).into_iter();
                let wanted =
                    wanted.map(|r| [r.bounds.x, r.bounds.y, r.bounds.width, r.bounds.height]);
                assert_eq!(sorted(got.collect()), sorted(wanted.collect()), "level {}", levels[i]);
            });
        }
    }
}
