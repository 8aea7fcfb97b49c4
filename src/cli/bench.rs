//! `salientd bench`: each stage by itself, on this machine.

use super::args::{BenchArgs, SizeArg};
use super::progress;
use crate::camera::{Camera, pattern::Pattern};
use crate::config::{Config, OverlayConfig, PatternConfig};
use crate::explain::{Explainer, whole_picture};
use crate::frame::{Frame, FrameLayout, Picture, PixelFormat, Placement};
use crate::health::memory;
use crate::heatmap::{encode, overlay::Overlay};
use crate::model::Model;
use crate::preprocess::decode::Decoder;
use crate::preprocess::geometry::Geometry;
use crate::tta::Outcome;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The camera's picture that `decode`, `preprocess` and `render` work on.
const PICTURE: [u32; 2] = [1280, 720];
/// JPEG quality of the camera picture and of the rendered one.
const QUALITY: u8 = 80;

/// Times of one stage over all runs.
#[derive(Debug, Serialize)]
struct Times {
    p50_ms: f64,
    p95_ms: f64,
    min_ms: f64,
}

/// How frames kept their budget.
#[derive(Debug, Serialize)]
struct Kept {
    budget_ms: f64,
    frames: usize,
    /// Frames of more than 1.1 times the budget.
    late_percent: f64,
    /// Frames whose rest was more than 1.1 times what the cheapest view not run would take.
    idle_percent: f64,
    mean_views: f64,
    /// What the frames took of the budget.
    mean_used_percent: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    isa: &'static str,
    size: [usize; 2],
    threads: usize,
    runs: u32,
    views: usize,
    stages: BTreeMap<&'static str, Times>,
    budget: Option<Kept>,
    load_ms: f64,
    /// Peak resident memory of this process (VmHWM), loading included.
    rss_mib: f64,
}

pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let mut config = Config::default();
    args.model.apply(&mut config);
    args.views.apply(&mut config);
    config.geometry = whole_picture();
    config.tta.budget.budget_ms = args.budget_ms;
    if args.model.size == Some(SizeArg::Native) {
        config.model.size = Some([PICTURE[1] as usize, PICTURE[0] as usize]);
    }
    let start = Instant::now();
    let model = Arc::new(Model::configured(&config.model)?);
    let mut frame = Explainer::new(model.clone(), &config)?;
    let load_ms = ms(start);
    let mut one = config.clone();
    (one.tta.scales, one.tta.hflip) = (vec![1.0], false);
    one.tta.budget.budget_ms = None;
    let mut view = Explainer::new(model.clone(), &one)?;

    let mut bench = Bench { runs: args.runs, stages: BTreeMap::new() };
    let picture = scene()?;
    let jpeg = jpeg_frame(&picture)?;
    let mut decoder = Decoder::new();
    bench.stage("decode", || {
        let picture = decoder.decode(&jpeg)?;
        decoder.recycle(picture);
        Ok(())
    })?;
    let mut geometry = Geometry::new(&config.geometry)?;
    let size = frame.size();
    bench.stage("preprocess", || Ok(geometry.fit(&picture, size).map(drop)?))?;
    let base = geometry.fit(&picture, size)?.1.clone();
    bench.stage("view", || Ok(view.explain(&base).map(drop)?))?;
    frame.warm_up()?;
    while frame.calibrate(&base)? {}
    let mut frames = Vec::new();
    bench.stage("frame", || {
        let explained = frame.explain(&base)?;
        frames.extend(explained.outcome.map(|outcome| (outcome, explained.views.len())));
        Ok(())
    })?;
    let placement = Placement::stretched(&picture, size);
    let heatmap = frame.explain(&base)?.into_heatmap(&placement, jpeg.moment());
    let mut overlay = Overlay::new(&OverlayConfig::default());
    let mut bytes = Vec::new();
    bench.stage("draw", || {
        overlay.render(&picture, &heatmap);
        Ok(())
    })?;
    bench.stage("render", || {
        bytes.clear();
        Ok(encode::jpeg(overlay.render(&picture, &heatmap), QUALITY, &mut bytes)?)
    })?;
    let report = Report {
        model: model.name.clone(),
        isa: model.isa.name(),
        size,
        threads: frame.threads(),
        runs: args.runs,
        views: heatmap.views.len(),
        stages: bench.stages,
        // The first is not measured.
        budget: frames.get(1..).and_then(Kept::of),
        load_ms,
        rss_mib: memory::peak_rss_bytes().unwrap_or(0) as f64 / f64::from(1 << 20),
    };
    print(&report, args.json)
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    let [h, w] = report.size;
    println!(
        "{} at {h}x{w}, {} views, {} threads, {} kernels, {} runs",
        report.model, report.views, report.threads, report.isa, report.runs
    );
    println!("{:<12}{:>10}{:>10}{:>10}", "stage, ms", "p50", "p95", "min");
    for stage in ["decode", "preprocess", "view", "frame", "draw", "render"] {
        if let Some(t) = report.stages.get(stage) {
            println!("{stage:<12}{:>10.2}{:>10.2}{:>10.2}", t.p50_ms, t.p95_ms, t.min_ms);
        }
    }
    if let Some(kept) = &report.budget {
        println!(
            "budget {} ms: {:.1} views a frame, {:.0} % used; {:.1} % of {} frames over 1.1 times \
             it, {:.1} % with room for a view",
            kept.budget_ms,
            kept.mean_views,
            kept.mean_used_percent,
            kept.late_percent,
            kept.frames,
            kept.idle_percent
        );
    }
    println!("loaded in {:.0} ms; peak memory {:.0} MiB", report.load_ms, report.rss_mib);
    Ok(())
}

