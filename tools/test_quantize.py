"""`pytest tools/test_quantize.py`: the quantizer on small networks and bad input."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from ptq import equalize, photos, quantizer, ranges, rounding  # noqa: E402
from ptq.network import Network, session  # noqa: E402

TOOL = Path(__file__).with_name("quantize.py")


def small_network(pool="GlobalAveragePool"):
    """Strided conv, separable conv, residual Add, pooling, linear: channels far apart in scale."""
    rng = np.random.default_rng(0)
    spread = np.geomspace(0.05, 5, 16)

    def constant(name, value):
        return numpy_helper.from_array(np.asarray(value, np.float32), name)

    def he(*shape):
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)

    initializers = [
        constant("w1", he(16, 3, 3, 3)), constant("g", spread), constant("b", rng.normal(0, 0.1, 16)),
        constant("m", np.zeros(16)), constant("v", np.ones(16)), constant("d", he(16, 1, 3, 3)),
        constant("p", he(16, 16, 1, 1)), constant("pb", np.zeros(16)), constant("h", he(5, 16)), constant("hb", np.zeros(5)),
    ]
    node = helper.make_node
    nodes = [
        node("Conv", ["input", "w1"], ["c1"], "c1", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
        node("BatchNormalization", ["c1", "g", "b", "m", "v"], ["n1"], "n1"),
        node("Relu", ["n1"], ["r1"], "r1"),
        node("Conv", ["r1", "d"], ["c2"], "c2", kernel_shape=[3, 3], pads=[1] * 4, group=16),
        node("Conv", ["c2", "p", "pb"], ["c3"], "c3", kernel_shape=[1, 1]),
        node("Add", ["c3", "r1"], ["a"], "a"),
        node("Relu", ["a"], ["features"], "r2"),
        node(pool, ["features"], ["pooled"], "pool", **({"kernel_shape": [2, 2]} if pool == "MaxPool" else {})),
        node("Flatten", ["pooled"], ["flat"], "flat"),
        node("Gemm", ["flat", "h", "hb"], ["logits"], "head", transB=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "small", [value("input", TensorProto.FLOAT, [1, 3, "H", "W"])],
        [value("features", TensorProto.FLOAT, [1, 16, "h", "w"]), value("logits", TensorProto.FLOAT, [1, 5])], initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def folder(tmp_path):
    """A model, 40 smooth photos in `photos`, an empty folder."""
    rng = np.random.default_rng(1)
    (tmp_path / "photos").mkdir(), (tmp_path / "empty").mkdir()
    for i in range(40):
        image = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((70, 50), Image.BICUBIC)
        image.save(tmp_path / "photos" / f"{i:02}.png")
    onnx.save(small_network(), tmp_path / "m.onnx")
    return tmp_path


def quantize(folder, *arguments):
    command = [sys.executable, TOOL, *arguments, "--threads", "1"]
    return subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True)


def test_maps_survive(folder):
    run = quantize(
        folder, "m.onnx", "--images", "photos", "--out", "q.onnx", "--size", "48x64", "--report", "r.json",
        "--min-top1", 0.8, "--min-pearson", 0.99, "--min-pearson-min", 0.97,
    )
    assert run.returncode == 0, run.stderr
    model = onnx.load(folder / "q.onnx")
    types = {i.name: i.data_type for i in model.graph.initializer}
    assert types["c2_weight_codes"] == TensorProto.INT8 and types["c2_bias_codes"] == TensorProto.INT32
    assert sum(n.op_type == "BatchNormalization" for n in model.graph.node) == 0
    # nothing between a convolution and the ReLU that follows it
    readers = [n.op_type for n in model.graph.node if "n1" in n.input]
    assert readers == ["Relu"]
    x = np.zeros((1, 3, 33, 47), np.float32)
    features, logits = onnxruntime.InferenceSession(folder / "q.onnx").run(None, {"input": x})
    assert features.shape == (1, 16, 17, 24) and logits.shape == (1, 5)


def test_head_takes_up_the_mean_error(folder):
    """In the mean over the calibration photos the logits are those of the float network."""
    for i in range(0, 40, 2):
        (folder / "photos" / f"{i:02}.png").rename(folder / "empty" / f"{i:02}.png")
    run = quantize(folder, "m.onnx", "--images", "photos", "--eval-images", "empty", "--out", "q.onnx", "--size", "48x64")
    assert run.returncode == 0, run.stderr
    real, coded = (onnxruntime.InferenceSession(folder / name) for name in ("m.onnx", "q.onnx"))
    reader = photos.Reader("keras", "rgb", False)
    inputs = [reader(p, 48, 64) for p in photos.find([folder / "photos"])]
    errors = [(real.run(["logits"], {"input": x})[0] - coded.run(["logits"], {"input": x})[0])[0] for x in inputs]
    assert np.abs(errors).max() > 1e-3
    assert np.abs(np.mean(errors, axis=0)).max() < 1e-5


def test_missed_threshold_fails(folder):
    run = quantize(
        folder, "m.onnx", "--images", "photos", "--out", "q.onnx", "--size", "48x64", "--min-pearson", 1.0, "--limit", "r1=0.5",
    )
    assert run.returncode == 1 and "pearson_mean" in run.stderr and "is under 1.0" in run.stderr
    constants = {i.name: numpy_helper.to_array(i) for i in onnx.load(folder / "q.onnx").graph.initializer}
    assert constants["r1_scale"] * (255 - int(constants["r1_zero_point"])) == pytest.approx(0.5)


@pytest.mark.parametrize("outputs", [["features", "logits"], ["logits"]])
def test_what_is_left_in_float_is_not_rounded(folder, outputs):
    model = small_network()
    kept = [o for o in model.graph.output if o.name in outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, folder / "m.onnx")
    run = quantize(folder, "m.onnx", "--images", "photos", "--out", "q.onnx", "--size", "48x64", "--float", "[af]*")
    assert run.returncode == 0, run.stderr
    assert "left in float before the pooling: " in run.stdout
    coded = onnx.load(folder / "q.onnx")
    rounded = {n.name.removesuffix("_quantize") for n in coded.graph.node if n.op_type == "QuantizeLinear"}
    assert rounded == {"input", "r1", "c2", "c3"}
    x = np.random.default_rng(2).uniform(-1, 1, (1, 3, 48, 64)).astype(np.float32)
    real, ours = (onnxruntime.InferenceSession(folder / name).run(["logits"], {"input": x})[0] for name in ("m.onnx", "q.onnx"))
    assert np.abs(real - ours).max() < 0.05 * np.abs(real).max()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["m.onnx", "--images", "empty"], "empty: no photos (.bmp, .jpeg, .jpg, .png, .webp) in it"),
        (["m.onnx", "--images", "missing"], "missing: no such folder"),
        (["m.onnx", "--images", "photos", "--size", "big"], "size 'big': expected HxW, as in 299x299"),
        (["none.onnx", "--images", "photos"], "none.onnx: no such file"),
        (
            ["headless.onnx", "--images", "photos"],
            "headless.onnx: no global average pooling (GlobalAveragePool, or ReduceMean over height and width) before a "
            "linear layer was found; the network ends in Relu, MaxPool, Flatten, Gemm",
        ),
        (
            ["m.onnx", "--images", "few"],
            "4 photos left for calibration in few, at least 16 are needed; 100 to 250 of what the camera will see are better",
        ),
        (["m.onnx", "--images", "broken"], "broken/00.png: can't be read as an image: cannot identify image file 'broken/00.png'"),
        (["m.onnx", "--images", "photos", "--limit", "c9=24"], "--limit c9=24: expected TENSOR=VALUE with a ReLU's output, as r1, features"),
        (["m.onnx", "--images", "photos", "--limit", "r1=wide"], "--limit r1=wide: 'wide' is no number above 0"),
        (
            ["m.onnx", "--images", "photos", "--float", "c9"],
            "--float c9: matches no tensor before the pooling, as n1, r1, c2",
        ),
        (["m.onnx", "--images", "photos", "--float", "*"], "--float *: leaves no convolution to be quantized"),
        (["m.onnx", "--images", "photos", "--eval-images", "empty"], "empty: no photos (.bmp, .jpeg, .jpg, .png, .webp) in it"),
    ],
)
def test_bad_input(folder, arguments, message):
    onnx.save(small_network(pool="MaxPool"), folder / "headless.onnx")
    (folder / "few").mkdir(), (folder / "broken").mkdir()
    for i in range(5):
        (folder / "few" / f"{i}.png").write_bytes((folder / "photos" / f"{i:02}.png").read_bytes())
    for i in range(40):
        (folder / "broken" / f"{i:02}.png").write_bytes(b"no picture")
    run = quantize(folder, *arguments, "--out", "q.onnx")
    assert run.returncode == 1 and run.stderr.splitlines()[-1] == f"quantize: {message}"
    assert "Traceback" not in run.stderr and not (folder / "q.onnx").exists()


def test_what_is_no_model_is_refused(folder):
    run = quantize(folder, "photos/00.png", "--images", "photos", "--out", "q.onnx")
    assert run.returncode == 1 and "quantize: photos/00.png: not a valid ONNX model: " in run.stderr


def test_never_overwrites(folder):
    (folder / "q.onnx").write_text("precious")
    run = quantize(folder, "m.onnx", "--images", "photos", "--out", "q.onnx")
    assert run.returncode == 1 and run.stderr == "quantize: q.onnx: exists; give --force to overwrite it\n"
    assert (folder / "q.onnx").read_text() == "precious"


def test_a_limit_holds_for_what_follows_and_ends_the_range():
    x = np.random.default_rng(2).normal(size=(1, 3, 32, 32)).astype(np.float32)
    network = Network(small_network())
    free, held = quantizer.measure(network, [x]), quantizer.measure(network, [x], {"r1": 0.5})
    assert free["r1"].high().max() > 1 and held["r1"].high().max() == 0.5
    assert held["c2"].reach().max() < free["c2"].reach().max()
    assert held["n1"].high().max() == free["n1"].high().max()
    assert quantizer.covering(held["r1"]).dequantize(np.array([255], np.uint8)) == pytest.approx(0.5)


@pytest.mark.parametrize("photos, expected", [((1, 1, 1, 1, 9), ("r1", 9.0, 1.0)), ((1, 2, 3, 3.9, 1), None)])
def test_a_spike_is_named_where_it_arises(photos, expected):
    network = Network(small_network())
    extents = {n.output[0]: equalize.Extent() for n in network.nodes[: network.pool]}
    for peak in photos:
        for extent in extents.values():
            extent.add(np.full((1, 16, 2, 2), peak, np.float32))
    assert quantizer.spike(network, extents) == expected


def test_equalisation_changes_nothing_in_float():
    x = np.random.default_rng(2).normal(size=(1, 3, 32, 32)).astype(np.float32)
    network = Network(small_network())
    before = session(network.to_model(["logits"]), 1).run(None, {"input": x})[0]
    weight = network.weights(network.nodes[3])[0].copy()
    quantizer.equalize_network(network, quantizer.measure(network, [x]))
    after = session(network.to_model(["logits"]), 1).run(None, {"input": x})[0]
    assert not np.array_equal(weight, network.weights(next(n for n in network.nodes if n.name == "c3"))[0])
    assert np.abs(before - after).max() < 1e-4 * np.abs(before).max()


def test_one_factor_for_many_tensors_has_less_noise_than_none():
    rng = np.random.default_rng(4)
    reach = rng.lognormal(0, 1, (5, 64))
    reach[2:, 7] *= 40  # a channel that spikes from the third tensor on

    def noise(factor):
        return np.square((reach / factor).max(1)).sum() * np.square(factor).sum()

    assert noise(equalize.shared(reach)) < 0.5 * noise(np.ones(64))
    alone = equalize.shared(reach[:1])
    assert np.allclose(alone / alone.max(), reach[0] / reach[0].max())


def residual_network():
    """Two separable convolutions on a residual path, each behind a ReLU of its own."""
    rng = np.random.default_rng(5)
    initializers, nodes, node = [], [], helper.make_node

    def conv(x, out, weight, **attributes):
        initializers.append(numpy_helper.from_array(weight.astype(np.float32), out + "w"))
        nodes.append(node("Conv", [x, out + "w"], [out], out, kernel_shape=weight.shape[2:], **attributes))

    spread = np.geomspace(0.05, 5, 16)[:, None, None, None]
    conv("input", "stem", rng.normal(0, 0.3, (16, 3, 3, 3)) * spread, pads=[1] * 4)
    x = "stem"
    for i in (1, 2):
        nodes.append(node("Relu", [x], [f"r{i}"], f"r{i}"))
        conv(f"r{i}", f"d{i}", rng.normal(0, 0.3, (16, 1, 3, 3)) / spread, pads=[1] * 4, group=16)
        conv(f"d{i}", f"p{i}", rng.normal(0, 0.3, (16, 16, 1, 1)) * spread)
        nodes.append(node("Add", [f"p{i}", x], [f"a{i}"], f"a{i}"))
        x = f"a{i}"
    conv(x, "last", rng.normal(0, 0.3, (8, 16, 1, 1)) / spread.reshape(1, 16, 1, 1))
    initializers.append(numpy_helper.from_array(rng.normal(size=(8, 5)).astype(np.float32), "h"))
    nodes += [
        node("Relu", ["last"], ["features"], "top"), node("GlobalAveragePool", ["features"], ["pooled"], "pool"),
        node("Flatten", ["pooled"], ["flat"], "flat"), node("Gemm", ["flat", "h"], ["logits"], "head"),
    ]  # fmt: skip
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "residual", [value("input", TensorProto.FLOAT, [1, 3, "H", "W"])],
        [value("logits", TensorProto.FLOAT, [1, 5])], initializers,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_residual_path_is_equalised_as_one():
    x = np.random.default_rng(6).normal(size=(1, 3, 24, 24)).astype(np.float32)
    network = Network(residual_network())
    before = session(network.to_model(["logits"]), 1).run(None, {"input": x})[0]
    extents = quantizer.measure(network, [x])
    uneven = extents["a1"].reach().max() / np.median(extents["a1"].reach())
    factors = equalize.scale(network, extents, quantizer.quantized_tensors(network))
    for t in ("a1", "p1", "r2", "a2", "r1"):
        assert np.array_equal(factors["stem"], factors[t]), t
    assert extents["a1"].reach().max() / np.median(extents["a1"].reach()) < uneven / 2
    after = session(network.to_model(["logits"]), 1).run(None, {"input": x})[0]
    assert np.abs(before - after).max() < 1e-4 * np.abs(before).max()


def test_zero_is_exact():
    for low, high in ((-1, 1), (0, 5), (-3, 0), (0.5, 2), (0, 0)):
        p = ranges.affine(low, high)
        assert p.dequantize(p.quantize(np.zeros(1, np.float32)))[0] == 0


def test_error_spreading_beats_plain_rounding():
    rng = np.random.default_rng(3)
    mix = rng.normal(size=(32, 32))
    x = (mix @ rng.normal(size=(32, 4000))).astype(np.float32)[None]
    weight = rng.normal(size=(8, 32, 1, 1)).astype(np.float32)
    moments = rounding.Moments()
    moments.add(x, x)
    codes, scales, bias = rounding.fit(weight, np.zeros(8, np.float32), moments, 1)
    flat = weight[:, :, 0, 0]
    step = np.abs(flat).max(1, keepdims=True) / 127
    plain = np.rint(flat / step) * step

    def loss(w, b=0):
        return np.square(w @ x[0] + np.reshape(b, (-1, 1)) - flat @ x[0]).mean()

    fitted = codes[:, :, 0, 0] * scales[:, None]
    assert np.abs(codes).max() <= 127
    assert loss(fitted, bias) < 0.7 * loss(plain)


def test_resize_is_tensorflows():
    ramp = np.arange(4, dtype=np.float32)[None, :, None] * np.ones((2, 1, 3), np.float32)
    assert np.allclose(photos.resize(ramp, 2, 8)[0, :, 0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
