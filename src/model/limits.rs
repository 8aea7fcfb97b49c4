//! What a model file may ask for. A file from elsewhere may be damaged or hostile: it gets an
//! error that says why, not gigabytes, not hours, not a crash.
//!
//! Three lines of defence. [`check_tensors`] and [`check_nodes`] read the graph before anything is
//! built from it. Shapes
//! are looked at again once tract knows all of them, and before it allocates ([`tensor_bytes`],
//! [`MOST_LIVE_BYTES`], [`MOST_WORK`], [`MOST_OFFSETS`]). And what tract still takes badly becomes an error of the file ([`shielded`]).
//! What is left (a stack that overflows, memory that the system refuses) ends the process, and
//! the service manager starts it anew: `MemoryMax=` of the unit stands behind all this.

use super::ModelError;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use tract_onnx::prelude::{TractError, TractResult};

/// Initializers: as many as nodes, for the same reason.
const MOST_TENSORS: usize = 40_000;
/// Inputs, with those that have a default, and outputs.
const MOST_OUTPUTS: usize = 64;
const MOST_RANK: usize = 8;
/// Longest list of integers in an attribute; shapes and windows have eight at most.
const MOST_INTS: usize = 64;
/// Largest integer in a window, a stride, a padding.
pub const MOST_EXTENT: i64 = 4096;
/// Longest name of a dimension: tract reads names as formulas.
const MOST_NAME_BYTES: usize = 128;
/// Elements of a constant that is computed from constants: 1 GiB of f32.
const MOST_COMPUTED: u64 = 1 << 28;
/// Elements of constants that nodes read, and compute from them, in all. A float file of the greatest
/// size has a quarter as many; what reads the same weights again and again has them packed each time.
const MOST_CONSTANTS: u64 = 1 << 30;
/// Longest side of an input of fixed size, as for `model.size`.
const MOST_SIDE: i64 = 4096;
/// Bytes of a tensor between nodes: 1 GiB.
pub const MOST_TENSOR_BYTES: usize = 1 << 30;
/// Bytes of float tensors between nodes that are alive at the same time: 2 GiB.
pub const MOST_LIVE_BYTES: usize = 2 << 30;
/// Places of windows' taps that tract keeps: half a gigabyte of them.
pub const MOST_OFFSETS: u64 = 1 << 25;
/// Multiply-accumulates of a pass, and values that are looked at besides: ten minutes on the
/// fastest board there is, and a thousand times what Xception takes for one view.
pub const MOST_WORK: u64 = 10_000_000_000_000;

/// Refuses files whose tensors or inputs are of no size that a classifier has.
pub fn check_tensors(proto: &ModelProto) -> Result<(), ModelError> {
    let Some(graph) = &proto.graph else { return Ok(()) };
    if graph.initializer.len() > MOST_TENSORS {
        let n = graph.initializer.len();
        return Err(bad(format!("{n} initializers, the limit is {MOST_TENSORS}")));
    }
    if graph.input.len() > MOST_TENSORS || graph.output.len() > MOST_OUTPUTS {
        let (inputs, outputs) = (graph.input.len(), graph.output.len());
        return Err(bad(format!(
            "{inputs} inputs and {outputs} outputs, the limits are {MOST_TENSORS} and \
             {MOST_OUTPUTS}"
        )));
    }
    if !graph.sparse_initializer.is_empty() {
        return Err(bad("it has sparse initializers, which are not supported".into()));
    }
    input_sides(graph)?;
    let tensors = graph.node.iter().flat_map(|node| &node.attribute).filter_map(|a| a.t.as_ref());
    graph.initializer.iter().chain(tensors).try_for_each(|tensor| elements(tensor).map(drop))
}

/// Refuses nodes that no image classifier has. To be asked for those that will run; after
/// [`check_tensors`].
pub fn check_nodes(proto: &ModelProto) -> Result<(), ModelError> {
    let Some(graph) = &proto.graph else { return Ok(()) };
    let mut computed = Computed::default();
    for tensor in &graph.initializer {
        computed.known.insert(&tensor.name, (elements(tensor)?, Some(tensor)));
    }
    for node in &graph.node {
        operator(node)?;
        for attribute in &node.attribute {
            plain(node, attribute)?;
        }
        computed.follow(node)?;
    }
    Ok(())
}

fn bad(why: String) -> ModelError {
    ModelError::Bad(why)
}

