//! `salientd eval tta`: photos in, the worth of each view and the best order out.

use crate::camera::image::load_image;
use crate::cli::args::TtaArgs;
use crate::cli::eval::{Measured, Output};
use crate::cli::progress;
use crate::config::Merge;
use crate::eval::annotations::{self, Photo};
use crate::eval::boxes::Grid;
use crate::eval::images;
use crate::eval::plot::{Axis, Line, Plot, Stroke};
use crate::eval::tta::{PartReport, Report, Worth};
use crate::explain::{Explainer, content};
use crate::model::Model;
use crate::preprocess::geometry::Geometry;
use anyhow::bail;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

const CURVE: &str = "tta.svg";
const ORDER: &str = "order.toml";

/// What was measured how.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    measured: Measured<'a>,
    #[serde(flatten)]
    report: &'a Report,
}

pub fn run(args: &TtaArgs) -> anyhow::Result<()> {
    let options = &args.options;
    let config = options.effective_config()?;
    if config.tta.merge == Merge::Keras {
        bail!("merge \"keras\" is made of all views and has no parts to compare: take \"mean\"");
    }
    let photos = photos(args)?;
    let output = Output::prepare(options, &[CURVE, ORDER])?;
    let model = Arc::new(Model::configured(&config.model)?);
    let mut explainer = Explainer::new(model.clone(), &config)?;
    let mut geometry = Geometry::new(&config.geometry)?;
    let size = explainer.size();
    let mut worth = Worth::new(&explainer.views())?;
    let bar = progress::bar(photos.len() as u64, "photos");
    for (image, photo) in &photos {
        let picture = load_image(image)?;
        let (placement, base) = geometry.fit(&picture, size)?;
        let mut maps = explainer.each_view(base)?;
        for map in &mut maps {
            map.values = content(&placement, size[1], 1, std::mem::take(&mut map.values)).2;
        }
        let [width, height] = [placement.content.width, placement.content.height];
        let grid = Grid { height: height as usize, width: width as usize, placement };
        if let Some(photo) = photo {
            photo.check_size(placement.picture)?;
        }
        worth.add(&maps, grid.width, photo.as_ref().map(|photo| (photo, &grid)));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let report = worth.report();
    output.write(CURVE, &plot(&report).svg())?;
    output.write(ORDER, &order(&report))?;
    if options.json {
        let document = Document { measured: Measured::with(&model, size), report: &report };
        println!("{}", serde_json::to_string(&document)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn photos(args: &TtaArgs) -> anyhow::Result<Vec<(PathBuf, Option<Photo>)>> {
    let (folder, limit) = (&args.options.images, args.options.limit());
    Ok(match &args.annotations {
        None => images::list(folder, limit)?.into_iter().map(|image| (image, None)).collect(),
        Some(boxes) => {
            let photos = annotations::photos(folder, boxes, limit)?;
            photos.into_iter().map(|photo| (photo.image.clone(), Some(photo))).collect()
        }
    })
}

/// `[tta.budget]` with the order, the identity view left out: it is first anyway.
fn order(report: &Report) -> String {
    let views: Vec<String> = report.order.iter().skip(1).map(|v| format!("\"{v}\"")).collect();
    format!("[tta.budget]\norder = [{}]\n", views.join(", "))
}

fn plot(report: &Report) -> Plot {
    let line = |name: &str, stroke, parts: &[PartReport], of: fn(&PartReport) -> f64| Line {
        name: name.into(),
        points: parts.iter().map(|part| [part.cost, of(part)]).collect(),
        stroke,
    };
    let axis = |label: &str| Axis { label: label.into(), range: None };
    Plot {
        title: "Agreement with the map of all views".into(),
        x: axis("cost in identity views"),
        y: axis("Pearson, mean over photos"),
        lines: vec![
            line("this order", Stroke::Marked, &report.prefixes, |p| p.pearson.mean),
            line("best part", Stroke::Dashed, &report.best, |p| p.pearson.mean),
            line("fitted weights", Stroke::Solid, &report.prefixes, |p| p.pearson_fitted),
            line("usual order", Stroke::Dashed, &report.usual_prefixes, |p| p.pearson.mean),
        ],
    }
}

fn print(report: &Report) {
    println!("{} photos; agreement with the map of all views", report.photos);
    for (title, parts) in [
        ("best order", &report.prefixes),
        ("built-in order", &report.usual_prefixes),
        ("best part at each cost", &report.best),
    ] {
        println!("\n{title}");
        println!(
            "{:>6}{:>9}{:>8}{:>8}{:>9}{:>9}{:>10}{:>10}{:>9}  views",
            "cost",
            "Pearson",
            "p10",
            "fitted",
            "IoU@0.5",
            "points",
            "decision",
            "in a box",
            "box IoU"
        );
        for part in parts {
            let optional = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.3}"));
            println!(
                "{:>6.2}{:>9.4}{:>8.4}{:>8.4}{:>9.3}{:>9.3}{:>10.3}{:>10}{:>9}  {}",
                part.cost,
                part.pearson.mean,
                part.pearson.p10,
                part.pearson_fitted,
                part.iou,
                part.pointing,
                part.same_decision,
                optional(part.box_pointing),
                optional(part.box_iou),
                part.views.join(" ")
            );
        }
    }
    println!("\nall views only where the identity view's margin is below");
    println!(
        "{:>7}{:>7}{:>7}{:>9}{:>18}{:>13}{:>15}",
        "margin", "sure", "cost", "Pearson", "order, same cost", "1 if sure", "1 if unsure"
    );
    for gate in &report.gate {
        println!(
            "{:>7.2}{:>7.2}{:>7.2}{:>9.4}{:>18.4}{:>13.4}{:>15.4}",
            gate.margin,
            gate.sure,
            gate.cost,
            gate.pearson,
            gate.pearson_of_order,
            gate.pearson_if_sure,
            gate.pearson_if_unsure
        );
    }
    print!("\n{}", order(report));
}
