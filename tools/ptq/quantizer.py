"""One walk through the network, from input to pooling, with both networks in hand.

For every tensor the walk keeps, per calibration photo, the float network's values and
the quantized network's codes. A convolution is re-fitted to map the quantized input to
the float output, its output range is chosen on the values it really produces, and so
each layer sees, and corrects, the loss of all layers before it.
"""

from dataclasses import dataclass, field

import numpy as np
from onnx import helper, numpy_helper

from . import equalize, ranges, rounding
from .equalize import Extent
from .network import attributes, session

ACTIVATIONS = ("Relu", "Clip")
# Input patches per photo that a convolution's weights are fitted on.
PATCHES = 2048


@dataclass
class Tensor:
    """A tensor of both networks: [1, c, h, w] per photo."""

    real: list  # f32, float network
    codes: list  # u8, quantized network
    parameters: ranges.Affine
    unrounded: list | None = None  # f32, quantized network, where a float node wrote it

    def quantized(self):
        return [self.parameters.dequantize(c) for c in self.codes]

    def read_in_float(self):
        """What a float node reads: nothing is rounded between two of them."""
        return self.quantized() if self.unrounded is None else self.unrounded


@dataclass
class Plan:
    """Which nodes run in int8, and with what."""

    weights: dict = field(default_factory=dict)  # conv name -> (codes, scales, bias)
    tensors: dict = field(default_factory=dict)  # tensor -> Affine
    floats: list = field(default_factory=list)  # nodes before the pooling left in float


def fused_activation(network, node):
    """The ReLU or Clip that is all that reads this node's output, or None."""
    consumers = network.consumers(node.output[0])
    if len(consumers) != 1 or consumers[0].op_type not in ACTIVATIONS or node.output[0] in network.outputs:
        return None
    act = consumers[0]
    if act.op_type == "Clip" and not all(i == "" or i in network.constants for i in act.input[1:]):
        return None
    return act


def int8_nodes(network):
    """Nodes from the image to the pooling that run in int8, fused ones left out."""
    chosen, fused, left = [], set(), set()
    for node in network.nodes[: network.pool]:
        if node.name in fused or node.name in left:
            continue
        supported = node.op_type == "MaxPool" or (node.op_type in ACTIVATIONS and all(
            i == "" or i in network.constants for i in node.input[1:]
        ))
        supported |= node.op_type == "Conv" and node.input[1] in network.constants
        supported |= node.op_type == "Add" and not any(i in network.constants for i in node.input)
        if not supported:
            continue
        act = fused_activation(network, node) if node.op_type in ("Conv", "Add") else None
        written = {n.output[0] for n in (node, act) if n is not None}
        if act is not None:
            (left if written & network.kept_float else fused).add(act.name)
        if not written & network.kept_float:
            chosen.append((node, act))
    return chosen, fused


def quantized_tensors(network):
    chosen, _ = int8_nodes(network)
    tensors = set()
    for node, act in chosen:
        tensors.add((act or node).output[0])
        tensors.update(i for i in node.input if i and i not in network.constants)
    return tensors


def measure(network, inputs, limits=None):
    """Per-channel extents of the image and of every tensor up to the pooling.

    `limits`, tensor -> largest value, are in force while it is measured: in the int8
    network the range of such a tensor ends there, so nothing behind it sees more.
    """
    tensors = [n.output[0] for n in network.nodes[: network.pool]]
    run = session(limited(network.to_model(tensors), limits or {}), network.threads)
    extents = {t: Extent() for t in [network.input, *tensors]}
    for x in inputs:
        extents[network.input].add(x)
        for t, value in zip(tensors, run.run(None, {network.input: x})):
            if value.ndim == 4:
                extents[t].add(value)
    return extents


def limited(model, limits):
    """The model with tensors held at or below the given values."""
    graph = model.graph
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        graph.node.append(node)
        tensor = node.output[0]
        if tensor in limits:
            graph.node[-1].output[0] = tensor + "_unlimited"
            graph.initializer.append(numpy_helper.from_array(np.array(limits[tensor], np.float32), tensor + "_limit"))
            graph.node.append(helper.make_node("Min", [tensor + "_unlimited", tensor + "_limit"], [tensor]))
    return model


