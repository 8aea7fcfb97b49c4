//! Closed-form class maps against the library grad-cam, over the parity test set.

mod common;

use common::{json, npy, off};
use salientd::config::Method;
use salientd::heatmap::method::{FeatureView, HeadView, MethodError, class_maps, score_maps};

struct Image {
    features: common::Npy,
    weights: common::Npy,
    bias: common::Npy,
    units: Vec<usize>,
    logits: Vec<f32>,
    input: [usize; 2],
}

impl Image {
    fn load(index: usize) -> Self {
        let described = &json("cases.json")[index];
        let numbers = |key: &str| -> Vec<f64> {
            described[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        Self {
            features: npy(&format!("{index}_features.npy")),
            weights: npy("head_weights.npy"),
            bias: npy("head_bias.npy"),
            units: numbers("units").iter().map(|&u| u as usize).collect(),
            logits: numbers("all_logits").iter().map(|&x| x as f32).collect(),
            input: [0, 1].map(|i| numbers("input_hw")[i] as usize),
        }
    }

    fn features(&self) -> FeatureView<'_> {
        let shape = &self.features.shape;
        let values = &self.features.values;
        FeatureView { height: shape[0], width: shape[1], channels: shape[2], values }
    }

    fn head(&self) -> HeadView<'_> {
        HeadView { weights: &self.weights.values, bias: &self.bias.values }
    }
}

fn check(method: Method, reference: &str) {
    for index in 0..2 {
        let image = Image::load(index);
        let mut maps = vec![f32::NAN; 7];
        class_maps(method, &image.features(), &image.head(), &image.units, &mut maps).unwrap();
        let worst = off(&maps, &npy(&format!("{index}_{reference}.npy")).values);
        assert!(worst < 1e-4, "{method:?} of image {index}: off by {worst} of the range");
    }
}

#[test]
fn maps_match_the_reference() {
    check(Method::Cam, "view_1");
    check(Method::GradCam, "gradcam");
    check(Method::GradCamPlusPlus, "gradcampp");
    check(Method::LayerCam, "layercam");
    check(Method::XGradCam, "xgradcam");
    check(Method::AblationCam, "ablationcam");
    check(Method::EigenCam, "eigencam");
}

#[test]
fn scorecam_matches_the_reference() {
    for index in 0..2 {
        let image = Image::load(index);
        let features = image.features();
        let passes = npy(&format!("{index}_scorecam_passes.npy"));
        let mut recorded = passes.values.chunks_exact(passes.shape[1]);
        let mut maps = Vec::new();
        let pixels = image.input[0] * image.input[1];
        score_maps(
            &features,
            &image.head(),
            &image.units,
            image.input,
            features.channels,
            |mask| {
                let pass = recorded.next().expect("one pass a channel, in order");
                assert_eq!(mask.len(), pixels);
                let mean = mask.iter().sum::<f32>() / pixels as f32;
                assert!((mean - pass[0]).abs() < 1e-4, "mask of mean {mean}, not {}", pass[0]);
                Ok::<_, MethodError>(pass[1..].to_vec())
            },
            &mut maps,
        )
        .unwrap();
        assert!(recorded.next().is_none());
        let worst = off(&maps, &npy(&format!("{index}_scorecam.npy")).values);
        assert!(worst < 1e-4, "scorecam of image {index}: off by {worst} of the range");
    }
}

#[test]
fn scorecam_tries_no_more_channels_than_asked() {
    let image = Image::load(0);
    let mut passes = 0;
    let mut maps = Vec::new();
    let logits = image.logits.clone();
    score_maps(
        &image.features(),
        &image.head(),
        &image.units[..1],
        image.input,
        5,
        |_| {
            passes += 1;
            Ok::<_, MethodError>(logits.clone())
        },
        &mut maps,
    )
    .unwrap();
    assert_eq!(passes, 5);
    assert!(maps.iter().all(|x| x.is_finite()) && maps.iter().any(|&x| x > 0.0));
}

/// The free check of every pass: a CAM's mean and the bias make the logit.
#[test]
fn a_cam_adds_up_to_its_logit() {
    for index in 0..2 {
        let image = Image::load(index);
        let all: Vec<usize> = (0..image.logits.len()).collect();
        let mut maps = Vec::new();
        class_maps(Method::Cam, &image.features(), &image.head(), &all, &mut maps).unwrap();
        for &class in &all {
            let pixels = maps.len() / all.len();
            let sum: f32 = maps.iter().skip(class).step_by(all.len()).sum();
            let logit = sum / pixels as f32 + image.bias.values[class];
            let expected = image.logits[class];
            assert!((logit - expected).abs() < 1e-4, "class {class}: {logit}, not {expected}");
        }
    }
}

#[test]
fn features_that_do_not_vary_have_no_principal_component() {
    let features = FeatureView { height: 2, width: 1, channels: 3, values: &[1.0; 6] };
    let head = HeadView { weights: &[1.0; 6], bias: &[0.0; 2] };
    let mut maps = Vec::new();
    class_maps(Method::EigenCam, &features, &head, &[0, 1], &mut maps).unwrap();
    assert_eq!(maps, [0.0; 4]);
}

#[test]
fn contradictions_are_named() {
    let check = |values: &[f32], weights: &[f32], class: usize, method, expected: &str| {
        let features = FeatureView { height: 2, width: 2, channels: 3, values };
        let head = HeadView { weights, bias: &[0.0; 2] };
        let error = class_maps(method, &features, &head, &[class], &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let (values, weights) = ([0.0; 12], [0.0; 6]);
    let cam = Method::Cam;
    check(&values[1..], &weights, 0, cam, "features are 11 values, expected 2 x 2 x 3");
    check(&values, &weights[1..], 0, cam, "head has 5 weights, expected 3 channels x 2 classes");
    check(&values, &weights, 2, cam, "class 2 does not exist: the head has 2");
    let scorecam = "scorecam needs forward passes: use score_maps";
    check(&values, &weights, 0, Method::ScoreCam, scorecam);
}
