//! `salientd eval stream`: a clip or pictures in, what a policy costs and gives out.

use crate::cli::args::{PolicyArg, StreamArgs};
use crate::cli::eval::{Measured, Output};
use crate::cli::progress;
use crate::config::{Config, check_combinations};
use crate::eval::plot::{Axis, Line, Plot, Stroke};
use crate::eval::stream::{Noise, Replay, Report, Source};
use crate::explain::Explainer;
use crate::model::Model;
use anyhow::bail;
use clap::ValueEnum;
use serde::Serialize;
use std::sync::Arc;

const PLOT: &str = "stream.svg";
/// Identity views that a budget is worth where none is given.
const USUAL_BUDGET_VIEWS: f64 = 3.0;

/// What was measured how.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    measured: Measured<'a>,
    policy: &'a str,
    budget_ms: Option<u64>,
    fps: Option<f64>,
    noise: f32,
    hold: u32,
    #[serde(flatten)]
    report: &'a Report,
}

pub fn run(args: &StreamArgs) -> anyhow::Result<()> {
    let config = args.effective_config()?;
    let mut source = Source::open(&args.source)?;
    let output = Output::folder(args.out.as_ref(), args.force, &[PLOT])?;
    let model = Arc::new(Model::configured(&config.model)?);
    let config = policy(args, config, &model)?;
    let mut replay = Replay::new(model.clone(), &config, args.fps)?;
    let limit = args.limit.map_or(usize::MAX, |n| n as usize);
    let frames = source.len().map_or(limit, |n| limit.min(n * args.hold as usize));
    let bar = progress::bar(if frames == usize::MAX { 0 } else { frames as u64 }, "frames");
    let mut noise = Noise::new(args.noise);
    let mut shown = 0;
    while shown < frames
        && let Some(picture) = source.next_picture()?
    {
        if shown == 0 {
            replay.calibrate(&picture)?;
        }
        for _ in 0..(args.hold as usize).min(frames - shown) {
            let mut frame = picture.clone();
            noise.add(&mut frame);
            replay.show(&frame)?;
            shown += 1;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    if shown == 0 {
        bail!("{}: not one whole frame in it", args.source.display());
    }
    let size = config.model.size.or(model.native_size).unwrap_or_default();
    let report = replay.report();
    let name = args.policy.to_possible_value().map(|v| v.get_name().to_string());
    let document = Document {
        measured: Measured::with(&model, size),
        policy: &name.unwrap_or_default(),
        budget_ms: config.tta.budget.budget_ms,
        fps: args.fps,
        noise: args.noise,
        hold: args.hold,
        report: &report,
    };
    output.write(PLOT, &plot(&document).svg())?;
    match args.json {
        true => println!("{}", serde_json::to_string(&document)?),
        false => print(&document),
    }
    Ok(())
}

/// The configuration that the policy stands for.
fn policy(args: &StreamArgs, mut config: Config, model: &Arc<Model>) -> anyhow::Result<Config> {
    if args.budget_ms.is_some() && args.policy != PolicyArg::Budget {
        bail!("--budget-ms is of --policy budget only");
    }
    let limits = config.tta.clone();
    config.tta = config.tta.unlimited();
    match args.policy {
        PolicyArg::Full => {}
        // As if nothing were left of any budget.
        PolicyArg::Identity => config.tta.budget.gmacs_per_s = Some(0.001),
        PolicyArg::Rolling => {
            config.tta.rolling = limits.rolling;
            config.tta.rolling.enabled = true;
        }
        PolicyArg::Budget => {
            config.tta.budget = limits.budget;
            let given = args.budget_ms.or(config.tta.budget.budget_ms);
            config.tta.budget.budget_ms = Some(match given {
                Some(budget_ms) => budget_ms,
                None => usual_budget_ms(&config, model)?,
            });
        }
    }
    check_combinations(&config, "options")?;
    Ok(config)
}

fn usual_budget_ms(config: &Config, model: &Arc<Model>) -> anyhow::Result<u64> {
    let mut one = config.clone();
    (one.tta.scales, one.tta.hflip) = (vec![1.0], false);
    let mut explainer = Explainer::new(model.clone(), &one)?;
    explainer.warm_up()?;
    Ok((USUAL_BUDGET_VIEWS * explainer.warm_up()?.spent_ms).ceil().max(1.0) as u64)
}

fn plot(document: &Document<'_>) -> Plot {
    let each = &document.report.each;
    let points = each.iter().enumerate().map(|(i, frame)| [i as f64, frame.pearson]).collect();
    let axis = |label: &str| Axis { label: label.into(), range: None };
    Plot {
        title: format!("{}, policy {}", document.measured.model, document.policy),
        x: axis("frame"),
        y: axis("Pearson with all views"),
        lines: vec![Line { name: document.policy.into(), points, stroke: Stroke::Solid }],
    }
}

fn print(document: &Document<'_>) {
    let Report { frames, cuts, .. } = document.report;
    let budget = document.budget_ms.map_or(String::new(), |ms| format!(" {ms} ms"));
    println!(
        "{}, policy {}{budget}: {frames} frames, {cuts} cuts",
        document.measured.model, document.policy
    );
    let report = document.report;
    let or_none = |x: Option<f64>| x.map_or("none".into(), |x| format!("{x:.4}"));
    for (name, value) in [
        ("cost, identity views a frame", format!("{:.3}", report.mean_cost_views)),
        ("time, ms a frame", format!("{:.1}", report.mean_spent_ms)),
        ("Pearson with all views, mean", format!("{:.4}", report.pearson_mean)),
        ("  10th percentile", format!("{:.4}", report.pearson_p10)),
        ("  from the first complete set on", or_none(report.pearson_steady)),
        ("  its least", or_none(report.pearson_steady_min)),
        ("frames to recover from a cut", or_none(report.recovery_frames)),
        ("frames with views from before a cut", report.stale_frames.to_string()),
        ("frames over 1.1 times the budget, %", or_none(report.late_percent)),
        ("frames with room for a view, %", or_none(report.idle_percent)),
    ] {
        println!("{name:<38}{value:>10}");
    }
}
