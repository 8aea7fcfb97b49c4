//! `salientd model inspect`: what a model file is, what it costs, and what runs in int8.

use super::args::{InspectArgs, load_or_default};
use crate::config::{Config, Merge};
use crate::model::{Fallback, Int8Node, Model, ModelError, Normalisation};
use crate::tta::view::views;
use serde::Serialize;
use std::collections::BTreeMap;

/// Where neither the file nor the configuration names a size.
const ASSUMED_SIZE: [usize; 2] = [224, 224];

#[derive(Debug, Serialize)]
struct Report<'m> {
    file: &'m str,
    sha256: &'m str,
    /// `[h, w]`; absent: any size, none preferred.
    native_size: Option<[usize; 2]>,
    dynamic: bool,
    /// The shortest side of a square input that works; absent: the size is fixed.
    shortest_side: Option<usize>,
    normalisation: Normalisation,
    ending: &'m str,
    features: &'m str,
    channels: usize,
    classes: usize,
    labels: &'m [String],
    parameters: u64,
    isa: &'static str,
    int8: bool,
    int8_nodes: &'m [Int8Node],
    /// Nodes before the pooling that run in float, and why.
    float_nodes: &'m [Fallback],
    /// Those of them that do so although the file is quantized.
    fallbacks: &'m [Fallback],
    /// `[h, w]` that the views are scaled from.
    views_of: [usize; 2],
    views: Vec<Cost>,
    all_views: Total,
    memory: Memory,
}

/// One view of the configured TTA.
#[derive(Debug, Serialize)]
struct Cost {
    view: String,
    size: [usize; 2],
    grid: [usize; 2],
    mmacs_int8: f64,
    mmacs_float: f64,
    /// Tensors alive at the same time, at most.
    activations_mib: f64,
}

/// Every view once.
#[derive(Debug, Serialize)]
struct Total {
    mmacs_int8: f64,
    mmacs_float: f64,
}

/// What loading the model and running its largest view takes, without the program itself.
#[derive(Debug, Serialize)]
struct Memory {
    weights_mib: f64,
    activations_mib: f64,
    estimate_mib: f64,
}

pub fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let config = load_or_default(args.config.as_deref())?;
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
    let views_of = model.native_size.unwrap_or(ASSUMED_SIZE);
    let views = costs(model, config, views_of)?;
    let sum = |of: fn(&Cost) -> f64| views.iter().map(of).sum();
    let all_views =
        Total { mmacs_int8: sum(|v| v.mmacs_int8), mmacs_float: sum(|v| v.mmacs_float) };
    let weights_mib = mib(model.weight_bytes);
    let activations_mib = views.iter().map(|v| v.activations_mib).fold(0.0, f64::max);
    Ok(Report {
        file: &model.name,
        sha256: &model.sha256,
        native_size: model.native_size,
        dynamic: model.dynamic,
        shortest_side: model.shortest_side(),
        normalisation: model.normalisation,
        ending: &model.ending,
        features: &model.features,
        channels: model.head.channels,
        classes: model.head.classes,
        labels: &model.labels,
        parameters: model.parameters,
        isa: model.isa.name(),
        int8: model.is_int8(),
        int8_nodes: &model.int8_nodes,
        float_nodes: &model.float_nodes,
        fallbacks: &model.fallbacks,
        views_of,
        views,
        all_views,
        memory: Memory {
            weights_mib,
            activations_mib,
            estimate_mib: weights_mib + activations_mib,
        },
    })
}

fn costs(model: &Model, config: &Config, [h, w]: [usize; 2]) -> Result<Vec<Cost>, ModelError> {
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
            activations_mib: mib(plan.arena_bytes + plan.float_bytes),
        });
    }
    Ok(costs)
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// "36 Conv, 13 Add"
fn counted<'a>(ops: impl Iterator<Item = &'a str>) -> String {
    let mut counts = BTreeMap::new();
    ops.for_each(|op| *counts.entry(op).or_insert(0) += 1);
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
    counts.iter().map(|(op, n)| format!("{n} {op}")).collect::<Vec<_>>().join(", ")
}

fn row(name: &str, value: String) {
    println!("{name:<12} {value}");
}

fn print(r: &Report) {
    row("file", r.file.to_string());
    row("sha256", r.sha256.to_string());
    let native = r.native_size.map_or("any size".into(), |[h, w]| format!("{h}x{w}"));
    row(
        "input",
        match r.shortest_side {
            Some(side) => format!("{native}; works from {side}x{side} on"),
            None => format!("{native}, fixed"),
        },
    );
    let n = &r.normalisation;
    row("scaling", format!("(x - {:?}) / {:?}, {:?}", n.mean, n.std, n.order));
    row("ending", format!("{} on `{}`, {} channels", r.ending, r.features, r.channels));
    let few: Vec<&str> = r.labels.iter().take(6).map(String::as_str).collect();
    let more = if r.labels.len() > few.len() { ", …" } else { "" };
    row("classes", format!("{}: {}{more}", r.classes, few.join(", ")));
    row("parameters", format!("{:.2} million", r.parameters as f64 / 1e6));
    print_engine(r);
    let m = &r.memory;
    row(
        "memory",
        format!(
            "about {:.1} MiB: weights {:.1}, activations of the largest view {:.1}",
            m.estimate_mib, m.weights_mib, m.activations_mib
        ),
    );
    print_views(r);
    if !r.fallbacks.is_empty() {
        println!("warning: the file is quantized, and these nodes run in float:");
        for f in r.fallbacks {
            println!("  {} `{}`: {}", f.op, f.node, f.why);
        }
    }
}

fn print_engine(r: &Report) {
    if r.int8 {
        let nodes = counted(r.int8_nodes.iter().map(|n| n.op));
        row("in int8", format!("{nodes}; {} kernels", r.isa));
    }
    // Why each of a quantized file's nodes is in float is said in the warning.
    let mut float = counted(r.float_nodes.iter().map(|n| &*n.op));
    if !r.int8 && r.fallbacks.is_empty() {
        float += ": the file is not quantized";
    }
    let end = "pooling and head: decisions and maps are made of the same features";
    row("in float", if float.is_empty() { end.into() } else { format!("{float}; {end}") });
}

fn print_views(r: &Report) {
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
    let all = &r.all_views;
    println!("{:<26}{:>12.1}{:>12.1}", "all", all.mmacs_int8, all.mmacs_float);
}
