//! From a picture to a map: every view through the model, their maps into one. The
//! library's face; the daemon's worker and `salientd explain` both stand on it.
//!
//! ```no_run
//! use salientd::{config::Config, explain::Explainer, model::Model, camera::image::load_image};
//! use std::{path::Path, sync::Arc};
//!
//! // keras-explainable: `ke.explain(ke.methods.meta.tta(ke.methods.cams.cam, scales=…), …)`
//! let mut config = Config::default();
//! config.tta.scales = vec![0.5, 1.0, 1.5, 2.0];
//! let model = Arc::new(Model::load(Path::new("models/xception-int8.onnx"), &config.model)?);
//! let mut explainer = Explainer::new(model, &config)?;
//! let picture = load_image(Path::new("dog.jpg"))?;
//! let base = explainer.fit(&picture)?;
//! let explanation = explainer.explain(&base)?;
//! println!("{}: {}", explanation.classes[0].label, explanation.classes[0].probability);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod limits;

use crate::classes::{ClassError, ClassPicker, softmax};
use crate::config::{Config, Filter, GeometryConfig, Method};
use crate::frame::{Moment, Picture, Placement};
use crate::heatmap::method::{FeatureView, HeadView, MethodError, class_maps, score_maps};
use crate::heatmap::{ClassScore, Heatmap, ViewReport, filter};
use crate::int8::graph::Layout;
use crate::model::{Model, ModelError, Pass, Plan};
use crate::preprocess::geometry::{Geometry, GeometryError};
use crate::preprocess::resize::{ChannelLayout, InputScaling, ResizeError, ViewResizer};
use crate::tta::Outcome;
use crate::tta::merge::{MapMerger, Weight};
use crate::tta::view::{View, WeightedView, views};
use limits::{Limits, Made, by_region};
use rayon::prelude::*;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Channels that Score-CAM masks the input with: most of a map at a cost one can wait for.
const SCORE_CHANNELS: usize = 32;

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Class(#[from] ClassError),
    #[error(transparent)]
    Method(#[from] MethodError),
    #[error(transparent)]
    Resize(#[from] ResizeError),
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    #[error("the model does not say its input size: set model.size, for example [299, 299]")]
    NoSize,
    #[error("cannot start {threads} threads: {why}")]
    Threads { threads: usize, why: String },
    #[error("tta.rolling.enabled needs the view at scale 1: add 1.0 to tta.scales")]
    NoIdentity,
}

/// A merged map with what it is made of.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Rows and columns of the map: those of the model's input.
    pub height: usize,
    pub width: usize,
    /// `[height, width, classes]`, filtered as configured.
    pub values: Vec<f32>,
    pub classes: Vec<ClassScore>,
    /// Merged logits of all classes.
    pub logits: Vec<f32>,
    pub views: Vec<ViewReport>,
    /// From base picture to merged map.
    pub spent_ms: f64,
    /// What `spent_ms` was to stay within; `None`: no limit.
    pub budget_ms: Option<f64>,
    /// How it kept to that.
    pub outcome: Option<Outcome>,
    /// Whether every view counts fully: none was left out, is missing or has faded.
    pub is_complete: bool,
    /// SHA-256 of the model file, hexadecimal.
    pub model_sha256: Arc<str>,
}

impl Explanation {
    /// The map ready to publish: of the picture alone, without padding. `placement` says
    /// where the base picture lies in the frame's, `moment` which frame that was. The only
    /// way to a [`Heatmap`].
    pub fn into_heatmap(self, placement: &Placement, moment: Moment) -> Heatmap {
        let classes = self.classes.len();
        let (height, width, values) = content(placement, self.width, classes, self.values);
        Heatmap {
            height,
            width,
            values,
            classes: self.classes,
            covers: placement.covers,
            picture: placement.picture,
            views: self.views,
            zones: Vec::new(),
            sequence: moment.sequence,
            captured_at: moment.captured_at,
            captured_wall: moment.captured_wall,
            spent_ms: self.spent_ms,
            budget_ms: self.budget_ms,
            heat_factor: None,
            model_sha256: self.model_sha256,
        }
    }
}

/// What one view alone makes of a picture.
#[derive(Clone, Debug)]
pub struct ViewMap {
    pub view: View,
    /// `[height, width]`, signed, un-flipped and of the base picture's size.
    pub values: Vec<f32>,
    /// Of all classes.
    pub logits: Vec<f32>,
}

/// Cuts letterbox padding off a map `[h, w, classes]`: height, width, values.
pub(crate) fn content(
    placement: &Placement,
    width: usize,
    classes: usize,
    values: Vec<f32>,
) -> (usize, usize, Vec<f32>) {
    let c = placement.content;
    let [x, y, w, h] = [c.x, c.y, c.width, c.height].map(|n| n as usize);
    if values.len() == w * h * classes {
        return (h, w, values);
    }
    let rows = values.chunks_exact(width * classes).skip(y).take(h);
    let cut = rows.flat_map(|row| &row[x * classes..(x + w) * classes]).copied().collect();
    (h, w, cut)
}

/// A view with everything that running it takes.
struct Prepared {
    view: View,
    weight: f32,
    plan: Arc<Plan>,
    /// A view runs on one thread at a time.
    resizer: Mutex<ViewResizer>,
}

/// A view's part in a map.
struct Part<'a> {
    view: &'a Prepared,
    made: &'a Made,
    weight: Weight<'a>,
    /// Zero: made of the frame at hand.
    age: Duration,
}

