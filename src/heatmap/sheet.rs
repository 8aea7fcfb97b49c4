//! A contact sheet: one row per image, with the image, its heatmap and their overlay,
//! as keras-explainable's `visualize` lays them out.

use super::Heatmap;
use super::overlay::Overlay;
use super::text::Typeface;
use crate::config::OverlayConfig;
use crate::frame::Picture;
use crate::rescale::rescaled;
use fast_image_resize::{FilterType, Resizer};

/// Images are shrunk or stretched until they just fit into a square of this side.
const CELL_PX: usize = 256;
const GAP_PX: usize = 12;
const TITLE_PX: usize = 24;
const COLUMNS: usize = 3;
const WIDTH_PX: usize = COLUMNS * CELL_PX + (COLUMNS + 1) * GAP_PX;
/// About 30,000 pixels high; few viewers open more.
const MAX_ROWS: usize = 100;
const PAPER: [u8; 3] = [255; 3];
/// Parts of the picture that the map does not cover.
const NO_MAP: [u8; 3] = [224; 3];
const INK: [u8; 3] = [32; 3];

/// Grows by a row with each [`push`](Self::push); the images themselves are not kept.
pub struct Sheet {
    overlay: Overlay,
    solid: Overlay,
    face: Typeface,
    resizer: Resizer,
    rows: usize,
    /// The rows so far, without the margin below the last.
    page: Picture,
}

impl Sheet {
    pub fn new(config: &OverlayConfig) -> Self {
        Self {
            overlay: Overlay::new(config),
            solid: Overlay::solid(config.colormap),
            face: Typeface::new(16.0),
            resizer: Resizer::new(),
            rows: 0,
            page: Picture { width: WIDTH_PX, height: 0, rgb: Vec::new() },
        }
    }

    /// Adds the row of one image: `title` over the image, the best class and its
    /// probability over the overlay. False, and nothing added, once the sheet is full.
    pub fn push(&mut self, picture: &Picture, heatmap: &Heatmap, title: &str) -> bool {
        if self.rows == MAX_ROWS {
            return false;
        }
        self.rows += 1;
        let mut map = Picture::new(picture.width, picture.height);
        map.rgb.as_chunks_mut::<3>().0.fill(NO_MAP);
        self.solid.blend(&mut map, heatmap, 0);
        let mut drawn = picture.clone();
        self.overlay.blend(&mut drawn, heatmap, 0);
        let class = heatmap.classes.first();
        let class = class.map(|class| format!("{} p={:.2}", class.label, class.probability));

        let [width, height] = cell_size(picture);
        let top = self.page.height + GAP_PX + TITLE_PX;
        self.extend_to(top + height);
        let cells = [(picture, title), (&map, ""), (&drawn, class.as_deref().unwrap_or_default())];
        for (column, (image, text)) in cells.into_iter().enumerate() {
            let left = GAP_PX + column * (CELL_PX + GAP_PX);
            let text = self.face.fit(text, CELL_PX as f32);
            let baseline = (top - TITLE_PX / 3) as f32;
            self.face.draw(&mut self.page, left as f32, baseline, &text, INK);
            // A picture without pixels leaves its cell empty.
            let size = [width, height];
            if let Ok(small) = rescaled(&mut self.resizer, image, size, FilterType::Bilinear) {
                let left = left + (CELL_PX - width) / 2;
                paste(&mut self.page, &small.rgb, width, left, top);
            }
        }
        true
    }

    /// The finished sheet.
    pub fn into_picture(mut self) -> Picture {
        self.extend_to(self.page.height + GAP_PX);
        self.page
    }

    fn extend_to(&mut self, height: usize) {
        self.page.height = height;
        let missing = height * WIDTH_PX - self.page.rgb.len() / 3;
        self.page.rgb.extend(std::iter::repeat_n(PAPER, missing).flatten());
    }
}

/// `[width, height]` of the largest image of the picture's shape in a cell.
fn cell_size(picture: &Picture) -> [usize; 2] {
    let longest = picture.width.max(picture.height).max(1);
    [picture.width, picture.height].map(|side| (side * CELL_PX / longest).max(1))
}

fn paste(page: &mut Picture, pixels: &[u8], width: usize, left: usize, top: usize) {
    for (y, row) in pixels.chunks_exact(width * 3).enumerate() {
        let start = ((top + y) * page.width + left) * 3;
        page.rgb[start..start + row.len()].copy_from_slice(row);
    }
}
