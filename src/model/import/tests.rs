use super::super::{limits, onnx, zero_points};
use super::*;
use crate::int8::plan::{Plan, PlanError};
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto};

fn tensor(name: &str, data_type: i32, dims: &[i64]) -> TensorProto {
    TensorProto { name: name.into(), data_type, dims: dims.into(), ..Default::default() }
}

fn float(name: &str, values: &[f32]) -> TensorProto {
    TensorProto { float_data: values.into(), ..tensor(name, 1, &[values.len() as i64]) }
}

/// int8 weights, all 1.
fn ones(name: &str, dims: &[i64]) -> TensorProto {
    let n = dims.iter().product::<i64>() as usize;
    TensorProto { raw_data: vec![1u8; n], ..tensor(name, 3, dims) }
}

fn integers_of(name: &str, values: &[i64]) -> TensorProto {
    TensorProto { int64_data: values.into(), ..tensor(name, 7, &[values.len() as i64]) }
}

fn node(op: &str, inputs: &str, output: &str) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        input: inputs.split_whitespace().map(String::from).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

fn with(mut node: NodeProto, name: &str, i: i64) -> NodeProto {
    let attribute = AttributeProto { name: name.into(), i, r#type: 2, ..Default::default() };
    node.attribute.push(attribute);
    node
}

/// From the input `image` to the output `y`.
fn imported(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> Imported {
    let value = |name: &str| ValueInfoProto { name: name.into(), ..Default::default() };
    let (input, output) = (vec![value("image")], vec![value("y")]);
    let graph = GraphProto { node, initializer, input, output, ..Default::default() };
    let mut proto = ModelProto { graph: Some(graph), ..Default::default() };
    zero_points::complete(&mut proto);
    limits::check_tensors(&proto).and_then(|()| limits::check_nodes(&proto)).unwrap();
    import(&onnx::Graph::new(&proto).unwrap(), Isa::Scalar)
}

/// The reasons for what stays in float.
fn left(imported: &Imported) -> Vec<&str> {
    imported.fallbacks.iter().map(|f| &*f.why).collect()
}

fn read() -> Vec<NodeProto> {
    vec![node("QuantizeLinear", "image s", "i"), node("DequantizeLinear", "i s", "x")]
}

fn written() -> Vec<NodeProto> {
    vec![node("QuantizeLinear", "c s", "q"), node("DequantizeLinear", "q s", "y")]
}

fn convolution(dq: NodeProto) -> Vec<NodeProto> {
    [read(), vec![dq, node("Conv", "x wf", "c")], written()].concat()
}

#[test]
fn weight_scales_of_another_axis_are_not_taken_for_those_of_channels() {
    let constants =
        |scales: &[f32]| vec![float("s", &[0.1]), float("ws", scales), ones("w", &[3, 3, 1, 1])];
    let dq = || node("DequantizeLinear", "w ws", "wf");
    let per_channel = constants(&[0.1, 0.2, 0.3]);
    let why = ["its weights have scales for something else than output channels"];
    for wrong in [dq(), with(dq(), "axis", 1), with(dq(), "axis", -3)] {
        assert_eq!(left(&imported(convolution(wrong), per_channel.clone())), why);
    }
    let blocked = with(with(dq(), "axis", 0), "block_size", 1);
    assert_eq!(left(&imported(convolution(blocked), per_channel.clone())), why);
    for right in [with(dq(), "axis", 0), with(dq(), "axis", -4)] {
        assert_eq!(left(&imported(convolution(right), per_channel.clone())), [""; 0]);
    }
    // One scale for all has no axis.
    assert_eq!(left(&imported(convolution(dq()), constants(&[0.1]))), [""; 0]);
}

#[test]
fn a_scale_of_nothing_leaves_the_layer_in_float() {
    let constants = vec![float("s", &[0.1]), float("ws", &[0.0]), ones("w", &[3, 3, 1, 1])];
    let imported = imported(convolution(node("DequantizeLinear", "w ws", "wf")), constants);
    assert_eq!(left(&imported), ["output channel 0 has the multiplier 0"]);
}

#[test]
fn an_output_of_another_type_is_told() {
    let mut nodes = [read(), vec![node("Relu", "x", "c")], written()].concat();
    let at = nodes.iter().position(|n| n.output[0] == "q").unwrap();
    // INT16.
    nodes[at] = with(nodes[at].clone(), "output_dtype", 5);
    let imported = imported(nodes, vec![float("s", &[0.1])]);
    let why = "it is quantized to I16, not to 8 bits";
    assert_eq!(left(&imported), [why; 2]);
}

#[test]
fn what_may_not_be_a_picture_stays_in_float() {
    let flat = [node("QuantizeLinear", "image s", "i"), node("DequantizeLinear", "i s", "d")];
    let flat = [&flat[..], &[node("Flatten", "d", "f"), node("QuantizeLinear", "f s", "g")]];
    let flat = [&flat.concat()[..], &[node("DequantizeLinear", "g s", "x")]].concat();
    let relu = vec![node("Relu", "x", "c")];
    let add = vec![node("Add", "x x", "c")];
    let why = "its tensors are not known to have rank 4";
    for between in [relu, add] {
        let nodes = [flat.clone(), between.clone(), written()].concat();
        assert_eq!(left(&imported(nodes, vec![float("s", &[0.1])])), [why]);
        let nodes = [read(), between, written()].concat();
        assert_eq!(left(&imported(nodes, vec![float("s", &[0.1])])), [""; 0]);
    }
}

#[test]
fn pads_have_a_limit_and_no_value() {
    let pad = |pads: &[i64], old: bool| {
        let inputs = if old { "x" } else { "x pads" };
        let mut pad = node("Pad", inputs, "c");
        if old {
            let ints =
                AttributeProto { name: "pads".into(), ints: pads.into(), ..Default::default() };
            let value = AttributeProto { name: "value".into(), f: 0.5, ..Default::default() };
            pad.attribute.extend([ints, value]);
        }
        let nodes = [read(), vec![pad], written()].concat();
        imported(nodes, vec![float("s", &[0.1]), integers_of("pads", pads)])
    };
    assert_eq!(left(&pad(&[0, 0, 4096, 0, 0, 0, 0, 1], false)), [""; 0]);
    let why = "its pads are [0, 0, 4097, 0, 0, 0, 0, 1]; height and width alone are padded, by \
               4096 at most";
    assert_eq!(left(&pad(&[0, 0, 4097, 0, 0, 0, 0, 1], false)), [why]);
    let why = "it pads with something else than zeros";
    assert_eq!(left(&pad(&[0, 0, 1, 1, 0, 0, 1, 1], true)), [why]);
}

#[test]
fn bounds_that_cross_are_the_upper_one() {
    let quant = Quant { scale: 0.5, zero_point: 10 };
    assert_eq!(clamp(quant, [6.0, 2.0]), Clamp::new(10, 14, 14));
    assert_eq!(clamp(quant, [0.0, 6.0]), Clamp::new(10, 10, 22));
    assert_eq!(clamp(quant, [f32::NEG_INFINITY, f32::INFINITY]), open(quant));
    assert_eq!(clamp(quant, [f32::NAN; 2]), open(quant));
}

#[test]
fn a_pointwise_layer_of_other_channels_is_told_though_it_is_fused() {
    let depthwise = with(node("Conv", "x df", "d"), "group", 3);
    let nodes = [
        read(),
        vec![
            node("DequantizeLinear", "dw s", "df"),
            depthwise,
            node("QuantizeLinear", "d s", "dq"),
            node("DequantizeLinear", "dq s", "dx"),
            node("DequantizeLinear", "w s", "wf"),
            node("Conv", "dx wf", "c"),
        ],
        written(),
    ];
    let constants = vec![float("s", &[0.1]), ones("dw", &[3, 1, 3, 3]), ones("w", &[4, 5, 1, 1])];
    let imported = imported(nodes.concat(), constants);
    let [Placed { region, .. }] = &imported.regions[..] else { panic!("{imported:?}") };
    let error = Plan::new(region, &[[8, 8, 3]]).unwrap_err();
    let PlanError::Channels { expected, got, .. } = error else { panic!("{error}") };
    assert_eq!((expected, got), (5, 3));
}
