//! Loads a model, exposes its features and head, and infers. The only room that knows
//! tract.
//!
//! The graph is cut at the tensor that global average pooling reads (`head`); quantized
//! operators become regions of our own (`import`, `op`); tract runs the rest. Pooling
//! and head are computed here, in float, from the same features that the maps are made of.

mod costs;
mod features;
mod head;
mod import;
mod limits;
mod lower;
pub mod metadata;
mod onnx;
mod op;
mod zero_points;

pub use head::Head;
pub use import::{Fallback, Int8Node};
pub use metadata::Normalisation;

use crate::config::ModelConfig;
use crate::int8::Isa;
use crate::int8::graph::{Layout, Op};
use costs::Costs;
pub use features::Features;
use op::{RegionOp, Shared};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{Factoid, ToDim, bail};

/// Why a model cannot be used: one line each, with the cause.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("{path}: cannot be read: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {bytes} bytes, the limit is {MOST_BYTES}", path = path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    /// Any of the others, with the file that it was met in.
    #[error("{path}: {why}", path = path.display())]
    File { path: PathBuf, why: Box<ModelError> },
    #[error("not a usable ONNX file: {0}")]
    Bad(String),
    #[error(
        "no global average pooling followed by a linear layer was found, and class activation \
         maps need both: {0}. Name the tensors with model.features and model.head if they are \
         there"
    )]
    NoHead(String),
    #[error("labels: {0}")]
    Labels(String),
    #[error("an input of {height}x{width} does not work: {why}")]
    Size { height: usize, width: usize, why: String },
    #[error("cancelled")]
    Cancelled,
    #[error("inference failed: {0}")]
    Run(String),
}

/// Larger files are refused: 1 GiB.
const MOST_BYTES: u64 = 1 << 30;

/// A loaded model. Plans for input sizes are made on demand, and kept while someone has them.
pub struct Model {
    /// Its file's name, or `default`, for people.
    pub name: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: Arc<str>,
    pub head: Head,
    pub labels: Vec<String>,
    pub normalisation: Normalisation,
    /// `[h, w]` that it was made for, where the file or the configuration says.
    pub native_size: Option<[usize; 2]>,
    /// Whether other sizes work.
    pub dynamic: bool,
    /// Numbers in the file's weights, head included.
    pub parameters: u64,
    /// Bytes of weights as they are kept: packed in int8, else in float.
    pub weight_bytes: usize,
    /// Operators that run in int8, in the file's order.
    pub int8_nodes: Vec<Int8Node>,
    /// Nodes before the pooling that run in float, and why.
    pub float_nodes: Vec<Fallback>,
    /// Those of them that run in float although the file is quantized.
    pub fallbacks: Vec<Fallback>,
    pub isa: Isa,
    /// Names of tensors and nodes, for reports.
    pub features: String,
    pub ending: String,
    input_layout: Layout,
    features_layout: Layout,
    graph: InferenceModel,
    shared: Arc<Shared>,
    regions: usize,
    plans: Mutex<HashMap<[usize; 2], Weak<Plan>>>,
}

/// A model at one input size, ready to run.
pub struct Plan {
    /// `[h, w]` of the input.
    pub size: [usize; 2],
    /// `[h, w]` of the features.
    pub grid: [usize; 2],
    /// Multiply-accumulates in int8 operators and in float ones.
    pub macs_int8: u64,
    pub macs_float: u64,
    /// Bytes of int8 activations.
    pub arena_bytes: usize,
    /// Bytes of float tensors alive at the same time, at most: input, features and what
    /// is between them in float.
    pub float_bytes: usize,
    runnable: Arc<TypedRunnableModel>,
}

/// What one forward pass gives.
#[derive(Debug, PartialEq)]
pub struct Pass {
    /// `[height, width, channels]`.
    pub features: Features,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// Mean of each channel: what the head reads, once for all views, as it is linear.
    pub pooled: Vec<f32>,
}