/// Explains pictures of one size with one model and one configuration.
///
/// Within a budget, while rolling, or when told that the board is hot, a picture gets only
/// some of its views, one after another; else all of them at once. A budget of time starts no
/// further view before [`Explainer::calibrate`] has timed it:
///
/// ```no_run
/// # use salientd::{config::parse, explain::Explainer, frame::Picture, model::Model};
/// # use std::sync::Arc;
/// # fn watch(model: Arc<Model>, pictures: Vec<Picture>) -> Result<(), Box<dyn std::error::Error>> {
/// let config = parse("[tta.budget]\nbudget_ms = 150", "example")?;
/// let mut explainer = Explainer::new(model, &config)?;
/// explainer.warm_up()?;
/// for picture in pictures {
///     let base = explainer.fit(&picture)?;
///     let explanation = explainer.explain(&base)?;
///     println!("{} views in {:.0} ms", explanation.views.len(), explanation.spent_ms);
///     explainer.calibrate(&base)?; // one view, once it is of no hurry
/// }
/// # Ok(()) }
/// ```
pub struct Explainer {
    /// `[height, width]` of the base picture.
    size: [usize; 2],
    runner: Runner,
    limits: Limits,
    maps: Maps,
    geometry: Geometry,
    clock: Clock,
}

/// Time since any fixed moment; it runs by the wall, but a replay may stop it.
struct Clock {
    /// What it said when it was started.
    at: Duration,
    /// `None`: it stands.
    started: Option<Instant>,
}

impl Clock {
    fn now(&self) -> Duration {
        self.at + self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }
}

impl Explainer {
    /// Plans every view at the configured (else the model's native) size.
    pub fn new(model: Arc<Model>, config: &Config) -> Result<Self, ExplainError> {
        let size = config.model.size.or(model.native_size).ok_or(ExplainError::NoSize)?;
        Self::with_size(model, config, size)
    }

    /// As [`Explainer::new`], for base pictures of `[height, width]`.
    pub fn with_size(
        model: Arc<Model>,
        config: &Config,
        size: [usize; 2],
    ) -> Result<Self, ExplainError> {
        let runner = Runner::new(model, config, size)?;
        let views: Vec<View> = runner.views.iter().map(|v| v.view).collect();
        if config.tta.rolling.enabled && !views.contains(&View::IDENTITY) {
            return Err(ExplainError::NoIdentity);
        }
        let macs = runner.identity_macs(size);
        Ok(Self {
            size,
            limits: Limits::new(&config.tta, &views, size, macs, runner.threads),
            maps: Maps {
                size,
                method: config.heatmap.method,
                filter: config.heatmap.filter,
                picker: ClassPicker::new(&config.classes, &runner.model.labels)?,
                merger: MapMerger::default(),
                only: None,
                map: Vec::new(),
            },
            geometry: Geometry::new(&config.geometry)?,
            runner,
            clock: Clock { at: Duration::ZERO, started: Some(Instant::now()) },
        })
    }