fn named(node: &NodeProto, why: impl std::fmt::Display) -> ModelError {
    let name = node.output.first().unwrap_or(&node.name);
    bad(format!("the {} node `{name}`: {why}", node.op_type))
}

fn input_sides(graph: &GraphProto) -> Result<(), ModelError> {
    use tract_onnx::pb::tensor_shape_proto::dimension::Value;
    use tract_onnx::pb::type_proto::Value::TensorType;
    let constants: HashSet<&str> = graph.initializer.iter().map(|t| &*t.name).collect();
    for input in &graph.input {
        let Some(TensorType(tensor)) = input.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
            continue;
        };
        let is_image = !constants.contains(&*input.name);
        for dimension in tensor.shape.iter().flat_map(|shape| &shape.dim) {
            match &dimension.value {
                Some(Value::DimValue(n)) if is_image && *n > MOST_SIDE => {
                    let name = &input.name;
                    return Err(bad(format!(
                        "its input `{name}` has a side of {n}, the limit is {MOST_SIDE}"
                    )));
                }
                Some(Value::DimParam(name)) if name.len() > MOST_NAME_BYTES => {
                    return Err(bad(format!("a dimension's name has {} bytes", name.len())));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Elements of a tensor that is in the file.
fn elements(tensor: &TensorProto) -> Result<u64, ModelError> {
    let wrong = || bad(format!("the tensor `{}` has the shape {:?}", tensor.name, tensor.dims));
    if tensor.dims.len() > MOST_RANK {
        return Err(wrong());
    }
    let mut sides = tensor.dims.iter().map(|&d| u64::try_from(d).ok());
    let n = sides.try_fold(1u64, |n, d| n.checked_mul(d?)).ok_or_else(wrong)?;
    // Whatever the type: no element takes less than a bit of the file, and files are limited.
    if n > super::MOST_BYTES * 8 { Err(wrong()) } else { Ok(n) }
}

/// Operators that hide other graphs, that are random, or that make much out of little.
fn operator(node: &NodeProto) -> Result<(), ModelError> {
    let why = match &*node.op_type {
        "If" | "Loop" | "Scan" | "SequenceMap" => "control flow",
        op if op.starts_with("Random") => "random numbers",
        "Bernoulli" | "Multinomial" => "random numbers",
        "NonZero" | "Unique" | "Compress" | "StringNormalizer" | "TfIdfVectorizer" => {
            "an output whose size depends on the picture"
        }
        "LSTM" | "GRU" | "RNN" | "EyeLike" | "NonMaxSuppression" => "no part of a CNN classifier",
        _ => return Ok(()),
    };
    Err(named(node, format!("{why}, which no image classifier needs; it is not run")))
}

/// Attributes of a size that operators of a CNN have.
fn plain(node: &NodeProto, attribute: &AttributeProto) -> Result<(), ModelError> {
    let name = &attribute.name;
    if attribute.g.is_some() || !attribute.graphs.is_empty() {
        return Err(named(node, format!("`{name}` is a graph, and only plain nodes are run")));
    }
    if attribute.ints.len() > MOST_INTS && node.op_type != "Constant" {
        let n = attribute.ints.len();
        return Err(named(node, format!("`{name}` has {n} numbers, the limit is {MOST_INTS}")));
    }
    if name == "perm" && attribute.ints.len() > MOST_RANK {
        let n = attribute.ints.len();
        return Err(named(node, format!("`perm` has {n} numbers, the limit is {MOST_RANK}")));
    }
    // tract looks for the swaps that make it, without an end where it is none.
    let in_order = || (0..attribute.ints.len() as i64).all(|i| attribute.ints.contains(&i));
    if name == "perm" && !in_order() {
        return Err(named(node, format!("`perm` is {:?}, no permutation", attribute.ints)));
    }
    let (least, most, values) = match &**name {
        "kernel_shape" | "strides" | "dilations" => (1, MOST_EXTENT, &attribute.ints[..]),
        "pads" | "output_padding" => (0, MOST_EXTENT, &attribute.ints[..]),
        "axes" => (-(MOST_RANK as i64), MOST_RANK as i64 - 1, &attribute.ints[..]),
        "group" => (1, 65_536, std::slice::from_ref(&attribute.i)),
        "axis" => (-(MOST_RANK as i64), MOST_RANK as i64, std::slice::from_ref(&attribute.i)),
        _ => return Ok(()),
    };
    match values.iter().find(|v| !(least..=most).contains(*v)) {
        Some(v) => Err(named(node, format!("`{name}` is {v}, allowed {least} to {most}"))),
        None => Ok(()),
    }
}

/// Tensors that depend on constants alone: tract computes these when it reads the file, before
/// their shapes can be looked at.
#[derive(Default)]
struct Computed<'g> {
    /// Elements, at most, and the value where the file has it.
    known: HashMap<&'g str, (u64, Option<&'g TensorProto>)>,
    /// Elements of constants that the nodes so far read or are.
    total: u64,
}

impl<'g> Computed<'g> {
    fn follow(&mut self, node: &'g NodeProto) -> Result<(), ModelError> {
        let inputs = node.input.iter().filter(|name| !name.is_empty());
        let inputs: Vec<Option<u64>> =
            inputs.map(|name| self.known.get(&**name).map(|&(n, _)| n)).collect();
        self.count(node, inputs.iter().flatten().fold(0, |sum, &n| sum.saturating_add(n)))?;
        let inputs: Option<Vec<u64>> = inputs.into_iter().collect();
        let Some(inputs) = inputs else { return Ok(()) };
        let most = match &*node.op_type {
            "Constant" => constant(node)?,
            "Shape" | "Size" => MOST_RANK as u64,
            // As many as went in, or fewer.
            "Identity" | "Cast" | "Reshape" | "Transpose" | "Squeeze" | "Unsqueeze" | "Flatten"
            | "QuantizeLinear" | "DequantizeLinear" | "Clip" | "Slice" | "ReduceMean"
            | "ReduceSum" | "Softmax" | "Split" | "Neg" | "Abs" | "Sqrt" | "Exp" | "Log"
            | "Floor" | "Ceil" | "Relu" | "Sigmoid" | "Tanh" | "Erf" | "Reciprocal" | "Not" => {
                inputs.first().copied().unwrap_or(0)
            }
            "Concat" => inputs.iter().fold(0u64, |sum, &n| sum.saturating_add(n)),
            // Two shapes broadcast to no more than their product.
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" | "Equal" | "Less"
            | "Greater" | "And" | "Or" | "Where" | "Gather" | "MatMul" | "Gemm" => {
                inputs.iter().fold(1u64, |product, &n| product.saturating_mul(n.max(1)))
            }
            "ConstantOfShape" => self.product(&node.input[0]),
            // Sizes that a constant states: as large as it likes.
            _ => u64::MAX,
        };
        if most > MOST_COMPUTED {
            return Err(named(
                node,
                format!(
                    "it is computed from constants and may have more than {MOST_COMPUTED} \
                     elements; fold constants when exporting (onnxsim does)"
                ),
            ));
        }
        self.count(node, most)?;
        let value = match &*node.op_type {
            "Constant" => node.attribute.iter().find_map(|a| a.t.as_ref()),
            _ => None,
        };
        self.known.extend(node.output.iter().map(|name| (name.as_str(), (most, value))));
        Ok(())
    }

    fn count(&mut self, node: &NodeProto, elements: u64) -> Result<(), ModelError> {
        self.total = self.total.saturating_add(elements);
        match self.total > MOST_CONSTANTS {
            true => Err(named(
                node,
                format!(
                    "with those before it, it reads or computes more than {MOST_CONSTANTS} elements \
                     of constants"
                ),
            )),
            false => Ok(()),
        }
    }

    /// Elements of a tensor whose shape is this constant; far too many where it is computed.
    fn product(&self, shape: &str) -> u64 {
        let Some((_, Some(shape))) = self.known.get(shape) else { return u64::MAX };
        let raw = shape
            .raw_data
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]));
        let sides = raw.chain(shape.int64_data.iter().copied());
        sides.fold(1, |n: u64, side| n.saturating_mul(u64::try_from(side).unwrap_or(u64::MAX)))
    }
}

