"""Scale and zero point of a u8 tensor.

The range is the full extent seen in calibration. Percentiles and least squared error
would clip, and the rare strong responses that they clip are what a class activation map
is made of: on Xception both lose more than the finer steps win (docs/quantization.md).
"""

from dataclasses import dataclass

import numpy as np

LEVELS = 255


@dataclass(frozen=True)
class Affine:
    """real = (code - zero_point) * scale, code a u8."""

    scale: np.float32
    zero_point: int

    def quantize(self, x):
        return np.clip(np.rint(x / self.scale) + self.zero_point, 0, LEVELS).astype(np.uint8)

    def dequantize(self, codes):
        return (codes.astype(np.float32) - np.float32(self.zero_point)) * self.scale


def affine(low, high):
    """The parameters that cover [low, high] and represent 0 exactly."""
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    scale = max((high - low) / LEVELS, 1e-12)
    return Affine(np.float32(scale), int(np.clip(np.rint(-low / scale), 0, LEVELS)))
