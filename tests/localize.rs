//! `salientd eval localize` as its user meets it, on the demo's pictures and their boxes.

mod common;

use common::{read_json, repository};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn localize(images: &Path, annotations: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_salientd"))
        .args(["eval", "localize", "--scales", "1", "--hflip", "false", "--images"])
        .arg(images)
        .arg("--annotations")
        .arg(annotations)
        .args(more)
        .output()
        .unwrap()
}

fn report(images: &Path, annotations: &Path, more: &[&str]) -> Value {
    let out = localize(images, annotations, &[&["--json"], more].concat());
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!((out.status.code(), &*said), (Some(0), ""));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// The demo's boxes in Pascal VOC's form.
fn as_voc(boxes: &Path, folder: &Path) {
    for photo in read_json(boxes)["photos"].as_array().unwrap() {
        let of = |i: usize| photo["boxes"][0][i].as_u64().unwrap();
        let xml = format!(
            "<annotation><size><width>640</width><height>480</height></size><object>\
             <name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>\
             </bndbox></object></annotation>",
            photo["label"].as_str().unwrap().replace(' ', "_"),
            of(0) + 1,
            of(1) + 1,
            of(2),
            of(3)
        );
        let name = Path::new(photo["file"].as_str().unwrap()).with_extension("xml");
        std::fs::write(folder.join(name), xml).unwrap();
    }
}

#[test]
fn the_default_model_looks_at_the_demos_things() {
    let (images, boxes) = (repository("assets/demo"), repository("assets/demo/boxes.json"));
    let dir = tempfile::tempdir().unwrap();
    let found = report(&images, &boxes, &[]);
    assert_eq!([&found["photos"], &found["trials"], &found["named"]], [3, 3, 3]);
    assert_eq!(found["pointing"]["map"], 1.0);
    // What the guess scores follows from the boxes alone: 452.5 × 339.4 pixels in the middle.
    let guess = [320.0 - 226.274, 240.0 - 169.706, 320.0 + 226.274, 240.0 + 169.706];
    for (photo, trial) in read_json(&boxes)["photos"].as_array().unwrap().iter().zip(each(&found)) {
        let truth: [f64; 4] = std::array::from_fn(|i| photo["boxes"][0][i].as_f64().unwrap());
        let (got, wanted) = (trial["box_iou"]["centre"].as_f64().unwrap(), iou(guess, truth));
        assert!((got - wanted).abs() < 1e-4, "{got} {wanted}");
        let point = [0, 1].map(|i| trial["point"][i].as_f64().unwrap());
        assert!((truth[0]..truth[2]).contains(&point[0]), "{trial}");
        assert!((truth[1]..truth[3]).contains(&point[1]), "{trial}");
    }
    let v2 = |of: &str| found["max_box_acc"][of]["v2"].as_f64().unwrap();
    assert!(v2("map") >= 0.7 && v2("map") > v2("centre"), "{}", found["max_box_acc"]);
    assert!(found["deletion"]["gain"].as_f64() > Some(0.0), "{}", found["deletion"]);
    for curve in ["deletion", "insertion"] {
        let of = |map: &str, i: usize| found["curves"][curve][map][i].as_f64().unwrap();
        assert_eq!([of("map", 0), of("map", 20)], [of("control", 0), of("control", 20)]);
    }

    as_voc(&boxes, dir.path());
    assert_eq!(report(&images, dir.path(), &[]), found, "as XML");
    assert_eq!(report(&images, dir.path(), &["--class", "annotated"])["each"], found["each"]);
    assert_eq!(report(&images, dir.path(), &["--limit", "2"])["trials"], 2);
    let out = localize(&images, dir.path(), &["--limit", "2"]);
    let table = String::from_utf8(out.stdout).unwrap();
    for row in ["default, int8, at 160x160", "2 photos", "pointing game", "MaxBoxAccV2", "deletion"]
    {
        assert!(table.contains(row), "{row}:\n{table}");
    }
}

fn each(report: &Value) -> &Vec<Value> {
    report["each"].as_array().unwrap()
}

fn iou(a: [f64; 4], b: [f64; 4]) -> f64 {
    let area = |b: [f64; 4]| (b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0);
    let both = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    both / (area(a) + area(b) - both)
}

#[test]
fn plots_are_written_and_not_overwritten() {
    let (images, boxes) = (repository("assets/demo"), repository("assets/demo/boxes.json"));
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("plots");
    let run = |more: &[&str]| {
        let to = ["--limit", "1", "--out", to.to_str().unwrap()];
        localize(&images, &boxes, &[to.as_slice(), more].concat())
    };
    let read = |name: &str| std::fs::read_to_string(to.join(name)).unwrap();
    assert_eq!(run(&[]).status.code(), Some(0));
    for name in ["box_accuracy_30", "box_accuracy_50", "box_accuracy_70", "deletion", "insertion"] {
        let svg = read(&format!("{name}.svg"));
        let tree = roxmltree::Document::parse(&svg).unwrap();
        let lines = tree.descendants().filter(|node| node.has_tag_name("polyline"));
        assert_eq!(lines.count(), 3, "{name}");
    }
    let first = to.join("box_accuracy_30.svg");
    std::fs::write(&first, "mine").unwrap();
    let out = run(&[]);
    let said = String::from_utf8_lossy(&out.stderr);
    let wanted = format!("{}: is there already; overwrite it with --force\n", first.display());
    assert_eq!((out.status.code(), &*said), (Some(1), &*wanted));
    assert_eq!(read("box_accuracy_30.svg"), "mine");
    assert_eq!(run(&["--force"]).status.code(), Some(0));
    assert!(read("box_accuracy_30.svg").contains("<svg"));
}

#[test]
fn bad_input_is_named() {
    let (images, boxes) = (repository("assets/demo"), repository("assets/demo/boxes.json"));
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str| -> PathBuf {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    };
    let check = |images: &Path, annotations: &Path, more: &[&str], expected: String| {
        let out = localize(images, annotations, more);
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!((out.status.code(), said), (Some(1), expected + "\n"));
    };
    let (empty, voc, broken, cats) =
        (folder("empty"), folder("voc"), folder("broken"), folder("cats"));
    let path = |path: &Path, name: &str| path.join(name).display().to_string();
    check(
        &empty,
        &empty,
        &[],
        format!(
            "{}: no .png, .jpg or .jpeg in the folder; --images wants a folder of photos",
            empty.display()
        ),
    );
    let (church, xml) = (path(&images, "church.jpg"), path(&empty, "church.xml"));
    check(&images, &empty, &[], format!("{church}: no annotation: {xml} is not there"));
    as_voc(&boxes, &broken);
    std::fs::write(broken.join("golf_ball.xml"), "<annotation>\n<object>").unwrap();
    check(
        &images,
        &broken,
        &[],
        format!(
            "{}: not XML: the root node was opened but never closed",
            path(&broken, "golf_ball.xml")
        ),
    );
    as_voc(&boxes, &cats);
    let church = std::fs::read_to_string(cats.join("church.xml")).unwrap();
    std::fs::write(cats.join("church.xml"), church.replace("church", "cat")).unwrap();
    check(
        &images,
        &cats,
        &["--class", "annotated"],
        format!(
            "{}: a box of \"cat\", and the model has no such class (it has tench, English \
             springer, cassette player, chain saw, church, French horn, …); --class top-1 takes \
             the class that it decides for",
            path(&cats, "church.xml")
        ),
    );
    as_voc(&boxes, &voc);
    std::fs::write(voc.join("church.xml"), church.replace(">640<", ">480<")).unwrap();
    check(
        &images,
        &voc,
        &[],
        format!(
            "{}: is for a photo of 480x480, and {} is 640x480",
            path(&voc, "church.xml"),
            path(&images, "church.jpg")
        ),
    );
    std::fs::write(empty.join("a.jpg"), "no image").unwrap();
    std::fs::write(empty.join("a.xml"), &church).unwrap();
    let photo = path(&empty, "a.jpg");
    check(&empty, &empty, &[], format!("{photo}: not an image: neither PNG nor JPEG"));

    let model = repository("tests/models/no_pooling.onnx").display().to_string();
    let out = localize(&images, &boxes, &["--model", &model]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1));
    let wanted = format!(
        "{model}: no global average pooling followed by a linear layer was found, and class \
         activation maps need both: "
    );
    assert!(said.starts_with(&wanted) && said.lines().count() == 1, "{said}");
}
