//! Whether a frame is worth inferring at all, and how much a decision deserves.

use super::luma::LumaGrid;
use std::time::Duration;

/// When less, or more, is done than usual. All of it is off by default.
#[derive(Clone, Debug, PartialEq)]
pub struct GateSettings {
    /// A frame whose luma differs by less than this many levels everywhere from the last
    /// one inferred is not inferred again. 2 is above the noise of most cameras.
    pub unchanged_levels: Option<f32>,
    /// But no heatmap is republished for longer than this.
    pub max_age: Duration,
    /// Share of the budget that a decision gets which is neither sure nor unsure, 0–1.
    pub usual: f64,
    pub sure: Option<SureSettings>,
    /// Entropy of the probabilities over that of a uniform guess, 0–1, from which on a
    /// decision is unsure and gets all of the budget.
    pub unsure_entropy: Option<f32>,
}

impl Default for GateSettings {
    fn default() -> Self {
        Self {
            unchanged_levels: None,
            max_age: Duration::from_secs(1),
            usual: 1.0,
            sure: None,
            unsure_entropy: None,
        }
    }
}

/// A confident, stable decision spends less.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SureSettings {
    /// Probability of the best class less that of the second, at least, 0–1.
    pub margin: f32,
    /// For this many frames in a row, with the same best class.
    pub frames: u32,
    /// Of the budget, 0–1.
    pub factor: f64,
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Infer,
    /// Publish the last heatmap again, this old.
    Republish {
        age: Duration,
    },
}

/// Remembers the last frame inferred and the run of sure decisions.
#[derive(Debug)]
pub struct Gate {
    settings: GateSettings,
    inferred: Option<(LumaGrid, Duration)>,
    best: Option<usize>,
    sure_frames: u32,
}

impl Gate {
    pub fn new(settings: GateSettings) -> Self {
        Self { settings, inferred: None, best: None, sure_frames: 0 }
    }

    /// Judges a frame by its luma. It is compared with the last frame *inferred*, so slow
    /// change adds up and is seen.
    pub fn judge(&self, luma: &LumaGrid, now: Duration) -> Verdict {
        let still = || {
            let limit = self.settings.unchanged_levels?;
            let (last, at) = self.inferred.as_ref()?;
            let age = now.checked_sub(*at).filter(|&age| age <= self.settings.max_age)?;
            (last.largest_difference(luma) < limit).then_some(age)
        };
        still().map_or(Verdict::Infer, |age| Verdict::Republish { age })
    }

    /// The frame was inferred at `now` with these probabilities, `[classes]`.
    pub fn inferred(&mut self, luma: LumaGrid, probabilities: &[f32], now: Duration) {
        self.inferred = Some((luma, now));
        let best = (0..probabilities.len())
            .max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]).then(b.cmp(&a)));
        let sure = self.settings.sure.is_some_and(|sure| margin(probabilities) >= sure.margin);
        let same = best == self.best;
        self.sure_frames = match (sure, same) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => self.sure_frames.saturating_add(1),
        };
        self.best = best;
    }

    /// The share of the budget, 0–1, for the next frame, by the last one's probabilities.
    pub fn factor(&self, probabilities: &[f32]) -> f64 {
        match (self.settings.sure, self.settings.unsure_entropy) {
            (_, Some(unsure)) if entropy(probabilities) >= unsure => 1.0,
            (Some(sure), _) if self.sure_frames >= sure.frames.max(1) => sure.factor,
            _ => self.settings.usual,
        }
    }

    /// Forgets all: the next frame is inferred.
    pub fn clear(&mut self) {
        (self.inferred, self.best, self.sure_frames) = (None, None, 0);
    }
}

/// The best probability less the second best; 1 for a single class.
fn margin(probabilities: &[f32]) -> f32 {
    let (mut best, mut second) = (f32::NEG_INFINITY, 0.0f32);
    for &p in probabilities {
        if p > best {
            (best, second) = (p, best.max(0.0));
        } else {
            second = second.max(p);
        }
    }
    best - second
}

