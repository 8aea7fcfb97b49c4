//! TensorFlow's bilinear resize (v2), to the bit, as test-time augmentation needs it.
//!
//! With half-pixel centres and no antialias, in f32 throughout:
//!
//! ```text
//! src = (i + 0.5) · (in / out) − 0.5
//! lo = max(floor(src), 0)    hi = min(ceil(src), in − 1)    t = src − floor(src)
//! value = lerp over y of (lerp over x),    lerp(a, b, t) = a + (b − a) · t
//! ```
//!
//! (tensorflow/core/kernels/image/resize_bilinear_op.cc, `HalfPixelScaler`.)

use crate::bilinear::{Axis, Tap};
use crate::config::ColourOrder;
use crate::frame::Picture;

/// Order of the axes of a model's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelLayout {
    /// `[h, w, 3]`, as Keras exports.
    #[default]
    Hwc,
    /// `[3, h, w]`, as PyTorch exports.
    Chw,
}

/// How pixels become the numbers that a model was trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InputScaling {
    /// `(x − mean) / std` on the 0–255 scale, in the model's own channel order.
    pub mean: [f32; 3],
    pub std: [f32; 3],
    pub colour: ColourOrder,
    pub layout: ChannelLayout,
}

/// A size or a slice that does not match. Heights before widths.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ResizeError {
    #[error("a view of {0}x{1} from a picture of {2}x{3}: no side may be zero")]
    Empty(usize, usize, usize, usize),
    #[error("{what} has {actual} values, expected {expected}")]
    Length { what: &'static str, expected: usize, actual: usize },
}

/// Size of the view of scale `scale` of a base picture of `[height, width]`, truncated as
/// TensorFlow's cast does: `int(f32(scale) · f32(side))`.
pub fn view_size(scale: f32, [height, width]: [usize; 2]) -> [usize; 2] {
    [height, width].map(|side| (scale * side as f32) as usize)
}

/// Makes one view's input from the base picture: flip left–right, resize, normalise.
/// One per view; tables and rows are laid out once.
#[derive(Clone, Debug)]
pub struct ViewResizer {
    base: [usize; 2],
    view: [usize; 2],
    hflip: bool,
    /// Channel of the picture for each channel of the model.
    channels: [usize; 3],
    layout: ChannelLayout,
    scaling: InputScaling,
    columns: Axis,
    rows: Axis,
    /// `mean` and `std` repeated along a row in the output's layout.
    mean: Vec<f32>,
    std: Vec<f32>,
    /// Base rows resized horizontally, the last two in use.
    cache: RowCache,
}

fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

impl ViewResizer {
    /// For base pictures of `base` and views of `view`, both `[height, width]`.
    pub fn new(
        base: [usize; 2],
        view: [usize; 2],
        hflip: bool,
        scaling: &InputScaling,
    ) -> Result<Self, ResizeError> {
        if base.contains(&0) || view.contains(&0) {
            return Err(ResizeError::Empty(view[0], view[1], base[0], base[1]));
        }
        let width = view[1];
        let along_row = |v: [f32; 3]| -> Vec<f32> {
            match scaling.layout {
                ChannelLayout::Hwc => v.repeat(width),
                ChannelLayout::Chw => {
                    v.iter().flat_map(|&c| std::iter::repeat_n(c, width)).collect()
                }
            }
        };
        let columns = Axis::new(base[1], width);
        // Flipped first, resized second: the same weights on mirrored columns.
        let columns = if hflip { columns.mirrored() } else { columns };
        Ok(Self {
            base,
            view,
            hflip,
            channels: match scaling.colour {
                ColourOrder::Rgb => [0, 1, 2],
                ColourOrder::Bgr => [2, 1, 0],
            },
            layout: scaling.layout,
            scaling: *scaling,
            columns,
            rows: Axis::new(base[0], view[0]),
            mean: along_row(scaling.mean),
            std: along_row(scaling.std),
            cache: RowCache::new(width * 3),
        })
    }

    /// `[height, width]` of the view.
    pub fn size(&self) -> [usize; 2] {
        self.view
    }