fn constant(node: &NodeProto) -> Result<u64, ModelError> {
    let of = |a: &AttributeProto| match &a.t {
        Some(tensor) => elements(tensor),
        None => Ok(1 + a.ints.len() as u64 + a.floats.len() as u64 + a.strings.len() as u64),
    };
    node.attribute.iter().map(of).try_fold(0, |most: u64, n| Ok(most.max(n?)))
}

/// How many values a shape has.
pub fn values(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |n: u64, &side| n.saturating_mul(side as u64))
}

/// Bytes of a tensor of f32 between nodes; an error above [`MOST_TENSOR_BYTES`].
pub fn tensor_bytes(node: &str, shape: &[usize]) -> TractResult<()> {
    let bytes = shape.iter().try_fold(4usize, |n, &side| n.checked_mul(side));
    bytes.filter(|&bytes| bytes <= MOST_TENSOR_BYTES).map(drop).ok_or_else(|| {
        TractError::msg(format!(
            "`{node}` makes {shape:?} numbers, the limit is {MOST_TENSOR_BYTES} bytes a tensor"
        ))
    })
}

/// Runs what tract does with a file. Where it panics, the file is at fault, and the process
/// goes on.
pub fn shielded<T>(run: impl FnOnce() -> TractResult<T>) -> TractResult<T> {
    // What a panic leaves half-made is dropped with the closure, or guarded by locks whose
    // poison is ignored for that reason.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason");
        Err(TractError::msg(format!("the file is not consistent: tract panicked: {text}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value};
    use tract_onnx::pb::{TensorShapeProto, TypeProto, ValueInfoProto, type_proto};

    fn tensor(name: &str, dims: &[i64]) -> TensorProto {
        TensorProto { name: name.into(), dims: dims.into(), data_type: 7, ..Default::default() }
    }

    fn node(op: &str, input: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
        let input = input.iter().map(|name| name.to_string()).collect();
        let output = vec!["y".to_string()];
        NodeProto { op_type: op.into(), input, output, attribute, ..Default::default() }
    }

    fn ints(name: &str, ints: &[i64]) -> AttributeProto {
        AttributeProto { name: name.into(), ints: ints.into(), ..Default::default() }
    }

    fn one(name: &str, i: i64) -> AttributeProto {
        AttributeProto { name: name.into(), i, ..Default::default() }
    }

    fn image(side: Value) -> ValueInfoProto {
        let dim = vec![Dimension { value: Some(side), ..Default::default() }];
        let tensor = type_proto::Tensor { elem_type: 1, shape: Some(TensorShapeProto { dim }) };
        let value = Some(type_proto::Value::TensorType(tensor));
        let r#type = Some(TypeProto { value, ..Default::default() });
        ValueInfoProto { name: "image".into(), r#type, ..Default::default() }
    }

    /// What is said of a graph; empty where it is let pass.
    fn said(graph: GraphProto) -> String {
        let proto = ModelProto { graph: Some(graph), ..Default::default() };
        let checked = check_tensors(&proto).and_then(|()| check_nodes(&proto));
        checked.map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_no_classifier_has_is_refused_with_the_reason() {
        let nodes = |node: Vec<NodeProto>| GraphProto {
            node,
            initializer: vec![tensor("k", &[1 << 20]), tensor("l", &[1 << 20, 1])],
            ..Default::default()
        };
        let subgraph = AttributeProto {
            name: "body".into(),
            g: Some(GraphProto::default()),
            ..Default::default()
        };
        let shape = TensorProto { int64_data: vec![1 << 20, 1 << 20], ..tensor("s", &[2]) };
        let table = [
            (
                nodes(vec![node("Loop", &["x"], vec![])]),
                "the Loop node `y`: control flow, which no image classifier needs; it is not run",
            ),
            (
                nodes(vec![node("RandomNormal", &["x"], vec![])]),
                "the RandomNormal node `y`: random numbers, which no image classifier needs; it is \
                 not run",
            ),
            (
                nodes(vec![node("Conv", &["x"], vec![subgraph])]),
                "the Conv node `y`: `body` is a graph, and only plain nodes are run",
            ),
            (
                nodes(vec![node("Conv", &["x"], vec![ints("strides", &[0, 1])])]),
                "the Conv node `y`: `strides` is 0, allowed 1 to 4096",
            ),
            (
                nodes(vec![node("Conv", &["x"], vec![ints("pads", &[0, 0, 0, 4097])])]),
                "the Conv node `y`: `pads` is 4097, allowed 0 to 4096",
            ),
            (
                nodes(vec![node("Transpose", &["x"], vec![ints("perm", &[0, 2, 2, 1])])]),
                "the Transpose node `y`: `perm` is [0, 2, 2, 1], no permutation",
            ),
            (
                nodes(vec![node("Transpose", &["x"], vec![ints("perm", &[0; 9])])]),
                "the Transpose node `y`: `perm` has 9 numbers, the limit is 8",
            ),
            (
                nodes(vec![node("Constant", &[], vec![ints("perm", &[0; 100_000])])]),
                "the Constant node `y`: `perm` has 100000 numbers, the limit is 8",
            ),
            (
                GraphProto { output: vec![ValueInfoProto::default(); 65], ..Default::default() },
                "0 inputs and 65 outputs, the limits are 40000 and 64",
            ),
            (
                nodes(vec![node("Conv", &["x"], vec![one("group", 0)])]),
                "the Conv node `y`: `group` is 0, allowed 1 to 65536",
            ),
            (
                nodes(vec![node("Concat", &["x"], vec![one("axis", i64::MIN)])]),
                "the Concat node `y`: `axis` is -9223372036854775808, allowed -8 to 8",
            ),
            (
                nodes(vec![node("Conv", &["x"], vec![ints("strides", &[1; 65])])]),
                "the Conv node `y`: `strides` has 65 numbers, the limit is 64",
            ),
            (
                nodes(vec![node("Mul", &["k", "l"], vec![])]),
                "the Mul node `y`: it is computed from constants and may have more than 268435456 \
                 elements; fold constants when exporting (onnxsim does)",
            ),
            (
                nodes(vec![node("Tile", &["k", "l"], vec![])]),
                "the Tile node `y`: it is computed from constants and may have more than 268435456 \
                 elements; fold constants when exporting (onnxsim does)",
            ),
            (
                GraphProto {
                    node: vec![node("ConstantOfShape", &["s"], vec![])],
                    initializer: vec![shape],
                    ..Default::default()
                },
                "the ConstantOfShape node `y`: it is computed from constants and may have more \
                 than 268435456 elements; fold constants when exporting (onnxsim does)",
            ),
            (
                nodes(vec![node("Conv", &["x", "k"], vec![]); 1025]),
                "the Conv node `y`: with those before it, it reads or computes more than \
                 1073741824 elements of constants",
            ),
            (
                GraphProto { initializer: vec![tensor("w", &[i64::MAX, 3])], ..Default::default() },
                "the tensor `w` has the shape [9223372036854775807, 3]",
            ),
            (
                GraphProto { initializer: vec![tensor("w", &[-1])], ..Default::default() },
                "the tensor `w` has the shape [-1]",
            ),
            (
                GraphProto { initializer: vec![tensor("w", &[1; 9])], ..Default::default() },
                "the tensor `w` has the shape [1, 1, 1, 1, 1, 1, 1, 1, 1]",
            ),
            (
                GraphProto { input: vec![image(Value::DimValue(4097))], ..Default::default() },
                "its input `image` has a side of 4097, the limit is 4096",
            ),
            (
                GraphProto {
                    input: vec![image(Value::DimParam("(".repeat(129)))],
                    ..Default::default()
                },
                "a dimension's name has 129 bytes",
            ),
            (
                GraphProto {
                    initializer: vec![TensorProto::default(); MOST_TENSORS + 1],
                    ..Default::default()
                },
                "40001 initializers, the limit is 40000",
            ),
        ];
        for (graph, why) in table {
            assert_eq!(said(graph), format!("not a usable ONNX file: {why}"));
        }
    }

    #[test]
    fn what_classifiers_have_passes() {
        let graph = GraphProto {
            node: vec![
                node("Conv", &["x", "w"], vec![ints("pads", &[3; 4]), one("group", 1)]),
                // Scales of weights, not folded.
                node("Mul", &["w", "c"], vec![]),
                node("Concat", &["x", "y"], vec![one("axis", -1)]),
                node("Resize", &["x", "w"], vec![]),
            ],
            initializer: vec![tensor("w", &[64, 3, 7, 7]), tensor("c", &[64, 1, 1, 1])],
            input: vec![image(Value::DimValue(299)), image(Value::DimParam("h".into()))],
            ..Default::default()
        };
        assert_eq!(said(graph), "");
    }

    #[test]
    fn tensors_between_nodes_have_a_limit() {
        assert!(tensor_bytes("n", &[1, 4096, 4096, 16]).is_ok());
        for shape in [&[1, 4096, 4096, 17][..], &[usize::MAX, 2]] {
            let error = tensor_bytes("n", shape).unwrap_err().to_string();
            let why =
                format!("`n` makes {shape:?} numbers, the limit is 1073741824 bytes a tensor");
            assert_eq!(error, why);
        }
    }

    #[test]
    fn a_panic_of_tract_is_an_error_of_the_file() {
        let error = shielded::<()>(|| panic!("rank {}", 3)).unwrap_err().to_string();
        assert_eq!(error, "the file is not consistent: tract panicked: rank 3");
        assert_eq!(shielded(|| Ok(7)).unwrap(), 7);
    }
}
