//! Line plots as SVG. Colours and grey are of middle lightness and the background is
//! transparent, so that a plot reads on a light page and on a dark one.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
/// The plane that the lines are drawn on: left, top, right, bottom. Right of it the legend.
const PLANE: [f64; 4] = [66.0, 44.0, 540.0, 344.0];
const TEXT: &str = "#767676";
/// One line each; then they begin anew.
const COLOURS: [&str; 7] =
    ["#2b7fd4", "#c9650f", "#22935a", "#9a62d0", "#cf4f7c", "#8f7a1c", "#1d9099"];

/// A plot of lines over one pair of axes.
#[derive(Clone, Debug)]
pub struct Plot {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    /// Legend and colours follow this order.
    pub lines: Vec<Line>,
}

#[derive(Clone, Debug)]
pub struct Axis {
    pub label: String,
    /// Least and largest value shown; `None`: those of the points, out to the next ticks.
    pub range: Option<[f64; 2]>,
}

#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    /// `[x, y]` from left to right; where one is not finite the line is interrupted.
    pub points: Vec<[f64; 2]>,
    pub stroke: Stroke,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    Solid,
    Dashed,
    /// A disc on each point, and a line through them.
    Marked,
}

impl Plot {
    /// The plot as a file's content.
    pub fn svg(&self) -> String {
        let x = Scale::new(&self.x, self.values(0), [PLANE[0], PLANE[2]]);
        let y = Scale::new(&self.y, self.values(1), [PLANE[3], PLANE[1]]);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" font-family=\"sans-serif\" \
             font-size=\"13\" fill=\"{TEXT}\">\n<title>{}</title>\n",
            escaped(&self.title)
        );
        text(&mut svg, [PLANE[0], 24.0], "font-size=\"15\" font-weight=\"bold\"", &self.title);
        draw_axes(&mut svg, &x, &y);
        let middle = |a: f64, b: f64| (a + b) / 2.0;
        let below = [middle(PLANE[0], PLANE[2]), HEIGHT - 14.0];
        text(&mut svg, below, "text-anchor=\"middle\"", &self.x.label);
        let at = middle(PLANE[1], PLANE[3]);
        let turned = format!("text-anchor=\"middle\" transform=\"rotate(-90 18 {at})\"");
        text(&mut svg, [18.0, at], &turned, &self.y.label);
        for (i, line) in self.lines.iter().enumerate() {
            line.draw(&mut svg, COLOURS[i % COLOURS.len()], &x, &y);
            line.draw_key(&mut svg, COLOURS[i % COLOURS.len()], i);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn values(&self, axis: usize) -> impl Iterator<Item = f64> {
        let points = self.lines.iter().flat_map(|line| &line.points);
        points.filter(|p| p.iter().all(|v| v.is_finite())).map(move |p| p[axis])
    }
}

impl Line {
    fn draw(&self, svg: &mut String, colour: &str, x: &Scale, y: &Scale) {
        let finite = |point: &[f64; 2]| point.iter().all(|v| v.is_finite());
        for part in self.points.split(|point| !finite(point)).filter(|part| !part.is_empty()) {
            let place = |[px, py]: &[f64; 2]| format!("{:.1},{:.1}", x.place(*px), y.place(*py));
            let places: Vec<String> = part.iter().map(place).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" {}/>",
                places.join(" "),
                self.stroke.attributes(colour)
            );
        }
        if self.stroke == Stroke::Marked {
            for [px, py] in self.points.iter().filter(|p| finite(p)) {
                mark(svg, [x.place(*px), y.place(*py)], colour);
            }
        }
    }

    fn draw_key(&self, svg: &mut String, colour: &str, row: usize) {
        let (left, at) = (PLANE[2] + 18.0, PLANE[1] + 10.0 + 22.0 * row as f64);
        let (right, attributes) = (left + 26.0, self.stroke.attributes(colour));
        let _ = writeln!(svg, "<path d=\"M{left} {at}H{right}\" {attributes}/>");
        if self.stroke == Stroke::Marked {
            mark(svg, [left + 13.0, at], colour);
        }
        text(svg, [right + 8.0, at + 4.5], "", &self.name);
    }
}

impl Stroke {
    fn attributes(self, colour: &str) -> String {
        let dashes = if self == Self::Dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}")
    }
}

/// From values to places along one side of the plane.
struct Scale {
    from: f64,
    to: f64,
    step: f64,
    places: [f64; 2],
}

impl Scale {
    fn new(axis: &Axis, values: impl Iterator<Item = f64>, places: [f64; 2]) -> Self {
        let bounds = |[lo, hi]: [f64; 2], v: f64| [lo.min(v), hi.max(v)];
        let [lo, hi] = axis.range.unwrap_or_else(|| values.fold([f64::MAX, f64::MIN], bounds));
        // One value, or none: some plane around it.
        let (lo, hi) = match (lo < hi, lo == hi) {
            (true, _) => (lo, hi),
            (_, true) => (lo - 0.5, hi + 0.5),
            _ => (0.0, 1.0),
        };
        let step = nice_step((hi - lo) / 5.0);
        let (from, to) = match axis.range {
            Some(_) => (lo, hi),
            None => ((lo / step).floor() * step, (hi / step).ceil() * step),
        };
        Self { from, to, step, places }
    }