    /// Fills `out`, `[h, w, 3]` or `[3, h, w]`, from the base picture.
    pub fn resize(&mut self, base: &Picture, out: &mut [f32]) -> Result<(), ResizeError> {
        check_len("the base picture", self.base[0] * self.base[1] * 3, base.rgb.len())?;
        check_len("the view's input", self.view[0] * self.view[1] * 3, out.len())?;
        if self.base == self.view {
            self.normalise(&base.rgb, out);
        } else {
            self.interpolate(&base.rgb, out);
        }
        Ok(())
    }

    fn interpolate(&mut self, rgb: &[u8], out: &mut [f32]) {
        let (row_bytes, width) = (self.base[1] * 3, self.view[1]);
        let plane = self.view[0] * width;
        let Self { rows, columns, channels, layout, cache, mean, std, .. } = self;
        cache.clear();
        for (i, tap) in rows.taps().iter().enumerate() {
            let (top, bottom) = cache.pair(tap.lo, tap.hi, |row, to| {
                let from = &rgb[row * row_bytes..][..row_bytes];
                match layout {
                    ChannelLayout::Hwc => stretch_hwc(from, columns.taps(), *channels, to),
                    ChannelLayout::Chw => stretch_chw(from, columns.taps(), *channels, to),
                }
            });
            match layout {
                ChannelLayout::Hwc => {
                    let to = &mut out[i * width * 3..][..width * 3];
                    blend(top, bottom, tap.t, mean, std, to);
                }
                ChannelLayout::Chw => {
                    for c in 0..3 {
                        let part = c * width..(c + 1) * width;
                        let to = &mut out[c * plane + i * width..][..width];
                        let (mean, std) = (&mean[part.clone()], &std[part.clone()]);
                        blend(&top[part.clone()], &bottom[part], tap.t, mean, std, to);
                    }
                }
            }
        }
    }

    /// Scale 1: every weight is 0 or 1, so a table of the 256 values per channel does it.
    fn normalise(&self, rgb: &[u8], out: &mut [f32]) {
        let InputScaling { mean, std, .. } = self.scaling;
        let tables: [[f32; 256]; 3] =
            std::array::from_fn(|c| std::array::from_fn(|v| (v as f32 - mean[c]) / std[c]));
        let [height, width] = self.view;
        let plane = height * width;
        for (y, row) in rgb.chunks_exact(width * 3).enumerate() {
            for (x, pixel) in row.chunks_exact(3).enumerate() {
                let at = y * width + if self.hflip { width - 1 - x } else { x };
                for (c, table) in tables.iter().enumerate() {
                    let value = table[usize::from(pixel[self.channels[c]])];
                    match self.layout {
                        ChannelLayout::Hwc => out[at * 3 + c] = value,
                        ChannelLayout::Chw => out[c * plane + at] = value,
                    }
                }
            }
        }
    }
}

fn check_len(what: &'static str, expected: usize, actual: usize) -> Result<(), ResizeError> {
    if expected == actual { Ok(()) } else { Err(ResizeError::Length { what, expected, actual }) }
}

fn stretch_hwc(from: &[u8], columns: &[Tap], channels: [usize; 3], to: &mut [f32]) {
    let (from, _) = from.as_chunks::<3>();
    let (to, _) = to.as_chunks_mut::<3>();
    for (to, tap) in to.iter_mut().zip(columns) {
        let (a, b) = (from[tap.lo], from[tap.hi]);
        *to = channels.map(|c| lerp(f32::from(a[c]), f32::from(b[c]), tap.t));
    }
}

fn stretch_chw(from: &[u8], columns: &[Tap], channels: [usize; 3], to: &mut [f32]) {
    let (from, _) = from.as_chunks::<3>();
    let width = columns.len();
    let (first, rest) = to.split_at_mut(width);
    let (second, third) = rest.split_at_mut(width);
    let to = first.iter_mut().zip(second).zip(third);
    for (((r, g), b), tap) in to.zip(columns) {
        let (left, right) = (from[tap.lo], from[tap.hi]);
        [*r, *g, *b] = channels.map(|c| lerp(f32::from(left[c]), f32::from(right[c]), tap.t));
    }
}

