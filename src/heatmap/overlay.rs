//! A heatmap drawn on its picture: blended colours, boxes, legend.

use super::Heatmap;
use super::colormap::{self, Table};
use super::guided::GuidedFilter;
use super::legend::Legend;
use super::region::{self, Contour, Threshold};
use crate::config::{Colormap, OverlayConfig, ThresholdKind, Upsample};
use crate::frame::{Picture, Rect};

/// Map values are drawn as 0–255 with 8 more bits for interpolation.
const FULL: f32 = (255 << 8) as f32;

/// Draws heatmaps on pictures. Keeps its buffers from one to the next.
pub struct Overlay {
    table: Table,
    blends: [Blend; 256],
    threshold: Option<Threshold>,
    contours: bool,
    legend: Option<Legend>,
    guided: Option<GuidedFilter>,
    /// The map that is drawn, `[height, width]`.
    map: Vec<f32>,
    buffers: Buffers,
    canvas: Picture,
}

/// What a value does to a pixel: `new = (old · keep + add) / 256`.
#[derive(Clone, Copy, Default)]
struct Blend {
    add: [u16; 3],
    keep: u16,
}

#[derive(Default)]
struct Buffers {
    /// The map, `[height, width]`, 0 to 255·256.
    levels: Vec<u16>,
    columns: Vec<Tap>,
    rows: Vec<Tap>,
    /// The two map rows around the picture's row, stretched to the width that the map covers.
    above: StretchedRow,
    below: StretchedRow,
    /// One row of the picture as indices of colours.
    indices: Vec<u8>,
}

#[derive(Default)]
struct StretchedRow {
    /// Which row of the map this is.
    of: Option<usize>,
    levels: Vec<u16>,
}

/// The two cells that a pixel lies between, and how far along, in 256ths.
#[derive(Clone, Copy)]
struct Tap {
    low: u32,
    high: u32,
    share: u32,
}

impl Overlay {
    pub fn new(config: &OverlayConfig) -> Self {
        let table = colormap::table(config.colormap);
        Self {
            blends: std::array::from_fn(|value| Blend::new(table[value], value, config.alpha)),
            threshold: threshold(config),
            contours: config.contours,
            legend: config.label.then(|| Legend::new(&table)),
            guided: (config.upsample == Upsample::Guided).then(GuidedFilter::default),
            map: Vec::new(),
            table,
            buffers: Buffers::default(),
            canvas: Picture::new(0, 0),
        }
    }

    /// Draws maps that hide what they cover, and nothing else.
    pub fn solid(colormap: Colormap) -> Self {
        let config =
            OverlayConfig { colormap, alpha: 1.0, label: false, ..OverlayConfig::default() };
        let mut overlay = Self::new(&config);
        overlay.blends = overlay.table.map(Blend::solid);
        overlay
    }

    /// A copy of `picture` with everything drawn that is configured: the map of the best
    /// class, boxes, legend.
    pub fn render(&mut self, picture: &Picture, heatmap: &Heatmap) -> &Picture {
        let mut canvas = std::mem::replace(&mut self.canvas, Picture::new(0, 0));
        canvas.clone_from(picture);
        self.draw(&mut canvas, heatmap);
        self.canvas = canvas;
        &self.canvas
    }

    /// As [`render`](Self::render), in place.
    pub fn draw(&mut self, picture: &mut Picture, heatmap: &Heatmap) {
        self.blend(picture, heatmap, 0);
        self.draw_boxes(picture, heatmap);
        if let Some(legend) = &mut self.legend {
            legend.draw(picture, heatmap);
        }
    }

    /// Blends the map of the heatmap's class number `class` onto the part of the picture
    /// that it covers; no other pixel changes. Bilinear with half-pixel centres; values
    /// below 0 are transparent, the largest has the configured opacity.
    pub fn blend(&mut self, picture: &mut Picture, heatmap: &Heatmap, class: usize) {
        let (width, height) = (heatmap.width, heatmap.height);
        self.take_map(heatmap, class);
        if let Some(guided) = &mut self.guided {
            guided.refine(picture, heatmap.covers, &mut self.map, width);
        }
        if !self.buffers.quantise(&self.map) {
            return;
        }
        let covers = heatmap.covers;
        let area = clip(covers, picture);
        if area.width == 0 || area.height == 0 {
            return;
        }
        fill_taps(&mut self.buffers.columns, width, covers.width, area.width);
        fill_taps(&mut self.buffers.rows, height, covers.height, area.height);
        self.buffers.indices.resize(area.width as usize, 0);
        self.buffers.above.of = None;
        self.buffers.below.of = None;
        let stride = picture.width * 3;
        let first = area.y as usize * stride + area.x as usize * 3;
        for y in 0..area.height as usize {
            let start = first + y * stride;
            let pixels = &mut picture.rgb[start..start + area.width as usize * 3];
            self.buffers.interpolate_row(y, width);
            blend_row(pixels, &self.buffers.indices, &self.blends);
        }
    }

