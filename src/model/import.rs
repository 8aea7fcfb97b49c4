//! Recognises quantized operators in an ONNX graph, in both of its dialects, and makes
//! them ours.
//!
//! * QDQ (ONNX Runtime's static quantization, NNCF): float operators between
//!   DequantizeLinear and QuantizeLinear.
//! * QOperator: QLinearConv and com.microsoft's QLinearAdd on integer tensors.
//!
//! What is recognised leaves the graph as [`Region`]s; what is not stays for tract, in
//! float, and is listed with the reason.

use super::ModelError;
use super::onnx::{Graph, attribute, elements, int, ints};
use crate::int8::aligned::Shelf;
use crate::int8::elementwise::{Rescale, Term};
use crate::int8::graph::{Layout, Op, Pads, Region, TensorInfo, Window};
use crate::int8::pack::{PackError, PackedDepthwise, PackedGemm, Requant};
use crate::int8::{Clamp, Isa, Quant, depthwise::MAX_TAPS, store};
use std::collections::{BTreeMap, HashMap, HashSet};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;

/// A region and its place in the graph.
#[derive(Debug)]
pub struct Placed {
    pub region: Region,
    /// Float tensors that it reads, in the order of [`Region::inputs`].
    pub inputs: Vec<String>,
    /// Float tensors that it makes, in the order of [`Region::outputs`].
    pub outputs: Vec<String>,
}

/// A node with weights that runs in float although the file is quantized, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fallback {
    pub node: String,
    pub op: String,
    pub why: String,
}

/// An operator that runs in int8.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Int8Node {
    /// The ONNX tensor that it makes.
    pub node: String,
    pub op: &'static str,
}

/// What became of a graph.
#[derive(Debug, Default)]
pub struct Imported {
    pub regions: Vec<Placed>,
    pub int8: Vec<Int8Node>,
    /// Names of all outputs of nodes that the regions replace.
    pub replaced: HashSet<String>,
    pub fallbacks: Vec<Fallback>,
}

/// Imports every quantized operator that `output` needs. `graph` must be pruned to it.
pub fn import(graph: &Graph, isa: Isa) -> Result<Imported, ModelError> {
    let mut importer = Importer { graph, quants: HashMap::new(), fallbacks: Vec::new() };
    let found = importer.recognise();
    let fallbacks = std::mem::take(&mut importer.fallbacks);
    if found.is_empty() {
        return Ok(Imported { fallbacks, ..Imported::default() });
    }
    let mut imported = Builder::new(graph, &importer.quants, found).build(isa)?;
    imported.fallbacks.extend(fallbacks);
    Ok(imported)
}

/// A quantized operator: quantized tensors in, one out.
struct Found {
    kind: Kind,
    inputs: Vec<String>,
    output: String,
    /// Name of the tensor that carries the operator's name in reports.
    name: String,
    /// Indices of the nodes that it replaces, besides the Dequantize nodes before it.
    nodes: Vec<usize>,
    /// Lower and upper bound in real values, of a ReLU or Clip folded in.
    bounds: Option<[f32; 2]>,
}

enum Kind {
    Conv { weights: Weights, bias: Bias, window: Window, group: usize },
    Add,
    Rescale,
    MaxPool(Window),
    Pad([usize; 4]),
}

struct Weights {
    /// `[out, in / group, kh, kw]`, zero points taken off.
    values: Vec<i8>,
    shape: [usize; 4],
    /// One per output channel.
    scales: Vec<f32>,
}

enum Bias {
    None,
    Float(Vec<f32>),
    /// In units of input scale · weight scale.
    Integer(Vec<i32>),
}

struct Importer<'g> {
    graph: &'g Graph<'g>,
    /// The affine map of every quantized tensor.
    quants: HashMap<String, Quant>,
    fallbacks: Vec<Fallback>,
}

impl Found {
    /// For reports.
    fn node(&self) -> Int8Node {
        let op = match &self.kind {
            Kind::Conv { weights, group, .. } if *group > 1 && *group == weights.shape[0] => {
                "depthwise Conv"
            }
            Kind::Conv { .. } => "Conv",
            Kind::Add => "Add",
            Kind::Rescale => "rescaling or ReLU",
            Kind::MaxPool(_) => "MaxPool",
            Kind::Pad(_) => "Pad",
        };
        Int8Node { node: self.name.clone(), op }
    }
}