    /// `[height, width]` of the base pictures.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// The base picture of any picture: as `[geometry]` has it, without rotating.
    pub fn fit(&mut self, picture: &Picture) -> Result<Picture, ExplainError> {
        Ok(self.geometry.fit(picture, self.size)?.1.clone())
    }

    /// Makes the first frame as fast as the others, and measures for a budget what the
    /// identity view costs. Returns what was made of a grey picture.
    ///
    /// # Errors
    /// As [`Explainer::explain`].
    pub fn warm_up(&mut self) -> Result<Explanation, ExplainError> {
        let [height, width] = self.size;
        let grey = Picture { rgb: vec![127; height * width * 3], width, height };
        let mut warm = self.explain(&grey)?;
        if !self.limits.has_all() {
            // A budget's first time of a view does not count.
            self.limits.clear();
            warm = self.explain(&grey)?;
        }
        self.clear();
        Ok(warm)
    }

    /// Runs one view whose time a budget does not know yet on this base picture; false
    /// where there is none. Within a limit of time no further view starts before it was
    /// timed: call this between frames, from the first heatmap on.
    ///
    /// # Errors
    /// Of the model.
    pub fn calibrate(&mut self, base: &Picture) -> Result<bool, ExplainError> {
        let Some(view) = self.limits.untimed(self.clock.now()) else { return Ok(false) };
        let made = self.runner.alone(view, base)?;
        self.limits.timed(view, &made, self.clock.now());
        Ok(true)
    }

    /// From now on the classes of `select = "list"` and `"all"` come in their order, not best
    /// first: for arrays that programs index.
    pub fn keep_class_order(&mut self) {
        self.maps.picker.keep_order();
    }

    /// From now on the map of this class, below the model's number of them, whatever is
    /// configured and decided.
    pub fn set_only_class(&mut self, class: usize) {
        self.maps.only = Some(class);
    }

    /// Stops the clock that budgets and ages go by: what a replay does between its frames is
    /// not the stream's time.
    pub fn stop_clock(&mut self) {
        self.clock = Clock { at: self.clock.now(), started: None };
    }

    /// Starts the clock again, at `at` if that is later than when it stopped. Returns what
    /// it says.
    pub fn start_clock(&mut self, at: Duration) -> Duration {
        self.clock = Clock { at: at.max(self.clock.now()), started: Some(Instant::now()) };
        self.clock.at
    }

    /// The identity view's time with all around it, when that alone exceeds the budget.
    pub fn exceeded_budget(&self) -> Option<Duration> {
        self.limits.exceeded(self.clock.now())
    }

    /// The share of the budget, 0–1, that heat leaves to the pictures that follow; without
    /// a budget, of all views' cost.
    pub fn set_heat(&mut self, factor: f64) {
        self.limits.set_heat(factor);
    }

    /// How old the last explanation is, if the gate says that it holds for this base
    /// picture too.
    pub fn unchanged(&self, base: &Picture) -> Option<Duration> {
        self.limits.unchanged(base, self.clock.now())
    }

    /// Forgets all earlier pictures: what follows is something else.
    pub fn clear(&mut self) {
        self.limits.clear();
        self.maps.picker.clear();
    }

    /// Runs the views that a base picture of [`Explainer::size`] may have, and merges their
    /// maps and those kept from earlier pictures.
    pub fn explain(&mut self, base: &Picture) -> Result<Explanation, ExplainError> {
        let start = self.clock.now();
        self.limits.begin(base, start);
        let made = match self.limits.has_all() {
            true => self.runner.side_by_side(base)?,
            false => self.one_after_another(base)?,
        };
        let parts = parts(&self.runner.views, &self.limits, &made);
        let mut explanation = self.maps.merge(&self.runner.model, base, &parts)?;
        let end = self.clock.now();
        explanation.spent_ms = (end - start).as_secs_f64() * 1e3;
        explanation.budget_ms = self.limits.budget_ms();
        explanation.is_complete =
            explanation.views.len() == self.runner.views.len() && self.limits.is_complete();
        explanation.outcome = self.limits.end(softmax(&explanation.logits), end);
        Ok(explanation)
    }