/// The model that `demo` and an empty configuration run: models/README.md.
const DEFAULT: &[u8] = include_bytes!("../../models/default-int8.onnx");

impl Model {
    /// The configured file, or the embedded default where none is.
    pub fn configured(config: &ModelConfig) -> Result<Model, ModelError> {
        match &config.path {
            Some(path) => Self::load(path, config),
            None => Self::from_bytes("default", DEFAULT, config),
        }
    }

    /// Loads an ONNX file.
    pub fn load(path: &Path, config: &ModelConfig) -> Result<Model, ModelError> {
        let read = |source| ModelError::Read { path: path.to_path_buf(), source };
        let bytes = std::fs::metadata(path).map_err(read)?.len();
        if bytes > MOST_BYTES {
            return Err(ModelError::TooLarge { path: path.to_path_buf(), bytes });
        }
        let data = std::fs::read(path).map_err(read)?;
        // The folders on the way are nobody's business: clients are told this name.
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        Self::from_bytes(&name, data, config)
            .map_err(|why| ModelError::File { path: path.to_path_buf(), why: why.into() })
    }

    /// Loads an ONNX file that is in memory already.
    pub fn from_bytes(
        name: &str,
        data: impl AsRef<[u8]>,
        config: &ModelConfig,
    ) -> Result<Model, ModelError> {
        Self::with_isa(name, data, config, Isa::best())
    }

    /// As [`Model::from_bytes`], with kernels for the given instruction set.
    pub fn with_isa(
        name: &str,
        data: impl AsRef<[u8]>,
        config: &ModelConfig,
        isa: Isa,
    ) -> Result<Model, ModelError> {
        let sha256: String =
            Sha256::digest(data.as_ref()).iter().map(|b| format!("{b:02x}")).collect();
        let mut proto = tract_onnx::onnx()
            .proto_model_for_read(&mut data.as_ref())
            .map_err(|e| ModelError::Bad(format!("{e:#}")))?;
        drop(data);
        limits::check_tensors(&proto)?;
        zero_points::complete(&mut proto);
        let parameters = parameters(&proto);
        let normalisation = metadata::normalisation(&proto, config)?;
        let graph = onnx::Graph::new(&proto)?;
        let ending = head::find(&graph, config.features.as_deref(), config.head.as_deref())?;
        let input = Input::of(&proto)?;
        let labels = metadata::labels(&proto, config, ending.head.classes)?;
        let native_size = config.size.or(metadata::native_size(&proto)?).or(input.size);
        let features = dequantized(&mut proto, &ending.features);
        onnx::prune(&mut proto, std::slice::from_ref(&features));
        limits::check_nodes(&proto)?;
        let imported = imported(&mut proto, isa)?;
        let mut model = Model {
            name: name.to_string(),
            sha256: sha256.into(),
            head: ending.head,
            labels,
            normalisation,
            native_size,
            dynamic: input.size.is_none(),
            parameters,
            weight_bytes: 0,
            int8_nodes: imported.int8.clone(),
            float_nodes: Vec::new(),
            fallbacks: imported.fallbacks.clone(),
            isa,
            features: ending.features,
            ending: format!("{} → {}", ending.pooling, ending.linear),
            input_layout: input.layout,
            features_layout: ending.layout,
            graph: InferenceModel::default(),
            shared: Arc::default(),
            regions: imported.regions.len(),
            plans: Mutex::default(),
        };
        model.graph = model.rewrite(proto, imported, &input.name, &features)?;
        for f in &model.fallbacks {
            log::warn!("{name}: {} `{}` runs in float: {}", f.op, f.node, f.why);
        }
        Ok(model)
    }

