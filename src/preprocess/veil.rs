//! What of a picture may be seen: `[privacy]`. Sinks get what leaves here, and know no other
//! way to a picture.
//!
//! A blurred picture is one whose detail is gone: the means of [`CELLS`] squares along its
//! shorter side, with straight lines between their centres. Nothing finer is in it, so nothing
//! finer can be computed back from it, as it could from a picture under a blurring kernel.

use crate::config::Pictures;
use crate::frame::Picture;
use crate::preprocess::geometry::PADDING;
use crate::preprocess::lent::Lent;
use std::sync::Arc;

/// Squares along the shorter side: a face that fills the picture's height has 12 rows. Below 15
/// across it people are no longer told apart (Bachmann 1991, European
/// Journal of Cognitive Psychology 3(1)).
pub const CELLS: usize = 12;

/// Makes of each upright picture what may be seen. Keeps its buffers.
#[derive(Debug)]
pub struct Veil {
    pictures: Pictures,
    /// Sums of each square's pixels, `[rows, columns, 3]`, then their means.
    cells: Vec<u32>,
    /// What was shown: its buffers are used again.
    lent: Lent,
}

impl Veil {
    pub fn new(pictures: Pictures) -> Self {
        Self { pictures, cells: Vec::new(), lent: Lent::default() }
    }

    /// What sinks may have of `upright`: itself, or another of the same size.
    pub fn shown(&mut self, upright: &Arc<Picture>) -> Arc<Picture> {
        if self.pictures == Pictures::Whole {
            return upright.clone();
        }
        let mut picture = self.lent.take_free().unwrap_or_else(|| Picture::new(0, 0));
        (picture.width, picture.height) = (upright.width, upright.height);
        picture.rgb.clear();
        picture.rgb.resize(upright.rgb.len(), PADDING);
        if self.pictures == Pictures::Blurred {
            self.blur(upright, &mut picture);
        }
        let picture = Arc::new(picture);
        self.lent.lend(picture.clone());
        picture
    }

    fn blur(&mut self, upright: &Picture, out: &mut Picture) {
        let Picture { width, height, .. } = *upright;
        // Squares, so that a wide picture has no more detail along its longer side.
        let side = width.min(height).div_ceil(CELLS).max(1);
        let (columns, rows) = (width.div_ceil(side), height.div_ceil(side));
        self.average(upright, side, [rows, columns]);
        let taps: Vec<Tap> = (0..width).map(|x| Tap::new(x, side, columns)).collect();
        for (y, row) in out.rgb.chunks_exact_mut((width * 3).max(1)).enumerate() {
            let down = Tap::new(y, side, rows);
            let line = |row: usize| &self.cells[row * columns * 3..][..columns * 3];
            let (above, below) = (line(down.low), line(down.high));
            for (pixel, across) in row.as_chunks_mut::<3>().0.iter_mut().zip(&taps) {
                for (channel, value) in pixel.iter_mut().enumerate() {
                    let at = |line: &[u32]| across.between(|cell| line[cell * 3 + channel]);
                    let (above, below) = (at(above), at(below));
                    *value = down.mix(above, below) as u8;
                }
            }
        }
    }

    /// Fills `cells` with the mean of every square of `side` pixels.
    fn average(&mut self, picture: &Picture, side: usize, [rows, columns]: [usize; 2]) {
        self.cells.clear();
        self.cells.resize(rows * columns * 3, 0);
        let Picture { width, height, .. } = *picture;
        for (y, row) in picture.rgb.chunks_exact((width * 3).max(1)).enumerate() {
            let sums = &mut self.cells[y / side * columns * 3..][..columns * 3];
            for (square, sum) in row.chunks(side * 3).zip(sums.as_chunks_mut::<3>().0) {
                for pixel in square.as_chunks::<3>().0 {
                    sum.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += u32::from(value));
                }
            }
        }
        for (i, cell) in self.cells.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let wide = side.min(width - i % columns * side);
            let high = side.min(height - i / columns * side);
            let pixels = (wide * high) as u32;
            cell.iter_mut().for_each(|sum| *sum = (*sum + pixels / 2) / pixels);
        }
    }
}

/// The two squares whose centres a pixel lies between, and how far along, in 256ths.
#[derive(Clone, Copy)]
struct Tap {
    low: usize,
    high: usize,
    share: u32,
}

