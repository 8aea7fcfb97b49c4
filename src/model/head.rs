//! Finds the end of the network: global average pooling and the linear head after it.
//!
//! Class activation maps need both (Zhou et al., CVPR 2016, arXiv:1512.04150): the tensor
//! that the pooling reads and the weights that turn its mean into logits.

use super::ModelError;
use super::onnx::{Graph, attribute, elements, int, ints};
use crate::int8::graph::Layout;
use tract_onnx::pb::NodeProto;

/// The linear head: `logit_c = Σ_k mean_hw(A_k) · weights[k, c] + bias[c]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// `[channels, classes]`.
    pub weights: Vec<f32>,
    /// `[classes]`.
    pub bias: Vec<f32>,
    pub channels: usize,
    pub classes: usize,
}

/// Where the head was found.
#[derive(Clone, Debug)]
pub struct Ending {
    pub head: Head,
    /// The float or quantized tensor that global average pooling reads.
    pub features: String,
    pub layout: Layout,
    /// For `model inspect`: the names of pooling and linear nodes.
    pub pooling: String,
    pub linear: String,
}

/// Looks for GAP + linear head, walking back from the graph's outputs.
///
/// `features` and `weights` name the two tensors where the configuration does.
pub fn find(
    graph: &Graph,
    features: Option<&str>,
    weights: Option<&str>,
) -> Result<Ending, ModelError> {
    let mut failures = Vec::new();
    // An extra output with the features is common; the head hangs on one of the others.
    for output in &graph.proto.output {
        match walk(graph, &output.name, features, weights) {
            Ok(ending) => return Ok(ending),
            Err(why) => failures.push(format!("output `{}`: {why}", output.name)),
        }
    }
    Err(ModelError::NoHead(failures.join("; ")))
}

/// Operators that leave values alone.
fn is_passage(op: &str) -> bool {
    matches!(
        op,
        "Identity"
            | "Cast"
            | "Dropout"
            | "QuantizeLinear"
            | "DequantizeLinear"
            | "Flatten"
            | "Reshape"
            | "Squeeze"
            | "Unsqueeze"
    )
}

/// Operators that leave the order of the classes alone; they stand after the head.
fn is_activation(op: &str) -> bool {
    matches!(op, "Softmax" | "LogSoftmax" | "Sigmoid" | "QLinearSoftmax" | "QLinearSigmoid")
}

/// Follows passages upward; the first node that is none.
fn above<'a>(
    graph: &Graph<'a>,
    tensor: &str,
    is_passage: impl Fn(&str) -> bool,
) -> Result<&'a NodeProto, String> {
    let mut name = tensor.to_string();
    loop {
        let node = graph
            .producer(&name)
            .ok_or_else(|| format!("came to `{name}`, an input, without meeting a linear layer"))?;
        if !is_passage(&node.op_type) {
            return Ok(node);
        }
        name = node.input[0].clone();
    }
}

fn walk(
    graph: &Graph,
    output: &str,
    features: Option<&str>,
    weights: Option<&str>,
) -> Result<Ending, String> {
    let node = above(graph, output, |op| is_passage(op) || is_activation(op))?;
    // MatMul + Add is a linear layer in two nodes, in either order of the Add's inputs.
    let (linear, bias) = match &*node.op_type {
        "Add" => {
            let constant = node.input.iter().position(|i| graph.float_constant(i).is_some());
            let at = constant.ok_or_else(|| found(node, "an Add of two activations"))?;
            let bias = graph.float_constant(&node.input[at]).map(|(b, _)| b);
            (above(graph, &node.input[1 - at], is_passage)?, bias)
        }
        _ => (node, None),
    };
    let Linear { input, weights, bias: own } = linear_of(graph, linear, weights)?;
    let bias = match (own, bias) {
        (Some(a), Some(b)) => a.iter().zip(&b).map(|(a, b)| a + b).collect(),
        (Some(b), None) | (None, Some(b)) => b,
        (None, None) => vec![0.0; weights.1],
    };
    let (channels, classes) = (weights.0.len().checked_div(weights.1).unwrap_or(0), weights.1);
    if channels == 0 {
        return Err(found(linear, "a layer without weights"));
    }
    if bias.len() != classes {
        return Err(format!("{} biases for {classes} classes", bias.len()));
    }
    let pooling = above(graph, &input, is_passage)?;
    let (pooled, layout) = pooling_of(graph, pooling)?;
    let head = Head { weights: weights.0, bias, channels, classes };
    Ok(Ending {
        head,
        features: features.map_or(pooled, str::to_string),
        layout,
        pooling: label(pooling),
        linear: label(linear),
    })
}

struct Linear {
    input: String,
    /// `[channels, classes]` and the number of classes.
    weights: (Vec<f32>, usize),
    bias: Option<Vec<f32>>,
}