    /// What each view alone makes of a base picture: its map of the class that all views
    /// together decide for. For those who ask what a view is worth; limits do not matter.
    ///
    /// # Errors
    /// As [`Explainer::explain`].
    pub fn each_view(&mut self, base: &Picture) -> Result<Vec<ViewMap>, ExplainError> {
        let made = self.runner.side_by_side(base)?;
        let views = self.runner.views.iter().zip(&made);
        let merged = logits(&self.runner.model, views.map(|(v, (_, made))| (&made.pass, v.weight)));
        let class = (0..merged.len()).max_by(|&a, &b| merged[a].total_cmp(&merged[b]));
        let [height, width] = self.size;
        let Maps { method, merger, map, .. } = &mut self.maps;
        let alone = |(prepared, (view, made)): (&Prepared, (View, Made))| {
            let Made { pass, .. } = made;
            let class = [class.unwrap_or_default()];
            view_maps(&self.runner.model, *method, prepared, base, &pass, &class, map)?;
            merger.begin(height, width, 1);
            merger.add(view, Weight::Uniform(1.0), [pass.height, pass.width], map);
            let logits = self.runner.model.head.logits(&pass.pooled, 1.0);
            Ok(ViewMap { view, values: merger.map().to_vec(), logits })
        };
        self.runner.views.iter().zip(made).map(alone).collect()
    }

    /// The views with their multiply-accumulates, in the order configured.
    pub fn views(&self) -> Vec<(View, u64)> {
        let macs = |v: &Prepared| (v.view, v.plan.macs_int8 + v.plan.macs_float);
        self.runner.views.iter().map(macs).collect()
    }

    /// Runs views as long as one fits. What rolling keeps stays with it.
    fn one_after_another(&mut self, base: &Picture) -> Result<Vec<(View, Made)>, ExplainError> {
        let mut fresh = Vec::new();
        while let Some(view) = self.limits.next(self.clock.now()) {
            let made = self.runner.alone(view, base)?;
            if let Some(made) = self.limits.finished(view, made, self.clock.now()) {
                fresh.push((view, made));
            }
        }
        Ok(fresh)
    }

    /// Worker threads.
    pub fn threads(&self) -> usize {
        self.runner.threads
    }

    /// The model; [`Model::cancel`] abandons a running [`Explainer::explain`].
    pub fn model(&self) -> &Arc<Model> {
        &self.runner.model
    }
}

/// Fresh views in the order configured, then kept ones. All views weigh as configured, some
/// of them the same each, and while rolling each region has its own weights.
fn parts<'a>(
    views: &'a [Prepared],
    limits: &'a Limits,
    fresh: &'a [(View, Made)],
) -> Vec<Part<'a>> {
    let rest = 1.0 / fresh.len().max(1) as f32;
    let is_complete = fresh.len() == views.len();
    let fresh = views.iter().filter_map(|view| {
        let (_, made) = fresh.iter().find(|(run, _)| *run == view.view)?;
        let uniform = Weight::Uniform(if is_complete { view.weight } else { rest });
        let weight = limits.identity_weight().unwrap_or(uniform);
        Some(Part { view, made, weight, age: Duration::ZERO })
    });
    let kept = limits.kept().filter_map(|kept| {
        let view = views.iter().find(|view| view.view == kept.view)?;
        Some(Part { view, made: kept.made, weight: by_region(kept.weights), age: kept.age })
    });
    fresh.chain(kept).collect()
}

/// The model with its views and threads.
struct Runner {
    model: Arc<Model>,
    views: Vec<Prepared>,
    pool: rayon::ThreadPool,
    threads: usize,
}

