//! The corner of an overlay that says what it shows.

use super::Heatmap;
use super::colormap::Table;
use super::overlay::{fill, for_each_pixel};
use super::text::Typeface;
use crate::frame::{Picture, Rect};
use crate::wall;

/// Classes named at most.
const MAX_CLASSES: usize = 3;
const WHITE: [u8; 3] = [255; 3];
const PALE: [u8; 3] = [200; 3];

/// Draws classes with their scores, the views and their time, the moment, and the
/// colours from cold to hot into the top left corner.
pub(super) struct Legend {
    table: Table,
    face: Typeface,
}

impl Legend {
    pub fn new(table: &Table) -> Self {
        Self { table: *table, face: Typeface::new(16.0) }
    }

    pub fn draw(&mut self, picture: &mut Picture, heatmap: &Heatmap) {
        self.face.set_size((picture.height / 32).clamp(11, 32) as f32);
        let line_px = self.face.line_height();
        let margin = line_px * 0.4;
        let room = picture.width as f32 - 2.0 * margin;
        // On a small picture the legend must not hide what it explains.
        let fitting = ((picture.height as f32 / 2.0 - 2.0 * margin) / line_px) as usize;
        let lines: Vec<(String, [u8; 3])> = lines(heatmap)
            .into_iter()
            .take(fitting.saturating_sub(1))
            .map(|(text, colour)| (self.face.fit(&text, room), colour))
            .collect();
        let widest = lines.iter().map(|(text, _)| self.face.width(text)).fold(0.0, f32::max);
        if lines.is_empty() || room < line_px * 4.0 {
            return;
        }
        let panel = Rect {
            x: 0,
            y: 0,
            width: (widest + 2.0 * margin).ceil() as u32,
            height: ((lines.len() as f32 + 0.6) * line_px + 2.0 * margin).ceil() as u32,
        };
        for_each_pixel(picture, panel, |pixel| *pixel = pixel.map(|c| c / 4));
        let mut baseline = margin + self.face.ascent();
        for (text, colour) in &lines {
            self.face.draw(picture, margin, baseline, text, *colour);
            baseline += line_px;
        }
        let bar_px = (line_px * 0.4).max(2.0) as u32;
        let bar = Rect {
            x: margin as u32,
            y: panel.height - margin as u32 - bar_px,
            width: widest as u32,
            height: bar_px,
        };
        self.draw_bar(picture, bar);
    }

    fn draw_bar(&self, picture: &mut Picture, bar: Rect) {
        for column in 0..bar.width {
            let value = column * 255 / (bar.width - 1).max(1);
            let place = Rect { x: bar.x + column, width: 1, ..bar };
            fill(picture, place, self.table[value as usize]);
        }
    }
}

fn lines(heatmap: &Heatmap) -> Vec<(String, [u8; 3])> {
    let classes = heatmap.classes.iter().take(MAX_CLASSES).zip([WHITE, PALE, PALE]);
    let mut lines: Vec<_> = classes
        .map(|(class, colour)| (format!("{} p={:.2}", class.label, class.probability), colour))
        .collect();
    let views = heatmap.views.len();
    let kept = heatmap.views.iter().filter(|view| view.age_ms > 0.0).count();
    let plural = if views == 1 { "" } else { "s" };
    let kept = if kept > 0 { format!(" ({kept} kept)") } else { String::new() };
    lines.push((format!("{views} view{plural}{kept} · {:.0} ms", heatmap.spent_ms), PALE));
    lines.push((wall::short(heatmap.captured_wall), PALE));
    lines
}
