//! Views: the same picture at another scale, or mirrored.

use crate::config::Merge;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

/// One way of looking at the picture: flip left–right if `hflip`, *then* resize by `scale`.
///
/// Two views are equal when their scales have the same bits.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Finite and positive.
    pub scale: f32,
    pub hflip: bool,
}

impl View {
    /// The picture as it is.
    pub const IDENTITY: Self = Self { scale: 1.0, hflip: false };

    /// Rows and columns of the model's input for this view of a `height` × `width`
    /// picture: truncated, in f32, as TensorFlow casts them. A tiny scale gives 0.
    pub fn size(self, height: usize, width: usize) -> [usize; 2] {
        [(self.scale * height as f32) as usize, (self.scale * width as f32) as usize]
    }

    /// Multiply-accumulates in units of one identity view. A convolutional network's grow
    /// with the area of its input (Xception at 299: 0.23, 1, 2.19 and 3.85 were counted
    /// for the scales 0.5, 1, 1.5 and 2; this says 0.25, 1, 2.25 and 4).
    pub fn cost(self, height: usize, width: usize) -> f64 {
        let [rows, columns] = self.size(height, width);
        (rows * columns) as f64 / (height * width).max(1) as f64
    }

    fn key(self) -> (u32, bool) {
        (self.scale.to_bits(), self.hflip)
    }
}

impl PartialEq for View {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for View {}

impl Hash for View {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Ord for View {
    /// Smaller scales first, each before its mirror image.
    fn cmp(&self, other: &Self) -> Ordering {
        self.scale.total_cmp(&other.scale).then(self.hflip.cmp(&other.hflip))
    }
}

impl PartialOrd for View {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for View {
    /// `1.5` or, mirrored, `1.5f`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.scale, if self.hflip { "f" } else { "" })
    }
}

/// A view and its share in the merged map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightedView {
    pub view: View,
    pub weight: f32,
}

/// The distinct views of a configuration, each with its weight, in the order listed (a
/// scale's mirror image right after it).
///
/// - [`Merge::Mean`]: every distinct listed view weighs 1/n; none is added.
/// - [`Merge::Keras`]: what keras-explainable 0.0.2's `meta.tta` adds up. It runs an
///   unscaled pass (and its flip) besides the listed ones and divides by the number of the
///   listed ones. So scale 1 is always there, and the weights sum to more than one; the
///   logits are merged by the same weights and grow with them.
pub fn views(scales: &[f32], hflip: bool, merge: Merge) -> Vec<WeightedView> {
    let flips: &[bool] = if hflip { &[false, true] } else { &[false] };
    let unscaled: &[f32] = if merge == Merge::Keras { &[1.0] } else { &[] };

    let mut counted: Vec<(View, usize)> = Vec::new();
    for &scale in unscaled.iter().chain(scales) {
        for &hflip in flips {
            let view = View { scale, hflip };
            match counted.iter_mut().find(|(seen, _)| *seen == view) {
                Some((_, passes)) => *passes += 1,
                None => counted.push((view, 1)),
            }
        }
    }
    let weight = |passes: usize| match merge {
        Merge::Mean => 1.0 / counted.len() as f32,
        Merge::Keras => passes as f32 / (scales.len() * flips.len()).max(1) as f32,
    };
    counted.iter().map(|&(view, passes)| WeightedView { view, weight: weight(passes) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with `view*weight …`, views as [`View`] prints them.
    fn check(scales: &[f32], hflip: bool, merge: Merge, expected: &str) {
        let got: Vec<String> = views(scales, hflip, merge)
            .iter()
            .map(|v| format!("{}*{}", v.view, v.weight))
            .collect();
        assert_eq!(got.join(" "), expected, "{scales:?} hflip {hflip} {merge:?}");
    }

    #[test]
    fn mean_weighs_each_distinct_listed_view_alike() {
        check(&[1.0], false, Merge::Mean, "1*1");
        check(&[0.5, 2.0], false, Merge::Mean, "0.5*0.5 2*0.5");
        check(&[0.5, 1.0], true, Merge::Mean, "0.5*0.25 0.5f*0.25 1*0.25 1f*0.25");
        check(&[2.0, 2.0], true, Merge::Mean, "2*0.5 2f*0.5");
        check(&[], true, Merge::Mean, "");
    }

    #[test]
    fn keras_adds_an_unscaled_pass_and_divides_by_the_listed() {
        let doc = "1*0.25 1f*0.25 0.5*0.125 0.5f*0.125 1.5*0.125 1.5f*0.125 2*0.125 2f*0.125";
        check(&[0.5, 1.0, 1.5, 2.0], true, Merge::Keras, doc);
        check(&[0.75, 1.25], false, Merge::Keras, "1*0.5 0.75*0.5 1.25*0.5");
        check(&[1.0], false, Merge::Keras, "1*2");
        let weights: f32 =
            views(&[0.5, 1.0, 1.5, 2.0], true, Merge::Keras).iter().map(|v| v.weight).sum();
        assert_eq!(weights, 1.25, "the factor on the logits");
    }

    #[test]
    fn sizes_are_truncated_in_f32() {
        for (scale, size, expected) in [
            (0.5, [299, 299], [149, 149]),
            (1.5, [299, 299], [448, 448]),
            (0.75, [150, 201], [112, 150]),
            (0.1, [10, 30], [1, 3]),
            (0.7, [10, 30], [7, 21]),
            (0.01, [64, 64], [0, 0]),
        ] {
            assert_eq!(View { scale, hflip: true }.size(size[0], size[1]), expected, "{scale}");
        }
    }

    #[test]
    fn cost_is_area() {
        assert_eq!(View::IDENTITY.cost(299, 299), 1.0);
        assert_eq!(View { scale: 2.0, hflip: true }.cost(100, 50), 4.0);
        assert_eq!(View { scale: 0.5, hflip: false }.cost(0, 0), 0.0);
    }

    #[test]
    fn order_is_by_scale_then_flip() {
        let mut all: Vec<View> =
            views(&[2.0, 0.5], true, Merge::Mean).iter().map(|v| v.view).collect();
        all.sort();
        let names: Vec<String> = all.iter().map(View::to_string).collect();
        assert_eq!(names, ["0.5", "0.5f", "2", "2f"]);
    }
}
