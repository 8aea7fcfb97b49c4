"""Photos as network input: the daemon's own resize and scaling."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from . import QuantizationError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}

# x -> (x - mean) / deviation on 0-255 values, per channel R, G, B
SCALINGS = {
    "keras": ([127.5] * 3, [127.5] * 3),
    "torch": ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
    "unit": ([0.0] * 3, [255.0] * 3),
    "lite": ([127.0] * 3, [128.0] * 3),
    "raw": ([0.0] * 3, [1.0] * 3),
}


def find(folders, names=None):
    """Photos under the folders, sorted; `names`, paths relative to one of them, picks."""
    found = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise QuantizationError(f"{folder}: no such folder")
        here = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not here:
            raise QuantizationError(f"{folder}: no photos ({', '.join(sorted(SUFFIXES))}) in it")
        if names is not None:
            here = [p for p in here if p.relative_to(folder).as_posix() in names]
        found += here
    return found


def spread(paths, count):
    """`count` of the paths, evenly spaced over the list."""
    if len(paths) <= count:
        return list(paths)
    return [paths[i * len(paths) // count] for i in range(count)]


def resize(image, height, width):
    """TensorFlow's bilinear: half-pixel centres, no antialias. [h, w, c] f32."""

    def taps(size, new):
        at = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * np.float32(size / new) - np.float32(0.5)
        floor = np.floor(at)
        low = np.maximum(floor, 0).astype(int)
        high = np.minimum(np.ceil(at), size - 1).astype(int)
        return low, high, (at - floor).astype(np.float32)

    low, high, t = taps(image.shape[1], width)
    image = image[:, low] + (image[:, high] - image[:, low]) * t[None, :, None]
    low, high, t = taps(image.shape[0], height)
    return image[low] + (image[high] - image[low]) * t[:, None, None]


class Reader:
    """Turns a file into the network's input."""

    def __init__(self, scaling, colour, channels_last):
        if scaling not in SCALINGS:
            raise QuantizationError(f"scaling {scaling!r}: not one of {', '.join(SCALINGS)}")
        if colour not in ("rgb", "bgr"):
            raise QuantizationError(f"colour {colour!r}: not rgb or bgr")
        self.mean, self.deviation = (np.array(v, np.float32) for v in SCALINGS[scaling])
        self.bgr = colour == "bgr"
        self.channels_last = channels_last

    def __call__(self, path, height, width):
        """[1, 3, height, width] f32, or [1, height, width, 3] for channels-last networks."""
        try:
            with Image.open(path) as file:
                pixels = np.asarray(file.convert("RGB"), np.float32)
        except (OSError, UnidentifiedImageError) as e:
            raise QuantizationError(f"{path}: can't be read as an image: {e}")
        x = (resize(pixels, height, width) - self.mean) / self.deviation
        if self.bgr:
            x = x[:, :, ::-1]
        return np.ascontiguousarray(x if self.channels_last else x.transpose(2, 0, 1))[None]