impl Runner {
    fn new(model: Arc<Model>, config: &Config, size: [usize; 2]) -> Result<Self, ExplainError> {
        let threads = match config.model.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n,
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("infer-{i}"))
            .build()
            .map_err(|e| ExplainError::Threads { threads, why: e.to_string() })?;
        let weighted = views(&config.tta.scales, config.tta.hflip, config.tta.merge);
        let views = weighted.iter().map(|v| prepare(&model, size, v)).collect::<Result<_, _>>()?;
        Ok(Self { model, views, pool, threads })
    }

    /// Multiply-accumulates of the view at scale 1, or what they would be.
    fn identity_macs(&self, [height, width]: [usize; 2]) -> f64 {
        let nearest = self.views.iter().min_by(|a, b| {
            let far = |v: &Prepared| (v.view.cost(height, width) - 1.0).abs();
            far(a).total_cmp(&far(b))
        });
        nearest.map_or(0.0, |v| {
            let macs = (v.plan.macs_int8 + v.plan.macs_float) as f64;
            macs / v.view.cost(height, width).max(f64::MIN_POSITIVE)
        })
    }

    /// Every view, in the order configured.
    fn side_by_side(&self, base: &Picture) -> Result<Vec<(View, Made)>, ExplainError> {
        // Views side by side as long as there are enough of them; else rows.
        if self.threads == 1 || self.views.len() < self.threads {
            return self.views.iter().map(|v| Ok((v.view, self.alone(v.view, base)?))).collect();
        }
        self.model.set_row_threads(1);
        self.pool.install(|| {
            // The dearest first, each taken by the next free thread, so that none is left
            // with the largest view at the end.
            let mut order: Vec<usize> = (0..self.views.len()).collect();
            let area =
                |i: &usize| std::cmp::Reverse(self.views[*i].plan.size.iter().product::<usize>());
            order.sort_by_key(area);
            let run = |i: usize| (i, self.run(&self.views[i], base));
            let queue = order.into_par_iter().with_max_len(1).map(run);
            let mut made: Vec<_> = queue.collect();
            made.sort_by_key(|(i, _)| *i);
            made.into_iter().map(|(i, made)| Ok((self.views[i].view, made?))).collect()
        })
    }

    /// One view on all threads.
    fn alone(&self, view: View, base: &Picture) -> Result<Made, ExplainError> {
        let prepared = self.views.iter().find(|v| v.view == view);
        let prepared = prepared.expect("limits hand out only views that they were given");
        self.model.set_row_threads(self.threads);
        self.pool.install(|| self.run(prepared, base))
    }

    fn run(&self, v: &Prepared, base: &Picture) -> Result<Made, ExplainError> {
        let start = Instant::now();
        let mut resizer = v.resizer.lock().unwrap_or_else(|e| e.into_inner());
        let fill = |input: &mut [f32]| Ok::<(), ExplainError>(resizer.resize(base, input)?);
        let pass = self.model.run(&v.plan, fill)?;
        Ok(Made { pass, spent_ms: start.elapsed().as_secs_f64() * 1e3 })
    }
}

/// From passes to a merged map.
struct Maps {
    size: [usize; 2],
    method: Method,
    filter: Filter,
    picker: ClassPicker,
    merger: MapMerger,
    /// Instead of what the picker says.
    only: Option<usize>,
    /// The small maps of one view.
    map: Vec<f32>,
}