fn linear_of(graph: &Graph, node: &NodeProto, named: Option<&str>) -> Result<Linear, String> {
    let constant = |name: &String| {
        let name = named.unwrap_or(name);
        graph.float_constant(name).ok_or_else(|| found(node, "weights that are no constant"))
    };
    let bias = || match node.input.get(2).filter(|name| !name.is_empty()) {
        None => Ok(None),
        Some(name) => match graph.float_constant(name) {
            Some((bias, _)) => Ok(Some(bias)),
            None => Err(found(node, "a layer whose bias is no constant")),
        },
    };
    match &*node.op_type {
        "Gemm" => {
            if int(node, "transA").unwrap_or(0) != 0 {
                return Err(found(node, "transA"));
            }
            let (w, shape) = constant(&node.input[1])?;
            let [rows, columns] = shape[..] else {
                return Err(found(node, "weights of rank ≠ 2"));
            };
            let alpha = attribute(node, "alpha").map_or(1.0, |a| a.f);
            let beta = attribute(node, "beta").map_or(1.0, |a| a.f);
            let transposed = int(node, "transB").unwrap_or(0) != 0;
            let mut weights = if transposed { transpose(&w, rows, columns) } else { w };
            weights.iter_mut().for_each(|w| *w *= alpha);
            let classes = if transposed { rows } else { columns };
            let bias = bias()?.map(|b| b.iter().map(|b| b * beta).collect());
            Ok(Linear { input: node.input[0].clone(), weights: (weights, classes), bias })
        }
        "MatMul" => {
            let (w, shape) = constant(&node.input[1])?;
            let [_, classes] = shape[..] else {
                return Err(found(node, "weights of rank ≠ 2"));
            };
            Ok(Linear { input: node.input[0].clone(), weights: (w, classes), bias: None })
        }
        "Conv" => {
            let (w, shape) = constant(&node.input[1])?;
            let [classes, channels, 1, 1] = shape[..] else {
                return Err(found(node, "a convolution larger than 1x1"));
            };
            let bias = bias()?;
            let weights = (transpose(&w, classes, channels), classes);
            Ok(Linear { input: node.input[0].clone(), weights, bias })
        }
        // Quantized heads keep their weights as integers beside scale and zero point.
        "QLinearMatMul" | "QGemm" | "QLinearConv" => quantized_linear(graph, node),
        _ => Err(found(node, "no linear layer (Gemm, MatMul, 1x1 Conv)")),
    }
}

fn quantized_linear(graph: &Graph, node: &NodeProto) -> Result<Linear, String> {
    let whole =
        |i: usize| -> Option<(Vec<f32>, Vec<usize>)> { graph.float_constant(node.input.get(i)?) };
    let missing = || found(node, "weights that are no constant");
    let (w, shape) = whole(3).ok_or_else(missing)?;
    let (scale, _) = whole(4).ok_or_else(missing)?;
    let (zero, _) = whole(5).ok_or_else(missing)?;
    if int(node, "transA").unwrap_or(0) != 0 {
        return Err(found(node, "transA"));
    }
    let (transposed, bias_at) = match &*node.op_type {
        "QGemm" => (int(node, "transB").unwrap_or(0) != 0, 6),
        "QLinearConv" => (true, 8),
        _ => (false, usize::MAX),
    };
    let alpha = attribute(node, "alpha").map_or(1.0, |a| a.f);
    let &[rows, columns, ref window @ ..] = &shape[..] else {
        return Err(found(node, "weights of rank < 2"));
    };
    if window.iter().any(|&n| n != 1) {
        return Err(found(node, "a convolution larger than 1x1"));
    }
    let classes = if transposed { rows } else { columns };
    // One for all classes or one for each.
    let fits = |v: &[f32]| v.len() == 1 || v.len() == classes;
    if !fits(&scale) || !fits(&zero) {
        return Err(found(node, "scales or zero points that do not fit its weights"));
    }
    let w = if transposed { transpose(&w, rows, columns) } else { w };
    let pick = |v: &[f32], c: usize| v[if v.len() == 1 { 0 } else { c }];
    let real = w.iter().enumerate().map(|(i, w)| {
        let c = i % classes;
        (w - pick(&zero, c)) * pick(&scale, c) * alpha
    });
    let weights = (real.collect(), classes);
    let x_scale = whole(1).and_then(|(v, _)| v.first().copied()).ok_or_else(missing)?;
    let bias = match node.input.get(bias_at).filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => {
            let counted = graph.float_constant(name).filter(|(b, _)| b.len() == classes);
            let (b, _) = counted.ok_or_else(|| {
                found(node, "a layer whose bias is no constant of one number a class")
            })?;
            // It counts in what the product counts in.
            let real = |(c, b): (usize, &f32)| b * x_scale * pick(&scale, c) * alpha;
            Some(b.iter().enumerate().map(real).collect())
        }
    };
    Ok(Linear { input: node.input[0].clone(), weights, bias })
}

/// The tensor that a pooling node averages over all positions, and its layout.
fn pooling_of(graph: &Graph, node: &NodeProto) -> Result<(String, Layout), String> {
    let input = node.input[0].clone();
    match &*node.op_type {
        "GlobalAveragePool" => Ok((input, Layout::Nchw)),
        "QLinearGlobalAveragePool" => {
            let last = int(node, "channels_last").unwrap_or(0) != 0;
            Ok((input, if last { Layout::Nhwc } else { Layout::Nchw }))
        }
        "ReduceMean" => {
            let axes = ints(node, "axes").or_else(|| {
                let t = graph.constant(node.input.get(1)?)?;
                let t = t.cast_to::<i64>().ok()?;
                elements(&t).ok()
            });
            let mut axes = axes.ok_or_else(|| found(node, "a mean over everything"))?;
            axes.iter_mut().for_each(|a| *a = a.rem_euclid(4));
            axes.sort_unstable();
            match axes[..] {
                [2, 3] => Ok((input, Layout::Nchw)),
                [1, 2] => Ok((input, Layout::Nhwc)),
                _ => Err(found(node, "a mean over other axes than height and width")),
            }
        }
        _ => {
            Err(found(node, "no global average pooling (GlobalAveragePool, ReduceMean over H, W)"))
        }
    }
}

fn transpose(w: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|i| w[i % rows * columns + i / rows]).collect()
}

fn label(node: &NodeProto) -> String {
    let name = if node.name.is_empty() { &node.output[0] } else { &node.name };
    format!("{} `{name}`", node.op_type)
}

fn found(node: &NodeProto, what: &str) -> String {
    format!("{} is {what}", label(node))
}
