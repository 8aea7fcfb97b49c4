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
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    for key, value in dict(metadata).items():
        made.metadata_props.add(key=key, value=value)
    return made


def save(name, made):
    onnx.save(made, HERE / f"{name}.onnx")


def run(made, image, output=None):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
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
        return float(known[pool.input[1]])
    maker = next(n for n in made.graph.node if pool.input[0] in n.output)
    return float(known[maker.input[1]])


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
    cases[name] = {"step": step(made)}


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
    (HERE / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
    total = sum(p.stat().st_size for p in HERE.iterdir() if p.is_file())
    print(f"{total / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
