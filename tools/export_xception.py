"""Keras's Xception as an ONNX file.

    python tools/export_xception.py --weights imagenet --out models/xception.onnx

`--weights` is `imagenet` (downloads Keras's own file once, checks its MD5 and keeps it
in --cache), `none` (random, for timing and tests) or a file that Keras wrote
(`save_weights` or `save`, .h5 or .weights.h5). Keras itself is not needed.

The graph: `input` f32 [1, 3, H, W], RGB scaled as x / 127.5 - 1, H and W dynamic and at
least 71; `features` [1, 2048, h, w], the input of the global average pooling, with
h = (H + 25) // 32; `logits` [1, classes], before the softmax. Batch normalization is
folded into the convolution before it. Metadata: `labels` (one a line), `scaling`,
`colour`, `native_size`.
"""

import argparse
import hashlib
import json
import os
import sys
import urllib.request
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_file import metadata, set_metadata, write_new

WEIGHTS_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/xception/"
    "xception_weights_tf_dim_ordering_tf_kernels.h5"
)
WEIGHTS_MD5 = "0a58e3b7378bc2990ea3b43d5981f1f6"
LABELS_URL = "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"
LABELS_MD5 = "c2c37ea517e94d9795004a39431a14cb"

NATIVE_SIDE = 299
EPSILON = 1e-3  # of every batch normalization in keras.applications.xception

# Separable convolutions of each block as (input, output) channels; blocks 2-4 and 13
# halve the map and have a convolution on the shortcut, 5-12 are the middle flow.
SEPARABLE = {
    2: [(64, 128), (128, 128)],
    3: [(128, 256), (256, 256)],
    4: [(256, 728), (728, 728)],
    **{b: [(728, 728)] * 3 for b in range(5, 13)},
    13: [(728, 728), (728, 1024)],
    14: [(1024, 1536), (1536, 2048)],
}
STRIDED = (2, 3, 4, 13)


def layers():
    """Name and tensor shapes, in Keras's layout, of every layer that has weights.

    In the order of Keras's `model.layers`; the shortcut convolutions, which Keras
    numbers afresh in each process, are called `block<n>_skip`.
    """
    table = []

    def convolution(name, *shapes):
        table.append((name, shapes))
        table.append((name + "_bn", ((shapes[-1][-1],),) * 4))

    convolution("block1_conv1", (3, 3, 3, 32))
    convolution("block1_conv2", (3, 3, 32, 64))
    for block, widths in SEPARABLE.items():
        for i, (a, b) in enumerate(widths, 1):
            convolution(f"block{block}_sepconv{i}", (3, 3, a, 1), (1, 1, a, b))
        if block in STRIDED:
            convolution(f"block{block}_skip", (1, 1, widths[0][0], widths[-1][-1]))
    return table