    /// Replaces what the regions took over and lets tract parse the rest.
    fn rewrite(
        &mut self,
        mut proto: ModelProto,
        imported: import::Imported,
        input: &str,
        features: &str,
    ) -> Result<InferenceModel, ModelError> {
        let graph = proto.graph.as_mut().expect("was indexed before");
        let only_region = imported.regions.len() == 1;
        let mut regions = Vec::new();
        let mut nodes = Vec::new();
        for (i, placed) in imported.regions.into_iter().enumerate() {
            let mut region = placed.region;
            // A region from the graph's input to the features needs no transposition.
            if only_region && placed.inputs == [input] && placed.outputs == [features] {
                region.inputs[0] = Layout::Nhwc;
                region.outputs[0].0 = Layout::Nhwc;
                self.input_layout = Layout::Nhwc;
                self.features_layout = Layout::Nhwc;
            }
            nodes.push(tract_onnx::pb::NodeProto {
                name: format!("int8_region_{i}"),
                op_type: op::OP_TYPE.into(),
                input: placed.inputs,
                output: placed.outputs,
                attribute: vec![tract_onnx::pb::AttributeProto {
                    name: "region".into(),
                    i: i as i64,
                    ..Default::default()
                }],
                ..Default::default()
            });
            regions.push(RegionOp { region: Arc::new(region), shared: self.shared.clone() });
        }
        let made: HashSet<String> = nodes.iter().flat_map(|n| n.output.clone()).collect();
        graph.node.retain(|n| {
            !n.output.iter().any(|o| imported.replaced.contains(o) || made.contains(o))
        });
        graph.node.extend(nodes);
        graph.node.extend(imported.added);
        onnx::prune(&mut proto, &[features.to_string()]);
        self.float_nodes = self.left_in_float(&proto);
        let packed =
            regions.iter().flat_map(|r| &r.region.ops).map(Op::weight_bytes).sum::<usize>();
        let head = self.head.weights.len() + self.head.bias.len();
        self.weight_bytes = packed + 4 * (parameters(&proto) as usize + head);
        let mut onnx =
            tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
        onnx.op_register.insert(op::OP_TYPE, op::build);
        let parsed = limits::shielded(|| op::with_regions(regions, || onnx.parse(&proto, None)))
            .map_err(|e| ModelError::Bad(format!("{e:#}")))?;
        Ok(parsed.model)
    }

    /// The nodes that tract runs, with the reason for each.
    fn left_in_float(&self, proto: &ModelProto) -> Vec<Fallback> {
        let between = [op::OP_TYPE, "QuantizeLinear", "DequantizeLinear", "Constant", "Identity"];
        let nodes = proto.graph.iter().flat_map(|g| &g.node);
        let nodes = nodes.filter(|n| !between.contains(&&*n.op_type));
        let known: HashMap<&str, &String> =
            self.fallbacks.iter().map(|f| (&*f.node, &f.why)).collect();
        let why = |output: &str| match known.get(output) {
            Some(why) => why.to_string(),
            None if self.is_int8() || !self.fallbacks.is_empty() => {
                "it stands between float nodes, or has no int8 operator".into()
            }
            None => "the file is not quantized".into(),
        };
        nodes
            .map(|n| {
                let node = n.output.first().cloned().unwrap_or_default();
                Fallback { why: why(&node), op: n.op_type.clone(), node }
            })
            .collect()
    }

    /// Whether any operator runs in int8.
    pub fn is_int8(&self) -> bool {
        self.regions > 0
    }

    /// The plan for an input of `[h, w]`, made where nobody has it.
    pub fn plan(&self, size: [usize; 2]) -> Result<Arc<Plan>, ModelError> {
        let mut plans = self.plans.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(plan) = plans.get(&size).and_then(Weak::upgrade) {
            return Ok(plan);
        }
        let known = plans.len();
        plans.retain(|_, plan| plan.strong_count() > 0);
        if plans.len() < known {
            // Of the size of plans that are gone.
            self.shared.forget();
        }
        let plan = Arc::new(self.new_plan(size)?);
        plans.insert(size, Arc::downgrade(&plan));
        Ok(plan)
    }

