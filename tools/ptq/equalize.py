"""Channel scales, so that one scale per tensor serves every channel.

A u8 tensor has one scale; a channel whose values are small beside the largest channel's
is left with few codes. Where a tensor only passes through ReLU, MaxPool and residual
Add between convolutions, any positive factor per channel can be moved from the producing
to the consuming weights without changing the network (cross-layer equalisation, Nagel et
al., ICCV 2019). Towards a depthwise convolution this is free, as its weights have a scale
per channel; towards a full convolution it spreads the consumer's weights, so the exponent
is chosen by predicted noise. All tensors of a residual path share one factor per channel,
the one with the least noise in all of them together.
"""

import numpy as np

from .network import attributes

# A channel is never amplified by more than this beside the strongest: one that is silent
# on the calibration photos may speak on others.
MAX_RATIO = 64.0
KEPT = 1.0
# Share of the plain rounding noise that is left after error-spreading rounding.
SPREAD = 0.4
EXPONENTS = tuple(i / 10 for i in range(11))
TRANSPARENT = ("Relu", "MaxPool", "Add")


class Extent:
    """Per-channel extremes and variance of a tensor, kept photo by photo.

    Deep networks answer a rare photo with a spike, one position at which most channels
    are ten and more times their usual maximum. Extremes are therefore those that the
    share `KEPT` of the photos stays within.
    """

    def __init__(self):
        self.lows, self.highs, self.variances = [], [], []

    def add(self, x):
        """x [1, c, h, w]"""
        self.lows.append(x.min((0, 2, 3)))
        self.highs.append(x.max((0, 2, 3)))
        self.variances.append(x.var((0, 2, 3)))

    def low(self):
        return np.quantile(self.lows, 1 - KEPT, axis=0, method="lower")

    def high(self):
        return np.quantile(self.highs, KEPT, axis=0, method="higher")

    def reach(self):
        """Largest magnitude of each channel."""
        return np.maximum(np.abs(self.low()), np.abs(self.high()))

    def variance(self):
        return np.median(self.variances, axis=0)

    def bounds(self):
        """(low, high) over all channels."""
        low = np.quantile(np.min(self.lows, axis=1), 1 - KEPT, method="lower")
        return float(low), float(np.quantile(np.max(self.highs, axis=1), KEPT, method="higher"))

    def divide(self, by):
        self.lows, self.highs = [v / by for v in self.lows], [v / by for v in self.highs]
        self.variances = [v / by**2 for v in self.variances]


def groups(network):
    """Sets of tensors that must share one channel scale, and may have one."""
    parent = {}

    def root(t):
        parent.setdefault(t, t)
        while parent[t] != t:
            t = parent[t]
        return t

    pinned = {network.input, network.features, *network.outputs}
    for node in network.nodes[: network.pool + 1]:
        tensors = [t for t in (*node.input, *node.output) if t and t not in network.constants]
        if node.op_type == "Conv":
            depthwise = network.is_depthwise(node)
            if attributes(node).get("group", 1) != 1 and not depthwise:
                pinned.update(tensors)
            for t in tensors:
                root(t)
        elif node.op_type in TRANSPARENT and all(t not in network.constants for t in node.input):
            for t in tensors[1:]:
                parent[root(t)] = root(tensors[0])
        else:
            pinned.update(tensors)
    sets = {}
    for t in parent:
        sets.setdefault(root(t), set()).add(t)
    return [s for s in sets.values() if not s & pinned]


def scale(network, extents, quantized):
    """Rescales every group; returns tensor -> factor [c] by which it was divided."""
    factors = {}
    for group in groups(network):
        measured = [t for t in sorted(group) if t in quantized and t in extents and not on_scale_of_input(network, t, quantized)]
        if not measured:
            continue
        profile = relative(shared(np.array([extents[t].reach() for t in measured])))
        consumers = [
            n
            for n in network.nodes[: network.pool]
            if n.op_type == "Conv" and n.input[0] in group and not network.is_depthwise(n)
        ]
        exponent = best_exponent(network, extents, measured, consumers, profile) if consumers else 1.0
        apply(network, group, profile**exponent)
        for t in group:
            factors[t] = profile**exponent
            if t in extents:
                extents[t].divide(factors[t])
    return factors


def on_scale_of_input(network, tensor, quantized):
    """Whether the tensor's codes are those of its producer's input."""
    node = network.producer(tensor)
    return node is not None and node.op_type in ("Relu", "MaxPool") and node.input[0] in quantized


def shared(reach):
    """One factor per channel [c] for tensors of the given reaches [t, c].

    A tensor's step is its largest reach / factor, and its noise in a channel step · factor.
    So given the steps, the least factor that serves is max_t reach / step, and only the
    steps are to be found, one tensor at a time, for the least noise of all tensors in all
    channels. One tensor's own reach is the answer where there is but one.
    """
    reach = np.maximum(reach, reach.max() * 1e-6)

    def noise(steps):
        factor = (reach / steps[:, None]).max(0)
        return np.square((reach / factor).max(1)).sum() * np.square(factor).sum()

    steps = reach.max(1)
    least = noise(steps)
    for change in (2.0, 1.4, 1.2, 1.1) if len(reach) > 1 else ():
        improved = True
        while improved:
            improved = False
            for t in range(len(steps)):
                for by in (change, 1 / change):
                    trial = steps.copy()
                    trial[t] *= by
                    if (n := noise(trial)) < least * 0.999:
                        least, steps, improved = n, trial, True
    return (reach / steps[:, None]).max(0)


def relative(reach):
    return np.maximum(reach / max(reach.max(), 1e-30), 1 / MAX_RATIO)


def best_exponent(network, extents, measured, consumers, profile):
    """The exponent with the least predicted noise in the consumers' outputs.

    Noise of the tensor: one step of its shared range, through the weights; noise of the
    weights: one step per output channel, times the tensor's variance (its mean is taken
    up by the bias).
    """

    def noise(exponent):
        factor = profile**exponent
        total = 0.0
        for node in consumers:
            weight = network.weights(node)[0]
            power = np.square(weight).sum((2, 3))  # [out, in]
            extent = extents[node.input[0]]
            variance = extent.variance()
            step = ((extent.high() / factor).max() - min((extent.low() / factor).min(), 0)) / 255
            weight_step = np.abs(weight * factor[None, :, None, None]).max((1, 2, 3)) / 127
            signal = (power * variance).sum(1) + 1e-20
            from_tensor = step**2 * (power * factor**2).sum(1)
            from_weights = weight_step**2 * (variance / factor**2).sum() * weight.shape[2] * weight.shape[3]
            total += float(np.mean((from_tensor + SPREAD * from_weights) / signal))
        return total

    return min(EXPONENTS, key=noise)


def apply(network, group, factor):
    """Divides every tensor of the group by `factor` per channel, in the weights around it."""
    for node in network.nodes[: network.pool]:
        if node.op_type != "Conv":
            continue
        weight, bias = network.weights(node)
        if node.output[0] in group:
            weight, bias = weight / factor[:, None, None, None], bias / factor
        if node.input[0] in group:
            weight = weight * (factor[:, None, None, None] if network.is_depthwise(node) else factor[None, :, None, None])
        if node.output[0] in group or node.input[0] in group:
            network.set_weights(node, weight, bias)
