"""Weights as s8 codes that lose as little as possible of a layer's output.

Rounding goes column by column; each column's rounding error is spread over those not yet
rounded, weighed by the covariance of the layer's input (GPTQ: Frantar et al., ICLR 2023).
The bias takes up the mean error: that of the rounding, and that of all layers before.
"""

import numpy as np

DAMPING = 0.01  # of the mean second moment, as in GPTQ
S8 = 127


class Moments:
    """Running moments of input patches of the quantized (q) and the float network (f).

    Patches are [groups, inputs * kernel, positions].
    """

    def __init__(self):
        self.count, self.qq, self.q, self.f = 0, 0.0, 0.0, 0.0
        self.origin = None

    def add(self, q, f):
        # About the first photo's mean: a covariance taken about 0 would cancel in f32.
        if self.origin is None:
            self.origin = q.mean(2, keepdims=True)
        q = q - self.origin
        self.count += q.shape[2]
        self.qq = self.qq + np.matmul(q, q.transpose(0, 2, 1)).astype(np.float64)
        self.q = self.q + q.sum(2, dtype=np.float64)
        self.f = self.f + f.sum(2, dtype=np.float64)

    def centred(self):
        """Covariance [groups, k, k] of q, means [groups, k] of q and f."""
        q, f = self.q / self.count, self.f / self.count
        return self.qq / self.count - q[:, :, None] * q[:, None, :], q + self.origin[:, :, 0], f


def patches(x, weight_shape, attributes, positions):
    """Input patches at `positions` of a convolution's output; x [1, c, h, w]."""
    _, per_group, kh, kw = weight_shape
    group = attributes.get("group", 1)
    sh, sw = attributes.get("strides", [1, 1])
    dh, dw = attributes.get("dilations", [1, 1])
    top, left, height, width = padding(x.shape[2:], (kh, kw), attributes)
    rows, columns = positions[0] * sh - top, positions[1] * sw - left
    out = np.zeros((x.shape[1], kh * kw, rows.size), np.float32)
    for i in range(kh):
        for j in range(kw):
            r, c = rows + i * dh, columns + j * dw
            inside = (r >= 0) & (r < x.shape[2]) & (c >= 0) & (c < x.shape[3])
            out[:, i * kw + j, inside] = x[0][:, r[inside], c[inside]]
    return out.reshape(group, per_group * kh * kw, rows.size)


def padding(size, kernel, attributes):
    """(top, left, output height, output width) of a convolution on an input of `size`."""
    strides = attributes.get("strides", [1, 1])
    dilations = attributes.get("dilations", [1, 1])
    mode = attributes.get("auto_pad", b"NOTSET")
    pads = attributes.get("pads", [0, 0, 0, 0])
    begin, out = [], []
    for axis in (0, 1):
        extent = (kernel[axis] - 1) * dilations[axis] + 1
        if mode in (b"SAME_UPPER", b"SAME_LOWER"):
            n = -(-size[axis] // strides[axis])
            total = max((n - 1) * strides[axis] + extent - size[axis], 0)
            begin.append(total // 2 if mode == b"SAME_UPPER" else total - total // 2)
        else:
            before, after = (0, 0) if mode == b"VALID" else (pads[axis], pads[axis + 2])
            n = (size[axis] + before + after - extent) // strides[axis] + 1
            begin.append(before)
        out.append(n)
    return (*begin, *out)


def fit(weight, bias, moments, groups, source_scale=1.0):
    """Codes s8 [out, ...], scales [out] and the float bias [out] of a convolution.

    `source_scale` is the step of the input tensor: a channel whose weights are all but 0
    needs a scale at which its bias still fits an s32.
    """
    shape = weight.shape
    w = weight.astype(np.float64).reshape(groups, shape[0] // groups, -1)  # [g, o, k]
    qq, mean_q, mean_f = moments.centred()
    k = qq.shape[1]
    damp = DAMPING * np.maximum(np.trace(qq, axis1=1, axis2=2) / k, 1e-9)
    floor = np.abs(bias.astype(np.float64)).reshape(groups, -1) / (2**30 * float(source_scale))
    scale = np.maximum(best_scale(w, qq), floor)
    codes = gptq(w, qq + damp[:, None, None] * np.eye(k), scale)
    rounded = codes * scale[:, :, None]
    offset = np.matmul(w, mean_f[:, :, None]) - np.matmul(rounded, mean_q[:, :, None])
    return (
        codes.reshape(shape).astype(np.int8),
        scale.reshape(-1).astype(np.float32),
        bias + offset.reshape(-1).astype(np.float32),
    )


def best_scale(w, qq, shrink=np.linspace(1.0, 0.6, 17)):
    """Per output channel, the step for which plain rounding loses least output power."""
    full = np.maximum(np.abs(w).max(2), 1e-12) / S8
    best, chosen = np.full(full.shape, np.inf), full.copy()
    for s in shrink:
        step = full * s
        e = np.clip(np.rint(w / step[:, :, None]), -S8, S8) * step[:, :, None] - w
        power = (np.matmul(e, qq) * e).sum(2)
        better = power < best
        best[better], chosen[better] = power[better], step[better]
    return chosen


def gptq(w, hessian, scale):
    """Codes [g, o, k] minimising the output error under `hessian` [g, k, k]."""
    # The most active inputs first: their error is spread over all the others.
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1)
    w = np.take_along_axis(w, order[:, None, :], 2)
    h = np.take_along_axis(np.take_along_axis(hessian, order[:, :, None], 1), order[:, None, :], 2)
    # Upper factor U of the inverse, inverse = Uᵀ·U.
    inverse = np.linalg.inv(h)
    upper = np.linalg.cholesky((inverse + inverse.transpose(0, 2, 1)) / 2).transpose(0, 2, 1)
    codes = np.empty_like(w)
    k = w.shape[2]
    block = 64
    for start in range(0, k, block):
        end = min(start + block, k)
        errors = np.empty((*w.shape[:2], end - start))
        for i in range(start, end):
            codes[:, :, i] = np.clip(np.rint(w[:, :, i] / scale), -S8, S8)
            e = (w[:, :, i] - codes[:, :, i] * scale) / upper[:, i, i, None]
            w[:, :, i:end] -= e[:, :, None] * upper[:, None, i, i:end]
            errors[:, :, i - start] = e
        w[:, :, end:] -= np.matmul(errors, upper[:, start:end, end:])
    return np.take_along_axis(codes, np.argsort(order, axis=1)[:, None, :], 2)