impl Maps {
    /// Times and what belongs to them are left empty.
    fn merge(
        &mut self,
        model: &Model,
        base: &Picture,
        parts: &[Part<'_>],
    ) -> Result<Explanation, ExplainError> {
        let [height, width] = self.size;
        let logits = logits(model, parts.iter().map(|part| (&part.made.pass, part.weight.mean())));
        let probabilities = softmax(&logits);
        let classes = match self.only {
            Some(class) => vec![class],
            None => self.picker.pick(&probabilities),
        };
        self.merger.begin(height, width, classes.len());
        for Part { view, made, weight, .. } in parts {
            let pass = &made.pass;
            view_maps(model, self.method, view, base, pass, &classes, &mut self.map)?;
            let grid = [pass.height, pass.width];
            self.merger.add(view.view, *weight, grid, &self.map);
        }
        let mut values = self.merger.map().to_vec();
        filter::apply(self.filter, &mut values, classes.len());
        let score = |&index: &usize| ClassScore {
            index,
            label: model.labels[index].clone(),
            logit: logits[index],
            probability: probabilities[index],
        };
        let report = |part: &Part<'_>| ViewReport {
            scale: part.view.view.scale,
            hflip: part.view.view.hflip,
            weight: part.weight.mean(),
            spent_ms: if part.age.is_zero() { part.made.spent_ms } else { 0.0 },
            age_ms: part.age.as_secs_f64() * 1e3,
        };
        Ok(Explanation {
            height,
            width,
            values,
            classes: classes.iter().map(score).collect(),
            views: parts.iter().map(report).collect(),
            logits,
            spent_ms: 0.0,
            budget_ms: None,
            outcome: None,
            is_complete: false,
            model_sha256: model.sha256.clone(),
        })
    }
}

/// The weighted sum of the views' logits; the head runs once.
fn logits<'a>(model: &Model, views: impl Iterator<Item = (&'a Pass, f32)>) -> Vec<f32> {
    let (mut pooled, mut sum) = (vec![0.0; model.head.channels], 0.0);
    for (pass, weight) in views {
        pooled.iter_mut().zip(&pass.pooled).for_each(|(p, x)| *p += weight * x);
        sum += weight;
    }
    model.head.logits(&pooled, sum)
}

fn prepare(model: &Model, size: [usize; 2], v: &WeightedView) -> Result<Prepared, ExplainError> {
    let [h, w] = size;
    let view_size = v.view.size(h, w);
    let plan = model.plan(view_size)?;
    let resizer = ViewResizer::new(size, view_size, v.view.hflip, &input_scaling(model))?;
    Ok(Prepared { view: v.view, weight: v.weight, plan, resizer: Mutex::new(resizer) })
}

/// How a model wants its input.
pub fn input_scaling(model: &Model) -> InputScaling {
    let n = model.normalisation;
    let layout = match model.input_layout() {
        Layout::Nhwc => ChannelLayout::Hwc,
        Layout::Nchw => ChannelLayout::Chw,
    };
    InputScaling { mean: n.mean, std: n.std, colour: n.order, layout }
}

/// The small maps of one view, `[grid h, grid w, classes]`.
fn view_maps(
    model: &Model,
    method: Method,
    v: &Prepared,
    base: &Picture,
    pass: &Pass,
    classes: &[usize],
    out: &mut Vec<f32>,
) -> Result<(), ExplainError> {
    let features = FeatureView {
        height: pass.height,
        width: pass.width,
        channels: pass.channels,
        values: &pass.features,
    };
    let head = HeadView { weights: &model.head.weights, bias: &model.head.bias };
    if method != Method::ScoreCam {
        return Ok(class_maps(method, &features, &head, classes, out)?);
    }
    let layout = model.input_layout();
    let infer = |mask: &[f32]| -> Result<Vec<f32>, ExplainError> {
        let mut resizer = v.resizer.lock().unwrap_or_else(|e| e.into_inner());
        let masked = |input: &mut [f32]| -> Result<(), ExplainError> {
            resizer.resize(base, input)?;
            for (i, x) in input.iter_mut().enumerate() {
                *x *= match layout {
                    Layout::Nhwc => mask[i / 3],
                    Layout::Nchw => mask[i % mask.len()],
                };
            }
            Ok(())
        };
        Ok(model.head.logits(&model.run(&v.plan, masked)?.pooled, 1.0))
    };
    score_maps(&features, &head, classes, v.plan.size, SCORE_CHANNELS, infer, out)
}

/// `[geometry]` for pictures that are to be explained whole, at the model's size.
pub fn whole_picture() -> GeometryConfig {
    GeometryConfig { fit: crate::config::Fit::Stretch, ..GeometryConfig::default() }
}
