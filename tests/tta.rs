//! The merge against reference maps: every case of the parity test set.

mod common;

use common::{json, npy, off};
use salientd::config::{Filter, Merge};
use salientd::heatmap::filter;
use salientd::tta::{MapMerger, View, Weight, views};
use serde_json::Value;

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn view_of(value: &Value) -> View {
    View { scale: value["scale"].as_f64().unwrap() as f32, hflip: value["hflip"] == true }
}

/// Merges the recorded views of one image as `case` asks and compares map and logits.
fn check(merger: &mut MapMerger, image: usize, described: &Value, case: &Value) {
    let name = format!("{image}_{}", case["case"].as_str().unwrap());
    let [height, width] = [0, 1].map(|i| described["input_hw"][i].as_u64().unwrap() as usize);
    let units = floats(&described["units"]).len();
    let merge = if case["merge"] == "keras" { Merge::Keras } else { Merge::Mean };

    merger.begin(height, width, units);
    let mut logits = vec![0.0; units];
    for weighted in views(&floats(&case["scales"]), case["hflip"] == true, merge) {
        let view = weighted.view;
        let recorded = described["views"].as_array().unwrap();
        let recorded = recorded.iter().find(|v| view_of(v) == view).expect("every view recorded");
        let grid = npy(&format!("{image}_view_{view}.npy"));
        let weight = Weight::Uniform(weighted.weight);
        let size = [grid.shape[0], grid.shape[1]];
        merger.add(view, weight, size, &grid.values);
        for (sum, logit) in logits.iter_mut().zip(floats(&recorded["logits"])) {
            *sum += weighted.weight * logit;
        }
    }

    let expected = npy(&format!("{name}_raw.npy"));
    assert_eq!(expected.shape, [height, width, units], "{name}");
    let worst = off(merger.map(), &expected.values);
    assert!(worst < 1e-5, "{name}: raw map off by {worst} of its range");
    for (got, expected) in logits.iter().zip(floats(&case["logits"])) {
        assert!((got - expected).abs() < 1e-4, "{name}: logit {got}, expected {expected}");
    }
    if case["case"] == "doc" {
        let mut map = merger.map().to_vec();
        filter::apply(Filter::PositiveNormalize, &mut map, units);
        let worst = off(&map, &npy(&format!("{name}_posnorm.npy")).values);
        assert!(worst < 1e-5, "{name}: filtered map off by {worst} of its range");
    }
}

#[test]
fn merged_maps_match_the_reference() {
    let mut merger = MapMerger::default();
    let mut cases = 0;
    for (image, described) in json("cases.json").as_array().unwrap().iter().enumerate() {
        for case in described["cases"].as_array().unwrap() {
            check(&mut merger, image, described, case);
            cases += 1;
        }
    }
    assert_eq!(cases, 10);
}
