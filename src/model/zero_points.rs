//! Zero points that a file leaves out.
//!
//! ONNX then says the type of the integers elsewhere: `output_dtype` of QuantizeLinear (since
//! opset 21), the first summand of com.microsoft's QLinearAdd. tract takes them for uint8 in any
//! case. With every zero point in the file, all readers mean the same.

use super::onnx::{attribute, int};
use std::collections::{BTreeSet, HashMap};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{ModelProto, TensorProto};

/// Gives every node that makes integers a zero point, of the type that the file means.
pub fn complete(proto: &mut ModelProto) {
    let Some(graph) = proto.graph.as_mut() else { return };
    let mut types: HashMap<String, i32> =
        graph.initializer.iter().map(|t| (t.name.clone(), t.data_type)).collect();
    for node in graph.node.iter().filter(|n| n.op_type == "Constant") {
        if let (Some(name), Some(t)) =
            (node.output.first(), attribute(node, "value").and_then(|a| a.t.as_ref()))
        {
            types.insert(name.clone(), t.data_type);
        }
    }
    let mut missing = BTreeSet::new();
    for node in &mut graph.node {
        let (at, said) = match &*node.op_type {
            "QuantizeLinear" => (2, int(node, "output_dtype").filter(|&t| t != 0)),
            "QLinearAdd" => (7, node.input.get(2).and_then(|a| types.get(a)).map(|&t| t.into())),
            _ => continue,
        };
        if node.input.len() < at || node.input.get(at).is_some_and(|name| !name.is_empty()) {
            continue;
        }
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

fn name(data_type: i32) -> String {
    format!("salientd/zero/{data_type}")
}
