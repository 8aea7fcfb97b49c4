#!/usr/bin/env python3
"""Makes the small models of tests/model.rs, with ONNX Runtime's outputs beside them.

    pip install onnx onnxruntime numpy && tests/models/make.py

Float models share their weights and differ in how they end and how they are laid out, so
all of them have the outputs of float.npy. Quantized ones come from ONNX Runtime's own
quantizer, with what ONNX Runtime computes for input.npy as <name>.npy: the features
[h, w, c] in float. Rounding differs between machines by single steps, so a repeated run
may change those.
"""
import json
import pathlib
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (CalibrationDataReader, QuantFormat, QuantType,
                                      quantize_static)

HERE = pathlib.Path(__file__).parent
F = np.float32
SIDE = 16
CLASSES = 4
random = np.random.default_rng(2016)
cases = {}


def weight(*shape):
    fan_in = np.prod(shape[1:])
    return (random.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(F)


def model(nodes, constants, input_shape, opset=13, output="out", metadata=()):
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, input_shape)]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, stored)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    opsets = opsets[:1 + any(n.domain == "com.microsoft" for n in nodes)]
    # Opset 21 needs a newer container.
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8 if opset < 21 else 10)
    for key, value in dict(metadata).items():
        made.metadata_props.add(key=key, value=value)
    return made


def save(name, made):
    onnx.save(made, HERE / f"{name}.onnx")


def run(made, image, output=None, as_defined=False):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if as_defined:
        # Node by node. What fuses them saturates the bias of a channel without weights.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(made.SerializeToString(), options).run(output, {"image": image})


# --- float: one body, many endings

BODY = {"w1": weight(5, 3, 3, 3), "b1": weight(5, 1)[:, 0], "w2": weight(6, 5, 3, 3),
        "b2": weight(6, 1)[:, 0]}
HEAD, BIAS = weight(CLASSES, 6).T.copy(), weight(CLASSES, 1)[:, 0]
DYNAMIC, FIXED = ["n", 3, "h", "w"], [1, 3, SIDE, SIDE]
node = helper.make_node


def body(source="image"):
    return [node("Conv", [source, "w1", "b1"], ["c1"], strides=[2, 2], pads=[1, 1, 1, 1]),
            node("Relu", ["c1"], ["r1"]),
            node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
            node("Relu", ["c2"], ["features"])]