    /// The shortest side of a square input that works, up to one that is known to work: a
    /// window that pads nothing needs as many pixels as it is wide. None: the size is fixed.
    pub fn shortest_side(&self, known: usize) -> Option<usize> {
        if !self.dynamic {
            return None;
        }
        let works = |side: usize| {
            let shape = self.input_shape([side, side]);
            limits::shielded(|| self.typed(shape)).is_ok_and(|model| {
                let fact = model.output_fact(0).ok().and_then(|f| f.shape.as_concrete());
                fact.is_some_and(|shape| !shape.contains(&0))
            })
        };
        let (mut short, mut known) = (0, known);
        while known - short > 1 {
            let side = short.midpoint(known);
            if works(side) { known = side } else { short = side }
        }
        Some(known)
    }

    fn input_shape(&self, [height, width]: [usize; 2]) -> [usize; 4] {
        match self.input_layout {
            Layout::Nchw => [1, 3, height, width],
            Layout::Nhwc => [1, height, width, 3],
        }
    }

    fn typed(&self, input: [usize; 4]) -> TractResult<TypedModel> {
        let mut graph = self.graph.clone().with_input_fact(0, f32::fact(input).into())?;
        // tract works out what does not depend on the input, and an empty picture does not;
        // its pooling panics on one.
        graph.analyse(false)?;
        for node in &graph.nodes {
            let shapes = node.outputs.iter().filter_map(|out| out.fact.shape.concretize());
            for shape in shapes.filter(|shape| shape.len() == 4) {
                if shape.contains(&0.to_dim()) {
                    bail!("nothing is left of it at `{}`", node.name);
                }
            }
            let shapes =
                node.outputs.iter().filter_map(|out| out.fact.shape.as_concrete_finite().ok()?);
            for shape in shapes {
                limits::tensor_bytes(&node.name, &shape)?;
            }
        }
        graph.into_typed()
    }

    fn new_plan(&self, size: [usize; 2]) -> Result<Plan, ModelError> {
        let [height, width] = size;
        let fail = |why: String| ModelError::Size { height, width, why };
        if !self.dynamic && self.native_size.is_some_and(|n| n != size) {
            let [h, w] = self.native_size.unwrap_or_default();
            return Err(fail(format!("the model has a fixed input of {h}x{w}")));
        }
        let shape = self.input_shape(size);
        let typed = limits::shielded(|| self.typed(shape)?.into_decluttered());
        let typed = typed.map_err(|e| fail(format!("{e:#}")))?;
        // Before tract works out how windows move: what that takes is looked at, too.
        let Costs { macs_int8, macs_float, arena_bytes, float_bytes } =
            Costs::of(&typed).map_err(fail)?;
        let fact = typed.output_fact(0).map_err(|e| fail(format!("{e:#}")))?;
        let out = fact.shape.as_concrete().map(<[usize]>::to_vec).unwrap_or_default();
        let grid = match (self.features_layout, &out[..]) {
            (Layout::Nchw, &[1, c, h, w]) | (Layout::Nhwc, &[1, h, w, c])
                if c == self.head.channels && h * w > 0 =>
            {
                [h, w]
            }
            _ => {
                return Err(fail(format!(
                    "features of shape {out:?} do not match a head of {} channels",
                    self.head.channels
                )));
            }
        };
        let optimized = limits::shielded(|| typed.into_optimized()?.into_runnable());
        let runnable = optimized.map_err(|e| fail(format!("{e:#}")))?;
        Ok(Plan { size, grid, macs_int8, macs_float, arena_bytes, float_bytes, runnable })
    }

    /// How a pass lays out its input: `[h, w, 3]` or `[3, h, w]`.
    pub fn input_layout(&self) -> Layout {
        self.input_layout
    }

    /// How many threads of the current rayon pool one pass may spread over.
    pub fn set_row_threads(&self, threads: usize) {
        self.shared.row_threads.store(threads, Ordering::Relaxed);
    }