    fn place(&self, value: f64) -> f64 {
        let [start, end] = self.places;
        start + (value - self.from) / (self.to - self.from) * (end - start)
    }

    /// Each tick's place and its number.
    fn ticks(&self) -> Vec<(f64, String)> {
        let decimals = (-self.step.log10().floor()).max(0.0) as usize;
        let first = (self.from / self.step - 1e-9).ceil() as i64;
        let last = (self.to / self.step + 1e-9).floor() as i64;
        let tick = |n: i64| {
            let value = n as f64 * self.step;
            (self.place(value), format!("{value:.decimals$}"))
        };
        (first..=last).map(tick).collect()
    }
}

/// The least of …, 0.1, 0.2, 0.5, 1, 2, 5, 10, … that is not below `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|n| n * power);
    steps.into_iter().find(|step| *step >= least * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

fn draw_axes(svg: &mut String, x: &Scale, y: &Scale) {
    let [left, top, right, bottom] = PLANE;
    for (at, number) in x.ticks() {
        grid_line(svg, &format!("M{at:.1} {top}V{bottom}"));
        text(svg, [at, bottom + 20.0], "text-anchor=\"middle\"", &number);
    }
    for (at, number) in y.ticks() {
        grid_line(svg, &format!("M{left} {at:.1}H{right}"));
        text(svg, [left - 8.0, at + 4.5], "text-anchor=\"end\"", &number);
    }
    let path = format!("M{left} {top}V{bottom}H{right}");
    let _ = writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{TEXT}\"/>");
}

fn grid_line(svg: &mut String, path: &str) {
    let _ = writeln!(svg, "<path d=\"{path}\" stroke=\"{TEXT}\" stroke-opacity=\"0.25\"/>");
}

fn mark(svg: &mut String, [x, y]: [f64; 2], colour: &str) {
    let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
}

fn text(svg: &mut String, [x, y]: [f64; 2], attributes: &str, content: &str) {
    let content = escaped(content);
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{content}</text>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<[f64; 2]>) -> Plot {
        let axis = |label: &str| Axis { label: label.into(), range: None };
        let line = Line { name: "a < b & c".into(), points, stroke: Stroke::Marked };
        Plot { title: "Title".into(), x: axis("x"), y: axis("y"), lines: vec![line] }
    }

    #[test]
    fn a_plot_is_well_formed_whatever_its_points() {
        for points in [
            vec![],
            vec![[1.0, 1.0]],
            vec![[0.0, f64::NAN], [1.0, 1.0], [f64::INFINITY, 2.0], [3.0, 1e-9], [4.0, -1e12]],
            (0..100).map(|i| [f64::from(i), f64::from(i * i)]).collect(),
        ] {
            let finite = points.iter().filter(|p| p.iter().all(|v| v.is_finite())).count();
            let svg = plot(points.clone()).svg();
            let tree = roxmltree::Document::parse(&svg).unwrap_or_else(|e| panic!("{e}:\n{svg}"));
            let discs = tree.descendants().filter(|n| n.has_tag_name("circle")).count();
            assert_eq!(discs, finite + 1, "one for each point and one in the legend:\n{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(tree.descendants().any(|n| n.text() == Some("a < b & c")));
        }
    }

    #[test]
    fn ticks_are_round_numbers_within_the_range() {
        let check = |range: Option<[f64; 2]>, values: &[f64], expected: &[&str]| {
            let axis = Axis { label: String::new(), range };
            let scale = Scale::new(&axis, values.iter().copied(), [0.0, 100.0]);
            let ticks = scale.ticks();
            let numbers: Vec<&str> = ticks.iter().map(|(_, number)| number.as_str()).collect();
            assert_eq!(numbers, expected, "{values:?}");
            assert!(ticks.iter().all(|(at, _)| (-1e-6..=100.000001).contains(at)), "{ticks:?}");
        };
        check(Some([0.0, 1.0]), &[], &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        check(None, &[0.93, 0.999], &["0.92", "0.94", "0.96", "0.98", "1.00"]);
        check(None, &[3.0, 97.0], &["0", "20", "40", "60", "80", "100"]);
        check(None, &[-1.0, 4.0], &["-1", "0", "1", "2", "3", "4"]);
        check(Some([0.1, 0.45]), &[], &["0.1", "0.2", "0.3", "0.4"]);
    }

    /// Contrast as WCAG 2.1 defines it.
    fn contrast(a: &str, b: &str) -> f64 {
        let luminance = |colour: &str| {
            let channel = |i: usize| {
                let c = f64::from(u8::from_str_radix(&colour[i..i + 2], 16).unwrap()) / 255.0;
                if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
        };
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        a.max(b) / a.min(b)
    }

    #[test]
    fn everything_is_seen_on_white_and_on_near_black() {
        for page in ["#ffffff", "#0d1117"] {
            assert!(contrast(TEXT, page) >= 4.1, "text on {page}: {}", contrast(TEXT, page));
            for colour in COLOURS {
                assert!(contrast(colour, page) >= 3.0, "{colour} on {page}");
            }
        }
    }
}