    /// The map of class number `class` alone, in colours, one pixel a cell.
    pub fn map_picture(&mut self, heatmap: &Heatmap, class: usize) -> Picture {
        let mut picture = Picture::new(heatmap.width, heatmap.height);
        self.take_map(heatmap, class);
        if self.buffers.quantise(&self.map) {
            let pixels = picture.rgb.chunks_exact_mut(3);
            for (pixel, &level) in pixels.zip(&self.buffers.levels) {
                pixel.copy_from_slice(&self.table[(usize::from(level) + 128) >> 8]);
            }
        }
        picture
    }

    /// Fills `map` with a class's map; empty where the heatmap has none.
    fn take_map(&mut self, heatmap: &Heatmap, class: usize) {
        let (classes, cells) = (heatmap.classes.len(), heatmap.width * heatmap.height);
        self.map.clear();
        if class < classes && heatmap.values.len() == cells * classes {
            self.map.extend(heatmap.values.iter().skip(class).step_by(classes));
        }
    }

    /// Around what is hot in the map that was drawn.
    fn draw_boxes(&self, picture: &mut Picture, heatmap: &Heatmap) {
        let (Some(threshold), map) = (self.threshold, &self.map) else { return };
        let Some(level) = threshold.level(map) else { return };
        let line_px = (picture.height as u32 / 360).max(1);
        if self.contours {
            let lines = region::contours(map, heatmap.width, level);
            for (width_px, colour) in [(line_px + 2, [0; 3]), (line_px, [255; 3])] {
                lines.iter().for_each(|line| trace(picture, heatmap, line, width_px, colour));
            }
        }
        for region in region::regions(map, heatmap.width, level) {
            let cells = region.bounds;
            let place = region::in_picture(cells, heatmap.width, heatmap.height, heatmap.covers);
            // White around black can be seen on any ground.
            outline(picture, place, 2 * line_px, [0; 3]);
            outline(picture, place, line_px, [255; 3]);
        }
    }
}

impl Blend {
    /// Opacity grows with the value, up to `alpha` at 255.
    fn new(colour: [u8; 3], value: usize, alpha: f32) -> Self {
        let opacity = (alpha.clamp(0.0, 1.0) * value as f32 / 255.0 * 256.0).round() as u16;
        Self { add: colour.map(|c| u16::from(c) * opacity), keep: 256 - opacity }
    }

    fn solid(colour: [u8; 3]) -> Self {
        Self { add: colour.map(|c| u16::from(c) << 8), keep: 0 }
    }
}

impl Buffers {
    /// Fills `levels` with the positive part of a map, scaled to its maximum. False if there
    /// is nothing to draw.
    fn quantise(&mut self, map: &[f32]) -> bool {
        let peak = region::peak(map);
        if peak <= 0.0 {
            return false;
        }
        self.levels.clear();
        // A cast saturates: negative values and NaN become 0, infinity the maximum.
        let quantised = map.iter().map(|value| (value / peak * FULL + 0.5).min(FULL) as u16);
        self.levels.extend(quantised);
        true
    }

    /// Fills `indices` for row `y` of the covered part.
    fn interpolate_row(&mut self, y: usize, map_width: usize) {
        let tap = self.rows[y];
        let (low, high) = (tap.low as usize, tap.high as usize);
        if self.above.of != Some(low) && self.below.of == Some(low) {
            std::mem::swap(&mut self.above, &mut self.below);
        }
        for (row, of) in [(&mut self.above, low), (&mut self.below, high)] {
            if row.of != Some(of) {
                row.stretch(&self.levels[of * map_width..][..map_width], &self.columns);
                row.of = Some(of);
            }
        }
        let rows = self.above.levels.iter().zip(&self.below.levels);
        for (index, (&above, &below)) in self.indices.iter_mut().zip(rows) {
            let level = u32::from(above) * (256 - tap.share) + u32::from(below) * tap.share;
            *index = ((level + (1 << 15)) >> 16) as u8;
        }
    }
}

impl StretchedRow {
    fn stretch(&mut self, cells: &[u16], columns: &[Tap]) {
        self.levels.clear();
        self.levels.extend(columns.iter().map(|tap| {
            let low = u32::from(cells[tap.low as usize]);
            let high = u32::from(cells[tap.high as usize]);
            ((low * (256 - tap.share) + high * tap.share + 128) >> 8) as u16
        }));
    }
}

