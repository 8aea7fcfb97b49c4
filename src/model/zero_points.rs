//! Zero points that a file leaves out.
//!
//! ONNX then says the type of the integers elsewhere: `output_dtype` of QuantizeLinear (since
//! opset 21), the first summand of com.microsoft's QLinearAdd. tract takes them for uint8 in any
//! case. With every zero point in the file, all readers mean the same.

use super::onnx::{attribute, int};
use std::collections::{BTreeSet, HashMap};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

/// Gives every node that makes integers a zero point, of the type that the file means.
pub fn complete(proto: &mut ModelProto) {
    let Some(graph) = proto.graph.as_mut() else { return };
    let incomplete: Vec<(usize, usize)> =
        graph.node.iter().enumerate().filter_map(|(i, node)| Some((i, missing(node)?))).collect();
    if incomplete.is_empty() {
        return;
    }
    let types = types(graph);
    let mut missing = BTreeSet::new();
    for (i, at) in incomplete {
        let node = &mut graph.node[i];
        let said = match &*node.op_type {
            "QuantizeLinear" => int(node, "output_dtype").filter(|&t| t != 0),
            _ => node.input.get(2).and_then(|first| types.get(first)).map(|&t| t.into()),
        };
        let data_type = said.map_or(DataType::Uint8 as i32, |t| i32::try_from(t).unwrap_or(0));
        node.input.truncate(at);
        node.input.push(name(data_type));
        missing.insert(data_type);
    }
    graph.initializer.extend(missing.into_iter().map(|data_type| TensorProto {
        name: name(data_type),
        data_type,
        int32_data: vec![0],
        ..Default::default()
    }));
}

/// Which input of a node is the zero point that it lacks.
fn missing(node: &NodeProto) -> Option<usize> {
    let at = match &*node.op_type {
        "QuantizeLinear" => 2,
        "QLinearAdd" => 7,
        _ => return None,
    };
    let is_missing = node.input.len() >= at && node.input.get(at).is_none_or(String::is_empty);
    is_missing.then_some(at)
}

/// ONNX's types of all constants.
fn types(graph: &GraphProto) -> HashMap<String, i32> {
    let computed = graph.node.iter().filter(|n| n.op_type == "Constant");
    let values = computed.filter_map(|node| {
        let value = attribute(node, "value")?.t.as_ref()?;
        Some((node.output.first()?.clone(), value.data_type))
    });
    let stored = graph.initializer.iter().map(|t| (t.name.clone(), t.data_type));
    stored.chain(values).collect()
}

fn name(data_type: i32) -> String {
    format!("salientd/zero/{data_type}")
}
