//! Insertion and deletion (V. Petsiuk et al., "RISE", BMVC 2018): does the class stand or
//! fall with the pixels that a map points at?
//!
//! Deletion greys the photo out, the map's highest pixels first; insertion brings them into
//! a blurred photo. After each step one pass at scale 1 gives the class's probability, and
//! the mean of that curve is the score: small for deletion and large for insertion if the
//! map is right. Pixels that are equal in the map go in reading order.

use super::EvalError;
use crate::classes::softmax;
use crate::config::ColourOrder;
use crate::explain::{ExplainError, input_scaling};
use crate::frame::{Picture, Rect};
use crate::model::{Model, Plan};
use crate::preprocess::resize::ViewResizer;
use image::{RgbImage, imageops};
use rayon::prelude::*;
use std::sync::Arc;

/// Each changes this part of the pixels: 5 %.
pub const STEPS: usize = 20;
/// Standard deviation of the blur that insertion starts from, as a share of the longer
/// side: RISE's 5 pixels of 224.
const BLUR: f32 = 5.0 / 224.0;

/// The class's probability after 0 … [`STEPS`] steps.
#[derive(Clone, Debug, Default)]
pub struct Curves {
    pub deletion: Vec<f64>,
    pub insertion: Vec<f64>,
}

/// The mean of a curve over the share of pixels, by the trapezoidal rule.
pub fn area(curve: &[f64]) -> f64 {
    let pairs = curve.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
    pairs.sum::<f64>() / curve.len().saturating_sub(1).max(1) as f64
}

/// Measures curves with one model at one size.
pub struct Faithfulness {
    model: Arc<Model>,
    plan: Arc<Plan>,
    size: [usize; 2],
    pool: rayon::ThreadPool,
}

/// The pixels of `to` come into `from` in the order of a map.
struct Change<'a> {
    from: &'a Picture,
    to: &'a Picture,
    order: &'a [u32],
}

impl Faithfulness {
    /// For base pictures of `size`, `[height, width]`; passes run side by side.
    pub fn new(model: Arc<Model>, size: [usize; 2], threads: usize) -> Result<Self, EvalError> {
        let failed = |e: rayon::ThreadPoolBuildError| {
            EvalError::from(ExplainError::Threads { threads, why: e.to_string() })
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(failed)?;
        let plan = model.plan(size).map_err(ExplainError::from)?;
        Ok(Self { model, plan, size, pool })
    }

    /// The curves of several maps of one class, each `[content height, content width]`.
    /// `content` is the part of the base picture that shows the photo.
    pub fn curves(
        &self,
        base: &Picture,
        content: Rect,
        class: usize,
        maps: &[&[f32]],
    ) -> Result<Vec<Curves>, EvalError> {
        let (grey, blurred) = (self.grey(), blurred(base));
        let orders: Vec<Vec<u32>> =
            maps.iter().map(|map| order(map, content, base.width)).collect();
        let mut changes = Vec::new();
        for order in &orders {
            changes.push(Change { from: base, to: &grey, order });
            changes.push(Change { from: &blurred, to: base, order });
        }
        // The ends of the curves are the same for all maps.
        let ends = [(0, 0), (0, STEPS), (1, 0)];
        let inner = (0..changes.len()).flat_map(|c| (1..STEPS).map(move |step| (c, step)));
        let passes: Vec<(usize, usize)> = ends.into_iter().chain(inner).collect();
        self.model.set_row_threads(1);
        let probabilities = self.pool.install(|| {
            let run = |&(change, step): &(usize, usize)| {
                self.probability(&changes[change].after(step), class)
            };
            passes.par_iter().map(run).collect::<Result<Vec<f64>, EvalError>>()
        })?;
        let [photo, grey, blurred] = [probabilities[0], probabilities[1], probabilities[2]];
        let curve = |from, inner: &[f64], to| [&[from], inner, &[to]].concat();
        let inner: Vec<&[f64]> = probabilities[3..].chunks_exact(STEPS - 1).collect();
        let pairs = inner.chunks_exact(2).map(|pair| Curves {
            deletion: curve(photo, pair[0], grey),
            insertion: curve(blurred, pair[1], photo),
        });
        Ok(pairs.collect())
    }

    fn probability(&self, picture: &Picture, class: usize) -> Result<f64, EvalError> {
        let scaling = input_scaling(&self.model);
        let mut resizer =
            ViewResizer::new(self.size, self.size, false, &scaling).map_err(ExplainError::from)?;
        let fill = |input: &mut [f32]| Ok::<(), ExplainError>(resizer.resize(picture, input)?);
        let pass = self.model.run(&self.plan, fill)?;
        let logits = self.model.head.logits(&pass.pooled, 1.0);
        Ok(softmax(&logits).get(class).copied().map_or(0.0, f64::from))
    }

    /// The colour that the model's scaling makes 0 of, as far as bytes can say it.
    fn grey(&self) -> Picture {
        let n = self.model.normalisation;
        let mut pixel = n.mean.map(|mean| mean.round().clamp(0.0, 255.0) as u8);
        if n.order == ColourOrder::Bgr {
            pixel.reverse();
        }
        let [height, width] = self.size;
        Picture { width, height, rgb: pixel.repeat(width * height) }
    }
}

impl Change<'_> {
    fn after(&self, step: usize) -> Picture {
        let mut picture = self.from.clone();
        for &pixel in &self.order[..self.order.len() * step / STEPS] {
            let bytes = pixel as usize * 3..pixel as usize * 3 + 3;
            picture.rgb[bytes.clone()].copy_from_slice(&self.to.rgb[bytes]);
        }
        picture
    }
}

