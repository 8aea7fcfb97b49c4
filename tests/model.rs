//! Model files: every ending and layout that is recognised, what is said of those that are
//! not, and quantized operators against ONNX Runtime. The files' recipe is
//! `tests/models/make.py`.

mod common;

use common::{Npy, off, pass, read_json, read_npy, repository};
use salientd::config::{ColourOrder, ModelConfig};
use salientd::int8::{Isa, graph::Layout};
use salientd::model::{Model, Pass};
use std::path::PathBuf;
use std::sync::Arc;

fn file(name: &str) -> PathBuf {
    repository("tests/models").join(name)
}

fn load(name: &str) -> Model {
    let path = file(&format!("{name}.onnx"));
    Model::load(&path, &ModelConfig::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// One pass over the top left `[h, w]` of the recorded input, `[24, 28, 3]`.
fn run(model: &Model, [h, w]: [usize; 2]) -> Pass {
    let recorded = read_npy(&file("input.npy"));
    let at = |y: usize, x: usize, c: usize| recorded.values[(y * recorded.shape[1] + x) * 3 + c];
    let input: Vec<f32> = match model.input_layout() {
        Layout::Nhwc => (0..h * w * 3).map(|i| at(i / 3 / w, i / 3 % w, i % 3)).collect(),
        Layout::Nchw => (0..h * w * 3).map(|i| at(i % (h * w) / w, i % w, i / (h * w))).collect(),
    };
    pass(model, &model.plan([h, w]).unwrap(), &input).unwrap()
}

fn check_shape(name: &str, pass: &Pass, expected: &Npy) {
    assert_eq!(expected.shape, [pass.height, pass.width, pass.channels], "{name}");
}

#[test]
fn a_model_is_called_by_its_file_without_the_folders() {
    assert_eq!(load("gemm").name, "gemm.onnx");
}

#[test]
fn every_ending_gives_the_same_features_and_logits() {
    let features = read_npy(&file("float.npy"));
    let logits = read_npy(&file("float_logits.npy"));
    let head = load("gemm").head;
    let endings = [
        ("gemm", "GlobalAveragePool `gap` → Gemm `out`"),
        ("gemm_transb", "GlobalAveragePool `gap` → Gemm `out`"),
        ("gemm_scaled", "GlobalAveragePool `gap` → Gemm `out`"),
        ("matmul", "GlobalAveragePool `gap` → MatMul `mm`"),
        ("matmul_bias_first", "GlobalAveragePool `gap` → MatMul `mm`"),
        ("conv", "GlobalAveragePool `gap` → Conv `cls`"),
        ("softmax", "GlobalAveragePool `gap` → Gemm `logits`"),
        ("mean_attribute", "ReduceMean `flat` → Gemm `out`"),
        ("mean_negative", "ReduceMean `flat` → MatMul `mm`"),
        ("mean_input", "ReduceMean `gap` → Gemm `out`"),
        ("labels", "GlobalAveragePool `gap` → Gemm `out`"),
        ("features_last", "ReduceMean `flat` → MatMul `mm`"),
        ("input_last", "ReduceMean `flat` → Gemm `out`"),
    ];
    for (name, ending) in endings {
        let model = load(name);
        assert_eq!(model.ending, ending, "{name}");
        assert!(model.dynamic && !model.is_int8() && model.fallbacks.is_empty(), "{name}");
        assert_eq!((model.head.channels, model.head.classes), (6, 4), "{name}");
        assert_eq!(model.head, head, "{name}");
        let pass = run(&model, [24, 28]);
        check_shape(name, &pass, &features);
        let worst = off(&pass.features, &features.values)
            .max(off(&model.head.logits(&pass.pooled, 1.0), &logits.values));
        assert!(worst < 1e-5, "{name}: off by {worst}");
        // Another size, with the same model.
        assert_eq!(run(&model, [16, 16]), run(&load("gemm"), [16, 16]), "{name}");
    }
}

#[test]
fn a_head_in_integers_has_its_factor() {
    let (head, expected) = (load("qgemm").head, load("gemm").head);
    // Rounded to the 127th part of the largest, and the bias finer.
    assert!(off(&head.weights, &expected.weights) < 0.004);
    assert!(off(&head.bias, &expected.bias) < 0.004);
}

#[test]
fn a_pass_too_long_or_too_large_is_refused() {
    for (name, side, said) in [
        (
            "many_pools",
            4096,
            "11035469810778 multiply-accumulates and values to look at a pass, the limit is 10000000000000",
        ),
        ("everywhere_pool", 32, "51573161984 places of windows' taps, the limit is 33554432"),
        ("much_alive", 9000, "3888000000 bytes of float tensors, the limit is 2147483648"),
    ] {
        let model = load(name);
        let error = model.plan([side; 2]).map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, format!("an input of {side}x{side} does not work: {said}"));
    }
}

#[test]
fn a_plan_goes_with_who_has_it() {
    let model = load("gemm");
    let plan = model.plan([16, 16]).unwrap();
    assert!(Arc::ptr_eq(&plan, &model.plan([16, 16]).unwrap()));
    let kept = Arc::downgrade(&plan);
    drop(plan);
    assert_eq!(kept.strong_count(), 0);
    assert_eq!(run(&model, [16, 16]), run(&model, [16, 16]));
}

#[test]
fn a_fixed_size_is_kept() {
    let model = load("fixed");
    assert_eq!((model.native_size, model.dynamic), (Some([16, 16]), false));
    assert_eq!(run(&model, [16, 16]), run(&load("gemm"), [16, 16]));
    let error = model.plan([24, 28]).map(|_| ()).unwrap_err();
    let said = "an input of 24x28 does not work: the model has a fixed input of 16x16";
    assert_eq!(error.to_string(), said);
}

#[test]
fn metadata_counts_and_the_configuration_counts_more() {
    let model = load("labels");
    assert_eq!(model.labels, ["ant", "bee", "cat", "dog"]);
    assert_eq!(model.native_size, Some([16, 24]));
    let n = model.normalisation;
    assert_eq!((n.mean, n.std, n.order), ([0.0; 3], [255.0; 3], ColourOrder::Bgr));
    assert_eq!(load("gemm").labels, ["0", "1", "2", "3"]);

    let dir = tempfile::tempdir().unwrap();
    let labels = dir.path().join("labels.txt");
    std::fs::write(&labels, "eins\nzwei\r\ndrei\nvier\n\n").unwrap();
    let config = ModelConfig {
        labels: Some(labels),
        size: Some([32, 48]),
        mean: Some([1.0, 2.0, 3.0]),
        std: Some([4.0; 3]),
        colour: Some(ColourOrder::Rgb),
        features: Some("features".into()),
        head: Some("w".into()),
        ..ModelConfig::default()
    };
    let model = Model::load(&file("labels.onnx"), &config).unwrap();
    assert_eq!(model.labels, ["eins", "zwei", "drei", "vier"]);
    assert_eq!(model.native_size, Some([32, 48]));
    let n = model.normalisation;
    assert_eq!((n.mean, n.std, n.order), ([1.0, 2.0, 3.0], [4.0; 3], ColourOrder::Rgb));
}

/// Loading has to fail with this line, `PATH` standing for the model's path.
fn refused(path: &std::path::Path, config: &ModelConfig, said: &str) {
    let error = match Model::load(path, config) {
        Ok(_) => panic!("{}: loads", path.display()),
        Err(error) => error.to_string(),
    };
    assert_eq!(error.replace(path.to_str().unwrap(), "PATH"), said);
}

#[test]
fn models_without_the_ending_are_told_what_was_found() {
    let cases = [
        (
            "no_pooling",
            "Relu `features` is no global average pooling (GlobalAveragePool, ReduceMean over H, W)",
        ),
        ("no_head", "GlobalAveragePool `gap` is no linear layer (Gemm, MatMul, 1x1 Conv)"),
        (
            "gated_head",
            "Sigmoid `gate` is no global average pooling (GlobalAveragePool, ReduceMean over H, W)",
        ),
        ("computed_bias", "Gemm `out` is a layer whose bias is no constant"),
        ("wide_head", "Conv `out` is a convolution larger than 1x1"),
        ("mean_of_channels", "ReduceMean `gap` is a mean over other axes than height and width"),
    ];
    for (name, found) in cases {
        let said = format!(
            "PATH: no global average pooling followed by a linear layer was found, and class \
             activation maps need both: output `out`: {found}. Name the tensors with \
             model.features and model.head if they are there"
        );
        refused(&file(&format!("{name}.onnx")), &ModelConfig::default(), &said);
    }
}

#[test]
fn files_that_are_no_usable_model_are_told_why() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let plain = ModelConfig::default();
    let bad = |why: &str| format!("PATH: not a usable ONNX file: {why}");
    let absent = dir.path().join("absent.onnx");
    refused(&absent, &plain, "PATH: cannot be read: No such file or directory (os error 2)");
    refused(dir.path(), &plain, "PATH: cannot be read: Is a directory (os error 21)");
    refused(&make("empty.onnx", b""), &plain, &bad("it contains no graph"));
    for (name, input) in [("rank_3", "[3, 16, 16]"), ("four_channels", "[1, 4, 16, 16]")] {
        let why = format!("its input `image` is {input}, expected [1, 3, h, w] or [1, h, w, 3]");
        refused(&file(&format!("{name}.onnx")), &plain, &bad(&why));
    }
    let why = "metadata `scaling` is \"imagenet\", expected keras, torch, unit, lite or raw";
    refused(&file("bad_metadata.onnx"), &plain, &bad(why));
    let why = "metadata `native_size` is \"large\", expected HEIGHTxWIDTH";
    refused(&file("bad_size.onnx"), &plain, &bad(why));

    let three = make("three.txt", b"a\nb\nc\n");
    let shown = three.display().to_string();
    let config = ModelConfig { labels: Some(three), ..plain.clone() };
    let said = format!("PATH: labels: {shown}: 3 labels, and the model has 4 classes");
    refused(&file("gemm.onnx"), &config, &said);
    let none = dir.path().join("none.txt");
    let shown = none.display().to_string();
    let config = ModelConfig { labels: Some(none), ..plain.clone() };
    let said = format!("PATH: labels: {shown}: No such file or directory (os error 2)");
    refused(&file("gemm.onnx"), &config, &said);
}