def random_weights(seed, classes=1000):
    """He-initialised weights, keeping activations near unit scale through all blocks."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shapes in layers():
        if name.endswith("_bn"):
            c = shapes[0]
            # Each middle block adds to its input: halved, so that the sum stays in range.
            gain = 0.5 if name.startswith(tuple(f"block{b}_sepconv3" for b in range(5, 13))) else 1.0
            weights[name] = [
                gain * rng.uniform(0.8, 1.2, c),
                rng.normal(0, 0.1, c),
                np.zeros(c),
                np.ones(c),
            ]
        else:
            # fan-in of a depthwise kernel is its window; no ReLU follows it, so gain 1
            weights[name] = [
                rng.normal(0, np.sqrt(1 / 9 if s[-1] == 1 else 2 / np.prod(s[:-1])), s) for s in shapes
            ]
    weights["predictions"] = [rng.normal(0, np.sqrt(1 / 2048), (2048, classes)), np.zeros(classes)]
    return {k: [np.asarray(t, np.float32) for t in v] for k, v in weights.items()}


def read_keras(path):
    """Weights by layer from a file of Keras 2 or 3, checked shape by shape."""
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as e:
        raise SystemExit(f"{path}: not an HDF5 file that Keras wrote: {e}")
    with file:
        groups = by_name(file) if "layer_names" in file.attrs or "model_weights" in file else by_class(file)
    wanted = layers()
    weights = {}
    for name, shapes in wanted + [("predictions", None)]:
        if name not in groups:
            raise SystemExit(f"{path}: no layer {name}; is this Keras's Xception with its top?")
        tensors = groups[name]
        shapes = shapes or ((2048, tensors[-1].size), (tensors[-1].size,))
        found = tuple(t.shape for t in tensors)
        if found != shapes:
            raise SystemExit(f"{path}: layer {name} has tensors {found}, expected {shapes}")
        weights[name] = [np.asarray(t, np.float32) for t in tensors]
    return weights


def by_name(file):
    """Legacy HDF5: a group per layer name, tensors listed in `weight_names`."""
    root = file["model_weights"] if "model_weights" in file else file
    decode = lambda s: s.decode() if isinstance(s, bytes) else s
    groups, skips = {}, {"conv2d": [], "batch_normalization": []}
    for name in map(decode, root.attrs["layer_names"]):
        tensors = [root[name][decode(w)][()] for w in root[name].attrs["weight_names"]]
        if not tensors:
            continue
        kind = name.rstrip("0123456789").rstrip("_")
        if kind in skips:
            number = name[len(kind) + 1 :]
            skips[kind].append((int(number or 0), tensors))
        else:
            groups[name] = tensors
    for block, (_, kernel), (_, norm) in zip(STRIDED, *(sorted(s, key=lambda x: x[0]) for s in skips.values())):
        groups[f"block{block}_skip"], groups[f"block{block}_skip_bn"] = kernel, norm
    return groups


def by_class(file):
    """Keras 3 `.weights.h5`: layers counted by class, in the order of `model.layers`."""
    root = file["layers"] if "layers" in file else file.get("_layer_checkpoint_dependencies", {})
    count, groups = {}, {}
    for name, shapes in layers() + [("predictions", ())]:
        kind = (
            "dense"
            if name == "predictions"
            else "batch_normalization" if name.endswith("_bn") else "separable_conv2d" if len(shapes) == 2 else "conv2d"
        )
        number = count.get(kind, 0)
        count[kind] = number + 1
        stored = root.get(f"{kind}_{number}" if number else kind)
        if stored is not None:
            tensors = stored["vars"]
            groups[name] = [tensors[k][()] for k in sorted(tensors, key=int)]
    return groups


class Graph:
    """Nodes and initializers of the graph under construction; every method returns a tensor name."""

    def __init__(self):
        self.nodes, self.initializers = [], []

    def tensor(self, name, value):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def node(self, op, inputs, name, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv(self, x, name, kernel, norm=None, **attributes):
        """Convolution with Keras's kernel [h, w, in, out] and the normalization after it."""
        inputs = [x, name + "_w"]
        if norm is not None:
            gamma, beta, mean, variance = (t.astype(np.float64) for t in norm)
            scale = gamma / np.sqrt(variance + EPSILON)
            kernel = kernel * scale
            inputs.append(self.tensor(name + "_b", beta - mean * scale))
        self.tensor(name + "_w", kernel.transpose(3, 2, 0, 1))
        return self.node("Conv", inputs, name, kernel_shape=kernel.shape[:2], **attributes)

    def separable(self, x, name, weights):
        depthwise, pointwise = weights[name]
        # Keras keeps [h, w, in, 1]; as a grouped convolution it is [h, w, 1, in].
        x = self.conv(
            x, name + "_depthwise", depthwise.transpose(0, 1, 3, 2), pads=[1] * 4, group=depthwise.shape[2]
        )
        return self.conv(x, name, pointwise, weights[name + "_bn"])


