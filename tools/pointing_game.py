"""Pointing game of the default model's class activation map, beside the centre baseline.

    python tools/pointing_game.py --weights default.pt --data DIR

DIR holds Imagenette's `val/`; `models/boxes.json` names the photos and their boxes. One
view at the native size: the map of the photo's true class, upsampled bilinearly to the
photo, hits where its maximum lies in a box (pointing game, Zhang et al., IJCV 2018). The
tolerant variant also takes a point within 15 pixels of a box. The baseline points at the
image centre. Prints JSON: shares of all photos, of those whose boxes together cover at
most a quarter of the area, of those whose centre lies in no box, and of each class.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from train_default import CLASSES, NATIVE, SIDE, NarrowXception

TOLERANCE_PX = 15  # of the stored photo, SIDE pixels wide


def distance(point, box):
    """Euclidean distance from a point (x, y) to the box [left, top, right, bottom]; 0 inside."""
    (x, y), (left, top, right, bottom) = point, box
    return float(np.hypot(max(left - x, 0, x - right), max(top - y, 0, y - bottom)))


def covered(boxes):
    """Share of the photo that the boxes cover together."""
    mask = np.zeros((SIDE, SIDE), bool)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask.mean()


@torch.inference_mode()
def look(model, path, label):
    """(point where the class map is largest, is `label` the top class) for one photo."""
    photo = Image.open(path).convert("RGB")
    if photo.size != (SIDE, SIDE):
        photo = photo.resize((SIDE, SIDE), Image.BILINEAR)
    x = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)[None].float()
    x = F.interpolate(x, size=NATIVE, mode="bilinear", antialias=True, align_corners=False) / 127.5 - 1
    features, logits = model(x)
    cam = model.class_map(features)[:, label : label + 1]
    cam = F.interpolate(cam, size=SIDE, mode="bilinear", align_corners=False)[0, 0]
    y, x = divmod(int(cam.argmax()), SIDE)
    return (x + 0.5, y + 0.5), int(logits.argmax()) == label


def summary(rows):
    def share(key):
        return round(sum(r[key] for r in rows) / len(rows), 4)

    return {"photos": len(rows)} | {k: share(k) for k in ("top1", "cam", "cam_tolerant", "centre", "centre_tolerant")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="default.pt of train_default.py")
    parser.add_argument("--data", required=True, help="Imagenette: its val/ is read")
    parser.add_argument("--boxes", default=Path(__file__).parent.parent / "models" / "boxes.json")
    args = parser.parse_args()
    model = NarrowXception().eval()
    model.load_state_dict(torch.load(args.weights, map_location="cpu"))
    index = {label: i for i, (_, label, _) in enumerate(CLASSES)}
    centre, rows = (SIDE / 2, SIDE / 2), []
    for photo in json.loads(Path(args.boxes).read_text())["photos"]:
        point, right = look(model, Path(args.data) / "val" / photo["file"], index[photo["label"]])
        near, near_centre = (min(distance(p, box) for box in photo["boxes"]) for p in (point, centre))
        rows.append({
            "label": photo["label"], "top1": right, "covered": covered(photo["boxes"]),
            "cam": near == 0, "cam_tolerant": near <= TOLERANCE_PX,
            "centre": near_centre == 0, "centre_tolerant": near_centre <= TOLERANCE_PX,
        })  # fmt: skip
    result = summary(rows)
    result["small"] = summary([r for r in rows if r["covered"] <= 0.25])
    result["off_centre"] = summary([r for r in rows if not r["centre"]])
    result["per_class"] = {label: summary([r for r in rows if r["label"] == label]) for label in index}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
