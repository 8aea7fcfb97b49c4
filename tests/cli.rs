//! The program as its user meets it: output, errors and exit codes.

use std::process::{Command, Output, Stdio};

fn salientd(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_salientd")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn configuration_commands_and_their_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_string()
    };
    let good = file("good.toml", "[tta]\nhflip = false\n");
    let bad = file("bad.toml", "[tta]\nhflip = 0\nscales = []\n");
    let problems = format!(
        "{bad}:2: tta.hflip: found an integer, allowed true or false\n\
         {bad}:3: tta.scales: 0 values, allowed 1 to 16 values, each a number from 0.25 to 4\n"
    );

    let out = salientd(&["check-config", &good]);
    assert_eq!((out.status.code(), text(&out.stdout)), (Some(0), format!("{good}: ok\n")));
    for args in [["check-config", &bad].as_slice(), &["show-config", "--config", &bad]] {
        let out = salientd(args);
        assert_eq!((out.status.code(), text(&out.stderr)), (Some(2), problems.clone()), "{args:?}");
        assert_eq!(text(&out.stdout), "", "{args:?}");
    }

    let out = salientd(&["show-config", "--config", &good]);
    assert_eq!(out.status.code(), Some(0));
    let shown = text(&out.stdout);
    assert!(shown.contains("\nhflip = false\n"), "{shown}");
    assert_eq!(salientd(&["show-config"]).status.code(), Some(0));
    assert_eq!(salientd(&["no-such-command"]).status.code(), Some(2));
}

#[test]
fn bad_values_on_the_command_line_are_refused() {
    for option in [
        ["--scales", "1,5"],
        ["--merge", "median"],
        ["--method", "gradcam+"],
        ["--filter", "sharpen"],
        ["--classes", "top0"],
        ["--size", "8x8"],
        ["--threads", "257"],
        ["--hflip", "maybe"],
    ] {
        let out = salientd(&["explain", "--out", "d", "a.png", option[0], option[1]]);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{option:?}: {said}");
        assert!(said.contains(option[0]), "{option:?}: {said}");
    }
}

#[test]
fn doctor_speaks_json() {
    let out = salientd(&["doctor", "--json"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["processor"]["architecture"], std::env::consts::ARCH);
    assert!(report["memory"]["total_mib"].as_u64() > Some(0));
}

fn inspected(file: &str, args: &[&str]) -> (String, serde_json::Value) {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    let run = |json: &[&str]| {
        let out = salientd(&[&["model", "inspect", &path], args, json].concat());
        assert_eq!(out.status.code(), Some(0), "{file}: {}", text(&out.stderr));
        text(&out.stdout)
    };
    (run(&[]), serde_json::from_str(&run(&["--json"])).unwrap())
}

#[test]
fn inspect_says_what_runs_where_and_why() {
    let end = "pooling and head: decisions and maps are made of the same features";
    let cases = [
        (
            "gemm",
            (false, 0, 4, 0),
            format!("in float     2 Conv, 2 Relu: the file is not quantized; {end}\n"),
        ),
        ("qdq_u8", (true, 7, 0, 0), format!("in float     {end}\n")),
        ("float_pointwise", (true, 6, 1, 1), "warning: the file is quantized".into()),
        ("weights_only", (false, 0, 4, 2), "  Conv `c1`: its input `image` is float\n".into()),
    ];
    for (name, expected, said) in cases {
        let (shown, json) = inspected(&format!("tests/models/{name}.onnx"), &[]);
        let count = |key: &str| json[key].as_array().unwrap().len();
        let int8 = json["int8"].as_bool().unwrap();
        let got = (int8, count("int8_nodes"), count("float_nodes"), count("fallbacks"));
        assert_eq!(got, expected, "{name}: {shown}");
        assert!(shown.contains(&said), "{name}: {shown}");
        let warned =
            shown.contains("warning: the file is quantized, and these nodes run in float:");
        assert_eq!(warned, expected.3 > 0, "{name}: {shown}");
        for node in json["float_nodes"].as_array().unwrap() {
            assert!(!node["why"].as_str().unwrap().is_empty(), "{name}: {node}");
        }
    }
}

#[test]
fn inspect_costs_the_configured_views() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("c.toml");
    std::fs::write(&config, "[tta]\nscales = [1.0, 2.0]\nhflip = false\n").unwrap();
    let args = ["--config", config.to_str().unwrap()];
    let (shown, json) = inspected("models/default-int8.onnx", &args);
    let views = json["views"].as_array().unwrap();
    let sizes: Vec<_> = views.iter().map(|v| v["size"].to_string()).collect();
    assert_eq!(sizes, ["[160,160]", "[320,320]"], "{shown}");
    // 119.7 MMAC at its native size, as the model card has it, and nothing in float.
    let at = |v: &serde_json::Value, key: &str| v[key].as_f64().unwrap();
    assert!((at(&views[0], "mmacs_int8") - 119.7).abs() < 0.1, "{shown}");
    assert_eq!(at(&json["all_views"], "mmacs_float"), 0.0);
    let sum = at(&views[0], "mmacs_int8") + at(&views[1], "mmacs_int8");
    assert!((at(&json["all_views"], "mmacs_int8") - sum).abs() < 1e-6);
    assert_eq!(json["views_of"].to_string(), "[160,160]");
    // A byte a weight and four an input pixel's channel at the least.
    let memory = &json["memory"];
    assert!(at(memory, "weights_mib") > 0.6e6 / f64::from(1 << 20), "{memory}");
    assert!(at(memory, "activations_mib") > 320.0 * 320.0 * 12.0 / f64::from(1 << 20), "{memory}");
    let whole = at(memory, "weights_mib") + at(memory, "activations_mib");
    assert!((at(memory, "estimate_mib") - whole).abs() < 1e-9);
    assert!(shown.contains("input        160x160; works from 1x1 on"), "{shown}");

    let (shown, json) = inspected("tests/models/fixed.onnx", &[]);
    assert!(shown.contains("input        16x16, fixed"), "{shown}");
    assert!(json["shortest_side"].is_null());
    assert_eq!(json["views"].as_array().unwrap().len(), 2, "{shown}");

    let (_, json) = inspected("tests/models/qdq_u8.onnx", &[]);
    assert_eq!(json["views_of"].to_string(), "[224,224]");
}

#[test]
fn inspect_refuses_bad_input() {
    let absent = salientd(&["model", "inspect", "absent.onnx"]);
    let said = "absent.onnx: cannot be read: No such file or directory (os error 2)";
    assert!(text(&absent.stderr).contains(said), "{}", text(&absent.stderr));
    assert_ne!(absent.status.code(), Some(0));
    let model = format!("{}/tests/models/no_pooling.onnx", env!("CARGO_MANIFEST_DIR"));
    let headless = salientd(&["model", "inspect", &model]);
    let said = "no global average pooling followed by a linear layer was found";
    assert!(text(&headless.stderr).contains(said), "{}", text(&headless.stderr));
    assert_ne!(headless.status.code(), Some(0));
}

#[test]
fn completions_and_manual() {
    for shell in ["bash", "zsh", "fish"] {
        let out = salientd(&["completions", shell]);
        assert_eq!(out.status.code(), Some(0));
        assert!(text(&out.stdout).contains("check-config"), "{shell}");
    }
    let page = text(&salientd(&["man"]).stdout);
    assert!(page.contains(".TH salientd 1"), "{page}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    // Nobody reads: the first write fails.
    let mut child = Command::new(env!("CARGO_BIN_EXE_salientd"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), String::new()));
}
