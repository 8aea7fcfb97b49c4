//! `salientd eval localize`: photos and boxes in, localisation scores and plots out.

use crate::cli::args::{LocalizeArgs, SubjectArg};
use crate::cli::eval::{Measured, Output};
use crate::cli::progress;
use crate::config::Upsample;
use crate::eval::annotations::photos;
use crate::eval::faithfulness::STEPS;
use crate::eval::localize::{
    BOX_SHARE, Beside, Localizer, MaxBoxAcc, RIGHT_AT, Report, Stepwise, Subject, THRESHOLDS,
};
use crate::eval::plot::{Axis, Line, Plot, Stroke};
use crate::explain::Explainer;
use crate::model::Model;
use serde::Serialize;
use std::sync::Arc;

const DELETION: &str = "deletion.svg";
const INSERTION: &str = "insertion.svg";
/// One for each of `RIGHT_AT`.
const BOX_ACCURACY: [&str; 3] =
    ["box_accuracy_30.svg", "box_accuracy_50.svg", "box_accuracy_70.svg"];

/// What was measured how.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    measured: Measured<'a>,
    threads: usize,
    scales: &'a [f32],
    hflip: bool,
    class: &'static str,
    upsample: Upsample,
    #[serde(flatten)]
    report: &'a Report,
}

pub fn run(args: &LocalizeArgs) -> anyhow::Result<()> {
    let options = &args.options;
    let config = options.effective_config()?;
    let photos = photos(&options.images, &args.annotations, options.limit())?;
    let names = [BOX_ACCURACY.as_slice(), &[DELETION, INSERTION]].concat();
    let output = Output::prepare(options, &names)?;
    let model = Arc::new(Model::configured(&config.model)?);
    let (subject, class) = match args.class {
        SubjectArg::Top1 => (Subject::Top1, "top-1"),
        SubjectArg::Annotated => (Subject::Annotated, "annotated"),
    };
    let mut localizer = Localizer::new(model.clone(), &config, subject, &photos)?;
    let bar = progress::bar(photos.len() as u64, "photos");
    for photo in &photos {
        localizer.measure(photo)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let heading = heading(localizer.explainer(), &config.tta.scales, config.tta.hflip, class);
    let (size, threads) = (localizer.explainer().size(), localizer.explainer().threads());
    let report = localizer.report();
    for (name, plot) in plots(&report) {
        output.write(name, &plot.svg())?;
    }
    if options.json {
        let document = Document {
            measured: Measured::with(&model, size),
            threads,
            scales: &config.tta.scales,
            hflip: config.tta.hflip,
            class,
            upsample: config.overlay.upsample,
            report: &report,
        };
        println!("{}", serde_json::to_string(&document)?);
    } else {
        let refined = match config.overlay.upsample {
            Upsample::Bilinear => "",
            Upsample::Guided => "; maps along the photo's edges",
        };
        println!("{heading}{refined}");
        print(&report);
    }
    Ok(())
}

fn heading(explainer: &Explainer, scales: &[f32], hflip: bool, class: &str) -> String {
    let [height, width] = explainer.size();
    let flips = if hflip { " and mirrored" } else { "" };
    let engine = if explainer.model().is_int8() { "int8" } else { "float" };
    format!(
        "{}, {engine}, at {height}x{width}; scales {scales:?}{flips}; class: {class}",
        explainer.model().name
    )
}

fn print(report: &Report) {
    let Report { photos, trials, named, .. } = report;
    println!("{photos} photos, {trials} maps; {named} of a class that a box of its photo names\n");
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let row = |name: &str, [a, b, c]: [String; 3]| println!("{name:<30}{a:>15}{b:>15}{c:>15}");
    let beside =
        |name: &str, b: &Beside<f64>| row(name, [b.map, b.centre, b.gaussian].map(percent));
    row("", ["map", "centre", "gaussian"].map(String::from));
    beside("pointing game", &report.pointing);
    let b = &report.box_iou;
    let two = |v: f64| format!("{v:.3}");
    row(
        &format!("IoU of the box at {:.0} %", BOX_SHARE * 100.0),
        [b.map.mean, b.centre.mean, b.gaussian.mean].map(two),
    );
    let b = &report.max_box_acc;
    let v2 = |m: &MaxBoxAcc| m.v2;
    row("MaxBoxAccV2", [v2(&b.map), v2(&b.centre), v2(&b.gaussian)].map(percent));
    for (i, right_at) in RIGHT_AT.iter().enumerate() {
        let at = |m: &MaxBoxAcc| format!("{} @ {:.2}", percent(m.accuracy[i]), m.threshold[i]);
        let centre = percent(b.centre.accuracy[i]);
        row(&format!("  IoU {right_at} @ threshold"), [at(&b.map), centre, at(&b.gaussian)]);
    }
    println!();
    row("", ["map", "gaussian", "map elsewhere"].map(String::from));
    for (name, f) in [
        ("deletion, less is better", &report.deletion),
        ("insertion, more is better", &report.insertion),
    ] {
        row(name, [f.map, f.gaussian, f.control].map(two));
        println!(
            "  better than elsewhere by {:.3} ± {:.3}, in {} of the maps",
            f.gain,
            f.gain_error,
            percent(f.better)
        );
    }
}

/// Each curve with its file's name.
fn plots(report: &Report) -> Vec<(&'static str, Plot)> {
    let curves = &report.curves;
    let boxes = (0..RIGHT_AT.len()).map(|i| (BOX_ACCURACY[i], box_plot(&curves.box_accuracy, i)));
    let steps = [
        (DELETION, step_plot("Deletion: less is better", "greyed out", &curves.deletion)),
        (INSERTION, step_plot("Insertion: more is better", "brought in", &curves.insertion)),
    ];
    boxes.chain(steps).collect()
}

fn line(name: &str, stroke: Stroke, values: &[f64], count: usize) -> Line {
    let point = |(i, &value): (usize, &f64)| [i as f64 / count as f64, value];
    Line { name: name.into(), points: values.iter().enumerate().map(point).collect(), stroke }
}

fn axis(label: &str) -> Axis {
    Axis { label: label.into(), range: Some([0.0, 1.0]) }
}

fn box_plot(accuracy: &Beside<[Vec<f64>; 3]>, i: usize) -> Plot {
    let line = |name, stroke, values: &[Vec<f64>; 3]| line(name, stroke, &values[i], THRESHOLDS);
    Plot {
        title: format!("Maps with a box right at IoU {}", RIGHT_AT[i]),
        x: axis("threshold on the map stretched to 0–1"),
        y: axis("share of maps"),
        lines: vec![
            line("map", Stroke::Solid, &accuracy.map),
            line("centre: half the photo", Stroke::Dashed, &accuracy.centre),
            line("centred Gaussian", Stroke::Dashed, &accuracy.gaussian),
        ],
    }
}

fn step_plot(title: &str, what: &str, curves: &Stepwise) -> Plot {
    Plot {
        title: title.into(),
        x: axis(&format!("share of pixels {what}")),
        y: axis("probability of the class"),
        lines: vec![
            line("map", Stroke::Marked, &curves.map, STEPS),
            line("the map elsewhere", Stroke::Dashed, &curves.control, STEPS),
            line("centred Gaussian", Stroke::Dashed, &curves.gaussian, STEPS),
        ],
    }
}
