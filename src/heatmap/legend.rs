//! The corner of an overlay that says what it shows.

use super::colormap::Table;
use super::overlay::{fill, for_each_pixel};
use super::text::Typeface;
use super::{Heatmap, view_text};
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
        // The legend must not hide what it explains: it keeps to its quarter of the
        // picture, but on a small one no narrower than a few words.
        let half = (picture.width as f32 / 2.0).max(line_px * 10.0);
        let room = half.min(picture.width as f32) - 2.0 * margin;
        let fitting = ((picture.height as f32 / 2.0 - 2.0 * margin) / line_px) as usize;
        let lines: Vec<(String, [u8; 3])> = self
            .lines(heatmap, room)
            .into_iter()
            .take(fitting.saturating_sub(1))
            .map(|line| (self.fit(&line, room), line.colour))
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

    fn lines(&mut self, heatmap: &Heatmap, room_px: f32) -> Vec<Line> {
        let classes = heatmap.classes.iter().take(MAX_CLASSES).zip([WHITE, PALE, PALE]);
        let class_lines = classes.map(|(class, colour)| Line {
            beginning: class.label.clone(),
            end: format!(" p={:.2}", class.probability),
            colour,
        });
        let whole = |end: String| Line { beginning: String::new(), end, colour: PALE };
        let budget = heatmap.budget_ms.map_or(String::new(), |ms| format!(" of {ms:.0}"));
        let time = wall::short(heatmap.captured_wall);
        let cost = format!("{:.0}{budget} ms · {time}", heatmap.spent_ms);
        let views = self.views(heatmap, room_px);
        class_lines.chain([whole(cost)]).chain(views.into_iter().map(whole)).collect()
    }

    /// The views with their ages, in as many lines as they need.
    fn views(&mut self, heatmap: &Heatmap, room_px: f32) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for view in &heatmap.views {
            let word = view_text(view.scale, view.hflip, view.age_ms);
            let longer = lines.last().map(|line| format!("{line} {word}"));
            match longer.filter(|line| self.face.width(line) <= room_px) {
                Some(longer) => *lines.last_mut().expect("it was just made longer") = longer,
                None => lines.push(word),
            }
        }
        lines
    }

    /// The line's text, its beginning cut so that the end stays readable.
    fn fit(&mut self, line: &Line, width_px: f32) -> String {
        let end_px = self.face.width(&line.end);
        let beginning = self.face.fit(&line.beginning, width_px - end_px);
        beginning + &line.end
    }

    fn draw_bar(&self, picture: &mut Picture, bar: Rect) {
        for column in 0..bar.width {
            let value = column * 255 / (bar.width - 1).max(1);
            let place = Rect { x: bar.x + column, width: 1, ..bar };
            fill(picture, place, self.table[value as usize]);
        }
    }
}

struct Line {
    /// What may be cut.
    beginning: String,
    end: String,
    colour: [u8; 3],
}