impl Tap {
    fn new(pixel: usize, side: usize, cells: usize) -> Self {
        let at = (pixel as f32 + 0.5) / side as f32 - 0.5;
        let at = at.clamp(0.0, cells as f32 - 1.0);
        let low = at as usize;
        let share = ((at - low as f32) * 256.0) as u32;
        Self { low, high: (low + 1).min(cells - 1), share }
    }

    fn mix(self, low: u32, high: u32) -> u32 {
        (low * (256 - self.share) + high * self.share + 128) >> 8
    }

    fn between(self, value: impl Fn(usize) -> u32) -> u32 {
        self.mix(value(self.low), value(self.high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize, pixel: impl Fn(usize, usize) -> [u8; 3]) -> Picture {
        let rgb = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        Picture { width, height, rgb: rgb.flat_map(|(x, y)| pixel(x, y)).collect() }
    }

    fn shown(pictures: Pictures, picture: &Picture) -> Picture {
        Arc::unwrap_or_clone(Veil::new(pictures).shown(&Arc::new(picture.clone())))
    }

    #[test]
    fn the_whole_picture_is_the_picture_itself() {
        let upright = Arc::new(picture(5, 4, |x, y| [x as u8, y as u8, 9]));
        assert!(Arc::ptr_eq(&Veil::new(Pictures::Whole).shown(&upright), &upright));
    }

    #[test]
    fn none_has_no_pixel_of_it() {
        for (width, height) in [(1, 1), (7, 3), (64, 48)] {
            let noise = picture(width, height, |x, y| [(x * 91) as u8, (y * 57) as u8, 255]);
            let bare = shown(Pictures::None, &noise);
            assert_eq!((bare.width, bare.height), (width, height));
            assert_eq!(bare.rgb, vec![PADDING; width * height * 3]);
        }
    }

    /// Two pictures that differ only within squares, with the same means, look the same.
    #[test]
    fn blurring_leaves_the_means_of_squares_and_nothing_else() {
        for (width, height) in [(24usize, 12usize), (120, 240), (73, 61), (640, 480)] {
            let side = width.min(height).div_ceil(CELLS);
            let tone =
                |x: usize, y: usize| [(40 + x / side * 5) as u8, (40 + y / side * 5) as u8, 70];
            let flat = picture(width, height, tone);
            // A chequer of ±20 has the square's mean where it has as many of either.
            let chequered = picture(width, height, |x, y| {
                let whole = x / side * side + side <= width && y / side * side + side <= height;
                let odd = (x % side + y % side) % 2 == 1;
                match whole && side % 2 == 0 {
                    true => tone(x, y).map(|v| if odd { v + 20 } else { v - 20 }),
                    false => tone(x, y),
                }
            });
            let same = shown(Pictures::Blurred, &flat);
            assert_eq!(shown(Pictures::Blurred, &chequered), same, "{width}x{height}");
            // The corners are the outermost squares' means.
            assert_eq!(same.pixel(0, 0), tone(0, 0));
            if width % side == 0 && height % side == 0 {
                let last = (width - 1, height - 1);
                assert_eq!(same.pixel(last.0, last.1), tone(last.0, last.1));
            }
        }
    }

    #[test]
    fn detail_is_gone_and_tone_is_not() {
        let (width, height) = (640, 480);
        let stripes = picture(width, height, |x, _| [if x / 2 % 2 == 0 { 0 } else { 200 }; 3]);
        let blurred = shown(Pictures::Blurred, &stripes);
        assert!(blurred.rgb.iter().all(|v| (95..=105).contains(v)), "{:?}", blurred.pixel(0, 0));
        let halves = picture(width, height, |x, _| [if x < width / 2 { 10 } else { 240 }; 3]);
        let blurred = shown(Pictures::Blurred, &halves);
        assert_eq!([blurred.pixel(5, 5), blurred.pixel(635, 5)], [[10; 3], [240; 3]]);
    }

    #[test]
    fn odd_sizes_and_reuse() {
        let mut veil = Veil::new(Pictures::Blurred);
        for (width, height) in [(1, 1), (1, 50), (50, 1), (13, 12), (4096, 2), (2, 2)] {
            let grey = Arc::new(picture(width, height, |_, _| [200, 100, 50]));
            assert_eq!(veil.shown(&grey), grey, "{width}x{height}");
        }
    }
}
