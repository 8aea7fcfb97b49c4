//! Whole maps, from the picture file over tract to the filtered map, against reference
//! maps: the committed parity set always, and the maps that keras-explainable itself made
//! where SALIENTD_GOLDEN names their folder.

mod common;

use common::{Npy, json, npy, off, parity, read_json, read_npy};
use salientd::camera::image::load_image;
use salientd::config::{ClassName, ClassSelect, Config, Filter, Merge, Method};
use salientd::explain::{Explainer, whole_picture};
use salientd::heatmap::method::{FeatureView, HeadView, MethodError, class_maps, score_maps};
use salientd::int8::graph::Layout;
use salientd::model::{Model, Pass};
use salientd::preprocess::resize::{ChannelLayout, InputScaling, ViewResizer};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// Of a map's range, and in logits.
const TOLERANCE: f32 = 1e-4;

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn size_of(value: &Value) -> [usize; 2] {
    [0, 1].map(|i| value["input_hw"][i].as_u64().unwrap() as usize)
}

fn units_of(value: &Value) -> Vec<usize> {
    floats(&value["units"]).into_iter().map(|u| u as usize).collect()
}

fn model(path: &Path) -> Arc<Model> {
    let model = Arc::new(Model::load(path, &Config::default().model).unwrap());
    assert!(!model.is_int8());
    model
}

/// The largest error met, with what it was met at.
#[derive(Default)]
struct Worst(f32, String);

impl Worst {
    fn see(&mut self, error: f32, what: String) {
        assert!(error < TOLERANCE, "{what}: off by {error:e}, allowed {TOLERANCE:e}");
        if error >= self.0 {
            *self = Self(error, what);
        }
    }
}

/// Explains the picture as `case` asks, raw and filtered.
fn check_case(
    model: &Arc<Model>,
    picture: &Path,
    (size, units): ([usize; 2], &[usize]),
    case: &Value,
    expected: &dyn Fn(&str) -> Option<Npy>,
    worst: &mut Worst,
) {
    let name = format!("{} {}", picture.display(), case["case"]);
    let mut config = Config { geometry: whole_picture(), ..Config::default() };
    config.tta.scales = floats(&case["scales"]);
    config.tta.hflip = case["hflip"] == true;
    config.tta.merge = if case["merge"] == "mean" { Merge::Mean } else { Merge::Keras };
    config.classes.select = ClassSelect::List;
    config.classes.list = units.iter().map(|&u| ClassName::Index(u)).collect();
    let picture = load_image(picture).unwrap();
    for (filter, end) in [(Filter::None, "raw"), (Filter::PositiveNormalize, "posnorm")] {
        let Some(expected) = expected(end) else { continue };
        config.heatmap.filter = filter;
        let mut explainer = Explainer::with_size(model.clone(), &config, size).unwrap();
        explainer.keep_class_order();
        let base = explainer.fit(&picture).unwrap();
        assert_eq!(base.rgb, picture.rgb, "{name}: the picture has the model's size");
        let explanation = explainer.explain(&base).unwrap();
        let shape = [explanation.height, explanation.width, units.len()];
        assert_eq!(expected.shape, shape, "{name}");
        worst.see(off(&explanation.values, &expected.values), format!("{name} {end}"));
        let listed: Vec<usize> = explanation.classes.iter().map(|c| c.index).collect();
        assert_eq!(listed, units);
        for (class, expected) in explanation.classes.iter().zip(floats(&case["logits"])) {
            worst.see((class.logit - expected).abs(), format!("{name}: logit of {}", class.index));
            assert_eq!(class.logit, explanation.logits[class.index]);
        }
    }
}

/// The normalised input of a picture at its own size.
fn input_of(model: &Model, picture: &Path, size: [usize; 2]) -> Vec<f32> {
    let n = model.normalisation;
    let layout = match model.input_layout() {
        Layout::Nhwc => ChannelLayout::Hwc,
        Layout::Nchw => ChannelLayout::Chw,
    };
    let scaling = InputScaling { mean: n.mean, std: n.std, colour: n.order, layout };
    let mut input = vec![0.0; size[0] * size[1] * 3];
    let mut resizer = ViewResizer::new(size, size, false, &scaling).unwrap();
    resizer.resize(&load_image(picture).unwrap(), &mut input).unwrap();
    input
}

fn features_of(pass: &Pass) -> FeatureView<'_> {
    let Pass { height, width, channels, features, .. } = pass;
    FeatureView { height: *height, width: *width, channels: *channels, values: features }
}

#[test]
fn the_committed_set_is_matched_over_tract() {
    let model = model(&parity("model.onnx"));
    let mut worst = Worst::default();
    let mut cases = 0;
    for (i, image) in json("cases.json").as_array().unwrap().iter().enumerate() {
        let picture = parity(image["image"].as_str().unwrap());
        for case in image["cases"].as_array().unwrap() {
            let expected = |end: &str| {
                let name = format!("{i}_{}_{end}.npy", case["case"].as_str().unwrap());
                parity(&name).exists().then(|| npy(&name))
            };
            let what = (size_of(image), &units_of(image)[..]);
            check_case(&model, &picture, what, case, &expected, &mut worst);
            cases += 1;
        }
    }
    assert_eq!(cases, 10);
    eprintln!("committed set: off by at most {:.1e}, {}", worst.0, worst.1);
}

