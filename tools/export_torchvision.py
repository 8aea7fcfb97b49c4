"""A network of torchvision as an ONNX file: the worked example for PyTorch.

    python tools/export_torchvision.py mobilenet_v2 --out models/mobilenetv2.onnx

ImageNet's weights and class names come from torchvision, which downloads the weights once
(needs internet). Any other PyTorch network goes the same way: a module that returns
(features, logits), `from_torch`, and the metadata.
"""

import argparse

import torch
import torchvision

from onnx_file import from_torch, metadata, set_metadata, write_new

NATIVE_SIDE = 224


class MobileNetV2(torch.nn.Module):
    """Dropout, which does nothing here, and the flattening are left out."""

    def __init__(self, network):
        super().__init__()
        self.features, self.head = network.features, network.classifier[1]

    def forward(self, x):
        """[n, 3, h, w] -> (features [n, 1280, h/32, w/32], logits [n, classes])."""
        features = self.features(x)
        return features, self.head(features.mean((2, 3)))


class ResNet50(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        layers = list(network.children())
        self.features, self.head = torch.nn.Sequential(*layers[:-2]), network.fc

    def forward(self, x):
        """[n, 3, h, w] -> (features [n, 2048, h/32, w/32], logits [n, classes])."""
        features = self.features(x)
        return features, self.head(features.mean((2, 3)))


NETWORKS = {
    "mobilenet_v2": (MobileNetV2, torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V2),
    "resnet50": (ResNet50, torchvision.models.ResNet50_Weights.IMAGENET1K_V2),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--weights", choices=("imagenet", "none"), default="imagenet", help="none: random, for timing")
    parser.add_argument("--out", required=True, help="ONNX file to write")
    parser.add_argument("--force", action="store_true", help="overwrite --out")
    args = parser.parse_args()
    exposed, weights = NETWORKS[args.network]
    torch.manual_seed(1)
    network = torchvision.models.get_model(args.network, weights=weights if args.weights == "imagenet" else None)
    labels = weights.meta["categories"] if args.weights == "imagenet" else None
    model = from_torch(exposed(network), NATIVE_SIDE)
    write_new(set_metadata(model, metadata(labels, "torch", NATIVE_SIDE)), args.out, args.force)


if __name__ == "__main__":
    main()
