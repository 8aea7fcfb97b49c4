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

use crate::classes::{ClassError, ClassPicker, softmax};
use crate::config::{Config, Filter, GeometryConfig, Method};
use crate::frame::Picture;
use crate::heatmap::method::{FeatureView, HeadView, MethodError, class_maps, score_maps};
use crate::heatmap::{ClassScore, ViewReport, filter};
use crate::int8::graph::Layout;
use crate::model::{Model, ModelError, Pass, Plan};
use crate::preprocess::geometry::{Geometry, GeometryError};
use crate::preprocess::resize::{ChannelLayout, InputScaling, ResizeError, ViewResizer};
use crate::tta::merge::{MapMerger, Weight};
use crate::tta::view::{View, WeightedView, views};
use rayon::prelude::*;
use std::sync::{Arc, Mutex};
use std::time::Instant;

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
}

/// A view with everything that running it takes.
struct Prepared {
    view: View,
    weight: f32,
    plan: Arc<Plan>,
    /// A view runs on one thread at a time.
    resizer: Mutex<ViewResizer>,
}

/// Explains pictures of one size with one model and one configuration.
pub struct Explainer {
    model: Arc<Model>,
    /// `[height, width]` of the base picture.
    size: [usize; 2],
    views: Vec<Prepared>,
    method: Method,
    filter: Filter,
    picker: ClassPicker,
    geometry: Geometry,
    merger: MapMerger,
    map: Vec<f32>,
    pool: rayon::ThreadPool,
    threads: usize,
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
        let prepared =
            weighted.iter().map(|v| prepare(&model, size, v)).collect::<Result<_, _>>()?;
        let picker = ClassPicker::new(&config.classes, &model.labels)?;
        let geometry = Geometry::new(&config.geometry)?;
        Ok(Self {
            size,
            views: prepared,
            method: config.heatmap.method,
            filter: config.heatmap.filter,
            picker,
            geometry,
            merger: MapMerger::default(),
            map: Vec::new(),
            pool,
            threads,
            model,
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

    /// Runs every view on a base picture of [`Explainer::size`] and merges their maps.
    pub fn explain(&mut self, base: &Picture) -> Result<Explanation, ExplainError> {
        let start = Instant::now();
        let passes = self.passes(base)?;
        let merged = self.merge(base, &passes)?;
        Ok(Explanation { spent_ms: start.elapsed().as_secs_f64() * 1e3, ..merged })
    }

    /// The passes of all views, with the time each took.
    fn passes(&self, base: &Picture) -> Result<Vec<(Pass, f64)>, ExplainError> {
        let run = |v: &Prepared| -> Result<(Pass, f64), ExplainError> {
            let start = Instant::now();
            let pass = v.run(&self.model, base)?;
            Ok((pass, start.elapsed().as_secs_f64() * 1e3))
        };
        // Views side by side as long as there are enough of them; else rows.
        let rows = if self.views.len() < self.threads { self.threads } else { 1 };
        self.model.set_row_threads(rows);
        self.pool.install(|| {
            if self.threads == 1 || rows > 1 {
                return self.views.iter().map(run).collect();
            }
            // The dearest first, each taken by the next free thread, so that none is left
            // with the largest view at the end.
            let mut order: Vec<usize> = (0..self.views.len()).collect();
            let area =
                |i: &usize| std::cmp::Reverse(self.views[*i].plan.size.iter().product::<usize>());
            order.sort_by_key(area);
            let queue = order.into_par_iter().with_max_len(1).map(|i| (i, run(&self.views[i])));
            let mut passes: Vec<_> = queue.collect();
            passes.sort_by_key(|(i, _)| *i);
            passes.into_iter().map(|(_, pass)| pass).collect()
        })
    }

    fn merge(
        &mut self,
        base: &Picture,
        passes: &[(Pass, f64)],
    ) -> Result<Explanation, ExplainError> {
        let [height, width] = self.size;
        let mut logits = vec![0.0; self.model.head.classes];
        for (v, (pass, _)) in self.views.iter().zip(passes) {
            logits.iter_mut().zip(&pass.logits).for_each(|(sum, l)| *sum += v.weight * l);
        }
        let probabilities = softmax(&logits);
        let classes = self.picker.pick(&probabilities);
        self.merger.begin(height, width, classes.len(), logits.len());
        for (v, (pass, _)) in self.views.iter().zip(passes) {
            view_maps(&self.model, self.method, v, base, pass, &classes, &mut self.map)?;
            let grid = [pass.height, pass.width];
            self.merger.add(v.view, Weight::Uniform(v.weight), grid, &self.map, &pass.logits);
        }
        let mut values = self.merger.map().to_vec();
        filter::apply(self.filter, &mut values, classes.len());
        let score = |&index: &usize| ClassScore {
            index,
            label: self.model.labels[index].clone(),
            logit: logits[index],
            probability: probabilities[index],
        };
        let report = |(v, (_, spent_ms)): (&Prepared, &(Pass, f64))| ViewReport {
            scale: v.view.scale,
            hflip: v.view.hflip,
            weight: v.weight,
            spent_ms: *spent_ms,
            age_ms: 0.0,
        };
        Ok(Explanation {
            height,
            width,
            values,
            classes: classes.iter().map(score).collect(),
            views: self.views.iter().zip(passes).map(report).collect(),
            logits,
            spent_ms: 0.0,
        })
    }

    /// Worker threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The model; [`Model::cancel`] abandons a running [`Explainer::explain`].
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
}

impl Prepared {
    fn run(&self, model: &Model, base: &Picture) -> Result<Pass, ExplainError> {
        let mut resizer = self.resizer.lock().unwrap_or_else(|e| e.into_inner());
        model.run(&self.plan, |input| Ok(resizer.resize(base, input)?))
    }
}

fn prepare(model: &Model, size: [usize; 2], v: &WeightedView) -> Result<Prepared, ExplainError> {
    let [h, w] = size;
    let view_size = v.view.size(h, w);
    let plan = model.plan(view_size)?;
    let n = model.normalisation;
    let layout = match model.input_layout() {
        Layout::Nhwc => ChannelLayout::Hwc,
        Layout::Nchw => ChannelLayout::Chw,
    };
    let scaling = InputScaling { mean: n.mean, std: n.std, colour: n.order, layout };
    let resizer = ViewResizer::new(size, view_size, v.view.hflip, &scaling)?;
    Ok(Prepared { view: v.view, weight: v.weight, plan, resizer: Mutex::new(resizer) })
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
        Ok(model.run(&v.plan, masked)?.logits)
    };
    score_maps(&features, &head, classes, v.plan.size, SCORE_CHANNELS, infer, out)
}

/// `[geometry]` for pictures that are to be explained whole, at the model's size.
pub fn whole_picture() -> GeometryConfig {
    GeometryConfig { fit: crate::config::Fit::Stretch, ..GeometryConfig::default() }
}
