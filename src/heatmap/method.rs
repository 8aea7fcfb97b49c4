//! Class maps in closed form for networks that end in global average pooling and a linear
//! head: `logit_c = Σ_k mean(A_k)·W[k,c] + b_c`.
//!
//! The gradient of a logit by a feature is then the constant `g[k,c] = W[k,c] / (h·w)`,
//! which makes every gradient method a matter of channel weights `w_k` in
//! `M_c = Σ_k w_k·A_k`; docs/methods.md derives each and names its paper. Maps stay
//! signed and unscaled: the ReLU and the normalisation that most papers end with are
//! [`super::filter`]'s.

use crate::bilinear::{Axis, blend};
use crate::config::Method;

/// Features `[height, width, channels]`, row by row: what global average pooling reads.
#[derive(Clone, Copy, Debug)]
pub struct FeatureView<'a> {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub values: &'a [f32],
}

/// A linear head.
#[derive(Clone, Copy, Debug)]
pub struct HeadView<'a> {
    /// `[channels, classes]`
    pub weights: &'a [f32],
    /// `[classes]`
    pub bias: &'a [f32],
}

/// A call that makes no sense: a bug of the caller, or a model that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    #[error("features are {got} values, expected {height} x {width} x {channels}")]
    Features { got: usize, height: usize, width: usize, channels: usize },
    #[error("head has {got} weights, expected {channels} channels x {classes} classes")]
    Head { got: usize, channels: usize, classes: usize },
    #[error("class {class} does not exist: the head has {classes}")]
    Class { class: usize, classes: usize },
    #[error("scorecam needs forward passes: use score_maps")]
    NeedsPasses,
}

/// The maps of `classes`, `[height, width, classes]`, into `out` (cleared first).
///
/// # Errors
/// If shapes contradict each other, a class does not exist, or `method` is
/// [`Method::ScoreCam`], which [`score_maps`] computes.
pub fn class_maps(
    method: Method,
    features: &FeatureView<'_>,
    head: &HeadView<'_>,
    classes: &[usize],
    out: &mut Vec<f32>,
) -> Result<(), MethodError> {
    check(features, head, classes)?;
    if method == Method::ScoreCam {
        return Err(MethodError::NeedsPasses);
    }
    if method == Method::EigenCam {
        principal_component(features, classes.len(), out);
        return Ok(());
    }
    let area = (features.height * features.width) as f32;
    let sums = channel_sums(features);
    let weight = |k: usize, w: f32| {
        let g = w / area;
        match method {
            Method::GradCam | Method::XGradCam => g,
            Method::LayerCam => g.max(0.0),
            // Σ_hw α·relu(g) with α = g²/(2g² + ΣA·g³); the area cancels the mean.
            Method::GradCamPlusPlus => {
                let denominator = 2.0 + sums[k] * g;
                if g > 0.0 && denominator != 0.0 { w / denominator } else { 0.0 }
            }
            Method::AblationCam => sums[k] / area * w,
            Method::Cam | Method::EigenCam | Method::ScoreCam => w,
        }
    };
    let mut weights = Vec::with_capacity(classes.len() * features.channels);
    for &class in classes {
        let column = head.weights.iter().skip(class).step_by(head.bias.len());
        weights.extend(column.enumerate().map(|(k, &w)| weight(k, w)));
    }
    project(features, &weights, out);
    Ok(())
}

/// Score-CAM (Wang et al. 2020): each of the `top_channels` that contribute most to a
/// class's logit masks the input, and the softmax over the masked passes' logits weighs
/// the channels. Maps `[height, width, classes]` into `out` (cleared first).
///
/// `infer` takes a mask `[input height, input width]` in 0–1, multiplies the *normalised*
/// input by it, and returns the logits of all classes. It is called once for every
/// channel that any of the classes wants, so at most `top_channels · classes` times.
///
/// # Errors
/// [`MethodError`] as for [`class_maps`], or whatever `infer` failed with.
pub fn score_maps<E: From<MethodError>>(
    features: &FeatureView<'_>,
    head: &HeadView<'_>,
    classes: &[usize],
    input: [usize; 2],
    top_channels: usize,
    mut infer: impl FnMut(&[f32]) -> Result<Vec<f32>, E>,
    out: &mut Vec<f32>,
) -> Result<(), E> {
    check(features, head, classes)?;
    let sums = channel_sums(features);
    let tops: Vec<Vec<usize>> =
        classes.iter().map(|&c| strongest(&sums, head, c, top_channels)).collect();
    let mut channels = tops.concat();
    channels.sort_unstable();
    channels.dedup();

    let axes = (Axis::new(features.height, input[0]), Axis::new(features.width, input[1]));
    let mut mask = Vec::new();
    let mut scores = vec![f32::NEG_INFINITY; features.channels * classes.len()];
    for channel in channels {
        channel_mask(features, channel, &axes, &mut mask);
        let logits = infer(&mask)?;
        for (c, &class) in classes.iter().enumerate() {
            let &logit =
                logits.get(class).ok_or(MethodError::Class { class, classes: logits.len() })?;
            if tops[c].contains(&channel) {
                scores[c * features.channels + channel] = logit;
            }
        }
    }
    scores.chunks_exact_mut(features.channels.max(1)).for_each(softmax);
    project(features, &scores, out);
    Ok(())
}

