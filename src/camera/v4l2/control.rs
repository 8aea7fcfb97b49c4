//! The driver's controls: set and read back.

use super::sys::{Control, Device};
use std::collections::BTreeMap;

/// A control's name as `v4l2-ctl` prints it: lower case, anything else an underscore.
pub(super) fn snake_case(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_").to_ascii_lowercase()
}

/// Sets the wanted controls. None of it stops a camera: answers with what could not be set, and
/// with what the driver made of a value.
pub(super) fn apply(device: &Device, wanted: &BTreeMap<String, i64>) -> Vec<String> {
    let mut found = Vec::new();
    if wanted.is_empty() {
        return found;
    }
    let known = device.controls();
    let mut refused = Vec::new();
    for (name, &value) in wanted {
        match known.iter().find(|control| control.name == *name) {
            Some(control) if device.set_control(control, value).is_ok() => {}
            Some(control) => refused.push((control, value)),
            None => found.push(unknown(name, &known)),
        }
    }
    // An automatic control may have held another; by now all of them are off.
    for (control, value) in refused {
        if let Err(error) = device.set_control(control, value) {
            let Control { name, minimum, maximum, .. } = control;
            let allowed = format!("allowed {minimum} to {maximum}");
            found.push(format!("control {name} = {value}: {error}, {allowed}"));
        }
    }
    for control in known.iter().filter(|control| control.readable) {
        let Some(&value) = wanted.get(&control.name) else { continue };
        match device.get_control(control) {
            Ok(actual) if actual != value => {
                let name = &control.name;
                found.push(format!("control {name} = {value}: the driver made it {actual}"));
            }
            _ => {}
        }
    }
    found
}

fn unknown(name: &str, known: &[Control]) -> String {
    let names: Vec<&str> = known.iter().map(|control| control.name.as_str()).collect();
    match names.is_empty() {
        true => format!("no control {name}: the camera has none"),
        false => format!("no control {name}: the camera has {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_v4l2_ctl_prints() {
        for (name, expected) in [
            ("Brightness", "brightness"),
            ("White Balance, Automatic", "white_balance_automatic"),
            ("Exposure Time, Absolute", "exposure_time_absolute"),
            ("  Gain (dB) ", "gain_db"),
            ("", ""),
        ] {
            assert_eq!(snake_case(name), expected);
        }
    }
}
