//! Recognises quantized operators in an ONNX graph, in both of its dialects, and makes
//! them ours.
//!
//! * QDQ (ONNX Runtime's static quantization, NNCF): float operators between
//!   DequantizeLinear and QuantizeLinear.
//! * QOperator: QLinearConv and com.microsoft's QLinearAdd on integer tensors.
//!
//! What is recognised leaves the graph as [`Region`]s; what is not stays for tract, in
//! float, and is listed with the reason.

mod build;
#[cfg(test)]
mod tests;

use super::limits::MOST_EXTENT;
use super::onnx::{Graph, attribute, elements, int, ints};
use crate::int8::aligned::Shelf;
use crate::int8::graph::{Pads, Region, Window};
use crate::int8::pack::{PackError, PackedDepthwise, PackedGemm, Requant};
use crate::int8::{Clamp, Isa, Quant, depthwise::MAX_TAPS};
use std::collections::{HashMap, HashSet};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;

/// No kernel has wider panels of weights.
const PANEL_COLUMNS: usize = 32;
/// Bytes of grouped weights once each group is padded to whole panels: a thousand times what
/// networks with groups have.
const MOST_GROUPED_BYTES: usize = 1 << 28;

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
    /// Nodes that make integers anew for those who read them in float graphs.
    pub added: Vec<NodeProto>,
    pub fallbacks: Vec<Fallback>,
}

/// Imports every quantized operator that `output` needs. `graph` must be pruned to it.
pub fn import(graph: &Graph, isa: Isa) -> Imported {
    let (codes, shelf) = (HashMap::new(), Shelf::default());
    let pictures = pictures(graph);
    let mut importer = Importer { graph, isa, shelf, pictures, codes, fallbacks: Vec::new() };
    let found = importer.recognise();
    let fallbacks = std::mem::take(&mut importer.fallbacks);
    Imported { fallbacks, ..build::build(&importer, found) }
}

/// What the integers of a tensor mean.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Code {
    quant: Quant,
    /// Whether they are int8; else uint8.
    signed: bool,
}

/// What two inputs of a node say of integers.
struct Affine {
    scales: Vec<f32>,
    /// As many.
    zeros: Vec<i32>,
    /// None: not said.
    signed: Option<bool>,
}

/// A quantized tensor as one of its readers takes it: mostly, but not always, with the scale
/// that it was made with.
#[derive(Clone, Debug, PartialEq)]
struct Read {
    tensor: String,
    quant: Quant,
}

/// A quantized operator: quantized tensors in, one out.
struct Found {
    kind: Kind,
    inputs: Vec<Read>,
    output: String,
    code: Code,
    clamp: Clamp,
    /// Name of the tensor that carries the operator's name in reports.
    name: String,
    /// Indices of the nodes that it replaces, besides the Dequantize nodes before it.
    nodes: Vec<usize>,
}

enum Kind {
    Conv { weights: Packed, window: Window, is_depthwise: bool },
    Add,
    Rescale,
    MaxPool(Window),
    Pad([usize; 4]),
}

enum Packed {
    Depthwise(PackedDepthwise),
    /// One for each group.
    Gemm(Vec<PackedGemm>),
}

/// From which numbers an operator goes to which.
#[derive(Clone, Copy)]
struct Ends {
    from: Quant,
    to: Quant,
    clamp: Clamp,
}

struct Weights {
    /// `[out, in / group, kh, kw]`, zero points taken off.
    values: Vec<i8>,
    shape: [usize; 4],
    /// One per output channel.
    scales: Vec<f32>,
    /// Whether the file has them so, and not one for all.
    per_channel: bool,
}

enum Bias {
    None,
    Float(Vec<f32>),
    /// In units of input scale · weight scale.
    Integer(Vec<i32>),
}

struct Importer<'g> {
    graph: &'g Graph<'g>,
    isa: Isa,
    shelf: Shelf,
    /// Tensors that are known to be of rank 4.
    pictures: HashSet<&'g str>,
    /// By quantized tensor.
    codes: HashMap<String, Code>,
    fallbacks: Vec<Fallback>,
}

