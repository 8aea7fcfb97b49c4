//! From the decoded picture to the model's base picture: rotate, mirror, crop, fit.
//!
//! The upright picture (rotated, mirrored) is what people see and what heatmaps refer to;
//! [`Placement`] says which part of it the model sees, exact to the pixel.

use crate::config::{Fit, GeometryConfig};
use crate::frame::{Picture, Placement, Rect};
use crate::rescale::rescale;
use fast_image_resize::{FilterType, Resizer};

/// Letterbox padding. Mid-grey is where input scalings have their zero (`lite`: exactly,
/// `keras`: −0.004, `torch`: within 0.1 σ of the mean), so the padding looks to the network
/// as its own zero padding does, and black bars make no edge for it to fire at.
pub const PADDING: u8 = 127;

/// A setting that does not fit the picture. All are errors of the configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GeometryError {
    #[error("geometry.rotate = {0}: not a quarter turn, allowed: 0, 90, 180, 270")]
    Rotate(u32),
    #[error(
        "geometry.crop = {crop:?}: {what} is {actual}, allowed {least} to {most} \
         (the upright picture is {width}x{height})"
    )]
    Crop {
        crop: [u32; 4],
        what: &'static str,
        actual: u64,
        least: u32,
        most: u32,
        width: u32,
        height: u32,
    },
    #[error(
        "a picture of {width}x{height} cannot fill a model input of {input_width}x{input_height}"
    )]
    Empty { width: u32, height: u32, input_width: usize, input_height: usize },
    #[error("resize: {0}")]
    Resize(String),
}

/// Applies `[geometry]`, with buffers kept between frames.
#[derive(Debug)]
pub struct Geometry {
    config: GeometryConfig,
    resizer: Resizer,
    base: Picture,
    turned: Vec<u8>,
}

impl Geometry {
    pub fn new(config: &GeometryConfig) -> Result<Self, GeometryError> {
        if !matches!(config.rotate, 0 | 90 | 180 | 270) {
            return Err(GeometryError::Rotate(config.rotate));
        }
        Ok(Self {
            config: config.clone(),
            resizer: Resizer::new(),
            base: Picture::new(0, 0),
            turned: Vec::new(),
        })
    }

    /// Rotates clockwise, then mirrors left–right. Moves nothing when neither is asked for.
    pub fn upright(&mut self, mut picture: Picture) -> Picture {
        let Picture { width, height, ref mut rgb } = picture;
        match (self.config.rotate, self.config.mirror) {
            (0, false) => {}
            (0, true) => rgb.chunks_exact_mut(width * 3).for_each(reverse_pixels),
            (180, false) => reverse_pixels(rgb),
            // Half a turn and a left–right mirror make a top–bottom mirror.
            (180, true) => reverse_rows(rgb, width * 3),
            (turn, mirror) => {
                self.turned.resize(rgb.len(), 0);
                transpose(rgb, width, height, &mut self.turned);
                // Transposed rows are columns; a turn to the right reverses each row, one
                // to the left reverses their order.
                let row_bytes = height * 3;
                match (turn, mirror) {
                    (90, false) => self.turned.chunks_exact_mut(row_bytes).for_each(reverse_pixels),
                    (90, true) => {}
                    (_, false) => reverse_rows(&mut self.turned, row_bytes),
                    (_, true) => reverse_pixels(&mut self.turned),
                }
                std::mem::swap(rgb, &mut self.turned);
                (picture.width, picture.height) = (height, width);
            }
        }
        picture
    }

    /// Where an upright picture of that size, `[width, height]`, goes in a model input of
    /// `[height, width]`.
    pub fn placement(
        &self,
        picture: [u32; 2],
        input: [usize; 2],
    ) -> Result<Placement, GeometryError> {
        let [input_height, input_width] = input;
        let [width, height] = picture;
        let side = |n: usize| u32::try_from(n).ok().filter(|&n| n > 0);
        let (Some(iw), Some(ih)) = (side(input_width), side(input_height)) else {
            return Err(GeometryError::Empty { width, height, input_width, input_height });
        };
        if width == 0 || height == 0 {
            return Err(GeometryError::Empty { width, height, input_width, input_height });
        }
        let crop = self.crop(width, height)?;
        let (inside, full) = ([crop.width, crop.height], Rect::full(iw, ih));
        let (covers, content) = match self.config.fit {
            Fit::Stretch => (crop, full),
            Fit::CenterCrop => (centred(largest([iw, ih], inside), crop), full),
            Fit::Letterbox => (crop, centred(largest(inside, [iw, ih]), full)),
        };
        Ok(Placement { picture, covers, content })
    }