/// Features, logits and the small maps of every method, from tract's own passes.
#[test]
fn features_and_methods_are_matched_over_tract() {
    let model = model(&parity("model.onnx"));
    let head = HeadView { weights: &model.head.weights, bias: &model.head.bias };
    assert_eq!(model.head.weights, npy("head_weights.npy").values);
    assert_eq!(model.head.bias, npy("head_bias.npy").values);
    let mut worst = Worst::default();
    for (i, image) in json("cases.json").as_array().unwrap().iter().enumerate() {
        let (size, units) = (size_of(image), units_of(image));
        let plan = model.plan(size).unwrap();
        let input = input_of(&model, &parity(image["image"].as_str().unwrap()), size);
        let pass = common::pass(&model, &plan, &input).unwrap();

        let expected = npy(&format!("{i}_features.npy"));
        assert_eq!(expected.shape, [pass.height, pass.width, pass.channels]);
        worst.see(off(&pass.features, &expected.values), format!("features of {i}"));
        let logits = model.head.logits(&pass.pooled, 1.0);
        for (c, (got, expected)) in logits.iter().zip(floats(&image["all_logits"])).enumerate() {
            worst.see((got - expected).abs(), format!("logit {c} of {i}"));
        }

        let mut maps = Vec::new();
        for (method, name) in [
            (Method::Cam, "view_1"),
            (Method::GradCam, "gradcam"),
            (Method::GradCamPlusPlus, "gradcampp"),
            (Method::LayerCam, "layercam"),
            (Method::XGradCam, "xgradcam"),
            (Method::AblationCam, "ablationcam"),
            (Method::EigenCam, "eigencam"),
        ] {
            class_maps(method, &features_of(&pass), &head, &units, &mut maps).unwrap();
            let expected = npy(&format!("{i}_{name}.npy"));
            assert_eq!(expected.shape, [pass.height, pass.width, units.len()], "{name}");
            worst.see(off(&maps, &expected.values), format!("{name} of {i}"));
        }

        let mut masked = vec![0.0; input.len()];
        let infer = |mask: &[f32]| {
            for (k, (m, x)) in masked.iter_mut().zip(&input).enumerate() {
                let pixel = match model.input_layout() {
                    Layout::Nchw => k % mask.len(),
                    Layout::Nhwc => k / 3,
                };
                *m = x * mask[pixel];
            }
            let pass = common::pass(&model, &plan, &masked).unwrap();
            Ok::<_, MethodError>(model.head.logits(&pass.pooled, 1.0))
        };
        let channels = pass.channels;
        score_maps(&features_of(&pass), &head, &units, size, channels, infer, &mut maps).unwrap();
        let expected = npy(&format!("{i}_scorecam.npy"));
        worst.see(off(&maps, &expected.values), format!("scorecam of {i}"));
    }
    eprintln!("methods: off by at most {:.1e}, {}", worst.0, worst.1);
}

/// Score-CAM through the explainer runs and is a map of the class asked for; the channels
/// it leaves out keep it from being the reference's.
#[test]
fn every_method_explains() {
    let model = model(&parity("model.onnx"));
    let picture = load_image(parity("0.png")).unwrap();
    for method in [
        Method::Cam,
        Method::GradCam,
        Method::GradCamPlusPlus,
        Method::LayerCam,
        Method::XGradCam,
        Method::EigenCam,
        Method::AblationCam,
        Method::ScoreCam,
    ] {
        let mut config = Config::default();
        config.heatmap.method = method;
        config.classes.top = 2;
        let mut explainer = Explainer::with_size(model.clone(), &config, [64, 64]).unwrap();
        let explanation = explainer.explain(&picture).unwrap();
        assert_eq!(explanation.values.len(), 64 * 64 * 2, "{method:?}");
        for c in 0..2 {
            let map = explanation.values.iter().skip(c).step_by(2);
            let (lo, hi) = map.fold((f32::MAX, f32::MIN), |(l, h), &x| (l.min(x), h.max(x)));
            // positive_normalize: 0 to 1, or flat 0 where nothing speaks for the class.
            assert!(lo == 0.0 && (hi == 1.0 || hi == 0.0), "{method:?} {c}: {lo} to {hi}");
        }
    }
}

/// keras-explainable's own maps.
#[test]
fn the_golden_set_is_matched_where_it_is_there() {
    let Some(folder) = std::env::var_os("SALIENTD_GOLDEN").map(std::path::PathBuf::from) else {
        return eprintln!(
            "NOT COMPARED: SALIENTD_GOLDEN names no folder with keras-explainable's maps"
        );
    };
    let model = model(&folder.join("model.onnx"));
    let cases = read_json(&folder.join("cases.json"));
    let cases = cases.as_array().unwrap();
    assert!(!cases.is_empty());
    let mut worst = Worst::default();
    let mut maps = Vec::new();
    for case in cases {
        let image = case["image"].as_str().unwrap();
        let stem = image.strip_suffix(".png").unwrap();
        let (size, units) = (size_of(case), units_of(case));
        let file = |end: &str| read_npy(&folder.join(format!("{stem}_{end}.npy")));
        let expected = |end: &str| Some(file(&format!("{}_{end}", case["case"].as_str().unwrap())));
        let picture = folder.join(image);
        check_case(&model, &picture, (size, &units), case, &expected, &mut worst);

        let pass =
            common::pass(&model, &model.plan(size).unwrap(), &input_of(&model, &picture, size));
        let pass = pass.unwrap();
        let head = HeadView { weights: &model.head.weights, bias: &model.head.bias };
        class_maps(Method::Cam, &features_of(&pass), &head, &units, &mut maps).unwrap();
        let grid = file("cam_grid");
        let shape: Vec<usize> = grid.shape.iter().copied().filter(|&n| n != 1).collect();
        assert_eq!(shape, [pass.height, pass.width, units.len()], "{image}");
        worst.see(off(&maps, &grid.values), format!("{image}: cam grid"));
    }
    eprintln!("{} golden cases: off by at most {:.1e}, {}", cases.len(), worst.0, worst.1);
}