def floats():
    gap = [node("GlobalAveragePool", ["features"], ["gap"])]
    flat = gap + [node("Flatten", ["gap"], ["flat"])]
    gemm = [node("Gemm", ["flat", "w", "b"], ["out"])]
    matmul = [node("MatMul", ["flat", "w"], ["mm"]), node("Add", ["mm", "b"], ["out"])]
    head, axes = {"w": HEAD, "b": BIAS}, [2, 3]

    def one(name, ending, constants=head, shape=DYNAMIC, opset=13, metadata=(), nodes=None):
        save(name, model((nodes or body()) + ending, BODY | constants, shape, opset,
                         metadata=metadata))

    one("gemm", flat + gemm)
    one("gemm_transb", flat + [node("Gemm", ["flat", "w", "b"], ["out"], transB=1)],
        {"w": HEAD.T.copy(), "b": BIAS})
    one("gemm_scaled", flat + [node("Gemm", ["flat", "w", "b"], ["out"], alpha=0.5, beta=2.0)],
        {"w": HEAD * 2, "b": BIAS / 2})
    one("matmul", flat + matmul)
    one("matmul_bias_first", flat + [matmul[0], node("Add", ["b", "mm"], ["out"])])
    one("conv", gap + [node("Conv", ["gap", "w", "b"], ["cls"]), node("Flatten", ["cls"], ["out"])],
        {"w": HEAD.T.copy()[..., None, None], "b": BIAS})
    one("softmax", flat + [node("Gemm", ["flat", "w", "b"], ["logits"]),
                           node("Softmax", ["logits"], ["out"], axis=1)])
    one("mean_attribute", [node("ReduceMean", ["features"], ["flat"], axes=axes, keepdims=0)] + gemm)
    one("mean_negative", [node("ReduceMean", ["features"], ["flat"], axes=[-1, -2], keepdims=0)]
        + matmul)
    one("mean_input", [node("ReduceMean", ["features", "axes"], ["gap"]),
                       node("Flatten", ["gap"], ["flat"])] + gemm,
        head | {"axes": np.array(axes)}, opset=18)
    one("fixed", flat + gemm, shape=FIXED)
    one("labels", flat + gemm, metadata={"labels": "ant\nbee\ncat\ndog\n", "scaling": "unit",
                                         "colour": "bgr", "native_size": "16x24"})
    last = node("Transpose", ["features"], ["channels_last"], perm=[0, 2, 3, 1])
    mean = node("ReduceMean", ["channels_last"], ["flat"], axes=[1, 2], keepdims=0)
    one("features_last", [last, mean] + matmul)
    first = node("Transpose", ["image"], ["channels_first"], perm=[0, 3, 1, 2])
    one("input_last", [last, mean] + gemm, shape=[1, "h", "w", 3],
        nodes=[first] + body("channels_first"))

    # Without the ending that is looked for, or with an input that is no picture.
    one("no_pooling", [node("Flatten", ["features"], ["flat"])] + gemm,
        {"w": weight(6 * 64, CLASSES), "b": BIAS}, shape=FIXED)
    one("no_head", gap + [node("Flatten", ["gap"], ["out"])], {})
    one("wide_head", [node("Conv", ["features", "w"], ["out"])], {"w": weight(4, 6, 3, 3)})
    one("mean_of_channels", [node("ReduceMean", ["features"], ["gap"], axes=[1], keepdims=0),
                             node("Flatten", ["gap"], ["flat"])] + gemm,
        {"w": weight(64, CLASSES), "b": BIAS}, shape=FIXED)
    one("gated_head", flat[:1] + [node("Sigmoid", ["gap"], ["gate"]),
                                  node("Flatten", ["gate"], ["flat"])] + gemm)
    one("computed_bias", flat + [node("Relu", ["b"], ["positive"]),
                                 node("Gemm", ["flat", "w", "positive"], ["out"])])
    one("rank_3", flat + gemm, shape=[3, SIDE, SIDE])
    one("four_channels", flat + gemm, shape=[1, 4, SIDE, SIDE])
    one("bad_metadata", flat + gemm, metadata={"scaling": "imagenet"})
    one("bad_size", flat + gemm, metadata={"native_size": "large"})


def weights_only():
    """Weights stored in 8 bits, tensors in float: smaller on disk, float to run."""
    constants = {k: v for k, v in BODY.items() if k[0] == "b"} | {"w": HEAD, "b": BIAS}
    before = []
    for k in ("w1", "w2"):
        scale = np.abs(BODY[k]).max() / F(127)
        constants[k + "_codes"] = np.rint(BODY[k] / scale).astype(np.int8)
        constants[k + "_scale"], constants[k + "_zero"] = scale, np.int8(0)
        before.append(node("DequantizeLinear", [k + "_codes", k + "_scale", k + "_zero"], [k]))
    ending = [node("GlobalAveragePool", ["features"], ["gap"]), node("Flatten", ["gap"], ["flat"]),
              node("Gemm", ["flat", "w", "b"], ["out"])]
    save("weights_only", model(before + body() + ending, constants, DYNAMIC))


# --- quantized: every operator that has an int8 kernel


