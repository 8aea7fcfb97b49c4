"""What quantization left of the float network's decisions and maps."""

import numpy as np
from onnx import TensorProto, helper

from .network import session
from .qdq import read_name


def with_outputs(model, names):
    """A copy of the model that also returns the named tensors."""
    copy = type(model)()
    copy.CopyFrom(model)
    have = {o.name for o in copy.graph.output}
    copy.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names if n not in have)
    return copy


class Probe:
    """Runs a model up to its features and logits."""

    def __init__(self, model, features, logits, threads):
        self.session = session(with_outputs(model, [features, logits]), threads)
        self.input = self.session.get_inputs()[0].name
        self.names = [features, logits]

    def __call__(self, x):
        """Features and logits of one photo, logits flat."""
        features, logits = self.session.run(self.names, {self.input: x})
        return features[0], logits.reshape(-1)


def class_map(features, head_weights, unit, channels_last):
    """Signed class activation map [h, w] of one unit, without the bias."""
    return np.tensordot(head_weights[:, unit], features, (0, 2 if channels_last else 0))


def pearson(a, b):
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm > 0 else 1.0 if np.allclose(a, b) else 0.0


def compare(reference, probe, head_weights, inputs, channels_last=False):
    """Rows (same top-1, Pearson of the float top-1's map, same maximum) per photo."""
    rows = []
    for x in inputs:
        features, logits = reference(x)
        q_features, q_logits = probe(x)
        unit = int(logits.argmax())
        a = class_map(features, head_weights, unit, channels_last)
        b = class_map(q_features, head_weights, unit, channels_last)
        rows.append((int(q_logits.argmax()) == unit, pearson(a, b), a.argmax() == b.argmax()))
    return rows


def logit_error(reference, probe, inputs):
    """What the quantized logits lack, in the mean over the inputs: [classes]."""
    return np.mean([reference(x)[1] - probe(x)[1] for x in inputs], axis=0)


def summary(rows):
    same, r, maximum = (np.array(c, float) for c in zip(*rows))
    return {
        "photos": len(rows),
        "top1_agreement": float(same.mean()),
        "pearson_mean": float(r.mean()),
        "pearson_p10": float(np.percentile(r, 10)),
        "pearson_min": float(r.min()),
        "pointing_agreement": float(maximum.mean()),
    }


def layer_errors(network, quantized, plan, inputs):
    """Signal to quantization noise, in dB, of every int8 tensor, against the float network.

    `network` is the float network after equalisation, whose tensors have the same scales.
    """
    tensors = [n.output[0] for n in network.nodes[: network.pool] if n.output[0] in plan.tensors]
    names = [read_name(network, t) for t in tensors]
    real = session(network.to_model(tensors), network.threads)
    coded = session(with_outputs(quantized, names), network.threads)
    signal, noise = np.zeros(len(tensors)), np.zeros(len(tensors))
    for x in inputs:
        a = real.run(tensors, {network.input: x})
        b = coded.run(names, {network.input: x})
        signal += [np.square(u, dtype=np.float64).mean() for u in a]
        noise += [np.square(u - v, dtype=np.float64).mean() for u, v in zip(a, b)]
    decibels = 10 * np.log10(np.maximum(signal, 1e-30) / np.maximum(noise, 1e-30))
    return dict(zip(tensors, (round(float(d), 2) for d in decibels)))