/// `(lerp(top, bottom, t) − mean) / std`. The plain slices let the compiler vectorise it.
fn blend(top: &[f32], bottom: &[f32], t: f32, mean: &[f32], std: &[f32], to: &mut [f32]) {
    let n = to.len();
    let (top, bottom, mean, std) = (&top[..n], &bottom[..n], &mean[..n], &std[..n]);
    for i in 0..n {
        to[i] = (lerp(top[i], bottom[i], t) - mean[i]) / std[i];
    }
}

/// The two input rows that the current output row lies between, already resized along x.
/// Going down, the lower of one pair is mostly the upper of the next.
#[derive(Clone, Debug)]
struct RowCache {
    held: [Option<usize>; 2],
    rows: [Vec<f32>; 2],
}

impl RowCache {
    fn new(len: usize) -> Self {
        Self { held: [None; 2], rows: [vec![0.0; len], vec![0.0; len]] }
    }

    fn clear(&mut self) {
        self.held = [None; 2];
    }

    /// Rows `lo` and `hi`, made by `make(row, to)` where they are not held.
    fn pair(
        &mut self,
        lo: usize,
        hi: usize,
        mut make: impl FnMut(usize, &mut [f32]),
    ) -> (&[f32], &[f32]) {
        let low = self.slot(lo, hi, &mut make);
        let high = self.slot(hi, lo, &mut make);
        (&self.rows[low], &self.rows[high])
    }

    /// The slot that holds `row`; never throws `other` out for it.
    fn slot(
        &mut self,
        row: usize,
        other: usize,
        make: &mut impl FnMut(usize, &mut [f32]),
    ) -> usize {
        if let Some(slot) = self.held.iter().position(|&held| held == Some(row)) {
            return slot;
        }
        let slot = usize::from(self.held[0] == Some(other));
        make(row, &mut self.rows[slot]);
        self.held[slot] = Some(row);
        slot
    }
}

/// Resizes a map `[h, w, c]` to `[H, W, c]`: `from` and `to` are `[height, width]`.
pub fn resize_map(
    map: &[f32],
    from: [usize; 2],
    channels: usize,
    to: [usize; 2],
    out: &mut [f32],
) -> Result<(), ResizeError> {
    if from.contains(&0) || to.contains(&0) || channels == 0 {
        return Err(ResizeError::Empty(to[0], to[1], from[0], from[1]));
    }
    check_len("the map", from[0] * from[1] * channels, map.len())?;
    check_len("the resized map", to[0] * to[1] * channels, out.len())?;
    let (columns, row_len) = (Axis::new(from[1], to[1]), to[1] * channels);
    let mut cache = RowCache::new(row_len);
    for (tap, out) in Axis::new(from[0], to[0]).taps().iter().zip(out.chunks_exact_mut(row_len)) {
        let (top, bottom) = cache.pair(tap.lo, tap.hi, |row, to| {
            let from = &map[row * from[1] * channels..][..from[1] * channels];
            stretch_map(from, columns.taps(), channels, to);
        });
        for ((out, &a), &b) in out.iter_mut().zip(top).zip(bottom) {
            *out = lerp(a, b, tap.t);
        }
    }
    Ok(())
}

fn stretch_map(from: &[f32], columns: &[Tap], channels: usize, to: &mut [f32]) {
    for (to, tap) in to.chunks_exact_mut(channels).zip(columns) {
        let left = &from[tap.lo * channels..][..channels];
        let right = &from[tap.hi * channels..][..channels];
        for ((to, &a), &b) in to.iter_mut().zip(left).zip(right) {
            *to = lerp(a, b, tap.t);
        }
    }
}

/// Mirrors a map `[h, w, c]` left–right in place.
pub fn unflip(map: &mut [f32], width: usize, channels: usize) {
    if channels == 0 {
        return;
    }
    for row in map.chunks_exact_mut((width * channels).max(1)) {
        let (mut left, mut right) = (0, width.saturating_sub(1));
        while left < right {
            let (head, tail) = row.split_at_mut(right * channels);
            head[left * channels..][..channels].swap_with_slice(&mut tail[..channels]);
            left += 1;
            right -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
