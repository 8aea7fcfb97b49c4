//! The ONNX graph as something to ask: who makes this tensor, who reads it, what is its
//! constant value.

use super::ModelError;
use super::limits::shielded;
use std::collections::{HashMap, HashSet};
use tract_onnx::data_resolver::MmapDataResolver;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use tract_onnx::prelude::*;

/// More nodes than any CNN has: a hostile file, not a model.
const MOST_NODES: usize = 20_000;

/// An index over a graph. Tensors are named, as in ONNX.
pub struct Graph<'a> {
    pub proto: &'a GraphProto,
    producer: HashMap<&'a str, usize>,
    consumers: HashMap<&'a str, Vec<usize>>,
    constants: HashMap<&'a str, &'a TensorProto>,
}

impl<'a> Graph<'a> {
    pub fn new(model: &'a ModelProto) -> Result<Self, ModelError> {
        let proto = model.graph.as_ref().ok_or_else(|| bad("it contains no graph"))?;
        if proto.node.len() > MOST_NODES {
            return Err(bad(format!("{} nodes, the limit is {MOST_NODES}", proto.node.len())));
        }
        let mut graph = Graph {
            proto,
            producer: HashMap::new(),
            consumers: HashMap::new(),
            constants: proto.initializer.iter().map(|t| (&*t.name, t)).collect(),
        };
        for (i, node) in proto.node.iter().enumerate() {
            if node.input.len() < least_inputs(&node.op_type) || node.output.is_empty() {
                let (op, name) = (&node.op_type, &node.name);
                return Err(bad(format!("the {op} node `{name}` lacks inputs or outputs")));
            }
            for name in node.output.iter().filter(|n| !n.is_empty()) {
                if graph.producer.insert(name, i).is_some() {
                    return Err(bad(format!("two nodes produce `{name}`")));
                }
                if node.op_type == "Constant"
                    && let Some(t) = attribute(node, "value").and_then(|a| a.t.as_ref())
                {
                    graph.constants.insert(name, t);
                }
            }
            for name in node.input.iter().filter(|n| !n.is_empty()) {
                graph.consumers.entry(name).or_default().push(i);
            }
        }
        // ONNX has nodes in the order in which they run; so there are no cycles either.
        let mut known: HashSet<&str> = graph.constants.keys().copied().collect();
        known.extend(proto.input.iter().map(|i| &*i.name));
        for node in &proto.node {
            if let Some(missing) =
                node.input.iter().find(|n| !n.is_empty() && !known.contains(&***n))
            {
                return Err(bad(format!("nothing makes the tensor `{missing}` in time")));
            }
            known.extend(node.output.iter().map(String::as_str));
        }
        if let Some(missing) = proto.output.iter().find(|o| !known.contains(&*o.name)) {
            return Err(bad(format!("nothing makes the output `{}`", missing.name)));
        }
        Ok(graph)
    }