impl Kept {
    /// Of frames with their numbers of views; `None` without any.
    fn of(frames: &[(Outcome, usize)]) -> Option<Self> {
        let budget = frames.first()?.0.budget;
        let mean = |of: &dyn Fn(&(Outcome, usize)) -> f64| {
            frames.iter().map(of).sum::<f64>() / frames.len() as f64
        };
        let used = |frame: &(Outcome, usize)| frame.0.spent.as_secs_f64() / budget.as_secs_f64();
        Some(Self {
            budget_ms: budget.as_secs_f64() * 1e3,
            frames: frames.len(),
            late_percent: 100.0 * mean(&|frame| frame.0.is_late().into()),
            idle_percent: 100.0 * mean(&|frame| frame.0.is_idle().into()),
            mean_views: mean(&|frame| frame.1 as f64),
            mean_used_percent: 100.0 * mean(&used),
        })
    }
}

struct Bench {
    runs: u32,
    stages: BTreeMap<&'static str, Times>,
}

impl Bench {
    /// One unmeasured run, then the measured ones.
    fn stage(
        &mut self,
        name: &'static str,
        mut work: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let bar = progress::bar(self.runs.into(), name);
        work()?;
        let mut times = Vec::with_capacity(self.runs as usize);
        for _ in 0..self.runs {
            let start = Instant::now();
            work()?;
            times.push(ms(start));
            bar.inc(1);
        }
        bar.finish_and_clear();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        self.stages.insert(name, Times { p50_ms: at(0.5), p95_ms: at(0.95), min_ms: times[0] });
        Ok(())
    }
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn scene() -> anyhow::Result<Picture> {
    let [width, height] = PICTURE;
    let config = PatternConfig { width, height, fps: 1000.0 };
    let mut camera = Pattern::open(&config, Duration::from_secs(1))?;
    Ok(Decoder::new().decode(&camera.next_frame(Duration::from_secs(1))?)?)
}

fn jpeg_frame(picture: &Picture) -> anyhow::Result<Frame> {
    let mut data = Vec::new();
    encode::jpeg(picture, QUALITY, &mut data)?;
    let layout = FrameLayout {
        format: PixelFormat::Mjpg,
        width: PICTURE[0],
        height: PICTURE[1],
        stride_bytes: 0,
        matrix: Default::default(),
        range: Default::default(),
    };
    Ok(Frame {
        layout,
        data,
        sequence: 0,
        captured_at: Instant::now(),
        captured_wall: SystemTime::now(),
    })
}
