//! What a map has to beat: guesses that never saw the photo, and itself in another place.

use super::boxes::{Bounds, Grid};

/// A box in the middle of the photo that covers half of it, in cells.
pub fn centre_box(grid: &Grid) -> Bounds {
    let photo = grid.photo();
    let [x, y] = centre(grid);
    let half = std::f64::consts::FRAC_1_SQRT_2 / 2.0;
    let (across, down) = ((photo.right - photo.left) * half, (photo.bottom - photo.top) * half);
    Bounds { left: x - across, top: y - down, right: x + across, bottom: y + down }
}

/// The middle of the photo, in cells.
pub fn centre(grid: &Grid) -> [f64; 2] {
    let photo = grid.photo();
    [(photo.left + photo.right) / 2.0, (photo.top + photo.bottom) / 2.0]
}

/// A Gaussian blob in the middle of the photo, `[height, width]`; its standard deviations
/// are a quarter of the photo's width and height.
pub fn gaussian(grid: &Grid) -> Vec<f32> {
    let photo = grid.photo();
    let [x, y] = centre(grid);
    let bell = |cells: usize, middle: f64, length: f64| -> Vec<f64> {
        let deviation = |cell: usize| (cell as f64 + 0.5 - middle) / (length / 4.0);
        (0..cells).map(|cell| (-0.5 * deviation(cell).powi(2)).exp()).collect()
    };
    let across = bell(grid.width, x, photo.right - photo.left);
    let down = bell(grid.height, y, photo.bottom - photo.top);
    down.iter().flat_map(|v| across.iter().map(move |u| (u * v) as f32)).collect()
}

/// The map moved round the torus: what leaves on one side enters on the other. The same
/// values, the same shapes and, as a shift changes phases alone, the same power spectrum;
/// only the place says nothing about the photo any more.
///
/// The `index`-th shift of Roberts's R2 sequence, whose points fill the square evenly.
/// Source: M. Roberts, "The Unreasonable Effectiveness of Quasirandom Sequences", 2018.
pub fn moved(map: &[f32], width: usize, index: usize) -> Vec<f32> {
    const PLASTIC: f64 = 1.324_717_957_244_746;
    let height = map.len().checked_div(width).unwrap_or(0);
    let share = |step: f64| (0.5 + (index as f64 + 1.0) * step).fract();
    let across = (share(1.0 / PLASTIC) * width as f64) as usize;
    let down = (share(1.0 / (PLASTIC * PLASTIC)) * height as f64) as usize;
    let mut moved = map.to_vec();
    moved.chunks_exact_mut(width.max(1)).for_each(|row| row.rotate_right(across));
    moved.rotate_right(down * width);
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::peak;
    use crate::frame::{Placement, Rect};

    fn grid(height: usize, width: usize) -> Grid {
        let covers = Rect::full(100, 60);
        let placement = Placement { picture: [100, 60], covers, content: Rect::full(1, 1) };
        Grid { height, width, placement }
    }

    #[test]
    fn guesses_lie_in_the_middle() {
        let grid = grid(5, 9);
        let guess = centre_box(&grid);
        assert!((guess.area() - 22.5).abs() < 1e-9 && guess.contains(centre(&grid)));
        let map = gaussian(&grid);
        assert_eq!((map.len(), peak(&map, 9)), (45, [4, 2]));
        assert!((map[2 * 9 + 4] - 1.0).abs() < 1e-6);
        // One standard deviation from the middle, across: 9/4 cells.
        let at = |cells: f64| (-0.5 * (cells / 2.25).powi(2)).exp() as f32;
        assert!((map[2 * 9 + 6] - at(2.0)).abs() < 1e-6, "{map:?}");
    }

    #[test]
    fn a_moved_map_has_the_same_values_elsewhere() {
        let map: Vec<f32> = (0..35).map(|v| v as f32).collect();
        let mut places = std::collections::BTreeSet::new();
        for index in 0..35 {
            let moved = moved(&map, 7, index);
            let mut sorted = moved.clone();
            sorted.sort_by(f32::total_cmp);
            assert_eq!(sorted, map);
            let [x, y] = peak(&moved, 7);
            // Neighbours stay neighbours, round the border too.
            assert_eq!(moved[y * 7 + (x + 6) % 7], 33.0);
            assert_eq!(moved[(y + 4) % 5 * 7 + x], 27.0);
            places.insert([x, y]);
        }
        assert!(places.len() > 25, "{places:?}");
    }
}
