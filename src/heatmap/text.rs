//! Text on pictures, in the embedded font (DejaVu Sans; see assets/fonts/).

use crate::frame::Picture;
use ab_glyph_rasterizer::{Point, Rasterizer, point};
use skrifa::instance::{LocationRef, Size};
use skrifa::outline::{DrawSettings, OutlinePen};
use skrifa::{FontRef, GlyphId, MetadataProvider};
use std::collections::HashMap;

const FONT: &[u8] = include_bytes!("../../assets/fonts/DejaVuSans-subset.ttf");
/// Far more than the letters of a model's labels; when full, the cache starts anew.
const MAX_GLYPHS: usize = 1024;

/// The font at one size, with the glyphs drawn so far.
pub struct Typeface {
    font: FontRef<'static>,
    /// Both in font units: from the top of a line to its baseline, and to its end.
    ascent: f32,
    height: f32,
    size_px: f32,
    glyphs: HashMap<char, Glyph>,
}

/// A letter as a mask, placed relative to the pen on the baseline.
struct Glyph {
    advance: f32,
    left: i32,
    top: i32,
    width: usize,
    /// 0–255, row by row.
    coverage: Vec<u8>,
}

impl Typeface {
    /// The font at `size_px` pixels from ascender to descender.
    pub fn new(size_px: f32) -> Self {
        let font = FontRef::new(FONT).expect("the embedded font is whole");
        let metrics = font.metrics(Size::unscaled(), LocationRef::default());
        let height = metrics.ascent - metrics.descent;
        Self { font, ascent: metrics.ascent, height, size_px, glyphs: HashMap::new() }
    }

    pub fn set_size(&mut self, size_px: f32) {
        if self.size_px != size_px {
            self.size_px = size_px;
            self.glyphs.clear();
        }
    }

    /// Pixels from one baseline to the next.
    pub fn line_height(&self) -> f32 {
        self.size_px * 1.15
    }

    /// Pixels from the top of a line to its baseline.
    pub fn ascent(&self) -> f32 {
        self.ascent * self.size_px / self.height
    }

    /// Width in pixels.
    pub fn width(&mut self, text: &str) -> f32 {
        text.chars().map(|c| self.glyph(c).advance).sum()
    }

    /// `text`, or as much of its beginning as fits into `width_px` with an ellipsis.
    pub fn fit(&mut self, text: &str, width_px: f32) -> String {
        if self.width(text) <= width_px {
            return text.into();
        }
        let mut room = width_px - self.width("…");
        let fits = |c: &char| {
            room -= self.glyph(*c).advance;
            room >= 0.0
        };
        let mut short: String = text.chars().take_while(fits).collect();
        short.push('…');
        short
    }

    /// Draws `text` with its pen starting at `x` on the baseline `y`; what lies outside
    /// of the picture is cut off.
    pub fn draw(&mut self, picture: &mut Picture, x: f32, y: f32, text: &str, colour: [u8; 3]) {
        let mut pen = x;
        for c in text.chars() {
            let glyph = self.glyph(c);
            glyph.draw(picture, pen.round() as i32, y.round() as i32, colour);
            pen += glyph.advance;
        }
    }

    fn glyph(&mut self, c: char) -> &Glyph {
        if self.glyphs.len() >= MAX_GLYPHS && !self.glyphs.contains_key(&c) {
            self.glyphs.clear();
        }
        let (font, scale) = (&self.font, self.size_px / self.height);
        self.glyphs.entry(c).or_insert_with(|| Glyph::rasterise(font, scale, c))
    }
}

impl Glyph {
    /// `scale`: pixels in a font unit.
    fn rasterise(font: &FontRef<'static>, scale: f32, c: char) -> Self {
        // Control characters have no shape; a label may still hold them.
        let id =
            font.charmap().map(if c.is_control() { ' ' } else { c }).unwrap_or(GlyphId::NOTDEF);
        let metrics = font.glyph_metrics(Size::unscaled(), LocationRef::default());
        let advance = metrics.advance_width(id).unwrap_or(0.0) * scale;
        let blank = Self { advance, left: 0, top: 0, width: 0, coverage: Vec::new() };
        let (Some(bounds), Some(shape)) = (metrics.bounds(id), font.outline_glyphs().get(id))
        else {
            return blank;
        };
        // Rows count downwards.
        let (left, top) = ((bounds.x_min * scale).floor(), (-bounds.y_max * scale).floor());
        let width = ((bounds.x_max * scale).ceil() - left) as usize;
        let height = ((-bounds.y_min * scale).ceil() - top) as usize;
        let mut pen = Pen {
            canvas: Rasterizer::new(width, height),
            scale,
            corner: point(left, top),
            start: point(0.0, 0.0),
            at: point(0.0, 0.0),
        };
        let settings = DrawSettings::unhinted(Size::unscaled(), LocationRef::default());
        if shape.draw(settings, &mut pen).is_err() {
            return blank;
        }
        let mut coverage = vec![0; width * height];
        pen.canvas.for_each_pixel(|i, share| {
            coverage[i] = (share.clamp(0.0, 1.0) * 255.0).round() as u8;
        });
        Self { advance, left: left as i32, top: top as i32, width, coverage }
    }

