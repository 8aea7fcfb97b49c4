//! The settings of this room, from the units that people write to the ones it counts in.
//! All values are within the ranges of the configuration's schema.

use super::gate::SureSettings;
use super::{BudgetSettings, GateSettings, RollingSettings, ThermalSettings, View};
use crate::config::{BudgetConfig, GateConfig, RollingConfig, ThermalConfig};
use std::time::Duration;

impl BudgetSettings {
    /// `views` are those that `config.order` may name; each runs on `threads` threads at once,
    /// which is what its wall time is charged for.
    pub fn new(config: &BudgetConfig, views: &[View], threads: usize) -> Self {
        let named = |name: &String| views.iter().copied().find(|view| view.to_string() == *name);
        Self {
            per_frame: config.budget_ms.map(Duration::from_millis),
            cpu_percent: config.cpu_percent.map(|percent| percent / threads.max(1) as f64),
            macs_per_s: config.gmacs_per_s.map(|giga| giga * 1e9),
            order: config.order.iter().filter_map(named).collect(),
        }
    }
}

impl From<&RollingConfig> for RollingSettings {
    fn from(config: &RollingConfig) -> Self {
        Self {
            share: config.share,
            max_age: Duration::from_secs_f64(config.max_age_s),
            change_levels: config.change_levels,
            cut_share: config.cut_percent / 100.0,
        }
    }
}

impl From<&GateConfig> for GateSettings {
    fn from(config: &GateConfig) -> Self {
        let sure = |margin| SureSettings {
            margin,
            frames: config.sure_frames,
            factor: config.sure_percent / 100.0,
        };
        Self {
            unchanged_levels: config.unchanged_levels,
            max_age: Duration::from_secs_f64(config.max_age_s),
            usual: config.usual_percent / 100.0,
            sure: config.sure_margin.map(sure),
            unsure_entropy: config.unsure_entropy,
        }
    }
}

impl From<&ThermalConfig> for ThermalSettings {
    fn from(config: &ThermalConfig) -> Self {
        Self {
            hot_celsius: config.hot_celsius,
            cool_celsius: config.cool_celsius,
            step: config.step_percent / 100.0,
            floor: config.floor_percent / 100.0,
            hold: Duration::from_secs_f64(config.hold_s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults stand in two places: in the file's units and in this room's.
    #[test]
    fn defaults_agree() {
        assert_eq!(RollingSettings::from(&RollingConfig::default()), RollingSettings::default());
        assert_eq!(GateSettings::from(&GateConfig::default()), GateSettings::default());
        assert_eq!(ThermalSettings::from(&ThermalConfig::default()), ThermalSettings::default());
        let budget = BudgetSettings::new(&BudgetConfig::default(), &[], 1);
        assert_eq!(budget, BudgetSettings::default());
    }

    #[test]
    fn units() {
        let half = View { scale: 0.5, hflip: true };
        let config = BudgetConfig {
            budget_ms: Some(150),
            cpu_percent: Some(100.0),
            gmacs_per_s: Some(2.5),
            order: vec!["0.5f".into()],
        };
        let settings = BudgetSettings::new(&config, &[View::IDENTITY, half], 4);
        let expected = BudgetSettings {
            per_frame: Some(Duration::from_millis(150)),
            cpu_percent: Some(25.0),
            macs_per_s: Some(2.5e9),
            order: vec![half],
        };
        assert_eq!(settings, expected);
        let gate = GateConfig { sure_margin: Some(0.5), ..GateConfig::default() };
        let sure = GateSettings::from(&gate).sure.map(|s| (s.margin, s.frames, s.factor));
        assert_eq!(sure, Some((0.5, 5, 0.5)));
        let rolling =
            RollingConfig { cut_percent: 25.0, share: 1.5, max_age_s: 2.5, ..Default::default() };
        let RollingSettings { share, max_age, cut_share, .. } = (&rolling).into();
        assert_eq!((share, max_age, cut_share), (1.5, Duration::from_millis(2500), 0.25));
        let thermal = ThermalConfig { step_percent: 5.0, hot_celsius: 60.0, ..Default::default() };
        let ThermalSettings { step, hot_celsius, .. } = (&thermal).into();
        assert_eq!((step, hot_celsius), (0.05, 60.0));
    }
}
