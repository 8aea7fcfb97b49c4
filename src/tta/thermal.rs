//! A hot board does less: the budget shrinks step by step and grows back.

use std::time::Duration;

/// When to step, and how far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThermalSettings {
    /// From here on the budget shrinks.
    pub hot_celsius: f64,
    /// From here down it grows back; in between it stays. Below `hot_celsius`.
    pub cool_celsius: f64,
    /// What a step takes from the budget, 0–1 of the whole.
    pub step: f64,
    /// The least that is left, 0–1 of the whole.
    pub floor: f64,
    /// Time between two steps: a heat sink needs some to answer.
    pub hold: Duration,
}

impl Default for ThermalSettings {
    /// A Raspberry Pi throttles at 80 °C; half of it is left before that happens.
    fn default() -> Self {
        Self {
            hot_celsius: 75.0,
            cool_celsius: 68.0,
            step: 0.125,
            floor: 0.25,
            hold: Duration::from_secs(5),
        }
    }
}

/// What the sensors say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// The hottest zone; `None` when no sensor answers.
    pub celsius: Option<f64>,
    /// Whether the kernel holds the processor's frequency below what it can do.
    pub capped: bool,
}

/// The share of the budget that heat leaves.
#[derive(Debug)]
pub struct Thermal {
    settings: ThermalSettings,
    steps: u32,
    stepped_at: Option<Duration>,
}

impl Thermal {
    pub fn new(settings: ThermalSettings) -> Self {
        Self { settings, steps: 0, stepped_at: None }
    }

    /// Takes a reading; `Some(factor)` if it changed the factor, to be logged once.
    ///
    /// A capped processor counts as hot. Without a temperature nothing says that it is
    /// cool, so the budget does not grow.
    pub fn update(&mut self, reading: Reading, now: Duration) -> Option<f64> {
        let since = |at: Duration| now.saturating_sub(at);
        if self.stepped_at.is_some_and(|at| since(at) < self.settings.hold) {
            return None;
        }
        let celsius = reading.celsius.filter(|celsius| celsius.is_finite());
        let hot = reading.capped || celsius.is_some_and(|c| c >= self.settings.hot_celsius);
        let cool = !hot && celsius.is_some_and(|c| c <= self.settings.cool_celsius);
        let before = self.factor();
        if hot && before > self.settings.floor {
            self.steps += 1;
        } else if cool {
            self.steps = self.steps.saturating_sub(1);
        }
        let factor = self.factor();
        (factor != before).then(|| {
            self.stepped_at = Some(now);
            factor
        })
    }

    /// On the budget: 1 when cool, never below the floor.
    pub fn factor(&self) -> f64 {
        (1.0 - self.settings.step * f64::from(self.steps)).max(self.settings.floor)
    }
}
