"""`pytest tools/test_torchvision.py`: the exported networks against torchvision's own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision

sys.path.insert(0, str(Path(__file__).parent))
from ptq.network import Network  # noqa: E402

TOOL = Path(__file__).with_name("export_torchvision.py")


def export(*arguments):
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.parametrize("name, channels", [("mobilenet_v2", 1280), ("resnet50", 2048)])
def test_same_logits_as_torchvision(name, channels, tmp_path):
    out = tmp_path / "x.onnx"
    run = export(name, "--weights", "none", "--out", out)
    assert run.returncode == 0, run.stderr
    torch.manual_seed(1)
    network = torchvision.models.get_model(name).eval()
    session = onnxruntime.InferenceSession(out)
    for height, width in ((224, 224), (160, 96)):
        x = np.random.default_rng(height).normal(size=(1, 3, height, width)).astype(np.float32)
        features, logits = session.run(["features", "logits"], {"input": x})
        assert features.shape == (1, channels, height // 32, width // 32)
        with torch.inference_mode():
            theirs = network(torch.from_numpy(x)).numpy()
        assert np.abs(logits - theirs).max() <= 1e-4 * np.abs(theirs).max()
    model = onnx.load(out)
    assert {p.key: p.value for p in model.metadata_props} == {
        "scaling": "torch", "colour": "rgb", "native_size": "224x224",
    }  # fmt: skip
    # What tools/quantize.py and the daemon look for is there.
    found = Network(model)
    assert found.features == "features" and found.head_weights.shape == (channels, 1000)


def test_never_overwrites(tmp_path):
    out = tmp_path / "x.onnx"
    out.write_text("precious")
    run = export("mobilenet_v2", "--weights", "none", "--out", out)
    assert run.returncode == 1 and "exists; give --force" in run.stderr
    assert out.read_text() == "precious"