    /// The node that makes a tensor; None for inputs and initializers.
    pub fn producer(&self, tensor: &str) -> Option<&'a NodeProto> {
        self.producer.get(tensor).map(|&i| &self.proto.node[i])
    }

    /// Indices of the nodes that read a tensor.
    pub fn consumers(&self, tensor: &str) -> &[usize] {
        self.consumers.get(tensor).map_or(&[], Vec::as_slice)
    }

    /// The node that reads a tensor, where it is the only one and the tensor is no output.
    pub fn only_consumer(&self, tensor: &str) -> Option<usize> {
        match self.consumers(tensor) {
            &[one] if !self.is_output(tensor) => Some(one),
            _ => None,
        }
    }

    pub fn is_output(&self, tensor: &str) -> bool {
        self.proto.output.iter().any(|o| o.name == tensor)
    }

    pub fn is_constant(&self, tensor: &str) -> bool {
        self.constants.contains_key(tensor)
    }

    /// Names of the scale and the zero point, if there is one, that integers were made with.
    pub fn code_of(&self, tensor: &str) -> Option<&'a [String]> {
        /// Pools in a row; a file with more is not a network's.
        const MOST_POOLS: usize = 16;

        let mut node = self.producer(tensor)?;
        for _ in 0..MOST_POOLS {
            if node.op_type == "MaxPool" {
                node = self.producer(&node.input[0])?;
            }
        }
        let at = match &*node.op_type {
            "QuantizeLinear" => 1,
            "QLinearConv" | "QLinearAdd" => 6,
            _ => return None,
        };
        Some(&node.input[at..node.input.len().min(at + 2)])
    }

    /// The value of an initializer or Constant node.
    pub fn constant(&self, tensor: &str) -> Option<Tensor> {
        let proto = self.constants.get(tensor)?;
        // It panics at raw data of a type that has none.
        shielded(|| tract_onnx::tensor::load_tensor(&MmapDataResolver, proto, None)).ok()
    }

    /// A constant as f32 with its shape, through a DequantizeLinear or Identity if need be.
    pub fn float_constant(&self, tensor: &str) -> Option<(Vec<f32>, Vec<usize>)> {
        let mut tensor = tensor;
        let node = loop {
            if let Some(t) = self.constant(tensor) {
                let t = t.cast_to::<f32>().ok()?;
                return Some((floats(&t), t.shape().to_vec()));
            }
            let node = self.producer(tensor)?;
            if node.op_type != "Identity" {
                break node;
            }
            tensor = &node.input[0];
        };
        match &*node.op_type {
            "DequantizeLinear" => {
                let w = self.constant(&node.input[0])?;
                let shape = w.shape().to_vec();
                let w = floats(w.cast_to::<f32>().ok()?.as_ref());
                let scale = floats(self.constant(&node.input[1])?.cast_to::<f32>().ok()?.as_ref());
                let zero = match node.input.get(2).filter(|n| !n.is_empty()) {
                    Some(n) => floats(self.constant(n)?.cast_to::<f32>().ok()?.as_ref()),
                    None => vec![0.0; scale.len()],
                };
                if scale.is_empty()
                    || zero.len() != scale.len()
                    || int(node, "block_size").unwrap_or(0) != 0
                {
                    return None;
                }
                let rank = shape.len() as i64;
                let axis = int(node, "axis").unwrap_or(1);
                let axis = if axis < 0 { axis + rank } else { axis };
                let after = usize::try_from(axis).ok()?.saturating_add(1);
                if scale.len() > 1 && shape.get(after - 1) != Some(&scale.len()) {
                    return None;
                }
                let inner: usize = shape.get(after..).unwrap_or(&[]).iter().product();
                let at =
                    |i: usize| if scale.len() == 1 { 0 } else { i / inner.max(1) % scale.len() };
                let real = w.iter().enumerate().map(|(i, w)| (w - zero[at(i)]) * scale[at(i)]);
                Some((real.collect(), shape))
            }
            _ => None,
        }
    }
}

fn floats(t: &Tensor) -> Vec<f32> {
    elements(t).unwrap_or_default()
}

/// All elements of a tensor, in row-major order.
pub fn elements<T: Datum + Copy>(t: &Tensor) -> TractResult<Vec<T>> {
    Ok(t.try_as_plain_ram()?.as_slice::<T>()?.to_vec())
}

/// Inputs without which we could not even look at an operator.
fn least_inputs(op: &str) -> usize {
    match op {
        "QLinearConv" | "QLinearAdd" | "QLinearMatMul" => 8,
        "QGemm" => 6,
        "QLinearGlobalAveragePool" => 3,
        "Conv" | "Gemm" | "MatMul" | "Add" | "QuantizeLinear" | "DequantizeLinear" => 2,
        "Constant" => 0,
        _ => 1,
    }
}

pub fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

pub fn int(node: &NodeProto, name: &str) -> Option<i64> {
    attribute(node, name).map(|a| a.i)
}

pub fn ints(node: &NodeProto, name: &str) -> Option<Vec<i64>> {
    attribute(node, name).map(|a| a.ints.clone())
}

fn bad(why: impl Into<String>) -> ModelError {
    ModelError::Bad(why.into())
}

/// Keeps only what `outputs` need, in order; initializers included. Nodes need not stand in
/// the order in which they run.
pub fn prune(model: &mut ModelProto, outputs: &[String]) {
    let Some(graph) = model.graph.as_mut() else { return };
    let mut producer: HashMap<&str, usize> = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        producer.extend(node.output.iter().map(|name| (name.as_str(), i)));
    }
    let mut needed: HashSet<String> = HashSet::new();
    let mut keep = vec![false; graph.node.len()];
    let mut open: Vec<String> = outputs.to_vec();
    while let Some(name) = open.pop() {
        if let Some(&i) = producer.get(name.as_str())
            && !std::mem::replace(&mut keep[i], true)
        {
            open.extend(graph.node[i].input.iter().cloned());
        }
        needed.insert(name);
    }
    let mut keep = keep.into_iter();
    graph.node.retain(|_| keep.next() == Some(true));
    graph.initializer.retain(|t| needed.contains(&t.name));
    graph.input.retain(|i| needed.contains(&i.name));
    graph.value_info.clear();
    graph.output = outputs
        .iter()
        .map(|name| tract_onnx::pb::ValueInfoProto { name: name.clone(), ..Default::default() })
        .collect();
}
