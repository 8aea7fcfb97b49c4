//! `salientd model inspect`: what a model file is, what it costs, and what runs in int8.

use super::args::InspectArgs;
use crate::config::{Config, Merge};
use crate::model::{Fallback, Model, ModelError, Normalisation};
use crate::tta::view::views;
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Report<'m> {
    file: &'m str,
    sha256: &'m str,
    /// `[h, w]`; absent: any size, none preferred.
    native_size: Option<[usize; 2]>,
    dynamic: bool,
    normalisation: Normalisation,
    ending: &'m str,
    features: &'m str,
    channels: usize,
    classes: usize,
    labels: &'m [String],
    parameters: u64,
    isa: &'static str,
    int8: bool,
    views: Vec<Cost>,
    /// Nodes with weights that run in float although the file is quantized.
    fallbacks: &'m [Fallback],
}

/// One view of the configured TTA.
#[derive(Debug, Serialize)]
struct Cost {
    view: String,
    size: [usize; 2],
    grid: [usize; 2],
    mmacs_int8: f64,
    mmacs_float: f64,
    activations_mib: f64,
}

pub fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let config = Config::default();
    let model = Model::load(&args.file, &config.model)?;
    let report = report(&model, &config)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn report<'m>(model: &'m Model, config: &Config) -> Result<Report<'m>, ModelError> {
    let [h, w] = model.native_size.unwrap_or([224, 224]);
    let mut costs = Vec::new();
    for weighted in views(&config.tta.scales, config.tta.hflip, Merge::Mean) {
        let size = weighted.view.size(h, w);
        // A model of fixed size runs its one view.
        if !model.dynamic && size != [h, w] {
            continue;
        }
        let plan = model.plan(size)?;
        costs.push(Cost {
            view: weighted.view.to_string(),
            size,
            grid: plan.grid,
            mmacs_int8: plan.macs_int8 as f64 / 1e6,
            mmacs_float: plan.macs_float as f64 / 1e6,
            activations_mib: plan.arena_bytes as f64 / f64::from(1 << 20),
        });
    }
    Ok(Report {
        file: &model.name,
        sha256: &model.sha256,
        native_size: model.native_size,
        dynamic: model.dynamic,
        normalisation: model.normalisation,
        ending: &model.ending,
        features: &model.features,
        channels: model.head.channels,
        classes: model.head.classes,
        labels: &model.labels,
        parameters: model.parameters,
        isa: model.isa.name(),
        int8: model.is_int8(),
        views: costs,
        fallbacks: &model.fallbacks,
    })
}

fn print(r: &Report) {
    let row = |name: &str, value: String| println!("{name:<12} {value}");
    row("file", r.file.to_string());
    row("sha256", r.sha256.to_string());
    let size = r.native_size.map_or("not said".into(), |[h, w]| format!("{h}x{w}"));
    row("input", format!("{size}{}", if r.dynamic { ", any other works" } else { ", fixed" }));
    let n = &r.normalisation;
    row("scaling", format!("(x - {:?}) / {:?}, {:?}", n.mean, n.std, n.order));
    row("ending", format!("{} on `{}`, {} channels", r.ending, r.features, r.channels));
    let few: Vec<&str> = r.labels.iter().take(6).map(String::as_str).collect();
    let more = if r.labels.len() > few.len() { ", …" } else { "" };
    row("classes", format!("{}: {}{more}", r.classes, few.join(", ")));
    row("parameters", format!("{:.2} million", r.parameters as f64 / 1e6));
    let kernels = if r.int8 { format!("int8, {} kernels", r.isa) } else { "float, tract".into() };
    row("engine", kernels);
    println!(
        "{:<6}{:>11}{:>9}{:>12}{:>12}{:>17}",
        "view", "input", "grid", "MMAC int8", "float", "activations MiB"
    );
    for v in &r.views {
        println!(
            "{:<6}{:>11}{:>9}{:>12.1}{:>12.1}{:>17.1}",
            v.view,
            format!("{}x{}", v.size[0], v.size[1]),
            format!("{}x{}", v.grid[0], v.grid[1]),
            v.mmacs_int8,
            v.mmacs_float,
            v.activations_mib
        );
    }
    if !r.fallbacks.is_empty() {
        println!("warning: the file is quantized, and these nodes run in float:");
        for f in r.fallbacks {
            println!("  {} `{}`: {}", f.op, f.node, f.why);
        }
    }
}