    /// The model's base picture, `[height, width, 3]`, and where it lies. Returns the upright
    /// picture itself when it already has that size.
    ///
    /// Shrinking averages over all the pixels that fall together (bilinear kernel widened
    /// by the factor), so that fine texture does not alias.
    pub fn fit<'a>(
        &'a mut self,
        upright: &'a Picture,
        input: [usize; 2],
    ) -> Result<(Placement, &'a Picture), GeometryError> {
        let picture = [upright.width as u32, upright.height as u32];
        let placement = self.placement(picture, input)?;
        let Placement { covers, content, .. } = placement;
        let whole = Rect::full(picture[0], picture[1]);
        if [upright.height, upright.width] == input && covers == whole && content == whole {
            return Ok((placement, upright));
        }
        let [height, width] = input;
        (self.base.width, self.base.height) = (width, height);
        self.base.rgb.resize(width * height * 3, PADDING);
        if content != Rect::full(width as u32, height as u32) {
            self.base.rgb.fill(PADDING);
        }
        self.resize(upright, covers, content)?;
        Ok((placement, &self.base))
    }

    fn resize(&mut self, from: &Picture, covers: Rect, content: Rect) -> Result<(), GeometryError> {
        let to = (&mut self.base, content);
        rescale(&mut self.resizer, (from, covers), to, FilterType::Bilinear)
            .map_err(|e| GeometryError::Resize(e.to_string()))
    }

    fn crop(&self, width: u32, height: u32) -> Result<Rect, GeometryError> {
        let Some(crop) = self.config.crop else { return Ok(Rect::full(width, height)) };
        let [x, y, w, h] = crop;
        let limits = [
            ("width", u64::from(w), 1, width),
            ("height", u64::from(h), 1, height),
            ("x + width", u64::from(x) + u64::from(w), w, width),
            ("y + height", u64::from(y) + u64::from(h), h, height),
        ];
        for (what, actual, least, most) in limits {
            if !(u64::from(least)..=u64::from(most)).contains(&actual) {
                return Err(GeometryError::Crop { crop, what, actual, least, most, width, height });
            }
        }
        Ok(Rect { x, y, width: w, height: h })
    }
}

/// A point of the model's input as one of the upright picture. Pixel edges, not centres, are
/// whole numbers; padding maps outside `covers`.
pub fn input_to_picture(placement: &Placement, [x, y]: [f64; 2]) -> [f64; 2] {
    between(placement.content, placement.covers, [x, y])
}

/// The inverse of [`input_to_picture`].
pub fn picture_to_input(placement: &Placement, [x, y]: [f64; 2]) -> [f64; 2] {
    between(placement.covers, placement.content, [x, y])
}

fn between(from: Rect, to: Rect, [x, y]: [f64; 2]) -> [f64; 2] {
    let axis = |v: f64, from_at: u32, from_len: u32, to_at: u32, to_len: u32| {
        f64::from(to_at) + (v - f64::from(from_at)) * f64::from(to_len) / f64::from(from_len)
    };
    [axis(x, from.x, from.width, to.x, to.width), axis(y, from.y, from.height, to.y, to.height)]
}

/// Largest size of the aspect ratio of `shape` that fits into `space`, to the nearest pixel;
/// both `[width, height]`. At least one pixel each way, however slim the shape.
fn largest(shape: [u32; 2], space: [u32; 2]) -> [u32; 2] {
    let [sw, sh] = shape.map(u64::from);
    let [w, h] = space.map(u64::from);
    let rounded = |n: u64, d: u64, most: u64| ((2 * n + d) / (2 * d)).clamp(1, most) as u32;
    if w * sh <= h * sw {
        [space[0], rounded(w * sh, sw, h)]
    } else {
        [rounded(h * sw, sh, w), space[1]]
    }
}

/// That size in the middle of `space`, half a pixel to the top left where it is odd.
fn centred([width, height]: [u32; 2], space: Rect) -> Rect {
    let x = space.x + (space.width - width) / 2;
    let y = space.y + (space.height - height) / 2;
    Rect { x, y, width, height }
}

fn reverse_pixels(row: &mut [u8]) {
    let (pixels, _) = row.as_chunks_mut::<3>();
    pixels.reverse();
}

fn reverse_rows(rgb: &mut [u8], row_bytes: usize) {
    let rows = rgb.len() / row_bytes;
    let (top, bottom) = rgb.split_at_mut(rows / 2 * row_bytes);
    let upper = top.chunks_exact_mut(row_bytes);
    let lower = bottom.chunks_exact_mut(row_bytes).rev();
    upper.zip(lower).for_each(|(a, b)| a.swap_with_slice(b));
}

/// `to[x][y] = from[y][x]`, in tiles that keep both sides in cache.
fn transpose(from: &[u8], width: usize, height: usize, to: &mut [u8]) {
    const TILE: usize = 32;
    let (from, _) = from.as_chunks::<3>();
    let (to, _) = to.as_chunks_mut::<3>();
    for top in (0..height).step_by(TILE) {
        for left in (0..width).step_by(TILE) {
            for x in left..(left + TILE).min(width) {
                for y in top..(top + TILE).min(height) {
                    to[x * height + y] = from[y * width + x];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