def build(weights, labels):
    g = Graph()
    x = "input"
    for i, stride in ((1, 2), (2, 1)):  # unpadded
        name = f"block1_conv{i}"
        x = g.conv(x, name, *weights[name], weights[name + "_bn"], strides=[stride] * 2)
        x = g.node("Relu", [x], name + "_act")
    for block, widths in SEPARABLE.items():
        shortcut = x
        for i in range(1, len(widths) + 1):
            name = f"block{block}_sepconv{i}"
            # Blocks 3-13 activate before each separable convolution, block 14 after it.
            if block != 14 and (block, i) != (2, 1):
                x = g.node("Relu", [x], name + "_act")
            x = g.separable(x, name, weights)
            if block == 14:
                x = g.node("Relu", [x], "features" if i == 2 else name + "_act")
        if block in STRIDED:
            name = f"block{block}_skip"
            shortcut = g.conv(shortcut, name, *weights[name], weights[name + "_bn"], strides=[2, 2])
            x = g.node(
                "MaxPool", [x], f"block{block}_pool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"
            )
        if block != 14:
            x = g.node("Add", [x, shortcut], f"block{block}_add")
    x = g.node("GlobalAveragePool", [x], "avg_pool")
    x = g.node("Flatten", [x], "avg_pool_flat")
    kernel, bias = weights["predictions"]
    g.node("Gemm", [x, g.tensor("predictions_w", kernel), g.tensor("predictions_b", bias)], "logits")

    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    graph = helper.make_graph(
        g.nodes,
        "xception",
        [value("input", [1, 3, "H", "W"])],
        [value("features", [1, 2048, "h", "w"]), value("logits", [1, bias.size])],
        g.initializers,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="salientd"
    )
    set_metadata(model, metadata(labels, "keras", NATIVE_SIDE))
    onnx.checker.check_model(model)
    return model


def download(url, md5, cache):
    path = Path(cache) / url.rsplit("/", 1)[1]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"downloading {url}", file=sys.stderr)
        part = path.with_suffix(".part")
        try:
            with urllib.request.urlopen(url, timeout=60) as response, open(part, "wb") as out:
                size, done = int(response.headers.get("Content-Length", 0)), 0
                while chunk := response.read(1 << 20):
                    out.write(chunk)
                    done += len(chunk)
                    print(f"\r{done / 1e6:.0f} of {size / 1e6:.0f} MB", end="", file=sys.stderr, flush=True)
            print(file=sys.stderr)
        except OSError as e:
            part.unlink(missing_ok=True)
            raise SystemExit(f"{url}: {e}; download it elsewhere and put it at {path}")
        os.replace(part, path)
    found = hashlib.md5(path.read_bytes()).hexdigest()
    if found != md5:
        raise SystemExit(f"{path}: MD5 {found}, expected {md5}; remove the file and try again")
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="imagenet, none, or a file that Keras wrote")
    parser.add_argument("--out", required=True, help="ONNX file to write")
    parser.add_argument("--labels", help="text file, one class name a line (imagenet: fetched)")
    parser.add_argument("--cache", default="build/cache", help="where downloads are kept")
    parser.add_argument("--seed", type=int, default=1, help="of --weights none")
    parser.add_argument("--force", action="store_true", help="overwrite --out")
    args = parser.parse_args()
    labels = Path(args.labels).read_text().splitlines() if args.labels else None
    if args.weights == "none":
        weights = random_weights(args.seed)
    elif args.weights == "imagenet":
        weights = read_keras(download(WEIGHTS_URL, WEIGHTS_MD5, args.cache))
        if labels is None:
            index = json.loads(download(LABELS_URL, LABELS_MD5, args.cache).read_text())
            labels = [index[str(i)][1].replace("_", " ") for i in range(len(index))]
    else:
        weights = read_keras(args.weights)
    classes = weights["predictions"][1].size
    if labels and len(labels) != classes:
        raise SystemExit(f"{len(labels)} labels for {classes} classes")
    write_new(build(weights, labels), args.out, args.force)


if __name__ == "__main__":
    main()
