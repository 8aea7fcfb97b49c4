//! Integer operators that no int8 operator of ours takes, said in float: between Dequantize and
//! Quantize nodes, which tract runs, and which the import knows what to do with.

use super::import::Fallback;
use super::onnx::Graph;
use std::collections::HashSet;
use tract_onnx::pb::{AttributeProto, ModelProto, NodeProto, TensorProto};

/// What stands for one node.
pub struct Lowered {
    /// Index of the node.
    at: usize,
    nodes: Vec<NodeProto>,
    /// Constants that they need besides those of the file.
    tensors: Vec<TensorProto>,
}

/// For the fallbacks among the operators on integers: the same in float.
pub fn lowered(graph: &Graph, fallbacks: &[Fallback]) -> Vec<Lowered> {
    let wanted: HashSet<&str> = fallbacks.iter().map(|f| &*f.node).collect();
    let nodes = graph.proto.node.iter().enumerate();
    let nodes = nodes.filter(|(_, n)| wanted.contains(&*n.output[0]));
    nodes.filter_map(|(at, node)| lower(graph, at, node)).collect()
}

/// Puts them where the nodes are that they stand for.
pub fn replace(proto: &mut ModelProto, lowered: Vec<Lowered>) {
    let Some(graph) = proto.graph.as_mut() else { return };
    let mut lowered = lowered.into_iter().peekable();
    let mut nodes = Vec::with_capacity(graph.node.len());
    for (i, node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        match lowered.next_if(|l| l.at == i) {
            Some(l) => {
                nodes.extend(l.nodes);
                graph.initializer.extend(l.tensors);
            }
            None => nodes.push(node),
        }
    }
    graph.node = nodes;
}

fn lower(graph: &Graph, at: usize, node: &NodeProto) -> Option<Lowered> {
    let name = |part: &str| format!("{}/{part}", node.output[0]);
    let read = |at: usize, part: &str| {
        dequantize(&node.input[at..node.input.len().min(at + 3)], name(part))
    };
    let (op, mut nodes, made) = match &*node.op_type {
        "QLinearConv" => ("Conv", vec![read(0, "x"), read(3, "w")], &node.input[6..8]),
        "QLinearAdd" => ("Add", vec![read(0, "a"), read(3, "b")], &node.input[6..8]),
        "MaxPool" => {
            let code = graph.code_of(&node.input[0])?;
            let whole: Vec<String> = std::iter::once(&node.input[0]).chain(code).cloned().collect();
            ("MaxPool", vec![dequantize(&whole, name("x"))], code)
        }
        _ => return None,
    };
    let mut input: Vec<String> = nodes.iter().map(|n| n.output[0].clone()).collect();
    let mut tensors = Vec::new();
    if node.op_type == "QLinearConv" && node.input.get(8).is_some_and(|b| !b.is_empty()) {
        tensors.push(bias(graph, node, name("bias"))?);
        input.push(name("bias"));
    }
    nodes.push(NodeProto {
        op_type: op.into(),
        input,
        output: vec![name("real")],
        attribute: node.attribute.clone(),
        ..Default::default()
    });
    nodes.push(NodeProto {
        op_type: "QuantizeLinear".into(),
        input: std::iter::once(&name("real")).chain(made).cloned().collect(),
        output: vec![node.output[0].clone()],
        ..Default::default()
    });
    Some(Lowered { at, nodes, tensors })
}

/// Scales of weights are those of output channels.
fn dequantize(input: &[String], output: String) -> NodeProto {
    NodeProto {
        op_type: "DequantizeLinear".into(),
        input: input.to_vec(),
        output: vec![output],
        attribute: vec![AttributeProto { name: "axis".into(), r#type: 2, ..Default::default() }],
        ..Default::default()
    }
}

/// A QLinearConv's bias, which counts in input scale · weight scale.
fn bias(graph: &Graph, node: &NodeProto, name: String) -> Option<TensorProto> {
    let floats = |at: usize| graph.float_constant(&node.input[at]).map(|(v, _)| v);
    let (x, w, bias) = (*floats(1)?.first()?, floats(4)?, floats(8)?);
    if w.len() != 1 && w.len() != bias.len() {
        return None;
    }
    let scale = |c: usize| x * w[if w.len() == 1 { 0 } else { c }];
    let real: Vec<f32> = bias.iter().enumerate().map(|(c, b)| b * scale(c)).collect();
    let dims = vec![real.len() as i64];
    Some(TensorProto { name, dims, data_type: 1, float_data: real, ..Default::default() })
}
