//! Temperatures as Linux shows them under `/sys/class/thermal`
//! (Documentation/driver-api/thermal/sysfs-api.rst).

use std::fs;
use std::path::Path;

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
}
