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
#[derive(Clone, Debug)]
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
            self.steps = self.steps.saturating_add(1);
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

#[cfg(test)]
mod tests {
    use super::*;

    const COOL: Reading = Reading { celsius: Some(50.0), capped: false };
    const WARM: Reading = Reading { celsius: Some(70.0), capped: false };
    const HOT: Reading = Reading { celsius: Some(80.0), capped: false };
    const CAPPED: Reading = Reading { celsius: Some(50.0), capped: true };
    const BLIND: Reading = Reading { celsius: None, capped: false };

    /// One reading a second; the factor after each.
    fn check(readings: &[(Reading, u32)], expected: &[f64]) {
        let settings =
            ThermalSettings { step: 0.25, hold: Duration::from_secs(2), ..Default::default() };
        let mut thermal = Thermal::new(settings);
        let (mut now, mut factors) = (Duration::ZERO, Vec::new());
        for &(reading, seconds) in readings {
            for _ in 0..seconds {
                let before = thermal.factor();
                let told = thermal.update(reading, now);
                assert_eq!(told.is_some(), thermal.factor() != before, "told once per change");
                assert!(told.is_none_or(|factor| factor == thermal.factor()));
                factors.push(thermal.factor());
                now += Duration::from_secs(1);
            }
        }
        assert_eq!(factors, expected, "{readings:?}");
    }

    #[test]
    fn shrinks_when_hot_stays_when_warm_grows_when_cool() {
        check(
            &[(COOL, 1), (HOT, 3), (WARM, 3), (COOL, 4)],
            &[1.0, 0.75, 0.75, 0.5, 0.5, 0.5, 0.5, 0.75, 0.75, 1.0, 1.0],
        );
    }

    #[test]
    fn stops_at_the_floor_and_leaves_it_at_once() {
        check(&[(HOT, 8), (COOL, 2)], &[0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.5, 0.5]);
    }

    #[test]
    fn a_capped_processor_counts_as_hot() {
        check(&[(CAPPED, 3), (COOL, 2)], &[0.75, 0.75, 0.5, 0.5, 0.75]);
    }

    #[test]
    fn without_a_sensor_it_stays() {
        let odd = Reading { celsius: Some(f64::NAN), capped: false };
        check(&[(HOT, 1), (BLIND, 3), (odd, 2)], &[0.75; 6]);
    }
}