def spike(network, extents, ratio=4.0):
    """The first tensor that one photo drives beyond `ratio` times the median photo's largest value.

    Returns (tensor, largest value, median photo's), or None. What follows it mostly spikes
    because it does.
    """
    for node in network.nodes[: network.pool]:
        highs = [float(h.max()) for h in extents[node.output[0]].highs]
        if node.op_type in ACTIVATIONS and highs and max(highs) > ratio * max(np.median(highs), 1e-6):
            return node.output[0], max(highs), float(np.median(highs))
    return None


def equalize_network(network, extents):
    equalize.scale(network, extents, quantized_tensors(network))


def quantize(network, inputs, extents, progress):
    """Plan for every int8 node: ranges from `extents`, weights fitted on the inputs."""
    rng = np.random.default_rng(0)
    chosen, fused = int8_nodes(network)
    by_name = {node.name: act for node, act in chosen}
    plan, live = Plan(), {}

    entry = covering(extents[network.input])
    live[network.input] = Tensor(list(inputs), [entry.quantize(x) for x in inputs], entry)

    last_use = {}
    for i, node in enumerate(network.nodes[: network.pool + 1]):
        last_use.update({t: i for t in node.input})
    for i, node in enumerate(progress(network.nodes[: network.pool], "layers")):
        if node.name in fused:
            continue
        if node.name not in by_name:
            plan.floats.append(node)
            live[node.output[0]] = in_float(network, node, live, covering(extents[node.output[0]]))
        else:
            act = by_name[node.name]
            out = (act or node).output[0]
            if node.op_type == "Conv":
                live[out] = convolution(network, node, act, live, plan, covering(extents[out]), rng)
            elif node.op_type == "Add":
                live[out] = coded(*run_pair(network, node, act, live), covering(extents[out]))
            else:
                live[out] = same_scale(network, node, live)
            for t in (*(n for n in node.input if n in live), out):
                plan.tensors[t] = live[t].parameters
        for t in [t for t in live if last_use.get(t, -1) <= i and t != network.features]:
            del live[t]
    return plan


def in_float(network, node, live, parameters):
    real, unrounded = run_pair(network, node, None, live, read=Tensor.read_in_float)
    return Tensor(real, [parameters.quantize(u) for u in unrounded], parameters, unrounded)


def run_pair(network, node, act, live, overrides=None, read=Tensor.quantized):
    """Outputs of the node (and its activation) in the float and the quantized network."""
    real = list(network.run_node(node, {n: live[n].real for n in node.input if n in live}))
    quantized = list(network.run_node(node, {n: read(live[n]) for n in node.input if n in live}, overrides))
    if act is not None:
        real = list(network.run_node(act, {node.output[0]: real}))
        quantized = list(network.run_node(act, {node.output[0]: quantized}))
    return real, quantized


def convolution(network, node, act, live, plan, parameters, rng):
    source = live[node.input[0]]
    weight, bias = network.weights(node)
    attribute = attributes(node)
    groups = attribute.get("group", 1)
    moments = rounding.Moments()
    for real, codes in zip(source.real, source.codes):
        _, _, height, width = rounding.padding(real.shape[2:], weight.shape[2:], attribute)
        pick = rng.permutation(height * width)[:PATCHES]
        where = (pick // width, pick % width)
        moments.add(
            rounding.patches(source.parameters.dequantize(codes), weight.shape, attribute, where),
            rounding.patches(real, weight.shape, attribute, where),
        )
    codes, scales, fitted = rounding.fit(weight, bias, moments, groups, source.parameters.scale)
    # The bias is an s32 at the scale of the products.
    step = np.maximum(scales * source.parameters.scale, 1e-30)
    bias_codes = np.clip(np.rint(fitted.astype(np.float64) / step), -(2**31) + 1, 2**31 - 1).astype(np.int32)
    plan.weights[node.name] = (codes, scales, bias_codes)
    network.set_weights(node, weight, bias)
    rounded = codes.astype(np.float32) * scales[:, None, None, None]
    overrides = {node.input[1]: rounded, node.input[2]: (bias_codes * step).astype(np.float32)}
    real, quantized = run_pair(network, node, act, live, overrides)
    return coded(real, quantized, parameters)


def same_scale(network, node, live):
    """MaxPool, and a ReLU or Clip of its own: the codes stay on the input's scale."""
    source = live[node.input[0]]
    real, quantized = run_pair(network, node, None, live)
    return coded(real, quantized, source.parameters)


def covering(extent):
    return ranges.affine(*extent.bounds())


def coded(real, quantized, parameters):
    return Tensor(real, [parameters.quantize(q) for q in quantized], parameters)