/// What the protobuf decoder says is its own, but it is one line, and nothing panics.
#[test]
fn damaged_files_are_refused_in_a_line() {
    let config = ModelConfig::default();
    let check = |what: &str, bytes: &[u8]| {
        let loaded = Model::from_bytes("damaged", bytes, &config);
        // Damage to a name or a weight may leave a model; then it plans, or says why not.
        let said = match loaded.and_then(|model| model.plan([24, 28]).map(|_| ())) {
            Ok(()) => return false,
            Err(error) => error.to_string(),
        };
        assert!(!said.contains('\n'), "{what}: {said}");
        true
    };
    assert!(check("garbage", b"this is no protobuf message"));
    for name in ["gemm", "qdq_u8"] {
        let whole = std::fs::read(file(&format!("{name}.onnx"))).unwrap();
        assert!(!check(name, &whole));
        assert!(check(name, &whole[..whole.len() / 2]), "{name}: half a file");
        for cut in (0..whole.len()).step_by(61) {
            check(&format!("{name} cut to {cut} bytes"), &whole[..cut]);
        }
        for at in (0..whole.len()).step_by(53) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x15;
            check(&format!("{name} with byte {at} changed"), &flipped);
        }
    }
}

fn pearson(a: &[f32], b: &[f32]) -> f64 {
    let mean = |v: &[f32]| v.iter().map(|&x| f64::from(x)).sum::<f64>() / v.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter().zip(b).map(|(&x, &y)| f(f64::from(x) - ma, f64::from(y) - mb)).sum()
    };
    sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt()
}