/// The pixels of `content` as indices into a picture `width` wide, by falling value of the
/// map over them.
fn order(map: &[f32], content: Rect, width: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..map.len() as u32).collect();
    order.sort_by(|&a, &b| map[b as usize].total_cmp(&map[a as usize]));
    let place = |cell: u32| {
        let (x, y) = (cell % content.width, cell / content.width);
        (content.y + y) * width as u32 + content.x + x
    };
    order.into_iter().map(place).collect()
}

fn blurred(picture: &Picture) -> Picture {
    let Picture { width, height, ref rgb } = *picture;
    let image = RgbImage::from_raw(width as u32, height as u32, rgb.clone());
    let image = image.expect("a picture holds three bytes a pixel");
    let blurred = imageops::blur(&image, BLUR * width.max(height) as f32);
    Picture { width, height, rgb: blurred.into_raw() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas() {
        assert_eq!(area(&[1.0, 0.5, 0.0]), 0.5);
        assert_eq!(area(&[0.25; 21]), 0.25);
        assert_eq!(area(&[0.0, 0.0, 1.0]), 0.25);
        assert_eq!(area(&[]), 0.0);
    }

    #[test]
    fn pixels_change_in_the_order_of_the_map_and_only_in_the_content() {
        let content = Rect { x: 1, y: 2, width: 3, height: 2 };
        let order = order(&[0.1, 0.9, 0.3, 0.9, -1.0, 0.0], content, 5);
        assert_eq!(order, [12, 16, 13, 11, 18, 17]);
        let (from, to) = (Picture::new(5, 5), Picture { rgb: vec![9; 75], ..Picture::new(5, 5) });
        let change = Change { from: &from, to: &to, order: &order };
        let changed = |step| {
            let after = change.after(step);
            (0..25).filter(|i| after.pixel(i % 5, i / 5) == [9; 3]).collect::<Vec<_>>()
        };
        assert!(changed(0).is_empty());
        assert_eq!(changed(STEPS / 2), [12, 13, 16]);
        assert_eq!(changed(STEPS), [11, 12, 13, 16, 17, 18]);
    }

    #[test]
    fn blur_keeps_a_flat_picture_and_smooths_an_edge() {
        let flat = Picture { rgb: vec![77; 40 * 30 * 3], ..Picture::new(40, 30) };
        assert_eq!(blurred(&flat), flat);
        let mut edge = Picture::new(224, 10);
        for (i, value) in edge.rgb.iter_mut().enumerate() {
            *value = if i / 3 % 224 < 112 { 0 } else { 200 };
        }
        let soft = blurred(&edge);
        // A Gaussian's integral at one standard deviation: 84.1 % of the step.
        let [value, ..] = soft.pixel(116, 5);
        assert!((160..=172).contains(&value), "{value}");
    }
}
