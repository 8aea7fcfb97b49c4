"""The exported Xception against Keras's own: `pytest tools/test_export.py`.

Needs requirements-keras.txt; skipped where TensorFlow is not installed.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

TOOL = Path(__file__).with_name("export_xception.py")
CLASSES = 7


def export(*arguments):
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True)


def logits_of(path, image):
    session = onnxruntime.InferenceSession(path)
    features, logits = session.run(["features", "logits"], {"input": image.transpose(0, 3, 1, 2)})
    return features, logits


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


@pytest.fixture(scope="module", params=[(96, 128), (131, 99)], ids=str)
def network(request, keras):
    """Keras's Xception with every weight random, normalization statistics included."""
    keras.utils.set_random_seed(1)
    # An earlier network moves Keras's numbering of the unnamed shortcut layers.
    keras.layers.Conv2D(1, 1), keras.layers.BatchNormalization()
    model = keras.applications.Xception(
        weights=None, input_shape=(*request.param, 3), classes=CLASSES, classifier_activation=None
    )
    rng = np.random.default_rng(2)
    for layer in model.layers:
        if layer.name.startswith("batch_normalization") or layer.name.endswith("_bn"):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights(
                [
                    rng.uniform(0.7, 1.3, gamma.shape),
                    rng.normal(0, 0.2, beta.shape),
                    rng.normal(0, 0.1, mean.shape),
                    rng.uniform(0.5, 1.5, variance.shape),
                ]
            )
    image = rng.uniform(-1, 1, (1, *request.param, 3)).astype(np.float32)
    features = keras.Model(model.input, model.layers[-3].output)
    return model, image, features.predict(image, verbose=0), model.predict(image, verbose=0)


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_same_logits_as_keras(network, suffix, tmp_path):
    model, image, features, logits = network
    file, out = tmp_path / ("x" + suffix), tmp_path / "x.onnx"
    model.save_weights(file) if suffix == ".weights.h5" else model.save(file)
    (tmp_path / "labels.txt").write_text("\n".join(f"class {i}" for i in range(CLASSES)))
    run = export("--weights", file, "--out", out, "--labels", tmp_path / "labels.txt")
    assert run.returncode == 0, run.stderr
    ours, our_logits = logits_of(out, image)
    features = features.transpose(0, 3, 1, 2)
    assert ours.shape == features.shape
    for name, a, b in (("features", ours, features), ("logits", our_logits, logits)):
        assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max(), name
    metadata = {p.key: p.value for p in onnx.load(out).metadata_props}
    assert metadata["labels"].splitlines()[6] == "class 6"
    assert (metadata["scaling"], metadata["colour"], metadata["native_size"]) == ("keras", "rgb", "299x299")


def test_random_weights_are_sane_at_every_size(tmp_path):
    out = tmp_path / "x.onnx"
    assert export("--weights", "none", "--out", out).returncode == 0
    rng = np.random.default_rng(3)
    for size, grid in ((71, 3), (149, 5), (299, 10)):
        features, logits = logits_of(out, rng.uniform(-1, 1, (1, size, size, 3)).astype(np.float32))
        assert features.shape == (1, 2048, grid, grid) and logits.shape == (1, 1000)
        assert 0.1 < features.std() < 100


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--weights", __file__], "not an HDF5 file that Keras wrote"),
        (["--weights", "none", "--labels", __file__], "labels for 1000 classes"),
    ],
)
def test_bad_input(arguments, message, tmp_path):
    run = export(*arguments, "--out", tmp_path / "x.onnx")
    assert run.returncode == 1 and message in run.stderr
    assert not list(tmp_path.iterdir())


def test_never_overwrites(tmp_path):
    out = tmp_path / "x.onnx"
    out.write_text("precious")
    run = export("--weights", "none", "--out", out)
    assert run.returncode == 1 and "exists; give --force" in run.stderr
    assert out.read_text() == "precious"