/// The taps of the first `visible` of `pixels` pixels over `cells` cells: half-pixel
/// centres, no antialias, as the maps themselves were resized.
fn fill_taps(taps: &mut Vec<Tap>, cells: usize, pixels: u32, visible: u32) {
    let ratio = cells as f64 / f64::from(pixels);
    taps.clear();
    taps.extend((0..visible).map(|pixel| {
        let at = ((f64::from(pixel) + 0.5) * ratio - 0.5).clamp(0.0, cells as f64 - 1.0);
        let low = at as u32;
        let share = ((at - f64::from(low)) * 256.0).round() as u32;
        Tap { low, high: (low + 1).min(cells as u32 - 1), share }
    }));
}

fn blend_row(pixels: &mut [u8], indices: &[u8], blends: &[Blend; 256]) {
    for (pixel, &index) in pixels.as_chunks_mut::<3>().0.iter_mut().zip(indices) {
        let Blend { add, keep } = blends[usize::from(index)];
        for (channel, add) in pixel.iter_mut().zip(add) {
            // At most 255·256 + 128: it fits.
            *channel = ((u16::from(*channel) * keep + add + 128) >> 8) as u8;
        }
    }
}

/// The part of `rect` that lies in the picture. Keeps its top left corner.
fn clip(rect: Rect, picture: &Picture) -> Rect {
    let room = |start: u32, length: u32, end: usize| length.min((end as u32).saturating_sub(start));
    let width = room(rect.x, rect.width, picture.width);
    Rect { width, height: room(rect.y, rect.height, picture.height), ..rect }
}

/// Fills a rectangle with one colour.
pub(super) fn fill(picture: &mut Picture, rect: Rect, colour: [u8; 3]) {
    for_each_pixel(picture, rect, |pixel| *pixel = colour);
}

/// Calls `change` for each pixel of `rect` that the picture has.
pub(super) fn for_each_pixel(picture: &mut Picture, rect: Rect, change: impl Fn(&mut [u8; 3])) {
    let rect = clip(rect, picture);
    if rect.width == 0 {
        return;
    }
    let stride = picture.width * 3;
    for y in rect.y as usize..(rect.y + rect.height) as usize {
        let start = y * stride + rect.x as usize * 3;
        let row = &mut picture.rgb[start..start + rect.width as usize * 3];
        row.as_chunks_mut::<3>().0.iter_mut().for_each(&change);
    }
}

fn threshold(config: &OverlayConfig) -> Option<Threshold> {
    let share = config.box_threshold?;
    Some(match config.threshold {
        ThresholdKind::Share => Threshold::Share(share),
        ThresholdKind::Percentile => Threshold::Percentile(share * 100.0),
        ThresholdKind::Otsu => Threshold::Otsu,
    })
}

/// Draws a contour, given in cells of the heatmap, where it lies in the picture: a square
/// pen of `width_px` in steps of a pixel.
fn trace(picture: &mut Picture, heatmap: &Heatmap, line: &Contour, width_px: u32, colour: [u8; 3]) {
    let covers = heatmap.covers;
    let place = |[x, y]: [f32; 2]| {
        [
            covers.x as f32 + x * covers.width as f32 / heatmap.width as f32,
            covers.y as f32 + y * covers.height as f32 / heatmap.height as f32,
        ]
    };
    let half = width_px as f32 / 2.0;
    for (i, &point) in line.iter().enumerate() {
        let [from, to] = [point, line[(i + 1) % line.len()]].map(place);
        let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
        let steps = dx.abs().max(dy.abs()).ceil().max(1.0);
        for step in 0..steps as u32 {
            let share = step as f32 / steps;
            // A cast saturates: the pen stays in the picture.
            let at = |from: f32, d: f32| (from + d * share - half).round() as u32;
            let (x, y) = (at(from[0], dx), at(from[1], dy));
            fill(picture, Rect { x, y, width: width_px, height: width_px }, colour);
        }
    }
}

/// Draws the border of `rect`, `line_px` wide, on its inside.
fn outline(picture: &mut Picture, rect: Rect, line_px: u32, colour: [u8; 3]) {
    let (wide, high) = (line_px.min(rect.width), line_px.min(rect.height));
    let right = rect.x + rect.width - wide;
    let bottom = rect.y + rect.height - high;
    fill(picture, Rect { height: high, ..rect }, colour);
    fill(picture, Rect { y: bottom, height: high, ..rect }, colour);
    fill(picture, Rect { width: wide, ..rect }, colour);
    fill(picture, Rect { x: right, width: wide, ..rect }, colour);
}