def network():
    """Convolution, Clip(0, 6), depthwise 5x5, residual, pooling, groups, asymmetric pads."""
    c = {"w0": weight(16, 3, 3, 3), "b0": weight(16, 1)[:, 0], "zero": F(0), "six": F(6),
         "dw": weight(16, 1, 5, 5), "db": weight(16, 1)[:, 0],
         "pw": weight(16, 16, 1, 1), "pb": weight(16, 1)[:, 0],
         "gw": weight(24, 4, 3, 3), "gb": weight(24, 1)[:, 0],
         "lw": weight(12, 24, 1, 1), "lb": weight(12, 1)[:, 0],
         "w": weight(CLASSES, 12).T.copy(), "b": BIAS}
    # Channels of very different ranges: what quantization per channel is for.
    c["w0"] *= np.geomspace(0.1, 1, 16, dtype=F)[:, None, None, None]
    nodes = [
        node("Conv", ["image", "w0", "b0"], ["c0"], strides=[2, 2], pads=[0, 0, 1, 1]),
        node("Clip", ["c0", "zero", "six"], ["a0"]),
        node("Conv", ["a0", "dw", "db"], ["c1"], "depthwise", pads=[2, 2, 2, 2], group=16),
        node("Clip", ["c1", "zero", "six"], ["a1"]),
        node("Conv", ["a1", "pw", "pb"], ["c2"], "pointwise"),
        node("Add", ["c2", "a0"], ["s"], "residual"),
        node("MaxPool", ["s"], ["p"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", ["p", "gw", "gb"], ["c3"], "grouped", pads=[1, 1, 1, 1], group=4),
        node("Relu", ["c3"], ["a3"]),
        node("Conv", ["a3", "lw", "lb"], ["features"], "last"),
        node("GlobalAveragePool", ["features"], ["gap"], "pool"),
        node("Flatten", ["gap"], ["flat"], "flatten"),
        node("Gemm", ["flat", "w", "b"], ["out"], "head"),
    ]
    return model(nodes, c, [1, 3, "h", "w"])


class Reader(CalibrationDataReader):
    def __init__(self, images):
        self.images = iter(images)

    def get_next(self):
        image = next(self.images, None)
        return None if image is None else {"image": image}


def with_features(made):
    """The model with the float features that its pooling reads as output `probe`."""
    probed = onnx.ModelProto()
    probed.CopyFrom(made)
    pool = next(n for n in probed.graph.node if n.op_type.endswith("GlobalAveragePool"))
    name = pool.input[0]
    if pool.op_type.startswith("QLinear"):
        probed.graph.node.append(node("DequantizeLinear", pool.input[:3], ["probe"]))
        name = "probe"
    probed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return probed, name


def step(made):
    """The scale with which the features are quantized."""
    known = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    pool = next(n for n in made.graph.node if n.op_type.endswith("GlobalAveragePool"))
    if pool.op_type.startswith("QLinear"):
        return known[pool.input[1]]
    maker = next(n for n in made.graph.node if pool.input[0] in n.output)
    return known[maker.input[1]]


def quantize(name, made, images, image, options):
    """ONNX Runtime's quantizer on `made`; its own features for `image` beside the file."""
    target = HERE / f"{name}.onnx"
    options = {"per_channel": True, "weight_type": QuantType.QInt8,
               "quant_format": QuantFormat.QDQ} | options
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "float.onnx")
        onnx.save(made, source)
        quantize_static(source, target, Reader(images), **options)
    made = onnx.load(target)
    # The quantizer writes what it knows of shapes; nobody needs it.
    del made.graph.value_info[:]
    onnx.save(made, target)
    probed, output = with_features(made)
    features = run(probed, image, [output])[0][0].transpose(1, 2, 0)
    np.save(HERE / f"{name}.npy", np.ascontiguousarray(features, F))
    cases[name] = {"step": float(step(made))}


def quantized(image):
    images = [(random.uniform(-1, 1, (1, 3, 24, 28))).astype(F) for _ in range(8)]
    made = network()
    for name, options in {
        "qdq_u8": dict(activation_type=QuantType.QUInt8),
        "qdq_s8": dict(activation_type=QuantType.QInt8),
        "qdq_u8_per_tensor": dict(activation_type=QuantType.QUInt8, per_channel=False),
        "qdq_s8_symmetric": dict(activation_type=QuantType.QInt8,
                                 extra_options={"ActivationSymmetric": True}),
        "qdq_float_head": dict(activation_type=QuantType.QUInt8,
                               nodes_to_exclude=["pool", "flatten", "head"]),
        "qop_u8": dict(activation_type=QuantType.QUInt8, quant_format=QuantFormat.QOperator),
        "qop_s8": dict(activation_type=QuantType.QInt8, quant_format=QuantFormat.QOperator),
        "float_pointwise": dict(activation_type=QuantType.QUInt8,
                                nodes_to_exclude=["pointwise"]),
        "float_grouped": dict(activation_type=QuantType.QUInt8,
                              nodes_to_exclude=["grouped"]),
    }.items():
        quantize(name, made, images, image, options)


# --- one quantized operator each: the same layer input as ONNX Runtime's, to the byte


def layers(image):
    """Each layer reads the quantized image, so that no earlier rounding hides in its result."""
    rng = np.random.default_rng(7)

    def he(*shape):
        return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(F)

    conv = lambda out, kernel, **more: ([node("Conv", ["image", "k", "kb"], ["y"], "layer", **more)],
                                        {"k": he(out, 3 // more.get("group", 1), *kernel),
                                         "kb": he(out, 1)[:, 0]}, out)
    relu = lambda layer: ([*layer[0], node("Relu", ["y"], ["y_relu"])], *layer[1:])
    same = dict(auto_pad="SAME_UPPER")
    for name, (nodes, constants, channels) in {
        "pointwise": conv(33, [1, 1]),
        "conv_3x3_stride": relu(conv(17, [3, 3], strides=[2, 2], pads=[0, 1, 1, 0])),
        "conv_1x7_dilated": conv(9, [1, 7], dilations=[1, 2], pads=[0, 6, 0, 6]),
        "depthwise_3x3": conv(3, [3, 3], group=3, **same),
        "depthwise_5x5_stride": relu(conv(3, [5, 5], group=3, strides=[2, 2], **same)),
        "depthwise_multiplied": conv(6, [3, 3], group=3, **same),
        "residual": ([node("Add", ["image", "image"], ["y"], "layer")], {}, 3),
    }.items():
        last = nodes[-1].output[0]
        ending = [node("GlobalAveragePool", [last], ["gap"], "pool"),
                  node("Flatten", ["gap"], ["flat"], "flatten"),
                  node("Gemm", ["flat", "w", "b"], ["out"], "head")]
        constants |= {"w": he(CLASSES, channels).T.copy(), "b": BIAS}
        made = model(nodes + ending, constants, [1, 3, "h", "w"])
        for dialect, options in {
            "qdq": dict(activation_type=QuantType.QUInt8),
            "qop": dict(activation_type=QuantType.QInt8, quant_format=QuantFormat.QOperator),
        }.items():
            quantize(f"layer_{name}_{dialect}", made, [image], image, options)


# --- what ONNX allows and the quantizer does not write, node by node


def written():
    """Quantized models by name: nodes from `image` to `y`, which is pooled, and constants."""
    rng = np.random.default_rng(21)
    u8, s8 = np.uint8, np.int8
    scale, zero = F(1 / 127), u8(128)
    weights = rng.integers(-127, 128, (3, 3, 3, 3)).astype(s8)
    image = {"s": scale, "z": zero}
    kernel = {"w": weights, "ws": F(0.002) * np.array([1, 2, 3], F), "wz": np.zeros(3, s8)}
    q = lambda x, y, s="s", z="z": node("QuantizeLinear", [x, s, z], [y])
    dq = lambda x, y, s="s", z="z", **more: node("DequantizeLinear", [x, s, z], [y], **more)
    qi = [q("image", "i")]
    start = qi + [dq("i", "x")]
    weigh = dq("w", "wf", "ws", "wz", axis=0)
    conv = [weigh, node("Conv", ["x", "wf"], ["c"], pads=[1, 1, 1, 1])]
    end = [q("c", "cq", "cs", "cz"), dq("cq", "y", "cs", "cz")]
    out = {"cs": F(0.02), "cz": u8(120)}
    qconv = lambda x, y, of=("s", "z"), **more: node(
        "QLinearConv", [x, *of, "w", "ws", "wz", "cs", "cz"], [y], pads=[1, 1, 1, 1], **more)
    qadd = lambda a, b, y, of=("cs", "cz", "cs", "cz"): node(
        "QLinearAdd", [a, *of[:2], b, *of[2:], "ys", "yz"], [y], domain="com.microsoft")
    total = {"ys": F(0.03), "yz": u8(127)}
    # A channel without weights, and so with a scale in which its bias is no 32-bit number.
    dead = kernel | {"ws": np.array([0.002, 7.9e-12, 0.004], F), "b": np.array([0.1, 0.5, -0.2], F)}
    bias = [weigh, node("Conv", ["x", "wf", "b"], ["c"], pads=[1, 1, 1, 1])]
    other = {"s2": F(1.7 / 127), "z2": u8(100), "ds": F(0.03), "dz": u8(90)}
    pool = dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    pads = {"pads": np.array([0, 0, 1, 2, 0, 0, 2, 1])}
    return {
        "layer_dead_channel": (start + bias + end, image | dead | out),
        # Read with another scale than it was made with, by an operator and in float.
        "layer_read_otherwise_qdq": (
            qi + [dq("i", "x", "s2", "z2")] + conv + [end[0], dq("cq", "y", "ds", "dz")],
            image | kernel | out | other),
        "layer_read_otherwise_qop": (
            qi + [qconv("i", "c", ("s2", "z2")), qadd("i", "c", "a", ("s2", "z", "ds", "dz")),
                  dq("a", "y", "ys", "yz")], image | kernel | out | total | other),
        "layer_signed_by_its_maker": (
            [q("image", "i", z="zs"), node("DequantizeLinear", ["i", "s"], ["x"])] + conv + end,
            {"s": scale, "zs": s8(0)} | kernel | out),
        "layer_signed_by_attribute": (
            [node("QuantizeLinear", ["image", "s"], ["i"], output_dtype=TensorProto.INT8),
             node("DequantizeLinear", ["i", "s"], ["x"])] + conv + end,
            {"s": scale} | kernel | out, 21),
        # No zero point, and no int8 operator: tract makes the integers.
        "float_signed_by_attribute": (
            [node("QuantizeLinear", ["image", "s"], ["i"], output_dtype=TensorProto.INT8),
             node("DequantizeLinear", ["i", "s"], ["x"]), node("Sigmoid", ["x"], ["c"])] + end,
            {"s": scale, "cs": F(1 / 255), "cz": s8(-128)}, 21),
        # The sum is signed because its summands are.
        "layer_signed_by_summand": (
            [q("image", "i", z="zs"), node("QLinearAdd", ["i", "s", "zs", "i", "s", "zs", "ys"],
                                           ["a"], domain="com.microsoft"), dq("a", "y", "ys", "zs")],
            {"s": scale, "zs": s8(0), "ys": F(0.02)}),
        "layer_pool_relu": (
            start + [node("MaxPool", ["x"], ["p"], **pool), node("Relu", ["p"], ["c"]),
                     q("c", "cq"), dq("cq", "y")], image),
        "layer_pad_relu": (
            start + [node("Pad", ["x", "pads"], ["p"]), node("Relu", ["p"], ["c"]),
                     q("c", "cq"), dq("cq", "y")], image | pads),
        "layer_pad_rescaled": (
            start + [node("Pad", ["x", "pads"], ["c"])] + end,
            image | pads | {"cs": F(1.01 / 127), "cz": u8(127)}),
        "layer_spread_add": (
            start + [node("MaxPool", ["x"], ["p"], kernel_shape=[24, 28]), q("p", "pq"),
                     dq("pq", "pf"), node("Add", ["pf", "x"], ["c"])] + end, image | out),
        "layer_bounds_crossed": (
            start + conv + [node("Clip", ["c", "low", "high"], ["r"]), q("r", "cq", "cs", "cz"),
                            dq("cq", "y", "cs", "cz")],
            image | kernel | out | {"low": F(1), "high": F(0.5)}),
        # Those that need a float stretch.
        "float_axis_1": (
            start + [dq("w", "wf", "ws", "wz"), conv[1]] + end, image | kernel | out),
        "float_scales_of_channels": (
            start + conv + [end[0], dq("cq", "y", "ds", "dz", axis=1)],
            image | kernel | out | {"ds": np.array([0.01, 0.02, 0.03], F),
                                    "dz": np.array([120, 100, 110], u8)}),
        "float_pad_value": (
            start + [node("Pad", ["x", "pads", "half"], ["c"])] + end,
            image | pads | out | {"half": F(0.5)}),
        "float_pad_axes": (
            start + [node("Pad", ["x", "two", "", "axes"], ["c"])] + end,
            image | out | {"two": np.array([2, 1, 1, 2]), "axes": np.array([2, 3])}, 18),
        # A window that we have not, and a sum that can overflow, on integers.
        "float_pool_of_integers": (
            qi + [qconv("i", "c"), node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2],
                                        strides=[3, 3], ceil_mode=1),
                  qconv("p", "d", ("cs", "cz")), dq("d", "y", "cs", "cz")], image | kernel | out),
        "float_overflow": (
            qi + [node("QLinearConv", ["i", "s", "z", "w", "ws", "wz", "cs", "cz", "b"], ["c"]),
                  dq("c", "y", "cs", "cz")],
            image | kernel | {"cs": F(6e-9), "cz": u8(120),
                              "b": np.array([20_000, 5000, -7000], np.int32)}),
        # An integer tensor that two regions have, and no float node.
        "float_between": (
            qi + [qconv("i", "c"), node("MaxPool", ["c"], ["p"], **pool), dq("p", "pf", "cs", "cz"),
                  node("Sigmoid", ["pf"], ["t"]), q("t", "tq", "cs", "cz"), qadd("c", "tq", "a"),
                  dq("a", "y", "ys", "yz")], image | kernel | out | total),
    }


