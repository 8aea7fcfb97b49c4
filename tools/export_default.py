"""The default model's trained weights as an ONNX file (f32, H and W dynamic).

    python tools/export_default.py build/default/default.pt --out build/default/default.onnx

Then `tools/quantize.py` makes models/default-int8.onnx of it; see docs/models.md.
"""

import argparse

import torch

from onnx_file import from_torch, metadata, set_metadata, write_new
from train_default import CLASSES, NATIVE, NarrowXception


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="default.pt as train_default.py writes it")
    parser.add_argument("--out", required=True, help="ONNX file to write")
    parser.add_argument("--force", action="store_true", help="overwrite --out")
    args = parser.parse_args()
    network = NarrowXception()
    network.load_state_dict(torch.load(args.weights, map_location="cpu", weights_only=True))
    model = from_torch(network, NATIVE)
    labels = [name for _, name, _ in CLASSES]
    write_new(set_metadata(model, metadata(labels, "keras", NATIVE)), args.out, args.force)


if __name__ == "__main__":
    main()