    fn draw(&self, picture: &mut Picture, x: i32, y: i32, colour: [u8; 3]) {
        for (row, coverage) in self.coverage.chunks_exact(self.width.max(1)).enumerate() {
            for (column, &share) in coverage.iter().enumerate() {
                let x = x + self.left + column as i32;
                let y = y + self.top + row as i32;
                if let Some(pixel) = picture_pixel(picture, x, y) {
                    mix(pixel, colour, share);
                }
            }
        }
    }
}

/// Draws a glyph's outline, in font units, onto a canvas of pixels.
struct Pen {
    canvas: Rasterizer,
    /// Pixels in a font unit.
    scale: f32,
    /// Where the canvas begins, in pixels from the pen on the baseline.
    corner: Point,
    /// Where the contour began, and where it is; on the canvas.
    start: Point,
    at: Point,
}

impl Pen {
    fn place(&self, x: f32, y: f32) -> Point {
        point(x * self.scale, -y * self.scale) - self.corner
    }
}

impl OutlinePen for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        self.start = self.place(x, y);
        self.at = self.start;
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let to = self.place(x, y);
        self.canvas.draw_line(self.at, to);
        self.at = to;
    }

    fn quad_to(&mut self, cx: f32, cy: f32, x: f32, y: f32) {
        let (control, to) = (self.place(cx, cy), self.place(x, y));
        self.canvas.draw_quad(self.at, control, to);
        self.at = to;
    }

    fn curve_to(&mut self, cx0: f32, cy0: f32, cx1: f32, cy1: f32, x: f32, y: f32) {
        let (first, second, to) = (self.place(cx0, cy0), self.place(cx1, cy1), self.place(x, y));
        self.canvas.draw_cubic(self.at, first, second, to);
        self.at = to;
    }

    fn close(&mut self) {
        self.canvas.draw_line(self.at, self.start);
        self.at = self.start;
    }
}

/// The pixel at column `x`, row `y`, if the picture has one there.
fn picture_pixel(picture: &mut Picture, x: i32, y: i32) -> Option<&mut [u8]> {
    let (x, y) = (usize::try_from(x).ok()?, usize::try_from(y).ok()?);
    if x >= picture.width || y >= picture.height {
        return None;
    }
    picture.rgb.get_mut((y * picture.width + x) * 3..)?.get_mut(..3)
}

fn mix(pixel: &mut [u8], colour: [u8; 3], share: u8) {
    let share = u32::from(share);
    for (old, new) in pixel.iter_mut().zip(colour) {
        *old = ((u32::from(*old) * (255 - share) + u32::from(new) * share + 127) / 255) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_drawn_where_it_was_measured() {
        let mut face = Typeface::new(20.0);
        let mut picture = Picture::new(200, 40);
        let width = face.width("Ag7é");
        face.draw(&mut picture, 10.0, 28.0, "Ag7é", [255; 3]);
        let lit = |x: usize| (0..40).any(|y| picture.pixel(x, y) != [0; 3]);
        let columns: Vec<usize> = (0..200).filter(|&x| lit(x)).collect();
        assert!(*columns.first().unwrap() >= 9 && *columns.last().unwrap() <= 11 + width as usize);
        assert!(columns.len() > width as usize / 2);
    }

    #[test]
    fn long_text_is_cut_with_an_ellipsis() {
        let mut face = Typeface::new(16.0);
        let whole = "soft-coated wheaten terrier";
        assert_eq!(face.fit(whole, 1000.0), whole);
        let cut = face.fit(whole, 100.0);
        assert!(cut.ends_with('…') && face.width(&cut) <= 100.0, "{cut}");
        assert_eq!(face.fit(whole, 0.0), "…");
    }

    #[test]
    fn nothing_is_drawn_outside_and_no_letter_is_unknown_enough_to_panic() {
        let mut face = Typeface::new(30.0);
        let mut picture = Picture::new(3, 2);
        for (x, y) in [(-1000.0, 5.0), (-5.0, 1.0), (1e9, 1e9), (0.0, -3.0)] {
            face.draw(&mut picture, x, y, "日本\u{0}\n\u{10ffff}Æ", [255; 3]);
        }
        assert_eq!(picture.rgb.len(), 18);
    }

    #[test]
    fn a_flood_of_letters_is_kept_within_the_cache() {
        let mut face = Typeface::new(10.0);
        for c in ('\u{20}'..'\u{2000}').step_by(1) {
            face.width(c.encode_utf8(&mut [0; 4]));
        }
        assert!(face.glyphs.len() <= MAX_GLYPHS);
    }
}