impl<'g> Importer<'g> {
    fn recognise(&mut self) -> Vec<Found> {
        let mut found = Vec::new();
        let mut quantized_file = false;
        for (i, node) in self.graph.proto.node.iter().enumerate() {
            quantized_file |= is_quantization(&node.op_type);
            match self.operator(i, node) {
                Ok(Some(op)) => {
                    if let Ok(quant) = self.output_quant(&op) {
                        self.quants.insert(op.output.clone(), quant);
                        found.push(op);
                    }
                }
                Ok(None) => {}
                Err(why) => {
                    let name = node.output.first().cloned().unwrap_or_default();
                    self.fallbacks.push(Fallback { node: name, op: node.op_type.clone(), why });
                }
            }
        }
        if !quantized_file {
            self.fallbacks.clear();
        }
        found
    }

    /// Ok(None): not an operator with work of its own, or plainly a float one.
    fn operator(&mut self, index: usize, node: &'g NodeProto) -> Result<Option<Found>, String> {
        match &*node.op_type {
            "Conv" => self.qdq(index, node, 1, |me| me.conv(node)).map(Some),
            "Add" => self.qdq(index, node, 2, |_| Ok(Kind::Add)).map(Some),
            "MaxPool" if self.is_quantized(&node.input[0]) => self.bare_pool(index, node).map(Some),
            "MaxPool" => {
                self.qdq(index, node, 1, |_| Ok(Kind::MaxPool(window(node, None)?))).map(Some)
            }
            "Pad" => self.qdq(index, node, 1, |me| me.pad(node)).map(Some),
            "Relu" | "Clip" => match self.folded(node) {
                true => Ok(None),
                false => self.qdq(index, node, 1, |_| Ok(Kind::Rescale)).map(Some),
            },
            "QuantizeLinear" => self.requantize(index, node),
            "QLinearConv" => self.qlinear_conv(index, node).map(Some),
            "QLinearAdd" => self.qlinear_add(index, node).map(Some),
            "ConvInteger" => {
                Err("it is quantized dynamically: its input's scale is found anew for every \
                     picture; quantize statically"
                    .into())
            }
            _ => Ok(None),
        }
    }

    /// A ReLU or Clip right after a convolution or addition goes with that.
    fn folded(&self, node: &NodeProto) -> bool {
        let before = self.graph.producer(&node.input[0]);
        before.is_some_and(|p| {
            matches!(&*p.op_type, "Conv" | "Add")
                && self.graph.only_consumer(&node.input[0]).is_some()
        })
    }

    fn is_quantized(&self, tensor: &str) -> bool {
        self.quants.contains_key(tensor)
    }

    /// The quantized tensor behind a float one that a DequantizeLinear makes.
    fn behind(&self, tensor: &str) -> Result<String, String> {
        let producer = self.graph.producer(tensor);
        match producer {
            Some(dq) if dq.op_type == "DequantizeLinear" && self.is_quantized(&dq.input[0]) => {
                let own = self.quants[&dq.input[0]];
                let named = self.quant(&dq.input, 1)?;
                if own == named {
                    Ok(dq.input[0].clone())
                } else {
                    Err(format!(
                        "`{tensor}` is dequantized with another scale than it was made with"
                    ))
                }
            }
            _ => Err(format!("its input `{tensor}` is float")),
        }
    }

    /// A float operator between Dequantize and Quantize nodes.
    fn qdq(
        &mut self,
        index: usize,
        node: &'g NodeProto,
        inputs: usize,
        kind: impl FnOnce(&Self) -> Result<Kind, String>,
    ) -> Result<Found, String> {
        let from =
            node.input.iter().take(inputs).map(|i| self.behind(i)).collect::<Result<_, _>>()?;
        let mut nodes = vec![index];
        let mut bounds = None;
        let mut tensor = &node.output[0];
        let mut current = node;
        // [Relu | Clip] then QuantizeLinear; the operator itself may be the ReLU.
        loop {
            match &*current.op_type {
                "Relu" => bounds = Some([0.0, f32::INFINITY]),
                "Clip" => bounds = Some(self.clip_bounds(current)?),
                _ => {}
            }
            let next = self
                .graph
                .only_consumer(tensor)
                .ok_or_else(|| format!("`{tensor}` is used in float"))?;
            nodes.push(next);
            current = &self.graph.proto.node[next];
            tensor = &current.output[0];
            match &*current.op_type {
                "QuantizeLinear" => break,
                "Relu" | "Clip" if bounds.is_none() => {}
                other => {
                    return Err(format!("its output goes into {other} without being quantized"));
                }
            }
        }
        let name = node.output[0].clone();
        Ok(Found { kind: kind(self)?, inputs: from, output: tensor.clone(), name, nodes, bounds })
    }

