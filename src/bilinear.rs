//! Bilinear resampling exactly as TensorFlow 2 does it (`tf.image.resize`, half-pixel
//! centres, no antialias), all in f32: first along x, then along y. One [`Axis`] serves
//! rows of pixels on their way into the model and rows of maps on their way out.

/// One output position: `source[lo] + (source[hi] − source[lo]) · t`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tap {
    pub lo: usize,
    pub hi: usize,
    /// 0–1.
    pub t: f32,
}

/// The taps of every output position along one axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    input: usize,
    taps: Vec<Tap>,
}

impl Axis {
    /// From `input` to `output` samples. Either may be 0: then there are no taps.
    pub fn new(input: usize, output: usize) -> Self {
        let scale = input as f32 / output as f32;
        let outputs = if input == 0 { 0 } else { output };
        let taps = (0..outputs)
            .map(|i| {
                let source = (i as f32 + 0.5) * scale - 0.5;
                let floor = source.floor();
                Tap {
                    lo: (floor.max(0.0) as usize).min(input - 1),
                    hi: (source.ceil().max(0.0) as usize).min(input - 1),
                    t: source - floor,
                }
            })
            .collect();
        Self { input, taps }
    }

    /// The same resize of the reversed input: flip left–right, then resize, for free.
    pub fn mirrored(mut self) -> Self {
        for tap in &mut self.taps {
            tap.lo = self.input - 1 - tap.lo;
            tap.hi = self.input - 1 - tap.hi;
        }
        self
    }

    /// Samples that the axis reads.
    pub fn input(&self) -> usize {
        self.input
    }

    /// One tap for each sample that the axis yields.
    pub fn taps(&self) -> &[Tap] {
        &self.taps
    }

    /// Resizes one row: `source` `[input, channels]` into `out` `[taps, channels]`.
    ///
    /// # Panics
    /// If `source` holds fewer than `input · channels` values.
    pub fn resize_row(&self, source: &[f32], channels: usize, out: &mut [f32]) {
        if channels == 1 {
            for (value, tap) in out.iter_mut().zip(&self.taps) {
                *value = lerp(source[tap.lo], source[tap.hi], tap.t);
            }
            return;
        }
        for (pixel, tap) in out.chunks_exact_mut(channels.max(1)).zip(&self.taps) {
            let lo = &source[tap.lo * channels..][..channels];
            let hi = &source[tap.hi * channels..][..channels];
            blend(lo, hi, tap.t, pixel);
        }
    }
}

/// `out = lo + (hi − lo) · t`, value by value: the step along y between two resized rows.
pub fn blend(lo: &[f32], hi: &[f32], t: f32, out: &mut [f32]) {
    for ((value, lo), hi) in out.iter_mut().zip(lo).zip(hi) {
        *value = lerp(*lo, *hi, t);
    }
}

fn lerp(lo: f32, hi: f32, t: f32) -> f32 {
    lo + (hi - lo) * t
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resizes `source` to `output` and compares with values worked out by hand.
    fn check(source: &[f32], output: usize, expected: &[f32]) {
        let mut out = vec![f32::NAN; output];
        Axis::new(source.len(), output).resize_row(source, 1, &mut out);
        assert_eq!(out, expected, "{source:?} to {output}");

        let reversed: Vec<f32> = source.iter().rev().copied().collect();
        let mut mirrored = vec![f32::NAN; output];
        Axis::new(source.len(), output).mirrored().resize_row(&reversed, 1, &mut mirrored);
        assert_eq!(mirrored, expected, "{reversed:?} mirrored, to {output}");
    }

    #[test]
    fn half_pixel_centres_clamped_at_the_border() {
        check(&[1.0, 5.0], 4, &[1.0, 2.0, 4.0, 5.0]);
        check(&[1.0, 5.0], 2, &[1.0, 5.0]);
        check(&[0.0, 2.0, 4.0, 6.0], 2, &[1.0, 5.0]); // no antialias: mean of two, not of all
        check(&[0.0, 3.0, 6.0, 9.0, 12.0, 15.0], 2, &[3.0, 12.0]);
        check(&[7.0], 3, &[7.0, 7.0, 7.0]);
    }

    #[test]
    fn channels_do_not_mix() {
        let source = [1.0, 10.0, 100.0, 5.0, 50.0, 500.0];
        let mut out = vec![f32::NAN; 12];
        Axis::new(2, 4).resize_row(&source, 3, &mut out);
        let expected = [1.0, 10.0, 100.0, 2.0, 20.0, 200.0, 4.0, 40.0, 400.0, 5.0, 50.0, 500.0];
        assert_eq!(out, expected);
    }

    #[test]
    fn empty_axes_have_no_taps() {
        assert!(Axis::new(0, 3).mirrored().taps().is_empty());
        assert!(Axis::new(3, 0).taps().is_empty());
    }
}
