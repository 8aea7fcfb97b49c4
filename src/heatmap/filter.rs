//! What is done to each merged class map before it is shown.

use crate::config::Filter;

/// Filters maps `[height, width, classes]` in place, each class for itself.
///
/// With `x` a class's map: `Positive` is `max(x, 0)` and `Negative` is `max(−x, 0)`, the
/// strength of the evidence against the class (keras-explainable 0.0.2 computes
/// `max(x, 0)` there by mistake). `Normalize` subtracts the minimum, then divides by the
/// maximum, so that the map spans 0–1; a flat map becomes 0. `…Normalize` does so after
/// taking the positive part, the negative part or the magnitude.
///
/// Values that are not finite make the filtered map meaningless, not the call.
pub fn apply(filter: Filter, maps: &mut [f32], classes: usize) {
    match filter {
        Filter::None => {}
        Filter::Normalize => normalize(maps, classes),
        Filter::Positive => each(maps, positive),
        Filter::Negative => each(maps, negative),
        Filter::PositiveNormalize => {
            each(maps, positive);
            normalize(maps, classes);
        }
        Filter::NegativeNormalize => {
            each(maps, negative);
            normalize(maps, classes);
        }
        Filter::AbsoluteNormalize => {
            each(maps, f32::abs);
            normalize(maps, classes);
        }
    }
}

fn positive(x: f32) -> f32 {
    x.max(0.0)
}

fn negative(x: f32) -> f32 {
    (-x).max(0.0)
}

fn each(maps: &mut [f32], f: impl Fn(f32) -> f32) {
    for x in maps {
        *x = f(*x);
    }
}

fn normalize(maps: &mut [f32], classes: usize) {
    for class in 0..classes {
        let values = || maps.iter().skip(class).step_by(classes).copied();
        let min = values().fold(f32::INFINITY, f32::min);
        let max = values().fold(f32::NEG_INFINITY, f32::max) - min;
        for x in maps.iter_mut().skip(class).step_by(classes) {
            *x = if max == 0.0 { 0.0 } else { (*x - min) / max };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filter: Filter, map: &[f32], expected: &[f32]) {
        let mut alone = map.to_vec();
        apply(filter, &mut alone, 1);
        assert_eq!(alone, expected, "{filter:?} of {map:?}");

        // Beside another class, on either side of it, the result is the same.
        for class in 0..2 {
            let mut both: Vec<f32> =
                map.iter().flat_map(|&x| if class == 0 { [x, 99.0] } else { [-99.0, x] }).collect();
            apply(filter, &mut both, 2);
            let beside: Vec<f32> = both.iter().skip(class).step_by(2).copied().collect();
            assert_eq!(beside, expected, "{filter:?} of {map:?} as class {class} of 2");
        }
    }

    #[test]
    fn every_filter_by_hand() {
        let x = [-4.0, -2.0, 0.0, 4.0];
        check(Filter::None, &x, &x);
        check(Filter::Normalize, &x, &[0.0, 0.25, 0.5, 1.0]);
        check(Filter::Positive, &x, &[0.0, 0.0, 0.0, 4.0]);
        check(Filter::PositiveNormalize, &x, &[0.0, 0.0, 0.0, 1.0]);
        check(Filter::AbsoluteNormalize, &x, &[1.0, 0.5, 0.0, 1.0]);
        check(Filter::Negative, &x, &[4.0, 2.0, 0.0, 0.0]);
        check(Filter::NegativeNormalize, &x, &[1.0, 0.5, 0.0, 0.0]);
    }

    #[test]
    fn the_minimum_of_what_is_left_goes_to_zero() {
        check(Filter::PositiveNormalize, &[1.0, 2.0, 5.0], &[0.0, 0.25, 1.0]);
        check(Filter::NegativeNormalize, &[-1.0, -2.0, -5.0], &[0.0, 0.25, 1.0]);
        check(Filter::AbsoluteNormalize, &[-1.0, 2.0, -5.0], &[0.0, 0.25, 1.0]);
    }

    #[test]
    fn flat_and_empty_maps_are_zero() {
        check(Filter::Normalize, &[3.0, 3.0], &[0.0, 0.0]);
        check(Filter::PositiveNormalize, &[-1.0, -2.0], &[0.0, 0.0]);
        check(Filter::NegativeNormalize, &[1.0, 2.0], &[0.0, 0.0]);
        check(Filter::AbsoluteNormalize, &[], &[]);
    }
}