    fn clip_bounds(&self, node: &NodeProto) -> Result<[f32; 2], String> {
        let value = |i: usize, name: &str, default: f32| -> Result<f32, String> {
            if let Some(a) = attribute(node, name) {
                return Ok(a.f);
            }
            match node.input.get(i).filter(|n| !n.is_empty()) {
                None => Ok(default),
                Some(n) => self
                    .graph
                    .float_constant(n)
                    .and_then(|(v, _)| v.first().copied())
                    .ok_or_else(|| format!("its bound `{n}` is no constant")),
            }
        };
        Ok([value(1, "min", f32::NEG_INFINITY)?, value(2, "max", f32::INFINITY)?])
    }

    /// DequantizeLinear → QuantizeLinear with nothing between: a change of scale; and the
    /// border where a float tensor becomes int8.
    fn requantize(&mut self, index: usize, node: &NodeProto) -> Result<Option<Found>, String> {
        let quant = self.quant(&node.input, 1)?;
        self.quants.insert(node.output[0].clone(), quant);
        let Ok(from) = self.behind(&node.input[0]) else { return Ok(None) };
        let (output, name) = (node.output[0].clone(), node.output[0].clone());
        let kind = Kind::Rescale;
        Ok(Some(Found { kind, inputs: vec![from], output, name, nodes: vec![index], bounds: None }))
    }

    /// MaxPool on an integer tensor, as QOperator files have it: scale and zero point stay.
    fn bare_pool(&mut self, index: usize, node: &NodeProto) -> Result<Found, String> {
        let quant = self.quants[&node.input[0]];
        self.quants.insert(node.output[0].clone(), quant);
        Ok(Found {
            kind: Kind::MaxPool(window(node, None)?),
            inputs: vec![node.input[0].clone()],
            output: node.output[0].clone(),
            name: node.output[0].clone(),
            nodes: vec![index],
            bounds: None,
        })
    }

    fn output_quant(&self, op: &Found) -> Result<Quant, String> {
        if let Some(&quant) = self.quants.get(&op.output) {
            return Ok(quant);
        }
        let maker = self.graph.producer(&op.output).ok_or("it has no producer")?;
        self.quant(&maker.input, 1)
    }

    /// Scale and zero point from two neighbouring constant inputs of a node.
    fn quant(&self, inputs: &[String], at: usize) -> Result<Quant, String> {
        let (scale, zero_point, signed) = self.affine(inputs, at)?;
        let ([scale], [zero]) = (&scale[..], &zero_point[..]) else {
            return Err("an activation is quantized per channel".into());
        };
        if !(scale.is_finite() && *scale > 0.0) {
            return Err(format!("an activation has the scale {scale}"));
        }
        Ok(Quant { scale: *scale, zero_point: zero + if signed { 128 } else { 0 } })
    }

    /// Scales, zero points (as many), and whether the integers are signed.
    fn affine(&self, inputs: &[String], at: usize) -> Result<(Vec<f32>, Vec<i32>, bool), String> {
        let absent = || "its scale or zero point is no constant".to_string();
        let (scale, _) = self.graph.float_constant(&inputs[at]).ok_or_else(absent)?;
        let Some(name) = inputs.get(at + 1).filter(|n| !n.is_empty()) else {
            if scale.is_empty() {
                return Err("it has no scale".into());
            }
            let zeros = vec![0; scale.len()];
            return Ok((scale, zeros, false));
        };
        let zero = self.graph.constant(name).ok_or_else(absent)?;
        let signed = match zero.datum_type() {
            DatumType::U8 => false,
            DatumType::I8 => true,
            other => return Err(format!("it is quantized to {other:?}, not to 8 bits")),
        };
        let zero = integers(&zero)?;
        let n = scale.len().max(zero.len());
        if [scale.len(), zero.len()].iter().any(|&len| len == 0 || len != 1 && len != n) {
            return Err(format!("it has {} scales and {} zero points", scale.len(), zero.len()));
        }
        let stretch = |len: usize, i: usize| if len == 1 { 0 } else { i };
        let scales = (0..n).map(|i| scale[stretch(scale.len(), i)]).collect();
        Ok((scales, (0..n).map(|i| zero[stretch(zero.len(), i)]).collect(), signed))
    }

