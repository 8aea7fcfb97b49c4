//! The board's temperature as a share of the budget.

use crate::config::ThermalConfig;
use crate::health::thermal;
use crate::tta::Thermal;
use crate::tta::thermal::Reading;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Reading a sensor may take a millisecond; heat takes seconds.
const READ_EVERY: Duration = Duration::from_secs(1);

/// Reads the configured sensor and the frequency caps, and says each change once.
#[derive(Clone)]
pub(super) struct Heat {
    sysfs: PathBuf,
    config: ThermalConfig,
    thermal: Thermal,
    origin: Instant,
    read_at: Option<Instant>,
}

impl Heat {
    /// `None` where no sensor is configured. One that is not there is warned of: it may
    /// come later, and caps are still seen.
    pub fn new(config: &ThermalConfig, sysfs: &Path, now: Instant) -> Option<Self> {
        let sensor = config.sensor.as_ref()?;
        if thermal::temperature(sysfs, sensor).is_none() {
            let there = match thermal::sensors(sysfs).join(", ") {
                none if none.is_empty() => "no sensor at all".into(),
                names => names,
            };
            log::warn!("tta.thermal.sensor: {sensor:?} cannot be read; there is {there}");
        }
        Some(Self {
            sysfs: sysfs.to_path_buf(),
            config: config.clone(),
            thermal: Thermal::new(config.into()),
            origin: now,
            read_at: None,
        })
    }

    /// Whether it goes by these settings: then a reload leaves it as it is, since the board is
    /// as hot as before.
    pub fn goes_by(&self, config: &ThermalConfig) -> bool {
        self.config == *config
    }

    /// The share of the budget that heat leaves, 0–1.
    pub fn update(&mut self, now: Instant) -> f64 {
        let due = self.read_at.is_none_or(|at| now.saturating_duration_since(at) >= READ_EVERY);
        if due {
            self.read_at = Some(now);
            self.read(now);
        }
        self.thermal.factor()
    }

    fn read(&mut self, now: Instant) {
        let sensor = self.config.sensor.as_ref();
        let reading = Reading {
            celsius: sensor.and_then(|sensor| thermal::temperature(&self.sysfs, sensor)),
            capped: thermal::is_capped(&self.sysfs),
        };
        let since = now.saturating_duration_since(self.origin);
        if let Some(factor) = self.thermal.update(reading, since) {
            let celsius = reading.celsius.map_or("no temperature".into(), |c| format!("{c:.1} °C"));
            let capped = if reading.capped { ", frequency capped" } else { "" };
            log::info!("heat: {celsius}{capped}; {:.0} % of the budget is left", factor * 100.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn follows_a_sensor_at_most_once_a_second() {
        let sysfs = tempfile::tempdir().unwrap();
        let zone = sysfs.path().join("class/thermal/thermal_zone0");
        let policy = sysfs.path().join("devices/system/cpu/cpufreq/policy0");
        fs::create_dir_all(&zone).unwrap();
        fs::create_dir_all(&policy).unwrap();
        fs::write(zone.join("type"), "cpu-thermal\n").unwrap();
        fs::write(policy.join("cpuinfo_max_freq"), "1800000\n").unwrap();
        let config = ThermalConfig {
            sensor: Some("cpu-thermal".into()),
            step_percent: 25.0,
            hold_s: 1.0,
            ..ThermalConfig::default()
        };
        let start = Instant::now();
        assert!(Heat::new(&ThermalConfig::default(), sysfs.path(), start).is_none());
        let mut heat = Heat::new(&config, sysfs.path(), start).unwrap();
        // Seconds, millidegrees, whether capped, and what is left.
        for (at_s, temperature, capped, expected) in [
            (0.0, "50000", false, 1.0),
            (0.5, "90000", false, 1.0),
            (1.0, "90000", false, 0.75),
            (1.9, "90000", false, 0.75),
            (2.5, "70000", false, 0.75),
            (4.0, "50000", true, 0.5),
            (5.5, "odd", false, 0.5),
            (7.0, "50000", false, 0.75),
            (8.5, "50000", false, 1.0),
        ] {
            fs::write(zone.join("temp"), temperature).unwrap();
            let frequency = if capped { "1000000\n" } else { "1800000\n" };
            fs::write(policy.join("scaling_max_freq"), frequency).unwrap();
            let now = start + Duration::from_secs_f64(at_s);
            assert_eq!(heat.update(now), expected, "after {at_s} s");
        }
    }
}
