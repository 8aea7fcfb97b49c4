#!/usr/bin/env python3
"""Makes the parity test set in this folder: a tiny Xception, two pictures, reference maps.

    pip install -r requirements.txt
    python make.py [--golden DIR] [--check]

Nothing is random but for fixed seeds. What is written:

  model.onnx              NCHW `inputs`, any height and width; `features` NHWC and `logits`
  head_weights.npy        [k, classes]; head_bias.npy [classes]
  <i>.png                 the pictures, at the model's size
  <i>_features.npy        [h, w, k] of the identity view
  <i>_view_<s>[f].npy     CAM grid [h, w, units] of the view of scale s, f: mirrored
  <i>_<case>_raw.npy      merged maps [H, W, units]; <i>_<case>_posnorm.npy filtered
  <i>_<method>.npy        grids [h, w, units] by the library grad-cam
  <i>_scorecam_passes.npy [k, 1 + classes]: mean of each channel's mask, logits under it
  cases.json              units, view logits and merged logits for each of these

The TTA references are a plain NumPy statement of TensorFlow's resize and of
keras-explainable 0.0.2's `meta.tta`, over ONNX Runtime. `--golden DIR` compares that
statement with maps that keras-explainable itself made (same file names). `--check` makes
everything and compares it with the committed files instead of writing.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

HERE = pathlib.Path(__file__).parent
CASES = {
    "doc": ([0.5, 1.0, 1.5, 2.0], True, "keras"),
    "default": ([0.5, 1.5, 2.0], True, "keras"),
    "noflip": ([0.75, 1.25], False, "keras"),
    "one": ([1.0], False, "mean"),
    "mean": ([0.5, 1.0, 1.5, 2.0], True, "mean"),
}
CLASSES = 6
UNITS = 3
F = np.float32


# --- the model ------------------------------------------------------------------------


class Graph:
    """Collects ONNX nodes; every method takes and returns a tensor's name."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights = [], []

    def node(self, op, *inputs, out=None, **attributes):
        out = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [out], **attributes))
        return out

    def constant(self, values, name=None):
        name = name or f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, x, n_in, n_out, size=3, stride=1, pad=True, depthwise=False):
        fan_in = size * size * (1 if depthwise else n_in)
        shape = (n_out, 1 if depthwise else n_in, size, size)
        kernel = self.random.normal(0, np.sqrt(2 / fan_in), shape).astype(F)
        return self.node("Conv", x, self.constant(kernel), kernel_shape=[size, size],
                         strides=[stride] * 2, pads=[size // 2 if pad else 0] * 4,
                         group=n_in if depthwise else 1)

    def norm(self, x, n):
        gamma, beta, mean, var = (self.random.uniform(lo, hi, n).astype(F) for lo, hi in
                                  [(0.7, 1.3), (-0.3, 0.3), (-0.2, 0.2), (0.6, 1.4)])
        return self.node("BatchNormalization", x, *map(self.constant, (gamma, beta, mean, var)),
                         epsilon=1e-3)

    def relu(self, x):
        return self.node("Relu", x)

    def separable(self, x, n_in, n_out):
        x = self.conv(x, n_in, n_in, depthwise=True)
        return self.norm(self.conv(x, n_in, n_out, size=1), n_out)


def build_model():
    g = Graph(seed=1)
    x = g.relu(g.norm(g.conv("inputs", 3, 8, stride=2, pad=False), 8))
    x = g.relu(g.norm(g.conv(x, 8, 16, pad=False), 16))
    for n_in, n_out in [(16, 24), (24, 32)]:  # entry flow
        shortcut = g.norm(g.conv(x, n_in, n_out, size=1, stride=2), n_out)
        x = g.separable(g.relu(g.separable(x, n_in, n_out)), n_out, n_out)
        x = g.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        x = g.node("Add", x, shortcut)
    y = g.separable(g.relu(x), 32, 32)  # middle flow
    x = g.node("Add", x, g.separable(g.relu(y), 32, 32))
    x = g.relu(g.separable(x, 32, 48))  # exit flow
    x = g.relu(g.separable(x, 48, 64))
    g.node("Transpose", x, out="features", perm=[0, 2, 3, 1])
    x = g.node("Flatten", g.node("GlobalAveragePool", x))
    head = g.random.normal(0, 0.05, (64, CLASSES)).astype(F)
    bias = g.random.normal(0, 0.3, CLASSES).astype(F)
    x = g.node("MatMul", x, g.constant(head, "head_weights"))
    g.node("Add", x, g.constant(bias, "head_bias"), out="logits")

    def tensor(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        g.nodes, "tiny_xception", [tensor("inputs", ["n", 3, "height", "width"])],
        [tensor("features", ["n", "h", "w", 64]), tensor("logits", ["n", CLASSES])], g.weights)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    onnx.checker.check_model(model)
    return model


def draw_pictures():
    """Shapes on a gradient, with a little noise, so that no two regions are alike."""
    random = np.random.default_rng(2)
    for width, height in [(64, 64), (72, 48)]:
        ramp = np.linspace(30, 200, width)[None, :] + np.linspace(-25, 25, height)[:, None]
        picture = Image.fromarray(np.stack([ramp, ramp[::-1], 255 - ramp], -1).clip(0, 255)
                                  .astype(np.uint8))
        draw = ImageDraw.Draw(picture)
        draw.ellipse([width // 8, height // 6, width // 2, height // 2], fill=(220, 60, 40))
        draw.rectangle([width // 2, height // 2, width - 6, height - 4], fill=(30, 90, 200))
        draw.polygon([(4, height - 4), (width // 3, height - 4), (width // 5, height // 2)],
                     fill=(240, 220, 40))
        noise = random.normal(0, 4, (height, width, 3))
        yield (np.asarray(picture, F) + noise).round().clip(0, 255).astype(np.uint8)


# --- the statement of the formulas ----------------------------------------------------


def taps(size_in, size_out):
    source = (np.arange(size_out, dtype=F) + F(0.5)) * (F(size_in) / F(size_out)) - F(0.5)
    floor = np.floor(source)
    lo = np.maximum(floor, 0).astype(int)
    hi = np.minimum(np.ceil(source), size_in - 1).astype(int)
    return lo, hi, source - floor


def resize(x, height, width):
    """TensorFlow 2's bilinear resize of [h, w, c]."""
    lo, hi, t = taps(x.shape[1], width)
    x = x[:, lo] + (x[:, hi] - x[:, lo]) * t[None, :, None]
    lo, hi, t = taps(x.shape[0], height)
    return x[lo] + (x[hi] - x[lo]) * t[:, None, None]


def positive_normalize(x):
    x = np.maximum(x, 0)
    x = x - x.min((0, 1))
    top = x.max((0, 1))
    return np.divide(x, top, out=np.zeros_like(x), where=top != 0)


class Model:
    def __init__(self, model):
        self.session = onnxruntime.InferenceSession(model.SerializeToString(),
                                                    providers=["CPUExecutionProvider"])
        constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        matmul = [n for n in model.graph.node if n.op_type == "MatMul"][-1]
        add = next(n for n in model.graph.node if matmul.output[0] in n.input)
        self.weights, self.bias = (next(constants[i] for i in n.input if i in constants)
                                   for n in (matmul, add))

    def run(self, x):
        """[h, w, 3], scaled -> features [h', w', k], logits [classes]."""
        batch = x.transpose(2, 0, 1)[None]
        features, logits = self.session.run(["features", "logits"], {"inputs": batch})
        return features[0], logits[0]


def view(model, x, scale, flip, units):
    """-> CAM grid as the view sees it (not un-flipped), logits of the units."""
    size = [int(F(scale) * F(n)) for n in x.shape[:2]]
    features, logits = model.run(resize(x[:, ::-1] if flip else x, *size))
    return features @ model.weights[:, units], logits[units]


def tta(model, x, units, scales, hflip, merge):
    """As keras-explainable writes it: every pass run, none merged by cleverness."""
    flips = [False, True] if hflip else [False]
    passes = [(s, f) for s in scales for f in flips]
    if merge == "keras":
        passes = [(1.0, f) for f in flips] + passes
    maps, logits = 0, 0
    for scale, flip in passes:
        grid, scores = view(model, x, scale, flip, units)
        maps = maps + resize(grid[:, ::-1] if flip else grid, *x.shape[:2])
        logits = logits + scores
    count = F(len(scales) * len(flips))
    return maps / count, logits / count


def gradcampp_grid(model, features, units):
    gradient = model.weights[:, units] / F(features.shape[0] * features.shape[1])
    sums = features.sum((0, 1))[:, None]
    return features @ (np.maximum(model.weights[:, units], 0) / (2 + sums * gradient))


def scorecam_passes(model, x, features):
    """[k, 1 + classes]: each channel's mask (its mean over the input) and its logits."""
    masks = resize(features, *x.shape[:2])
    masks = masks - masks.min((0, 1))
    top = masks.max((0, 1))
    masks = np.divide(masks, top, out=np.zeros_like(masks), where=top != 0)
    return np.stack([np.append(masks[..., k].mean(), model.run(x * masks[..., k:k + 1])[1])
                     for k in range(masks.shape[-1])])


def scorecam_grid(features, passes, units):
    scores = passes[:, 1:][:, units]
    scores = np.exp(scores - scores.max(0))
    return features @ (scores / scores.sum(0))


# --- methods by the library grad-cam --------------------------------------------------


def library_maps(model, x, units):
    """Raw grids (before the library's ReLU and normalisation), by method."""
    import pytorch_grad_cam as library
    import torch
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    class Features(torch.nn.Module):
        def forward(self, x):
            maps = [model.run(one.numpy().transpose(1, 2, 0))[0] for one in x.detach()]
            return torch.tensor(np.stack(maps).transpose(0, 3, 1, 2), requires_grad=True)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.features = Features()
            self.head = torch.nn.Linear(*model.weights.shape)
            self.head.weight.data = torch.tensor(model.weights.T)
            self.head.bias.data = torch.tensor(model.bias)

        def forward(self, x):
            return self.head(self.features(x).mean((2, 3)))

    # The library enlarges Score-CAM's masks with aligned corners; we use one resize for all.
    torch.nn.UpsamplingBilinear2d = lambda size: torch.nn.Upsample(
        size=tuple(size), mode="bilinear", align_corners=False)
    inputs = torch.tensor(x.transpose(2, 0, 1)[None].copy())

    def grid(method, unit, scale=1.0):
        net = Net()
        cam, target = method(net, [net.features]), ClassifierOutputTarget(unit)
        logit = target(cam.activations_and_grads(inputs)[0])
        activations = cam.activations_and_grads.activations[0].numpy()
        gradients = None
        if cam.uses_gradients:
            logit.backward()
            gradients = cam.activations_and_grads.gradients[0].numpy() * F(scale)
        maps = cam.get_cam_image(inputs, net.features, [target], activations / F(scale),
                                 gradients, False)
        return maps[0], logit.item()

    def grids(method, finish=lambda maps, logit: maps, **options):
        return np.stack([finish(*grid(method, u, **options)) for u in units], -1).astype(F)

    def point_to_activation(maps, _):
        brightness = model.run(x)[0].sum(-1)
        return maps if ((brightness - brightness.mean()) * maps).sum() >= 0 else -maps

    return {
        "gradcam": grids(library.GradCAM),
        # Gradients scaled up and activations down by the same factor leave the paper's
        # formula alone and drown the library's epsilon of 1e-6, which is not in the paper
        # and is as large as the squared gradients. The maps stay what they were.
        "gradcampp": grids(library.GradCAMPlusPlus, scale=1e4),
        "layercam": grids(library.LayerCAM),
        "xgradcam": grids(library.XGradCAM),
        # The library divides by the logit: one factor for the whole map, taken back here.
        "ablationcam": grids(library.AblationCAM, lambda maps, logit: maps * logit),
        # The sign of a principal component is free.
        "eigencam": grids(library.EigenCAM, point_to_activation),
        "scorecam": grids(library.ScoreCAM),
    }


# --- putting it together --------------------------------------------------------------


def scaled(picture):
    return np.asarray(picture, F) / F(127.5) - F(1)


def make():
    """-> {file name: array | bytes | JSON-able}"""
    onnx_model = build_model()
    model = Model(onnx_model)
    files = {"model.onnx": onnx_model.SerializeToString(),
             "head_weights.npy": model.weights, "head_bias.npy": model.bias}
    described = []
    for i, picture in enumerate(draw_pictures()):
        x = scaled(picture)
        features, logits = model.run(x)
        units = np.argsort(-logits)[:UNITS]
        files[f"{i}.png"] = picture
        files[f"{i}_features.npy"] = features
        image = {"image": f"{i}.png", "input_hw": list(x.shape[:2]), "units": units.tolist(),
                 "all_logits": logits.tolist(), "views": [], "cases": []}
        passes = {(s, f) for scales, hflip, _ in CASES.values() for s in [1.0, *scales]
                  for f in ([False, True] if hflip else [False])}
        for scale, flip in sorted(passes):
            grid, scores = view(model, x, scale, flip, units)
            files[f"{i}_view_{scale:g}{'f' * flip}.npy"] = grid
            image["views"].append({"scale": scale, "hflip": flip, "logits": scores.tolist()})
        for name, (scales, hflip, merge) in CASES.items():
            maps, merged = tta(model, x, units, scales, hflip, merge)
            files[f"{i}_{name}_raw.npy"] = maps
            if name == "doc":
                files[f"{i}_{name}_posnorm.npy"] = positive_normalize(maps)
            image["cases"].append({"case": name, "scales": scales, "hflip": hflip, "merge": merge,
                                   "logits": merged.tolist()})
        methods = library_maps(model, x, units)
        near("gradcam", features @ model.weights[:, units] / F(features[..., 0].size),
             methods["gradcam"])
        near("gradcam++", gradcampp_grid(model, features, units), methods["gradcampp"])
        passes = scorecam_passes(model, x, features)
        near("scorecam", scorecam_grid(features, passes, units), methods["scorecam"])
        files[f"{i}_scorecam_passes.npy"] = passes
        files |= {f"{i}_{name}.npy": maps for name, maps in methods.items()}
        described.append(image)
    files["cases.json"] = described
    return files


def near(what, got, expected, tolerance=1e-4):
    worst = np.abs(got - expected).max() / max(np.ptp(expected), 1e-12)
    if got.shape != expected.shape or not worst <= tolerance:
        sys.exit(f"{what}: off by {worst:.2g} of the range, allowed {tolerance}")
    return worst


def check_golden(folder):
    """The statement above against maps that keras-explainable made."""
    model = Model(onnx.load(folder / "model.onnx"))
    worst = 0
    for case in json.loads((folder / "cases.json").read_text()):
        i, units = case["image"].removesuffix(".png"), case["units"]
        x = scaled(Image.open(folder / case["image"]).convert("RGB"))

        def compare(name, got):
            return near(f"{i} {name}", got, np.load(folder / f"{i}_{name}.npy"))

        maps, logits = tta(model, x, units, case["scales"], case["hflip"], "keras")
        worst = max(worst, compare(f"{case['case']}_raw", maps),
                    compare(f"{case['case']}_posnorm", positive_normalize(maps)),
                    near("logits", logits, np.array(case["logits"])))
        # These the peer filters first and then resizes.
        features, _ = model.run(x)
        grid = features @ model.weights[:, units]
        grid_shape = np.load(folder / f"{i}_cam_grid.npy").shape
        worst = max(worst, compare("cam_grid", grid.reshape(grid_shape)))
        for name, grid in [("cam", grid), ("gradcam", grid / F(features[..., 0].size)),
                           ("gradcampp", gradcampp_grid(model, features, units))]:
            worst = max(worst, compare(name, resize(positive_normalize(grid), *x.shape[:2])))
    print(f"golden maps: agree to {worst:.1e} of the range")


def load(path):
    if path.suffix == ".npy":
        return np.load(path)
    return np.asarray(Image.open(path)) if path.suffix == ".png" else path.read_bytes()


def check_committed(files):
    worst = 0
    for name, value in files.items():
        if name == "cases.json":
            continue
        committed = load(HERE / name)
        if isinstance(value, bytes):
            assert committed == value, name
        else:
            worst = max(worst, near(name, value.astype(F), committed.astype(F), 1e-5))
    print(f"{len(files)} committed files: agree to {worst:.1e} of the range")


def write(files):
    for name, value in files.items():
        path = HERE / name
        if path.suffix == ".npy":
            np.save(path, np.ascontiguousarray(value, F))
        elif path.suffix == ".png":
            Image.fromarray(value).save(path, optimize=True)
        elif path.suffix == ".json":
            path.write_text(json.dumps(value, indent=1) + "\n")
        else:
            path.write_bytes(value)
    total = sum((HERE / name).stat().st_size for name in files)
    print(f"{len(files)} files, {total / 1e3:.0f} kB")


def main():
    arguments = argparse.ArgumentParser(description="Makes the parity test set.")
    arguments.add_argument("--golden", type=pathlib.Path, metavar="DIR")
    arguments.add_argument("--check", action="store_true")
    arguments = arguments.parse_args()
    if arguments.golden:
        check_golden(arguments.golden)
    files = make()
    (check_committed if arguments.check else write)(files)


if __name__ == "__main__":
    main()