    fn conv(&self, node: &NodeProto) -> Result<Kind, String> {
        let dq = self
            .graph
            .producer(&node.input[1])
            .filter(|n| n.op_type == "DequantizeLinear" && self.graph.is_constant(&n.input[0]))
            .ok_or("its weights are float")?;
        let weights = self.weights(&dq.input, 0, 1)?;
        let bias = match node.input.get(2).filter(|n| !n.is_empty()) {
            None => Bias::None,
            Some(name) => {
                Bias::Float(self.graph.float_constant(name).ok_or("its bias is no constant")?.0)
            }
        };
        self.conv_kind(node, weights, bias)
    }

    fn conv_kind(&self, node: &NodeProto, weights: Weights, bias: Bias) -> Result<Kind, String> {
        let group = int(node, "group").unwrap_or(1).max(1) as usize;
        let window = window(node, Some([weights.shape[2], weights.shape[3]]))?;
        let [channels, _, kh, kw] = weights.shape;
        if !channels.is_multiple_of(group) {
            return Err(format!("{channels} channels in {group} groups"));
        }
        if window.kernel != [kh, kw] {
            return Err(format!("its weights are of {kh}x{kw}, its window is {:?}", window.kernel));
        }
        let biases = match &bias {
            Bias::None => channels,
            Bias::Float(b) => b.len(),
            Bias::Integer(b) => b.len(),
        };
        if biases != channels {
            return Err(format!("{biases} biases for {channels} channels"));
        }
        Ok(Kind::Conv { weights, bias, window, group })
    }

    /// Signed 8-bit weights; unsigned and asymmetric ones where they fit after the shift.
    fn weights(&self, inputs: &[String], value: usize, at: usize) -> Result<Weights, String> {
        let tensor = self.graph.constant(&inputs[value]).ok_or("its weights are no constant")?;
        let &[o, i, kh, kw] = tensor.shape() else {
            return Err("its weights are not of rank 4".into());
        };
        if tensor.shape().contains(&0) {
            return Err(format!("its weights have the shape {:?}", tensor.shape()));
        }
        let (scales, zeros, _) = self.affine(inputs, at)?;
        if scales.len() != 1 && scales.len() != o {
            return Err(format!("{} weight scales for {o} output channels", scales.len()));
        }
        let values = match (tensor.datum_type(), zeros.iter().all(|&z| z == 0)) {
            // The usual case, and the large one: nothing to take off.
            (DatumType::I8, true) => elements(&tensor).map_err(|e| e.to_string())?,
            _ => shifted(&integers(&tensor)?, &zeros, (i * kh * kw).max(1))?,
        };
        let scales = (0..o).map(|n| scales[if scales.len() == 1 { 0 } else { n }]).collect();
        Ok(Weights { values, shape: [o, i, kh, kw], scales })
    }

    fn pad(&self, node: &NodeProto) -> Result<Kind, String> {
        let pads = ints(node, "pads").map(Ok).unwrap_or_else(|| {
            let name = node.input.get(1).ok_or("it has no pads")?;
            let t = self.graph.constant(name).ok_or("its pads are no constant")?;
            Ok::<_, String>(integers(&t)?.into_iter().map(i64::from).collect())
        })?;
        let mode = attribute(node, "mode").map_or(&b"constant"[..], |a| &a.s);
        let value = node.input.get(2).filter(|n| !n.is_empty());
        let value = value.map_or(Some(0.0), |n| self.graph.float_constant(n)?.0.first().copied());
        if mode != b"constant" || value != Some(0.0) {
            return Err("it pads with something else than zeros".into());
        }
        match pads[..] {
            [0, 0, t, l, 0, 0, b, r] if t.min(l).min(b).min(r) >= 0 => {
                Ok(Kind::Pad([t as usize, l as usize, b as usize, r as usize]))
            }
            _ => Err("it pads other axes than height and width".into()),
        }
    }

    fn qlinear_conv(&mut self, index: usize, node: &NodeProto) -> Result<Found, String> {
        if !self.is_quantized(&node.input[0]) {
            return Err(format!("its input `{}` is not known", node.input[0]));
        }
        let weights = self.weights(&node.input, 3, 4)?;
        let bias = match node.input.get(8).filter(|n| !n.is_empty()) {
            None => Bias::None,
            Some(name) => Bias::Integer(integers(
                &self.graph.constant(name).ok_or("its bias is no constant")?,
            )?),
        };
        let quant = self.quant(&node.input, 6)?;
        self.quants.insert(node.output[0].clone(), quant);
        Ok(Found {
            kind: self.conv_kind(node, weights, bias)?,
            inputs: vec![node.input[0].clone()],
            output: node.output[0].clone(),
            name: node.output[0].clone(),
            nodes: vec![index],
            bounds: None,
        })
    }

