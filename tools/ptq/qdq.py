"""The plan as an ONNX file: QuantizeLinear / DequantizeLinear around float operators.

One pair per tensor, after the activation where one is fused; what float nodes hand each
other is not rounded; s8 weights with a scale per
output channel; s32 bias at the scale of the products. The pooling and the linear head
stay in float and read the dequantized features.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper


def read_name(network, tensor):
    """The dequantized tensor's name: a graph output keeps its own."""
    return tensor if tensor in network.outputs else tensor + "_real"


def features_name(network, plan):
    """What the pooling reads."""
    tensor = network.features
    if tensor not in unrounded_tensors(plan):
        return read_name(network, tensor)
    return tensor + "_unquantized" if tensor in plan.tensors and tensor in network.outputs else tensor


def unrounded_tensors(plan):
    return {t for n in plan.floats for t in n.output}


def write(network, plan):
    """The quantized model."""
    nodes, constants = [], {}
    read = {}  # tensor -> name under which later nodes read it
    in_float = {n.name for n in [*plan.floats, *network.nodes[network.pool :]]}
    unrounded = unrounded_tensors(plan)
    rename = {}  # tensor -> name under which its producer writes it

    def pair(tensor):
        p = plan.tensors[tensor]
        written = tensor
        if tensor in network.outputs:
            written = rename[tensor] = tensor + "_unquantized"
        scale, zero = tensor + "_scale", tensor + "_zero_point"
        constants[scale] = np.array(p.scale, np.float32)
        constants[zero] = np.array(p.zero_point, np.uint8)
        real = read_name(network, tensor)
        nodes.append(helper.make_node("QuantizeLinear", [written, scale, zero], [tensor + "_codes"], tensor + "_quantize"))
        nodes.append(
            helper.make_node("DequantizeLinear", [tensor + "_codes", scale, zero], [real], tensor + "_dequantize")
        )
        read[tensor] = real

    def dequantized(name, codes, scales):
        constants[name + "_codes"], constants[name + "_scale"] = codes, scales.astype(np.float32)
        constants[name + "_zero_point"] = np.zeros(scales.shape, codes.dtype)
        inputs = [name + "_codes", name + "_scale", name + "_zero_point"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [name], name + "_dequantize", axis=0))
        return name

    if network.input in plan.tensors:
        pair(network.input)
    for node in network.nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for i, t in enumerate(copy.input):
            names = rename if node.name in in_float and t in unrounded else read
            copy.input[i] = names.get(t, t)
        if node.name in plan.weights:
            codes, scales, bias = plan.weights[node.name]
            source = plan.tensors[node.input[0]]
            step = np.maximum(scales * source.scale, 1e-30)
            del copy.input[1:]
            copy.input.append(dequantized(node.name + "_weight", codes, scales))
            copy.input.append(dequantized(node.name + "_bias", bias, step))
        else:
            constants.update({t: network.constants[t] for t in node.input if t in network.constants})
        position = len(nodes)
        nodes.append(copy)
        for t in node.output:
            if t in plan.tensors:
                pair(t)
        for i, t in enumerate(copy.output):
            nodes[position].output[i] = rename.get(t, t)

    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    graph = model.graph
    del graph.node[:], graph.initializer[:], graph.value_info[:], graph.input[:]
    graph.input.extend(network.inputs)
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    model.producer_name = "salientd"
    onnx.checker.check_model(model)
    return model