    /// Abandons running passes between two operators, until called with `false`.
    pub fn cancel(&self, cancel: bool) {
        self.shared.cancel.store(cancel, Ordering::Relaxed);
    }

    /// One forward pass. `fill` writes the normalised input, in [`Model::input_layout`],
    /// where the model reads it: at the larger views a copy would cost megabytes.
    pub fn run<E: From<ModelError>>(
        &self,
        plan: &Plan,
        fill: impl FnOnce(&mut [f32]) -> Result<(), E>,
    ) -> Result<Pass, E> {
        let shape = self.input_shape(plan.size);
        let failed = |e: TractError| ModelError::Run(format!("{e:#}"));
        let mut tensor = self.shared.take_input(&shape).map_err(failed)?;
        {
            let mut plain = tensor.try_as_plain_ram_mut().map_err(failed)?;
            fill(plain.as_slice_mut::<f32>().map_err(failed)?)?;
        }
        let input = tensor.into_tvalue();
        let run = || -> TractResult<TValue> {
            let mut state = plan.runnable.spawn()?;
            let shared = self.shared.clone();
            let mut outputs = state.run_plan_with_eval(
                tvec!(input.clone()),
                |context, op_state, node, inputs| {
                    if shared.cancel.load(Ordering::Relaxed) {
                        return Err(TractError::msg("cancelled"));
                    }
                    tract_onnx::tract_core::plan::eval(context, op_state, node, inputs)
                },
            )?;
            Ok(outputs.remove(0))
        };
        let raw = limits::shielded(run).map_err(|e| {
            if self.shared.cancel.load(Ordering::Relaxed) {
                return ModelError::Cancelled;
            }
            ModelError::Run(format!("{e:#}"))
        })?;
        if input.is_exclusive() {
            self.shared.give_input(input.into_tensor());
        }
        let ([height, width], channels) = (plan.grid, self.head.channels);
        let mut features = raw.into_tensor();
        if self.features_layout == Layout::Nchw {
            let planes = features;
            features = self.shared.take_features(&[1, height, width, channels]).map_err(failed)?;
            channels_last(&planes, &mut features).map_err(failed)?;
            self.shared.give_features(planes);
        }
        let features = Features::new(features, self.shared.clone());
        let pooled = self.head.pooled(&features);
        Ok(Pass { features, height, width, channels, pooled })
    }
}

/// Elements of all initializers of rank 1 and more: weights and biases, not scales.
fn parameters(proto: &ModelProto) -> u64 {
    let tensors = proto.graph.iter().flat_map(|g| &g.initializer);
    let sizes =
        tensors.map(|t| t.dims.iter().map(|&d| d.max(0) as u64).fold(1, u64::saturating_mul));
    sizes.filter(|&n| n > 1).fold(0, u64::saturating_add)
}

/// `[1, c, h, w]` into `[1, h, w, c]`.
fn channels_last(planes: &Tensor, out: &mut Tensor) -> TractResult<()> {
    let (&[_, channels, height, width], plain) = (planes.shape(), planes.try_as_plain_ram()?)
    else {
        return Err(TractError::msg("features of rank 4 expected"));
    };
    let mut out = out.try_as_plain_ram_mut()?;
    let out = out.as_slice_mut::<f32>()?;
    for (c, plane) in plain.as_slice::<f32>()?.chunks_exact(height * width).enumerate() {
        for (p, &v) in plane.iter().enumerate() {
            out[p * channels + c] = v;
        }
    }
    Ok(())
}

impl Head {
    /// Global average pooling of features `[h · w, channels]`.
    pub fn pooled(&self, features: &[f32]) -> Vec<f32> {
        let pixels = (features.len() / self.channels) as f32;
        let mut mean = vec![0f32; self.channels];
        for pixel in features.chunks_exact(self.channels) {
            mean.iter_mut().zip(pixel).for_each(|(m, a)| *m += a);
        }
        mean.iter_mut().for_each(|m| *m /= pixels);
        mean
    }