    fn qlinear_add(&mut self, index: usize, node: &NodeProto) -> Result<Found, String> {
        let quant = self.quant(&node.input, 6)?;
        if !self.is_quantized(&node.input[0]) || !self.is_quantized(&node.input[3]) {
            return Err("one side of it is a constant or not known".into());
        }
        self.quants.insert(node.output[0].clone(), quant);
        Ok(Found {
            kind: Kind::Add,
            inputs: vec![node.input[0].clone(), node.input[3].clone()],
            output: node.output[0].clone(),
            name: node.output[0].clone(),
            nodes: vec![index],
            bounds: None,
        })
    }
}

/// Operators that only a quantized file has.
fn is_quantization(op: &str) -> bool {
    matches!(op, "QuantizeLinear" | "DequantizeLinear" | "DynamicQuantizeLinear" | "ConvInteger")
        || op.starts_with("QLinear")
}

/// Weights with their zero points taken off: one for all, or one for every `each` weights.
fn shifted(raw: &[i32], zeros: &[i32], each: usize) -> Result<Vec<i8>, String> {
    let zero = |n: usize| if zeros.len() == 1 { zeros[0] } else { zeros[n / each] };
    let values =
        raw.iter().enumerate().map(|(n, w)| i8::try_from(i64::from(*w) - i64::from(zero(n))));
    values.collect::<Result<_, _>>().map_err(|_| {
        "its weights are asymmetric and do not fit 8 bits without their zero point".into()
    })
}

fn integers(t: &Tensor) -> Result<Vec<i32>, String> {
    let t = t.cast_to::<i32>().map_err(|e| e.to_string())?;
    elements(&t).map_err(|e| e.to_string())
}

/// Kernel, stride, dilation and padding of a Conv or MaxPool.
fn window(node: &NodeProto, kernel: Option<[usize; 2]>) -> Result<Window, String> {
    let two = |name: &str, default: [usize; 2]| -> Result<[usize; 2], String> {
        match ints(node, name).as_deref() {
            None | Some([]) => Ok(default),
            Some(&[a, b]) if (1..=64).contains(&a) && (1..=64).contains(&b) => {
                Ok([a as usize, b as usize])
            }
            Some(other) => Err(format!("{name} is {other:?}")),
        }
    };
    if int(node, "ceil_mode").unwrap_or(0) != 0 {
        return Err("ceil_mode is set".into());
    }
    let kernel = two("kernel_shape", kernel.unwrap_or([1, 1]))?;
    let auto = attribute(node, "auto_pad").map_or(&b"NOTSET"[..], |a| &a.s);
    let pads = match auto {
        b"SAME_UPPER" => Pads::SameUpper,
        b"SAME_LOWER" => Pads::SameLower,
        b"VALID" => Pads::Fixed([0; 4]),
        _ => match ints(node, "pads").as_deref() {
            None | Some([]) => Pads::Fixed([0; 4]),
            Some(&[t, l, b, r]) if [t, l, b, r].iter().all(|p| (0..=64).contains(p)) => {
                Pads::Fixed([t as usize, l as usize, b as usize, r as usize])
            }
            Some(other) => return Err(format!("pads is {other:?}")),
        },
    };
    Ok(Window {
        kernel,
        stride: two("strides", [1, 1])?,
        dilation: two("dilations", [1, 1])?,
        pads,
    })
}

/// Turns what was found into regions.
///
/// Operators are grouped by level: the number of float stretches that must run before
/// them. Two operators of one level never wait for each other through float code, so a
/// level is one region.
struct Builder<'g> {
    graph: &'g Graph<'g>,
    quants: &'g HashMap<String, Quant>,
    found: Vec<Found>,
    /// By quantized tensor: the operator that makes it.
    maker: HashMap<String, usize>,
}

impl<'g> Builder<'g> {
    fn new(graph: &'g Graph<'g>, quants: &'g HashMap<String, Quant>, found: Vec<Found>) -> Self {
        let maker = found.iter().enumerate().map(|(i, f)| (f.output.clone(), i)).collect();
        Self { graph, quants, found, maker }
    }

    fn build(mut self, isa: Isa) -> Result<Imported, ModelError> {
        let levels = self.levels();
        let int8 = self.found.iter().map(Found::node).collect();
        let mut imported = Imported { int8, ..Imported::default() };
        let mut by_level: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (i, f) in self.found.iter().enumerate() {
            by_level.entry(levels[&f.output]).or_default().push(i);
            imported
                .replaced
                .extend(f.nodes.iter().flat_map(|&n| self.graph.proto.node[n].output.clone()));
        }
        for members in by_level.into_values() {
            imported.regions.push(self.region(isa, &members)?);
        }
        Ok(imported)
    }

