"""Float ONNX classifier -> int8 ONNX (QDQ) that keeps its class activation maps.

    python tools/quantize.py model.onnx --images photos/ --out model-int8.onnx

The network must end in global average pooling and a linear layer. Everything before the
pooling runs in int8: u8 tensors with one scale each, s8 weights with one scale per output
channel; the pooling and the linear layer stay in float. Afterwards both networks run
on photos that were not used for calibration (those of --eval-images, else every fourth
of --images), and the report says what is left of the decisions and the maps. With
thresholds given, the exit status is 1 when one is missed; the file is written all the
same, so that it can be looked at. How it works and what it reaches: docs/quantization.md.
"""

import argparse
import fnmatch
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx

from ptq import QuantizationError, agreement, equalize, photos, qdq, quantizer
from ptq.network import Network

CALIBRATION_MIN = 16  # photos; below, ranges are guesses
CALIBRATION_MAX = 96
FIT_MAX = 40  # photos that weights and biases are fitted on: kept in memory, layer by layer
LAYER_PHOTOS = 8  # photos that the error per layer is measured on


def main():
    args = arguments()
    try:
        report = run(args)
    except QuantizationError as e:
        sys.exit(f"quantize: {e}")
    print_report(report)
    if args.report:
        Path(args.report).write_text(json.dumps(report, indent=1) + "\n")
    missed = [
        f"{name} {report['agreement'][name]:.4f} is under {limit}"
        for name, limit in thresholds(args).items()
        if report["agreement"][name] < limit
    ]
    if missed:
        sys.exit("quantize: " + "; ".join(missed))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("model", help="float ONNX model")
    add("--images", required=True, nargs="+", help="folders of calibration photos")
    add("--out", required=True, help="int8 ONNX file to write")
    add("--eval-images", nargs="+", help="folders of photos to compare on")
    add("--eval-names", help="text file: paths below --eval-images, one a line, that pick the photos")
    add("--size", help="HxW of the input (default: the model's metadata, else 299x299)")
    add("--scaling", choices=photos.SCALINGS, help="default: the model's metadata, else keras")
    add("--colour", choices=("rgb", "bgr"), help="default: the model's metadata, else rgb")
    add("--kept", type=float, default=equalize.KEPT, help="share of photos whose extremes a range covers (%(default)s)")
    add("--limit", action="append", default=[], metavar="TENSOR=VALUE", help="end a spiking tensor's range at VALUE")
    add("--float", action="append", default=[], metavar="TENSOR", help="leave the node that writes TENSOR (* and ? match) in float")
    add("--no-equalize", action="store_true", help="leave the channels' scales as they are")
    add("--min-top1", type=float, help="least share of equal decisions")
    add("--min-pearson", type=float, help="least mean correlation of the maps")
    add("--min-pearson-p10", type=float, help="least 10th percentile of it")
    add("--min-pearson-min", type=float, help="least correlation of any photo")
    add("--threads", type=int, default=os.cpu_count(), help="(%(default)s)")
    add("--report", help="JSON file to write the report to")
    add("--force", action="store_true", help="overwrite --out")
    args = parser.parse_args()
    if not 0.5 <= args.kept <= 1:
        parser.error("--kept: must be from 0.5 to 1")
    return args


def thresholds(args):
    limits = {
        "top1_agreement": args.min_top1,
        "pearson_mean": args.min_pearson,
        "pearson_p10": args.min_pearson_p10,
        "pearson_min": args.min_pearson_min,
    }
    return {k: v for k, v in limits.items() if v is not None}


def run(args):
    out = Path(args.out)
    if out.exists() and not args.force:
        raise QuantizationError(f"{out}: exists; give --force to overwrite it")
    model = load(args.model)
    metadata = {p.key: p.value for p in model.metadata_props}
    height, width = input_size(args.size or metadata.get("native_size", "299x299"))
    try:
        network = Network(model, args.threads)
    except QuantizationError as e:
        raise QuantizationError(f"{args.model}: {e}") from e
    reader = photos.Reader(
        args.scaling or metadata.get("scaling", "keras"),
        args.colour or metadata.get("colour", "rgb"),
        network.channels_last,
    )
    calibration, evaluation = choose_photos(args)
    read = lambda paths: [reader(p, height, width) for p in paths]
    equalize.KEPT = args.kept

    reference = agreement.Probe(network.to_model(), network.features, network.logits, args.threads)
    limits = tensor_limits(args.limit, network)
    keep_float(args.float, network)
    inputs = progress((reader(p, height, width) for p in calibration), "ranges", len(calibration))
    extents = quantizer.measure(network, inputs, limits)
    spike = quantizer.spike(network, extents)
    if not args.no_equalize:
        quantizer.equalize_network(network, extents)
    fit = read(photos.spread(calibration, FIT_MAX))
    plan = quantizer.quantize(network, fit, extents, progress)
    read_features = qdq.features_name(network, plan)

    def probed(model):
        return agreement.Probe(model, read_features, network.logits, args.threads)

    quantized = qdq.write(network, plan)
    if network.head_bias:
        inputs = progress((reader(p, height, width) for p in calibration), "head", len(calibration))
        bias = network.constants[network.head_bias]
        error = agreement.logit_error(reference, probed(quantized), inputs)
        network.constants[network.head_bias] = bias + error.reshape(bias.shape).astype(bias.dtype)
        quantized = qdq.write(network, plan)
    probe = probed(quantized)
    inputs = progress((reader(p, height, width) for p in evaluation), "comparison", len(evaluation))
    rows = agreement.compare(reference, probe, network.head_weights, inputs, network.channels_last)
    write(quantized, out)
    order = sorted(zip((r[1] for r in rows), map(str, evaluation)))
    return {
        "model": str(args.model),
        "out": str(out),
        "bytes": out.stat().st_size,
        "size": f"{height}x{width}",
        "calibration_photos": len(calibration),
        "kept": args.kept,
        "limits": limits,
        "spike": spike and dict(zip(("tensor", "largest", "median"), spike)),
        "equalized": not args.no_equalize,
        "int8_nodes": len(plan.weights),
        "float_nodes": [f"{n.name} ({n.op_type})" for n in plan.floats],
        "agreement": agreement.summary(rows),
        "worst": [{"photo": p, "pearson": round(r, 4)} for r, p in order[:5]],
        "layers": agreement.layer_errors(network, quantized, plan, read(photos.spread(evaluation, LAYER_PHOTOS))),
    }


