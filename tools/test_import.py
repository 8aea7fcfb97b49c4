"""`SALIENTD=target/release/salientd pytest tools/test_import.py`: whole topologies, quantized by ONNX
Runtime in every dialect, import with all their multiply-accumulates (head aside) in int8.

The networks have their published topology, a fraction of their width and random weights:
which operators there are, and in which order, is what an importer can stumble over.
"""

import json
import os
import subprocess

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

DIVISOR = 8  # of every channel count


class Builder:
    """Nodes in the order in which they are added; weights by He, batch normalization folded."""

    def __init__(self):
        self.nodes, self.constants, self.random = [], [], np.random.default_rng(1)

    def node(self, kind, inputs, **attributes):
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, value):
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def conv(self, x, c, out, kernel=1, stride=1, group=1, same=False):
        shape = (out, c // group, kernel, kernel)
        weights = self.random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        pads = {"auto_pad": "SAME_UPPER"} if same else {"pads": [kernel // 2] * 4}
        constants = [self.constant(weights), self.constant(self.random.normal(0, 0.1, out))]
        return self.node("Conv", [x, *constants], strides=[stride] * 2, group=group, **pads)

    def relu(self, x):
        return self.node("Relu", [x])

    def relu6(self, x):
        return self.node("Clip", [x, self.constant(0), self.constant(6)])

    def add(self, a, b):
        return self.node("Add", [a, b])

    def pool(self, x, **pads):
        return self.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], **pads)

    def model(self, features, channels, classes=10):
        x = self.node("Flatten", [self.node("GlobalAveragePool", [features])])
        weights = self.constant(self.random.normal(0, 0.1, (channels, classes)))
        logits = self.node("Gemm", [x, weights, self.constant(np.zeros(classes))])
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes, "net", [value("input", TensorProto.FLOAT, [1, 3, "H", "W"])],
            [value(logits, TensorProto.FLOAT, None)], self.constants,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        made.metadata_props.add(key="native_size", value="96x96")
        return made


def xception():
    """Chollet, arXiv:1610.02357, figure 5."""
    b = Builder()

    def separable(x, c, out):
        return b.conv(b.conv(x, c, c, 3, group=c, same=True), c, out)

    n = lambda channels: channels // DIVISOR
    x = b.relu(b.conv(b.conv("input", 3, n(32), 3, 2), n(32), n(64), 3))
    c = n(64)
    for out in map(n, (128, 256, 728)):
        short = b.conv(x, c, out, stride=2)
        y = separable(x if c == n(64) else b.relu(x), c, out)
        y = b.pool(separable(b.relu(y), out, out), auto_pad="SAME_UPPER")
        x, c = b.add(y, short), out
    for _ in range(8):
        y = x
        for _ in range(3):
            y = separable(b.relu(y), c, c)
        x = b.add(x, y)
    short = b.conv(x, c, n(1024), stride=2)
    y = separable(b.relu(separable(b.relu(x), c, c)), c, n(1024))
    x = b.add(b.pool(y, auto_pad="SAME_UPPER"), short)
    x = b.relu(separable(b.relu(separable(x, n(1024), n(1536))), n(1536), n(2048)))
    return b.model(x, n(2048))


def inverted(stages, stem, last, expand_first):
    """MobileNetV2 and its heirs: (expansion, channels, repeats, stride, kernel) a stage."""
    b = Builder()
    n = lambda channels: max(channels // DIVISOR, 4)
    x, c = b.relu6(b.conv("input", 3, n(stem), 3, 2)), n(stem)
    for expansion, out, repeats, stride, kernel in stages:
        for i in range(repeats):
            y, wide = x, c * expansion
            if expansion > 1 or expand_first:
                y = b.relu6(b.conv(y, c, wide))
            y = b.relu6(b.conv(y, wide, wide, kernel, stride if i == 0 else 1, group=wide))
            y = b.conv(y, wide, n(out))
            x, c = b.add(x, y) if (stride if i == 0 else 1) == 1 and c == n(out) else y, n(out)
    return b.model(b.relu6(b.conv(x, c, n(last))), n(last))


def mobilenet_v2():
    """Sandler et al., arXiv:1801.04381, table 2."""
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    return inverted([(*s, 3) for s in stages], 32, 1280, False)


def efficientnet_lite0():
    """Tan and Le, arXiv:1905.11946, table 1, without squeeze-and-excitation, ReLU6 for swish."""
    stages = [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5),
              (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)]
    return inverted(stages, 32, 1280, False)


def resnet50():
    """He et al., arXiv:1512.03385, table 1; the stride in the 3×3, as torchvision has it."""
    b = Builder()
    n = lambda channels: channels // DIVISOR
    x, c = b.pool(b.relu(b.conv("input", 3, n(64), 7, 2)), pads=[1] * 4), n(64)
    for stage, repeats in enumerate((3, 4, 6, 3)):
        inner, out = n(64 << stage), n(256 << stage)
        for i in range(repeats):
            stride = 2 if stage > 0 and i == 0 else 1
            y = b.relu(b.conv(x, c, inner))
            y = b.conv(b.relu(b.conv(y, inner, inner, 3, stride)), inner, out)
            x, c = b.relu(b.add(y, b.conv(x, c, out, stride=stride) if i == 0 else x)), out
    return b.model(x, c)


class Noise(CalibrationDataReader):
    def __init__(self):
        random = np.random.default_rng(2)
        self.pictures = iter([random.uniform(-1, 1, (1, 3, 96, 96)).astype(np.float32) for _ in range(3)])

    def get_next(self):
        picture = next(self.pictures, None)
        return None if picture is None else {"input": picture}


DIALECTS = {
    "qdq u8 per channel": dict(quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, per_channel=True),
    "qdq s8 per channel": dict(quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8, per_channel=True),
    "qdq u8 per tensor": dict(quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, per_channel=False),
    "qdq s8 symmetric": dict(quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8, per_channel=True,
                             extra_options={"ActivationSymmetric": True}),
    "qoperator u8": dict(quant_format=QuantFormat.QOperator, activation_type=QuantType.QUInt8, per_channel=True),
    "qoperator s8": dict(quant_format=QuantFormat.QOperator, activation_type=QuantType.QInt8, per_channel=False),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("network", [xception, mobilenet_v2, resnet50, efficientnet_lite0], ids=lambda f: f.__name__)
def test_everything_runs_in_int8(network, dialect, tmp_path):
    binary = os.environ.get("SALIENTD")
    assert binary, "set SALIENTD to the salientd binary"
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(network(), source)
    quantize_static(source, target, Noise(), weight_type=QuantType.QInt8, **DIALECTS[dialect])
    command = [binary, "model", "inspect", str(target), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["fallbacks"] == []
    for view in report["views"]:
        assert view["mmacs_float"] == 0 and view["mmacs_int8"] > 0, view