    /// The level of every tensor.
    fn levels(&self) -> HashMap<String, usize> {
        let mut levels: HashMap<String, usize> = HashMap::new();
        for node in &self.graph.proto.node {
            let level = |t: &String| levels.get(t).copied().unwrap_or(0);
            let most = node.input.iter().map(level).max().unwrap_or(0);
            let is_ours = node.output.iter().any(|o| self.maker.contains_key(o));
            let reads_ours = |t: &String| {
                let dq = self.graph.producer(t).filter(|p| p.op_type == "DequantizeLinear");
                dq.is_some_and(|dq| self.maker.contains_key(&dq.input[0]))
            };
            // Between an operator and its QuantizeLinear the nodes belong to the operator.
            let inner = self
                .found
                .iter()
                .any(|f| f.nodes.iter().any(|&n| std::ptr::eq(&self.graph.proto.node[n], node)));
            let float_after = !is_ours
                && !inner
                && node.op_type != "DequantizeLinear"
                && node.input.iter().any(reads_ours);
            for o in &node.output {
                levels.insert(o.clone(), most + float_after as usize);
            }
        }
        levels
    }

    /// Whether a float tensor that a DequantizeLinear makes is read outside of `inside`.
    fn read_in_float(&self, tensor: &str, inside: &HashSet<usize>) -> bool {
        self.graph.is_output(tensor)
            || self.graph.consumers(tensor).iter().any(|c| !inside.contains(c))
    }

    fn region(&mut self, isa: Isa, members: &[usize]) -> Result<Placed, ModelError> {
        let inside: HashSet<usize> =
            self.found.iter().flat_map(|f| f.nodes.iter().copied()).collect();
        let mut r = RegionBuilder::new(isa, self.quants);
        for &m in members {
            for input in self.found[m].inputs.clone() {
                if !r.ids.contains_key(&input)
                    && !members.iter().any(|&o| self.found[o].output == input)
                {
                    let quantize =
                        self.graph.producer(&input).filter(|p| p.op_type == "QuantizeLinear");
                    let from = match quantize {
                        Some(q) if !self.maker.contains_key(&input) => q.input[0].clone(),
                        // Made by another region: it comes over in float.
                        _ => self.float_of(&input).ok_or_else(|| {
                            ModelError::Bad(format!("`{input}` is quantized, and nothing makes it"))
                        })?,
                    };
                    r.quantize(&input, from);
                }
            }
            let found = &self.found[m];
            r.operator(found).map_err(|why| ModelError::Bad(format!("`{}`: {why}", found.name)))?;
        }
        for &m in members {
            let output = self.found[m].output.clone();
            for &c in self.graph.consumers(&output) {
                let node = &self.graph.proto.node[c];
                if node.op_type == "DequantizeLinear"
                    && (self.read_in_float(&node.output[0], &inside)
                        || self.crosses(&output, members))
                {
                    r.dequantize(&output, node.output[0].clone());
                }
            }
        }
        r.finish()
    }

    /// Whether an operator of another region reads this tensor.
    fn crosses(&self, quantized: &str, members: &[usize]) -> bool {
        self.found
            .iter()
            .enumerate()
            .any(|(i, f)| !members.contains(&i) && f.inputs.iter().any(|input| input == quantized))
    }

    fn float_of(&self, quantized: &str) -> Option<String> {
        let mut readers =
            self.graph.consumers(quantized).iter().map(|&c| &self.graph.proto.node[c]);
        readers.find(|n| n.op_type == "DequantizeLinear").map(|n| n.output[0].clone())
    }
}

struct RegionBuilder<'q> {
    isa: Isa,
    shelf: Shelf,
    quants: &'q HashMap<String, Quant>,
    ids: HashMap<String, usize>,
    tensors: Vec<TensorInfo>,
    ops: Vec<Op>,
    inputs: Vec<String>,
    outputs: Vec<(String, usize)>,
}

impl<'q> RegionBuilder<'q> {
    fn new(isa: Isa, quants: &'q HashMap<String, Quant>) -> Self {
        Self {
            isa,
            shelf: Shelf::default(),
            quants,
            ids: HashMap::new(),
            tensors: Vec::new(),
            ops: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        }
    }