impl Found {
    /// For reports.
    fn node(&self) -> Int8Node {
        let op = match &self.kind {
            Kind::Conv { is_depthwise: true, .. } => "depthwise Conv",
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
                    self.codes.insert(op.output.clone(), op.code);
                    found.push(op);
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
            "Conv" => self.qdq(index, node, 1, |me, ends| me.conv(node, ends)).map(Some),
            "Add" => self.qdq(index, node, 2, |me, _| me.picture(node, Kind::Add)).map(Some),
            "MaxPool" if self.is_quantized(&node.input[0]) => self.bare_pool(index, node).map(Some),
            "MaxPool" => {
                self.qdq(index, node, 1, |_, _| Ok(Kind::MaxPool(window(node, None)?))).map(Some)
            }
            "Pad" => self.qdq(index, node, 1, |me, _| me.pad(node)).map(Some),
            "Relu" | "Clip" => match self.folded(node) {
                true => Ok(None),
                false => {
                    let kind = |me: &mut Self, _| me.picture(node, Kind::Rescale);
                    self.qdq(index, node, 1, kind).map(Some)
                }
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

    /// A ReLU or Clip right after another operator goes with that.
    fn folded(&self, node: &NodeProto) -> bool {
        let before = self.graph.producer(&node.input[0]);
        before.is_some_and(|p| {
            matches!(&*p.op_type, "Conv" | "Add" | "MaxPool" | "Pad")
                && self.graph.only_consumer(&node.input[0]).is_some()
        })
    }

    /// Operators that take tensors of any rank are ours for rank 4.
    fn picture(&self, node: &NodeProto, kind: Kind) -> Result<Kind, String> {
        match self.pictures.contains(&*node.output[0]) {
            true => Ok(kind),
            false => Err("its tensors are not known to have rank 4".into()),
        }
    }

    fn is_quantized(&self, tensor: &str) -> bool {
        self.codes.contains_key(tensor)
    }

    /// The quantized tensor behind a float one that a DequantizeLinear makes.
    fn behind(&self, tensor: &str) -> Result<Read, String> {
        match self.graph.producer(tensor) {
            Some(dq) if dq.op_type == "DequantizeLinear" && self.is_quantized(&dq.input[0]) => {
                self.read(dq, 0)
            }
            _ => Err(format!("its input `{tensor}` is float")),
        }
    }

    /// The quantized input `at` of a node, with the scale and zero point that follow it.
    fn read(&self, node: &NodeProto, at: usize) -> Result<Read, String> {
        let tensor = node.input[at].clone();
        let made = self.codes.get(&tensor).ok_or(format!("its input `{tensor}` is not known"))?;
        let code = self.code(&node.input, at + 1, made.signed)?;
        if code.signed != made.signed {
            return Err(format!("`{tensor}` is read as integers of another type"));
        }
        Ok(Read { tensor, quant: code.quant })
    }

    /// A float operator between Dequantize and Quantize nodes.
    fn qdq(
        &mut self,
        index: usize,
        node: &'g NodeProto,
        inputs: usize,
        kind: impl FnOnce(&mut Self, Ends) -> Result<Kind, String>,
    ) -> Result<Found, String> {
        let reads = node.input.iter().take(inputs).map(|i| self.behind(i));
        let inputs = reads.collect::<Result<Vec<_>, _>>()?;
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
        let code = self.code(&current.input, 1, false)?;
        let ends = Ends {
            from: inputs[0].quant,
            to: code.quant,
            clamp: clamp(code.quant, bounds.unwrap_or([f32::NEG_INFINITY, f32::INFINITY])),
        };
        let (output, name) = (tensor.clone(), node.output[0].clone());
        Ok(Found { kind: kind(self, ends)?, inputs, output, code, clamp: ends.clamp, name, nodes })
    }

    /// An operator on integers, which the node at `index` is by itself.
    fn whole(index: usize, node: &NodeProto, inputs: Vec<Read>, code: Code, kind: Kind) -> Found {
        let output = node.output[0].clone();
        let (name, nodes, clamp) = (output.clone(), vec![index], open(code.quant));
        Found { kind, inputs, output, code, clamp, name, nodes }
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
        let code = self.code(&node.input, 1, false)?;
        self.codes.insert(node.output[0].clone(), code);
        let Ok(from) = self.behind(&node.input[0]) else { return Ok(None) };
        let kind = self.picture(node, Kind::Rescale)?;
        Ok(Some(Self::whole(index, node, vec![from], code, kind)))
    }

    /// MaxPool on an integer tensor, as QOperator files have it: scale and zero point stay.
    fn bare_pool(&self, index: usize, node: &NodeProto) -> Result<Found, String> {
        let tensor = node.input[0].clone();
        let code = self.codes[&tensor];
        let read = Read { tensor, quant: code.quant };
        Ok(Self::whole(index, node, vec![read], code, Kind::MaxPool(window(node, None)?)))
    }

    /// Scale and zero point from two neighbouring constant inputs of a node. `signed`: what
    /// the integers are where there is no zero point to say it.
    fn code(&self, inputs: &[String], at: usize, signed: bool) -> Result<Code, String> {
        let affine = self.affine(inputs, at)?;
        let ([scale], [zero]) = (&affine.scales[..], &affine.zeros[..]) else {
            return Err("an activation is quantized per channel".into());
        };
        if !(scale.is_finite() && *scale > 0.0) {
            return Err(format!("an activation has the scale {scale}"));
        }
        let signed = affine.signed.unwrap_or(signed);
        let zero_point = zero + if signed { 128 } else { 0 };
        Ok(Code { quant: Quant { scale: *scale, zero_point }, signed })
    }

    fn affine(&self, inputs: &[String], at: usize) -> Result<Affine, String> {
        let absent = || "its scale or zero point is no constant".to_string();
        let (scale, _) = self.graph.float_constant(&inputs[at]).ok_or_else(absent)?;
        let Some(name) = inputs.get(at + 1).filter(|n| !n.is_empty()) else {
            if scale.is_empty() {
                return Err("it has no scale".into());
            }
            return Ok(Affine { zeros: vec![0; scale.len()], scales: scale, signed: None });
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
        let zeros = (0..n).map(|i| zero[stretch(zero.len(), i)]).collect();
        Ok(Affine { scales, zeros, signed: Some(signed) })
    }

    fn conv(&mut self, node: &NodeProto, ends: Ends) -> Result<Kind, String> {
        let dq = self
            .graph
            .producer(&node.input[1])
            .filter(|n| n.op_type == "DequantizeLinear" && self.graph.is_constant(&n.input[0]))
            .ok_or("its weights are float")?;
        let weights = self.weights(&dq.input, 0, 1)?;
        let axis = int(dq, "axis").unwrap_or(1);
        let blocked = int(dq, "block_size").unwrap_or(0) != 0;
        if blocked || weights.per_channel && axis.rem_euclid(4) != 0 {
            return Err("its weights have scales for something else than output channels".into());
        }
        let bias = match node.input.get(2).filter(|n| !n.is_empty()) {
            None => Bias::None,
            Some(name) => {
                Bias::Float(self.graph.float_constant(name).ok_or("its bias is no constant")?.0)
            }
        };
        self.conv_kind(node, weights, bias, ends)
    }

    fn conv_kind(
        &mut self,
        node: &NodeProto,
        weights: Weights,
        bias: Bias,
        ends: Ends,
    ) -> Result<Kind, String> {
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
        let packed = pack(self.isa, &mut self.shelf, weights, bias, group, ends)?;
        Ok(Kind::Conv { weights: packed, window, is_depthwise: group > 1 && group == channels })
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
        let Affine { scales, zeros, .. } = self.affine(inputs, at)?;
        let per_channel = scales.len() != 1;
        if scales.len() != 1 && scales.len() != o {
            return Err(format!("{} weight scales for {o} output channels", scales.len()));
        }
        let values = match (tensor.datum_type(), zeros.iter().all(|&z| z == 0)) {
            // The usual case, and the large one: nothing to take off.
            (DatumType::I8, true) => elements(&tensor).map_err(|e| e.to_string())?,
            _ => shifted(&integers(&tensor)?, &zeros, (i * kh * kw).max(1))?,
        };
        let scales = (0..o).map(|n| scales[if scales.len() == 1 { 0 } else { n }]).collect();
        Ok(Weights { values, shape: [o, i, kh, kw], scales, per_channel })
    }

    fn pad(&self, node: &NodeProto) -> Result<Kind, String> {
        let pads = ints(node, "pads").map(Ok).unwrap_or_else(|| {
            let name = node.input.get(1).ok_or("it has no pads")?;
            let t = self.graph.constant(name).ok_or("its pads are no constant")?;
            Ok::<_, String>(integers(&t)?.into_iter().map(i64::from).collect())
        })?;
        let mode = attribute(node, "mode").map_or(&b"constant"[..], |a| &a.s);
        let value = match node.input.get(2).filter(|n| !n.is_empty()) {
            Some(name) => self.graph.float_constant(name).and_then(|(v, _)| v.first().copied()),
            // An attribute before opset 11.
            None => Some(attribute(node, "value").map_or(0.0, |a| a.f)),
        };
        if mode != b"constant" || value != Some(0.0) {
            return Err("it pads with something else than zeros".into());
        }
        if node.input.get(3).is_some_and(|axes| !axes.is_empty()) {
            return Err("it names the axes that it pads".into());
        }
        match pads[..] {
            [0, 0, t, l, 0, 0, b, r]
                if [t, l, b, r].iter().all(|p| (0..=MOST_EXTENT).contains(p)) =>
            {
                Ok(Kind::Pad([t as usize, l as usize, b as usize, r as usize]))
            }
            _ => Err(format!(
                "its pads are {pads:?}; height and width alone are padded, by {MOST_EXTENT} at most"
            )),
        }
    }

    fn qlinear_conv(&mut self, index: usize, node: &NodeProto) -> Result<Found, String> {
        let x = self.read(node, 0)?;
        let code = self.code(&node.input, 6, false)?;
        let weights = self.weights(&node.input, 3, 4)?;
        let bias = match node.input.get(8).filter(|n| !n.is_empty()) {
            None => Bias::None,
            Some(name) => Bias::Integer(integers(
                &self.graph.constant(name).ok_or("its bias is no constant")?,
            )?),
        };
        let ends = Ends { from: x.quant, to: code.quant, clamp: open(code.quant) };
        let kind = self.conv_kind(node, weights, bias, ends)?;
        Ok(Self::whole(index, node, vec![x], code, kind))
    }

    fn qlinear_add(&self, index: usize, node: &NodeProto) -> Result<Found, String> {
        let code = self.code(&node.input, 6, false)?;
        let sides = vec![self.read(node, 0)?, self.read(node, 3)?];
        let kind = self.picture(node, Kind::Add)?;
        Ok(Self::whole(index, node, sides, code, kind))
    }
}

/// Operators whose output has the rank of their first input.
const KEEP_RANK: [&str; 25] = [
    "QuantizeLinear",
    "DequantizeLinear",
    "Relu",
    "Clip",
    "LeakyRelu",
    "PRelu",
    "Elu",
    "Selu",
    "Gelu",
    "Mish",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Erf",
    "Softplus",
    "BatchNormalization",
    "InstanceNormalization",
    "GlobalAveragePool",
    "QLinearGlobalAveragePool",
    "Identity",
    "Transpose",
    "Pad",
    "Concat",
    "Resize",
];

/// The tensors that are known to have rank 4, whatever the size of the picture.
fn pictures<'g>(graph: &Graph<'g>) -> HashSet<&'g str> {
    let inputs = graph.proto.input.iter().map(|i| &*i.name);
    let mut known: HashSet<&str> = inputs.filter(|name| !graph.is_constant(name)).collect();
    for node in &graph.proto.node {
        let is_one = match &*node.op_type {
            "Conv" | "ConvInteger" | "ConvTranspose" | "QLinearConv" | "MaxPool"
            | "AveragePool" | "QLinearAveragePool" => {
                ints(node, "kernel_shape").is_none_or(|kernel| kernel.len() == 2)
            }
            // The smaller side is stretched.
            "Add" | "Sub" | "Mul" | "Div" | "Min" | "Max" | "QLinearAdd" => {
                node.input.iter().any(|name| known.contains(&**name))
            }
            op => KEEP_RANK.contains(&op) && known.contains(&*node.input[0]),
        };
        if is_one {
            known.extend(node.output.iter().filter(|n| !n.is_empty()).map(String::as_str));
        }
    }
    known
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

/// The numbers of 0..=255 that a ReLU or Clip leaves, given its bounds in real values.
fn clamp(quant: Quant, bounds: [f32; 2]) -> Clamp {
    let byte = |bound: f32, end: i32| match bound.is_nan() {
        true => end,
        false => ((bound / quant.scale).round_ties_even() as i32)
            .saturating_add(quant.zero_point)
            .clamp(0, 255),
    };
    let [low, high] = [byte(bounds[0], 0), byte(bounds[1], 255)];
    // Of bounds that cross, ONNX takes the upper one for all.
    Clamp::new(quant.zero_point, low.min(high), high)
}

/// No ReLU, no Clip.
fn open(quant: Quant) -> Clamp {
    Clamp::new(quant.zero_point, 0, 255)
}

/// Weights as the kernels read them.
fn pack(
    isa: Isa,
    shelf: &mut Shelf,
    mut weights: Weights,
    bias: Bias,
    group: usize,
    Ends { from, to, clamp }: Ends,
) -> Result<Packed, String> {
    let [n, each, kh, kw] = weights.shape;
    let bias = match bias {
        Bias::None => vec![0; n],
        Bias::Integer(bias) => bias,
        Bias::Float(bias) => counted(&bias, &mut weights, from.scale)?,
    };
    let multiplier: Vec<f32> = weights.scales.iter().map(|s| from.scale * s / to.scale).collect();
    let q = |of: std::ops::Range<usize>| Requant {
        input_zero: from.zero_point,
        bias: &bias[of.clone()],
        multiplier: &multiplier[of],
        clamp,
    };
    let taps = kh * kw;
    if each == 1 && group == n && taps <= MAX_TAPS {
        // [c, taps] → [taps, c]
        let w: Vec<i8> = (0..taps * n).map(|i| weights.values[i % n * taps + i / n]).collect();
        let packed = PackedDepthwise::new(isa, shelf, &w, taps, n, &q(0..n));
        return packed.map(Packed::Depthwise).map_err(|e| e.to_string());
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
    // A group takes whole panels of columns, however few it has.
    let padded = group.saturating_mul(m.next_multiple_of(PANEL_COLUMNS).saturating_mul(k));
    if group > 1 && padded > MOST_GROUPED_BYTES {
        return Err(format!("its {group} groups of {m} channels would be padded too far"));
    }
    let groups = (0..group).map(|g| {
        let of = g * m..(g + 1) * m;
        PackedGemm::new(isa, shelf, &w[of.start * k..of.end * k], m, [kh, k / kh], &q(of))
    });
    groups.collect::<Result<_, PackError>>().map(Packed::Gemm).map_err(|e| e.to_string())
}

/// A bias in what the accumulator counts in: input scale · weight scale.
///
/// A dead channel has tiny weights, hence a tiny scale, in which its bias may not fit 32 bits.
/// Then the channel gets a coarser scale, as from ONNX Runtime's quantizer.
fn counted(bias: &[f32], weights: &mut Weights, input_scale: f32) -> Result<Vec<i32>, String> {
    /// Leaves the sum as much room as the bias.
    const MOST: f64 = (1u32 << 30) as f64;

    let each = weights.values.len() / bias.len();
    let channels = weights.values.chunks_exact_mut(each).zip(&mut weights.scales);
    let count = |(&bias, (values, scale)): (&f32, (&mut [i8], &mut f32))| {
        let units = |scale: f32| f64::from(bias) / (f64::from(input_scale) * f64::from(scale));
        let exact = units(*scale);
        if !exact.is_finite() {
            return Err(format!("its bias {bias} is none at a weight scale of {scale}"));
        }
        if exact.abs() <= f64::from(i32::MAX) {
            return Ok(exact.round_ties_even() as i32);
        }
        let coarser = (exact.abs() / MOST).ceil();
        *scale = (f64::from(*scale) * coarser) as f32;
        values.iter_mut().for_each(|w| *w = (f64::from(*w) / coarser).round_ties_even() as i8);
        Ok(units(*scale).round_ties_even() as i32)
    };
    bias.iter().zip(channels).map(count).collect()
}