/// Features against ONNX Runtime's, in quantization steps: a value on the edge between two
/// may fall to either side, and later layers see that.
fn check_quantized(name: &str, model: &Model) {
    let (worst, r) = steps_off(name, model);
    // Three operators deep, a step at the first can be three at the last.
    assert!(worst < 3.5 && r >= 0.999, "{name}: off by {worst} steps, Pearson {r}");
}

/// The largest difference to ONNX Runtime's features in quantization steps, and Pearson's r.
fn steps_off(name: &str, model: &Model) -> (f32, f64) {
    let expected = read_npy(&file(&format!("{name}.npy")));
    let step = read_json(&file("cases.json"))[name]["step"].as_f64().unwrap() as f32;
    let pass = run(model, [24, 28]);
    check_shape(name, &pass, &expected);
    let differences = pass.features.iter().zip(&expected.values).map(|(a, b)| (a - b).abs());
    let worst = differences.fold(0.0, f32::max) / step;
    let r = pearson(&pass.features, &expected.values);
    eprintln!("{name}: off by at most {worst:.2} steps, Pearson {r:.6}");
    (worst, r)
}

const QUANTIZED: [&str; 7] = [
    "qdq_u8",
    "qdq_s8",
    "qdq_u8_per_tensor",
    "qdq_s8_symmetric",
    "qdq_float_head",
    "qop_u8",
    "qop_s8",
];