    fn tensor(&mut self, name: &str) -> usize {
        let quant = self.quants[name];
        self.tensors.push(TensorInfo { name: name.to_string(), quant });
        self.ids.insert(name.to_string(), self.tensors.len() - 1);
        self.tensors.len() - 1
    }

    fn quantize(&mut self, tensor: &str, from: String) {
        let out = self.tensor(tensor);
        self.ops.push(Op::Quantize { input: self.inputs.len(), out });
        self.inputs.push(from);
    }

    fn dequantize(&mut self, tensor: &str, to: String) {
        if self.outputs.iter().any(|(name, _)| *name == to) {
            return;
        }
        let x = self.ids[tensor];
        self.ops.push(Op::Dequantize { x, output: self.outputs.len() });
        self.outputs.push((to, x));
    }

    fn operator(&mut self, found: &Found) -> Result<(), String> {
        let reads: Vec<usize> = found.inputs.iter().map(|i| self.ids[i]).collect();
        let x = reads[0];
        let out_quant = self.quants[&found.output];
        let clamp = clamp(out_quant, found.bounds);
        let out = self.tensor(&found.output);
        let op = match &found.kind {
            Kind::Conv { weights, bias, window, group } => {
                let x_quant = self.tensors[x].quant;
                convolution(
                    self.isa,
                    &mut self.shelf,
                    x,
                    out,
                    (x_quant, out_quant),
                    clamp,
                    weights,
                    bias,
                    *window,
                    *group,
                )
                .map_err(|e| e.to_string())?
            }
            Kind::Add => {
                let b = reads[1];
                let term = |t: usize| Term::new(self.tensors[t].quant, out_quant.scale);
                Op::Add { a: x, b, out, terms: [term(x), term(b)], clamp }
            }
            Kind::Rescale if self.tensors[x].quant == out_quant => {
                let (low, high) = (
                    store(clamp_value(out_quant, found.bounds, 0)),
                    store(clamp_value(out_quant, found.bounds, 1)),
                );
                Op::Clip { x, out, low, high }
            }
            Kind::Rescale => Op::Rescale {
                x,
                out,
                by: Rescale { term: Term::new(self.tensors[x].quant, out_quant.scale), clamp },
            },
            Kind::MaxPool(window) => return self.pool(x, out, *window, clamp),
            Kind::Pad(pads) if self.tensors[x].quant == out_quant => {
                Op::Pad { x, out, pads: *pads }
            }
            Kind::Pad(_) => return Err("it changes the scale while padding".into()),
        };
        self.ops.push(op);
        Ok(())
    }

    /// Pooling keeps scale and zero point; where the file changes them, a rescaling follows.
    fn pool(&mut self, x: usize, out: usize, window: Window, clamp: Clamp) -> Result<(), String> {
        let (from, to) = (self.tensors[x].quant, self.tensors[out].quant);
        if from == to {
            self.ops.push(Op::MaxPool { x, out, window });
            return Ok(());
        }
        let between = TensorInfo { quant: from, ..self.tensors[out].clone() };
        self.tensors.push(between);
        let pooled = self.tensors.len() - 1;
        self.ops.push(Op::MaxPool { x, out: pooled, window });
        let by = Rescale { term: Term::new(from, to.scale), clamp };
        self.ops.push(Op::Rescale { x: pooled, out, by });
        Ok(())
    }

    fn finish(self) -> Result<Placed, ModelError> {
        let ops = fuse(self.ops, &self.outputs);
        let region = Region {
            isa: self.isa,
            tensors: self.tensors,
            ops,
            inputs: vec![Layout::Nchw; self.inputs.len()],
            outputs: self.outputs.iter().map(|&(_, t)| (Layout::Nchw, t)).collect(),
        };
        let outputs = self.outputs.into_iter().map(|(name, _)| name).collect();
        Ok(Placed { region, inputs: self.inputs, outputs })
    }
}

/// Lower (0) or upper (1) bound in 0..=255.
fn clamp_value(quant: Quant, bounds: Option<[f32; 2]>, which: usize) -> i32 {
    let end = [0, 255][which];
    match bounds.map(|b| b[which]).filter(|b| b.is_finite()) {
        Some(b) => ((b / quant.scale).round_ties_even() as i32)
            .saturating_add(quant.zero_point)
            .clamp(0, 255),
        None => end,
    }
}

fn clamp(quant: Quant, bounds: Option<[f32; 2]>) -> Clamp {
    Clamp::new(quant.zero_point, clamp_value(quant, bounds, 0), clamp_value(quant, bounds, 1))
}