fn check(
    features: &FeatureView<'_>,
    head: &HeadView<'_>,
    classes: &[usize],
) -> Result<(), MethodError> {
    let &FeatureView { height, width, channels, values } = features;
    if values.len() != height * width * channels {
        return Err(MethodError::Features { got: values.len(), height, width, channels });
    }
    let known = head.bias.len();
    if head.weights.len() != channels * known {
        return Err(MethodError::Head { got: head.weights.len(), channels, classes: known });
    }
    match classes.iter().find(|&&class| class >= known) {
        Some(&class) => Err(MethodError::Class { class, classes: known }),
        None => Ok(()),
    }
}

/// Each channel's sum over the map, `[channels]`.
fn channel_sums(features: &FeatureView<'_>) -> Vec<f32> {
    let mut sums = vec![0.0; features.channels];
    for pixel in pixels(features) {
        for (sum, value) in sums.iter_mut().zip(pixel) {
            *sum += value;
        }
    }
    sums
}

fn pixels<'a>(features: &FeatureView<'a>) -> std::slice::ChunksExact<'a, f32> {
    features.values.chunks_exact(features.channels.max(1))
}

/// `out[h, w, n] = Σ_k A[h, w, k] · weights[n, k]`
fn project(features: &FeatureView<'_>, weights: &[f32], out: &mut Vec<f32>) {
    out.clear();
    for pixel in pixels(features) {
        out.extend(weights.chunks_exact(features.channels.max(1)).map(|row| dot(pixel, row)));
    }
}

/// Sixteen running sums: the compiler makes vectors of them, and the order of additions,
/// hence the result, is the same on every machine.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0f32; LANES];
    let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_blocks.remainder().iter().zip(b_blocks.remainder());
    let rest: f32 = rest.map(|(a, b)| a * b).sum();
    for (a, b) in a_blocks.zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Eigen-CAM: every pixel's projection on the first principal component of the centred
/// features `X` `[h·w, channels]`, the same for each of `classes`.
///
/// Power iteration on `XᵀX` without forming it. The sign, which a decomposition leaves
/// open, is the one that makes the component point to more activation (`Σ_k v_k ≥ 0`).
fn principal_component(features: &FeatureView<'_>, classes: usize, out: &mut Vec<f32>) {
    /// Nearly equal singular values converge slowly, but then any mix of their
    /// components serves as well.
    const MAX_ITERATIONS: usize = 500;
    const TOLERANCE: f32 = 1e-6;

    let count = (features.height * features.width) as f32;
    let means: Vec<f32> = channel_sums(features).iter().map(|sum| sum / count).collect();
    let centred: Vec<f32> =
        pixels(features).flat_map(|pixel| pixel.iter().zip(&means).map(|(a, m)| a - m)).collect();
    let rows = || centred.chunks_exact(features.channels.max(1));

    let longest = rows().max_by(|a, b| dot(a, a).total_cmp(&dot(b, b)));
    let mut component = longest.map(<[f32]>::to_vec).unwrap_or_default();
    let mut next = vec![0.0; component.len()];
    let varies = normalize(&mut component);
    for _ in 0..if varies { MAX_ITERATIONS } else { 0 } {
        next.fill(0.0);
        for row in rows() {
            let along = dot(row, &component);
            for (next, value) in next.iter_mut().zip(row) {
                *next += along * value;
            }
        }
        normalize(&mut next);
        std::mem::swap(&mut component, &mut next);
        let moved = component.iter().zip(&next).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        if moved.sqrt() < TOLERANCE {
            break;
        }
    }
    let sign = if component.iter().sum::<f32>() < 0.0 { -1.0 } else { 1.0 };
    out.clear();
    for row in rows() {
        let value = if varies { sign * dot(row, &component) } else { 0.0 };
        out.extend(std::iter::repeat_n(value, classes));
    }
}

/// To length one; false where there is no direction.
fn normalize(vector: &mut [f32]) -> bool {
    let length = dot(vector, vector).sqrt();
    let has_direction = length > 0.0 && length.is_finite();
    if has_direction {
        vector.iter_mut().for_each(|x| *x /= length);
    }
    has_direction
}

/// The channels that contribute most to a class's logit, in either direction.
fn strongest(sums: &[f32], head: &HeadView<'_>, class: usize, count: usize) -> Vec<usize> {
    let share = |k: usize| (sums[k] * head.weights[k * head.bias.len() + class]).abs();
    let mut channels: Vec<usize> = (0..sums.len()).collect();
    channels.sort_by(|&a, &b| share(b).total_cmp(&share(a)).then(a.cmp(&b)));
    channels.truncate(count);
    channels
}

/// One channel at the input's size, stretched to span 0–1; a flat channel masks all.
fn channel_mask(
    features: &FeatureView<'_>,
    channel: usize,
    (y, x): &(Axis, Axis),
    mask: &mut Vec<f32>,
) {
    let width = x.taps().len();
    let narrow: Vec<f32> = pixels(features).map(|pixel| pixel[channel]).collect();
    let mut wide = vec![0.0; features.height * width];
    let rows = narrow.chunks_exact(features.width.max(1));
    for (row, source) in wide.chunks_exact_mut(width.max(1)).zip(rows) {
        x.resize_row(source, 1, row);
    }
    mask.resize(y.taps().len() * width, 0.0);
    for (row, tap) in mask.chunks_exact_mut(width.max(1)).zip(y.taps()) {
        blend(&wide[tap.lo * width..][..width], &wide[tap.hi * width..][..width], tap.t, row);
    }
    super::filter::apply(crate::config::Filter::Normalize, mask, 1);
}

/// Over one class's scores; channels that were not tried stand at −∞ and get 0.
fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        scores.fill(0.0);
        return;
    }
    scores.iter_mut().for_each(|s| *s = (*s - max).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|s| *s /= sum);
}
