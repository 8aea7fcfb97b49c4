//! Temperatures as Linux shows them under `/sys/class/thermal` and `/sys/class/hwmon`, and
//! caps on the processor's frequency (Documentation/driver-api/thermal/sysfs-api.rst,
//! hwmon/sysfs-interface.rst, admin-guide/pm/cpufreq.rst).

use std::fs;
use std::path::{Path, PathBuf};

/// One sensor, such as `cpu-thermal`.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Zone {
    /// As the kernel numbers it: `thermal_zone0`.
    pub zone: String,
    /// What it is: `cpu-thermal`, `x86_pkg_temp`.
    pub kind: String,
    pub celsius: f64,
}

/// The zones below `sysfs` (`/sys`, or a copy of it) that can be read now, by number. A
/// sensor may refuse while its device sleeps; it is left out then.
pub fn zones(sysfs: &Path) -> Vec<Zone> {
    let Ok(entries) = fs::read_dir(sysfs.join("class/thermal")) else { return Vec::new() };
    let mut zones: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let zone = entry.file_name().into_string().ok()?;
            let number: u32 = zone.strip_prefix("thermal_zone")?.parse().ok()?;
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
            let millicelsius: f64 = read("temp")?.trim().parse().ok()?;
            let kind = read("type").unwrap_or_default().trim().to_string();
            Some((number, Zone { zone, kind, celsius: millicelsius / 1000.0 }))
        })
        .collect();
    zones.sort_by_key(|(number, _)| *number);
    zones.into_iter().map(|(_, zone)| zone).collect()
}

/// The hottest of the sensors below `sysfs` that `sensor` names: the type of thermal zones,
/// the name of hwmon chips, or `hottest` for all of them. `None`: none can be read now.
pub fn temperature(sysfs: &Path, sensor: &str) -> Option<f64> {
    let wanted = |name: &str| sensor == "hottest" || sensor == name;
    let zones = zones(sysfs).into_iter().map(|zone| (zone.kind, zone.celsius));
    zones
        .chain(chips(sysfs))
        .filter(|(name, _)| wanted(name))
        .map(|(_, celsius)| celsius)
        .reduce(f64::max)
}

/// Names that [`temperature`] takes, each once.
pub fn sensors(sysfs: &Path) -> Vec<String> {
    let zones = zones(sysfs).into_iter().map(|zone| zone.kind);
    let mut names: Vec<_> = zones.chain(chips(sysfs).into_iter().map(|(name, _)| name)).collect();
    names.sort();
    names.dedup();
    names
}

/// The inputs of all hwmon chips, each with its chip's name.
fn chips(sysfs: &Path) -> Vec<(String, f64)> {
    let mut found = Vec::new();
    for chip in entries(&sysfs.join("class/hwmon")) {
        let Some(name) = read(&chip.join("name")) else { continue };
        let inputs = entries(&chip).into_iter().filter(|path| {
            let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            file.starts_with("temp") && file.ends_with("_input")
        });
        let celsius = inputs.filter_map(|path| Some(read(&path)?.parse::<f64>().ok()? / 1000.0));
        found.extend(celsius.map(|celsius| (name.clone(), celsius)));
    }
    found
}

/// Whether some core may not run as fast as it can: the kernel lowers `scaling_max_freq`
/// when it cools, and so does a person who sets it.
pub fn is_capped(sysfs: &Path) -> bool {
    let kilohertz = |path: &Path, name: &str| read(&path.join(name))?.parse::<u64>().ok();
    entries(&sysfs.join("devices/system/cpu/cpufreq")).iter().any(|policy| {
        let limits = [kilohertz(policy, "scaling_max_freq"), kilohertz(policy, "cpuinfo_max_freq")];
        matches!(limits, [Some(now), Some(most)] if now < most)
    })
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok().map(|text| text.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_zones_in_order_and_leaves_out_what_cannot_be_read() {
        let sysfs = tempfile::tempdir().unwrap();
        let zone = |name: &str, files: &[(&str, &str)]| {
            let dir = sysfs.path().join("class/thermal").join(name);
            fs::create_dir_all(&dir).unwrap();
            files.iter().for_each(|(file, text)| fs::write(dir.join(file), text).unwrap());
        };
        assert_eq!(zones(sysfs.path()), []);
        zone("thermal_zone10", &[("type", "gpu-thermal\n"), ("temp", "-1500\n")]);
        zone("thermal_zone2", &[("type", "cpu-thermal\n"), ("temp", "48312\n")]);
        zone("thermal_zone3", &[("type", "asleep\n")]);
        zone("thermal_zone4", &[("type", "odd\n"), ("temp", "warm\n")]);
        zone("cooling_device0", &[("type", "fan\n"), ("temp", "1\n")]);
        let expected =
            [("thermal_zone2", "cpu-thermal", 48.312), ("thermal_zone10", "gpu-thermal", -1.5)]
                .map(|(zone, kind, celsius)| Zone {
                    zone: zone.into(),
                    kind: kind.into(),
                    celsius,
                });
        assert_eq!(zones(sysfs.path()), expected);
    }

    /// Writes files with their folders below `sysfs`.
    fn fill(sysfs: &Path, files: &[(&str, &str)]) {
        for (file, text) in files {
            let path = sysfs.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn temperatures_by_name() {
        let sysfs = tempfile::tempdir().unwrap();
        let sysfs = sysfs.path();
        assert_eq!(temperature(sysfs, "hottest"), None);
        fill(
            sysfs,
            &[
                ("class/thermal/thermal_zone0/type", "cpu-thermal\n"),
                ("class/thermal/thermal_zone0/temp", "48312\n"),
                ("class/thermal/thermal_zone1/type", "gpu-thermal\n"),
                ("class/thermal/thermal_zone1/temp", "51000\n"),
                ("class/hwmon/hwmon0/name", "coretemp\n"),
                ("class/hwmon/hwmon0/temp1_input", "60500\n"),
                ("class/hwmon/hwmon0/temp2_input", "62000\n"),
                ("class/hwmon/hwmon0/temp2_max", "99000\n"),
                ("class/hwmon/hwmon1/name", "fan\n"),
                ("class/hwmon/hwmon1/fan1_input", "120000\n"),
            ],
        );
        for (sensor, celsius) in [
            ("hottest", Some(62.0)),
            ("cpu-thermal", Some(48.312)),
            ("gpu-thermal", Some(51.0)),
            ("coretemp", Some(62.0)),
            ("fan", None),
            ("cpu", None),
        ] {
            assert_eq!(temperature(sysfs, sensor), celsius, "{sensor}");
        }
        assert_eq!(sensors(sysfs), ["coretemp", "cpu-thermal", "gpu-thermal"]);
    }

    #[test]
    fn caps_of_any_core() {
        let sysfs = tempfile::tempdir().unwrap();
        let sysfs = sysfs.path();
        assert!(!is_capped(sysfs), "no cpufreq");
        let policy = |n: u32, now: &str| {
            let folder = format!("devices/system/cpu/cpufreq/policy{n}");
            let files = [("scaling_max_freq", now), ("cpuinfo_max_freq", "1800000\n")];
            for (file, text) in files {
                fill(sysfs, &[(&format!("{folder}/{file}"), text)]);
            }
        };
        policy(0, "1800000\n");
        policy(2, "1800000\n");
        assert!(!is_capped(sysfs));
        policy(2, "1000000\n");
        assert!(is_capped(sysfs));
        policy(2, "what?\n");
        assert!(!is_capped(sysfs));
    }
}