#[allow(clippy::too_many_arguments)]
fn convolution(
    isa: Isa,
    shelf: &mut Shelf,
    x: usize,
    out: usize,
    (from, to): (Quant, Quant),
    clamp: Clamp,
    weights: &Weights,
    bias: &Bias,
    window: Window,
    group: usize,
) -> Result<Op, PackError> {
    let [n, each, kh, kw] = weights.shape;
    let multiplier: Vec<f32> = weights.scales.iter().map(|s| from.scale * s / to.scale).collect();
    let bias: Vec<i32> = match bias {
        Bias::None => vec![0; n],
        Bias::Integer(b) => b.clone(),
        // What the accumulator counts in is input scale · weight scale.
        Bias::Float(b) => b
            .iter()
            .zip(&weights.scales)
            .map(|(b, s)| (*b as f64 / (from.scale as f64 * *s as f64)).round_ties_even() as i32)
            .collect(),
    };
    let taps = kh * kw;
    if each == 1 && group == n && taps <= MAX_TAPS {
        // [c, taps] → [taps, c]
        let w: Vec<i8> = (0..taps * n).map(|i| weights.values[i % n * taps + i / n]).collect();
        let q =
            Requant { input_zero: from.zero_point, bias: &bias, multiplier: &multiplier, clamp };
        let weights = PackedDepthwise::new(isa, shelf, &w, taps, n, &q)?;
        return Ok(Op::Depthwise { x, rescale: None, out, window, weights });
    }
    // [n, each, taps] → [n, taps, each]: the order in which windows are gathered.
    let k = taps * each;
    let mut turned = Vec::new();
    let w = if taps == 1 {
        &weights.values
    } else {
        turned.reserve(n * k);
        for channel in weights.values.chunks_exact(k) {
            turned.extend((0..k).map(|i| channel[i % each * taps + i / each]));
        }
        &turned
    };
    let m = n / group;
    let groups = (0..group)
        .map(|g| {
            let q = Requant {
                input_zero: from.zero_point,
                bias: &bias[g * m..(g + 1) * m],
                multiplier: &multiplier[g * m..(g + 1) * m],
                clamp,
            };
            PackedGemm::new(isa, shelf, &w[g * m * k..(g + 1) * m * k], m, [kh, k / kh], &q)
        })
        .collect::<Result<_, _>>()?;
    Ok(Op::Conv { x, out, window, groups })
}

/// Puts together what need not pass through memory: depthwise followed by pointwise, and
/// by nothing else, becomes separable; a change of scale before a depthwise convolution, and
/// before nothing else, is done on its way there.
fn fuse(ops: Vec<Op>, outputs: &[(String, usize)]) -> Vec<Op> {
    let mut readers: HashMap<usize, usize> = HashMap::new();
    for t in ops.iter().flat_map(Op::reads).chain(outputs.iter().map(|o| o.1)) {
        *readers.entry(t).or_default() += 1;
    }
    // Operators whose output waits for its one reader.
    let mut rescaled: HashMap<usize, (usize, Rescale)> = HashMap::new();
    let mut pending = HashMap::new();
    let goes_into = |kind: fn(&Op) -> bool| -> HashSet<usize> {
        let readers = &readers;
        ops.iter().filter(|op| kind(op)).flat_map(Op::reads).filter(|x| readers[x] == 1).collect()
    };
    let feeds_depthwise = goes_into(|op| matches!(op, Op::Depthwise { .. }));
    let feeds_point = goes_into(|op| match op {
        Op::Conv { window, groups, .. } => *window == Window::POINT && groups.len() == 1,
        _ => false,
    });
    let mut fused = Vec::with_capacity(ops.len());
    for op in ops {
        match op {
            Op::Rescale { x, out, by } if feeds_depthwise.contains(&out) => {
                rescaled.insert(out, (x, by));
            }
            Op::Depthwise { x, out, window, weights, .. } => {
                let (x, rescale) = match rescaled.remove(&x) {
                    Some((x, by)) => (x, Some(by)),
                    None => (x, None),
                };
                if feeds_point.contains(&out) {
                    pending.insert(out, (x, rescale, window, weights));
                } else {
                    fused.push(Op::Depthwise { x, rescale, out, window, weights });
                }
            }
            Op::Conv { x, out, window: _, mut groups } if pending.contains_key(&x) => {
                let (x, rescale, window, depthwise) = pending.remove(&x).expect("just seen");
                let pointwise = groups.remove(0);
                fused.push(Op::Separable { x, rescale, out, window, depthwise, pointwise });
            }
            other => fused.push(other),
        }
    }
    fused
}