def by_hand(image):
    rng = np.random.default_rng(22)
    ending = [node("GlobalAveragePool", ["y"], ["gap"]), node("Flatten", ["gap"], ["flat"]),
              node("Gemm", ["flat", "head", "bias"], ["out"])]
    head = {"head": rng.standard_normal((3, CLASSES)).astype(F), "bias": BIAS}
    for name, (nodes, constants, *opset) in written().items():
        made = model(nodes + ending, constants | head, [1, 3, "h", "w"], *opset)
        save(name, made)
        probed, output = with_features(made)
        features = run(probed, image, [output], as_defined=True)[0][0].transpose(1, 2, 0)
        np.save(HERE / f"{name}.npy", np.ascontiguousarray(features, F))
        cases[name] = {"step": float(np.max(step(made)))}

    # A head in integers, its weights half of what they are to be and its scale again.
    scale = F(np.abs(HEAD).max() / 127)
    constants = {"s": F(0.01), "z": np.uint8(0), "w": np.rint(HEAD / scale).astype(np.int8),
                 "ws": scale * 4, "wz": np.int8(0),
                 "b": np.rint(BIAS / (F(0.01) * scale)).astype(np.int32)}
    gemm = node("QGemm", ["flat", "s", "z", "w", "ws", "wz", "b"], ["out"], alpha=0.25,
                domain="com.microsoft")
    nodes = body() + [node("GlobalAveragePool", ["features"], ["gap"]),
                      node("Flatten", ["gap"], ["real"]),
                      node("QuantizeLinear", ["real", "s", "z"], ["flat"]), gemm]
    save("qgemm", model(nodes, BODY | constants, DYNAMIC))

    # What a plan of a size refuses: a window over everything, and much that is alive at once.
    pools = [node("MaxPool", [a], [b], kernel_shape=[256, 256])
             for a, b in zip(["image", *"abcd"], [*"abcd", "y"])]
    save("many_pools", model(pools + ending, head, [1, 3, "h", "w"]))
    pool = node("MaxPool", ["image"], ["y"], kernel_shape=[4096, 4096], auto_pad="SAME_UPPER")
    save("everywhere_pool", model([pool] + ending, head, [1, 3, "h", "w"]))
    alive = [node(op, ["image"], [op]) for op in ("Relu", "Sigmoid", "Tanh")]
    sums = [node("Add", ["Relu", "Sigmoid"], ["sum"]), node("Add", ["sum", "Tanh"], ["y"])]
    save("much_alive", model(alive + sums + ending, head, [1, 3, "h", "w"]))


def main():
    image = random.uniform(-1, 1, (1, 3, 24, 28)).astype(F)
    np.save(HERE / "input.npy", image[0].transpose(1, 2, 0).copy())
    floats()
    probed, output = with_features(onnx.load(HERE / "gemm.onnx"))
    logits, features = run(probed, image, ["out", output])
    np.save(HERE / "float.npy", features[0].transpose(1, 2, 0).copy())
    np.save(HERE / "float_logits.npy", logits)
    weights_only()
    quantized(image)
    layers(image)
    by_hand(image)
    (HERE / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
    total = sum(p.stat().st_size for p in HERE.iterdir() if p.is_file())
    print(f"{total / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