/// 0: certain, 1: a uniform guess.
fn entropy(probabilities: &[f32]) -> f32 {
    let bits = |p: f32| if p > 0.0 { -p * p.ln() } else { 0.0 };
    let uniform = (probabilities.len() as f32).ln();
    if uniform > 0.0 { probabilities.iter().map(|&p| bits(p)).sum::<f32>() / uniform } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::super::luma::scene::{fill, picture, shoot};
    use super::*;

    const FRAME: Duration = Duration::from_millis(100);

    fn gate(unchanged_levels: Option<f32>) -> Gate {
        Gate::new(GateSettings { unchanged_levels, ..Default::default() })
    }

    #[test]
    fn an_unchanged_frame_is_not_inferred() {
        let mut gate = gate(Some(2.0));
        let mut scene = picture(1);
        let still = |seed| shoot(&picture(1), 1.0, 0.0, 2.0, seed);
        assert_eq!(gate.judge(&still(1), FRAME), Verdict::Infer, "the first");
        gate.inferred(still(1), &[1.0], FRAME);
        assert_eq!(gate.judge(&still(2), 2 * FRAME), Verdict::Republish { age: FRAME });
        assert_eq!(gate.judge(&still(3), 11 * FRAME), Verdict::Republish { age: 10 * FRAME });
        assert_eq!(gate.judge(&still(4), 12 * FRAME), Verdict::Infer, "older than a second");
        let brighter = shoot(&scene, 1.0, 4.0, 2.0, 5);
        assert_eq!(gate.judge(&brighter, 2 * FRAME), Verdict::Infer, "another exposure");
        fill(&mut scene, [0.5, 0.5], [0.05, 0.05], 255.0);
        assert_eq!(gate.judge(&shoot(&scene, 1.0, 0.0, 2.0, 6), 2 * FRAME), Verdict::Infer);
        gate.clear();
        assert_eq!(gate.judge(&still(7), 2 * FRAME), Verdict::Infer, "after a reload");
    }

    #[test]
    fn slow_change_adds_up() {
        let mut gate = gate(Some(2.0));
        let scene = picture(2);
        gate.inferred(shoot(&scene, 1.0, 0.0, 0.0, 0), &[1.0], Duration::ZERO);
        let drift = |frame: u32| shoot(&scene, 1.0, frame as f32 * 0.5, 0.0, 0);
        let first = (1..10).find(|&i| gate.judge(&drift(i), i * FRAME / 10) == Verdict::Infer);
        assert!(first.is_some_and(|frame| (3..=6).contains(&frame)), "{first:?}");
    }

    #[test]
    fn off_by_default() {
        let mut gate = gate(None);
        let luma = shoot(&picture(3), 1.0, 0.0, 0.0, 0);
        gate.inferred(luma.clone(), &[0.5, 0.5], FRAME);
        assert_eq!(gate.judge(&luma, FRAME), Verdict::Infer);
        assert_eq!(gate.factor(&[0.5, 0.5]), 1.0);
    }

    #[test]
    fn sure_decisions_spend_less_and_unsure_ones_more() {
        let mut gate = Gate::new(GateSettings {
            sure: Some(SureSettings { margin: 0.5, frames: 3, factor: 0.3 }),
            usual: 0.6,
            unsure_entropy: Some(0.9),
            ..Default::default()
        });
        let luma = shoot(&picture(3), 1.0, 0.0, 0.0, 0);
        let (cat, dog, open, tie) =
            ([0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.6, 0.3, 0.1], [0.34, 0.33, 0.33]);
        for (step, (probabilities, expected)) in [
            (cat, 0.6),
            (cat, 0.6),
            (cat, 0.3),
            (cat, 0.3),
            (dog, 0.6), // as sure, but of something else
            (dog, 0.6),
            (dog, 0.3),
            (open, 0.6),
            (dog, 0.6),
            (tie, 1.0),
            (cat, 0.6),
        ]
        .into_iter()
        .enumerate()
        {
            gate.inferred(luma.clone(), &probabilities, FRAME);
            assert_eq!(gate.factor(&probabilities), expected, "step {step}");
        }
    }

    #[test]
    fn margin_and_entropy_by_hand() {
        for (probabilities, expected_margin, expected_entropy) in [
            (&[1.0, 0.0][..], 1.0, 0.0),
            (&[0.5, 0.5], 0.0, 1.0),
            (&[0.25, 0.5, 0.25, 0.0], 0.25, 0.75),
            (&[1.0], 1.0, 0.0),
        ] {
            assert!((margin(probabilities) - expected_margin).abs() < 1e-6, "{probabilities:?}");
            assert!((entropy(probabilities) - expected_entropy).abs() < 1e-6, "{probabilities:?}");
        }
    }
}