#[test]
fn quantized_operators_agree_with_onnx_runtime() {
    for name in QUANTIZED {
        let model = load(name);
        assert!(model.is_int8(), "{name}");
        assert_eq!(model.fallbacks, [], "{name}");
        let plan = model.plan([24, 28]).unwrap();
        assert!(plan.macs_int8 > 100 * plan.macs_float, "{name}: {}", plan.macs_float);
        check_quantized(name, &model);
    }
}

/// One operator on the very bytes that ONNX Runtime's read: within one quantization step.
#[test]
fn each_layer_is_within_a_step_of_onnx_runtime() {
    let layers: Vec<String> = read_json(&file("cases.json"))
        .as_object()
        .unwrap()
        .keys()
        .filter(|name| name.starts_with("layer_"))
        .cloned()
        .collect();
    assert!(layers.len() >= 24, "{layers:?}");
    for name in layers {
        let model = load(&name);
        assert!(model.is_int8(), "{name}");
        assert_eq!(model.fallbacks, [], "{name}");
        let worst = steps_off(&name, &model).0;
        assert!(worst < 1.01, "{name}: off by {worst} steps");
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let config = ModelConfig::default();
    for name in QUANTIZED {
        let bytes = std::fs::read(file(&format!("{name}.onnx"))).unwrap();
        for size in [[24, 28], [17, 23]] {
            let bits = |isa: Isa| -> Vec<u32> {
                let model = Model::with_isa(name, &bytes, &config, isa).unwrap();
                run(&model, size).features.iter().map(|x| x.to_bits()).collect()
            };
            let scalar = bits(Isa::Scalar);
            for isa in Isa::available() {
                assert!(bits(isa) == scalar, "{name} at {size:?}: {isa} differs from scalar");
            }
        }
    }
}

/// A float stretch between quantized ones, with and without a way around it.
#[test]
fn what_stays_in_float_is_said_and_right() {
    for (name, output) in [("float_pointwise", "c2"), ("float_grouped", "c3")] {
        let model = load(name);
        assert!(model.is_int8(), "{name}");
        let found: Vec<_> = model.fallbacks.iter().map(|f| (&*f.op, &*f.node)).collect();
        assert!(found.contains(&("Conv", output)), "{name}: {:?}", model.fallbacks);
        assert!(model.plan([24, 28]).unwrap().macs_float > 0, "{name}");
        check_quantized(name, &model);
    }
}

/// What has no int8 operator here, but is legal: in float, for one quantization step and another.
#[test]
fn what_has_no_int8_operator_is_right_in_float() {
    let cases = [
        (
            "float_axis_1",
            vec!["Conv `c`: its weights have scales for something else than output channels"],
        ),
        ("float_scales_of_channels", vec![]),
        ("float_pad_value", vec!["Pad `c`: it pads with something else than zeros"]),
        ("float_pad_axes", vec!["Pad `c`: it names the axes that it pads"]),
        ("float_pool_of_integers", vec!["MaxPool `p/real`: ceil_mode is set"]),
        (
            "float_overflow",
            vec![
                "Conv `c/real`: output channel 0 can overflow (weights sum to 444975, multiplier 2624.6719)",
            ],
        ),
        ("float_between", vec![]),
        ("float_signed_by_attribute", vec![]),
    ];
    for (name, why) in cases {
        let model = load(name);
        let left = model.fallbacks.iter();
        let left: Vec<_> = left.map(|f| format!("{} `{}`: {}", f.op, f.node, f.why)).collect();
        assert_eq!(left, why, "{name}");
        let (worst, r) = steps_off(name, &model);
        assert!(worst < 2.01 && r > 0.999, "{name}: off by {worst} steps, Pearson {r}");
    }
}