    /// The linear layer, over pooled features. The bias counts `weight` times: over the
    /// weighted sum of some views' pooled features and the sum of the weights, these are the
    /// weighted sum of the views' logits.
    pub fn logits(&self, pooled: &[f32], weight: f32) -> Vec<f32> {
        let mut logits: Vec<f32> = self.bias.iter().map(|b| weight * b).collect();
        for (p, row) in pooled.iter().zip(self.weights.chunks_exact(self.classes)) {
            logits.iter_mut().zip(row).for_each(|(l, w)| *l += p * w);
        }
        logits
    }
}

/// The model's one image input.
struct Input {
    name: String,
    layout: Layout,
    /// `[h, w]` where fixed.
    size: Option<[usize; 2]>,
}

impl Input {
    fn of(proto: &ModelProto) -> Result<Input, ModelError> {
        use tract_onnx::pb::tensor_shape_proto::dimension::Value;
        use tract_onnx::pb::type_proto::Value::TensorType;
        let bad = |why: String| Err(ModelError::Bad(why));
        let Some(graph) = &proto.graph else { return bad("it contains no graph".into()) };
        let constants: HashSet<&str> = graph.initializer.iter().map(|t| &*t.name).collect();
        let inputs: Vec<_> = graph.input.iter().filter(|i| !constants.contains(&*i.name)).collect();
        let [input] = inputs[..] else {
            return bad(format!("{} inputs, expected one", inputs.len()));
        };
        let shape = input.r#type.as_ref().and_then(|t| t.value.as_ref());
        let Some(TensorType(tensor)) = shape else {
            return bad(format!("its input `{}` is no tensor", input.name));
        };
        let dims: Vec<Option<usize>> = tensor
            .shape
            .iter()
            .flat_map(|s| &s.dim)
            .map(|d| match d.value {
                Some(Value::DimValue(n)) if n > 0 => Some(n as usize),
                _ => None,
            })
            .collect();
        let (layout, h, w) = match dims[..] {
            [_, Some(3), h, w] => (Layout::Nchw, h, w),
            [_, h, w, Some(3)] => (Layout::Nhwc, h, w),
            _ => {
                let shown: Vec<String> =
                    dims.iter().map(|d| d.map_or("?".into(), |d| d.to_string())).collect();
                return bad(format!(
                    "its input `{}` is [{}], expected [1, 3, h, w] or [1, h, w, 3]",
                    input.name,
                    shown.join(", ")
                ));
            }
        };
        let size = h.zip(w).map(|(h, w)| [h, w]);
        Ok(Input { name: input.name.clone(), layout, size })
    }
}

/// What runs in int8. What does not is a float operator afterwards, in any dialect.
fn imported(proto: &mut ModelProto, isa: Isa) -> Result<import::Imported, ModelError> {
    let graph = onnx::Graph::new(proto)?;
    let imported = import::import(&graph, isa);
    let lowered = lower::lowered(&graph, &imported.fallbacks);
    if lowered.is_empty() {
        return Ok(imported);
    }
    drop(imported);
    lower::replace(proto, lowered);
    Ok(import::import(&onnx::Graph::new(proto)?, isa))
}

/// The float tensor of the features: pooling on integers gets a DequantizeLinear.
fn dequantized(proto: &mut ModelProto, features: &str) -> String {
    let Some(graph) = proto.graph.as_mut() else { return features.to_string() };
    let reader = graph
        .node
        .iter()
        .find(|n| n.op_type == "QLinearGlobalAveragePool" && n.input[0] == features);
    let Some(reader) = reader else { return features.to_string() };
    let name = format!("{features}_float");
    let node = tract_onnx::pb::NodeProto {
        op_type: "DequantizeLinear".into(),
        input: reader.input[..3].to_vec(),
        output: vec![name.clone()],
        ..Default::default()
    };
    graph.node.push(node);
    name
}