def load(path):
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
        return model
    except FileNotFoundError:
        raise QuantizationError(f"{path}: no such file")
    except Exception as e:  # protobuf and the checker raise types of their own
        raise QuantizationError(f"{path}: not a valid ONNX model: {str(e).splitlines()[0]}")


def input_size(text):
    try:
        height, width = (int(v) for v in text.lower().split("x"))
        if min(height, width) < 1:
            raise ValueError
    except ValueError:
        raise QuantizationError(f"size {text!r}: expected HxW, as in 299x299")
    return height, width


def tensor_limits(texts, network):
    """TENSOR=VALUE, each a tensor that a ReLU or Clip before the pooling writes."""
    known = [n.output[0] for n in network.nodes[: network.pool] if n.op_type in quantizer.ACTIVATIONS]
    limits = {}
    for text in texts:
        tensor, _, value = text.rpartition("=")
        if tensor not in known:
            raise QuantizationError(f"--limit {text}: expected TENSOR=VALUE with a ReLU's output, as {', '.join(known[:3])}")
        try:
            limits[tensor] = float(value)
        except ValueError:
            limits[tensor] = 0.0
        if not 0 < limits[tensor] < float("inf"):
            raise QuantizationError(f"--limit {text}: {value!r} is no number above 0")
    return limits


def keep_float(patterns, network):
    """Leaves the nodes in float whose tensors before the pooling the patterns match."""
    known = [n.output[0] for n in network.nodes[: network.pool]]
    matched = {p: fnmatch.filter(known, p) for p in patterns}
    for pattern in (p for p, tensors in matched.items() if not tensors):
        raise QuantizationError(f"--float {pattern}: matches no tensor before the pooling, as {', '.join(known[:3])}")
    network.kept_float = {t for tensors in matched.values() for t in tensors}
    if patterns and not any(node.op_type == "Conv" for node, _ in quantizer.int8_nodes(network)[0]):
        raise QuantizationError(f"--float {' '.join(patterns)}: leaves no convolution to be quantized")


def choose_photos(args):
    found = photos.find(args.images)
    if args.eval_images:
        names = None
        if args.eval_names:
            names = set(Path(args.eval_names).read_text().split("\n")) - {""}
        evaluation = photos.find(args.eval_images, names)
        if not evaluation:
            raise QuantizationError(f"{args.eval_names}: names no photo under {', '.join(args.eval_images)}")
        used = {p.resolve() for p in evaluation}
        found = [p for p in found if p.resolve() not in used]
    else:
        found, evaluation = [p for i, p in enumerate(found) if i % 4 != 3], found[3::4]
    if len(found) < CALIBRATION_MIN:
        raise QuantizationError(
            f"{len(found)} photos left for calibration in {', '.join(args.images)}, at least {CALIBRATION_MIN} are "
            "needed; 100 to 250 of what the camera will see are better"
        )
    return photos.spread(found, CALIBRATION_MAX), evaluation


def progress(items, what, total=None):
    from tqdm import tqdm

    return tqdm(items, desc=what, total=total, unit="", mininterval=0.5)


def write(model, out):
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    onnx.save(model, part)
    os.replace(part, out)


def print_report(report):
    a = report["agreement"]
    print(f"{report['out']}: {report['bytes'] / 1e6:.2f} MB, {report['int8_nodes']} convolutions in int8")
    if report["float_nodes"]:
        print(f"left in float before the pooling: {', '.join(report['float_nodes'])}")
    if (spike := report["spike"]) is not None:
        print(
            f"{spike['tensor']} reaches {spike['largest']:.3g} on one calibration photo and {spike['median']:.3g} on the median "
            "one: ranges that cover that leave other photos few codes; --limit can end them earlier"
        )
    print(f"against float on {a['photos']} photos at {report['size']}, none used for calibration:")
    print(f"  same decision (top-1)            {a['top1_agreement']:.4f}")
    print(
        f"  map correlation (Pearson)        mean {a['pearson_mean']:.4f}  10th percentile {a['pearson_p10']:.4f}  "
        f"minimum {a['pearson_min']:.4f}"
    )
    print(f"  same maximum of the map          {a['pointing_agreement']:.4f}")
    print("  lowest correlations: " + ", ".join(f"{Path(w['photo']).name} {w['pearson']:.3f}" for w in report["worst"]))
    lowest = sorted(report["layers"].items(), key=lambda kv: kv[1])[:5]
    print("  noisiest tensors (signal to quantization noise): " + ", ".join(f"{k} {v:.1f} dB" for k, v in lowest))


if __name__ == "__main__":
    main()
