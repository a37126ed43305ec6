"""The output `cam`: which nets get it, that it is torch's map, and that it points at what a net was taught to see."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import openvino
import pytest
import torch
import torchvision
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

from cifar_lightning.data.images import Sample
from cifar_lightning.export import graph
from cifar_lightning.export.cam import with_cam
from cifar_lightning.export.model_file import write_model
from cifar_lightning.export.parity import ParityError
from cifar_lightning.nets import Normalize
from cifar_onnx import Classifier, images
from cifar_onnx.explain import cam
from tests.conftest import calibrated

COLOURS = np.array([[220, 40, 40], [40, 200, 40], [40, 60, 220]])
CLASSES = ["red", "green", "blue", "none"]
SIDE = 8  # of a planted patch

End = Callable[[Tensor, nn.Linear], Tensor]
ENDS: dict[str, End] = {  # ways to say the same, and to the exporter they are different
    "mean": lambda maps, layer: layer(maps.mean((-1, -2))),
    "adaptive": lambda maps, layer: layer(nn.AdaptiveAvgPool2d(1)(maps).flatten(1)),
    "pool": lambda maps, layer: layer(avg_pool2d(maps, 16).squeeze(3).squeeze(2)),
    "product": lambda maps, layer: maps.mean((2, 3)) @ layer.weight.T + layer.bias,
    "addmm": lambda maps, layer: torch.addmm(layer.bias, maps.mean((2, 3)), layer.weight.T.contiguous()),
}


class Pooled(nn.Module):
    """A map of 16 features on 16 x 16 places, and an end."""

    def __init__(self, end: End = ENDS["mean"]) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()
        )
        self.layer = nn.Linear(16, len(CLASSES))
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.features(x), self.layer)


def built(net: nn.Module, size: int = 32) -> onnx.ModelProto:
    return graph.complete(graph.core(nn.Sequential(Normalize(), net).eval(), size), size, "stretch", 1.0)


def noise(count: int, size: int = 32) -> images.Pixels:
    return np.random.default_rng(size).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def outputs(model: onnx.ModelProto, batch: images.Pixels) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": batch}), strict=True))


@torch.inference_mode()
def check(features: nn.Module, layer: nn.Linear, model: onnx.ModelProto, batch: images.Pixels) -> None:
    """The file's maps are torch's, and their mean and the bias are the logits."""
    x = torch.from_numpy(batch).permute(0, 3, 1, 2) / 255
    expected = torch.einsum("bchw,kc->bkhw", features(x), layer.weight).numpy()
    got = outputs(model, batch)
    assert list(got) == ["logits", "probabilities", "cam"]
    assert got["cam"].dtype == np.float32
    assert got["cam"].shape == expected.shape
    assert np.abs(got["cam"] - expected).max() < 1e-4
    assert np.abs(got["cam"].mean(axis=(2, 3)) + layer.bias.numpy() - got["logits"]).max() < 1e-4
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    shape = [dim.dim_param or dim.dim_value for dim in model.graph.output[2].type.tensor_type.shape.dim]
    assert shape == ["batch", *expected.shape[1:]]


@pytest.mark.parametrize("end", ENDS)
def test_the_map_is_torchs_and_its_mean_and_the_bias_are_the_logits(end: str) -> None:
    torch.manual_seed(0)
    net = Pooled(ENDS[end]).eval()
    check(net.features, net.layer, built(net), noise(5))


@pytest.mark.slow
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_resnet18_has_it(memory: torch.memory_format) -> None:
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=7).eval().to(memory_format=memory)
    check(nn.Sequential(*list(net.children())[:-2]), net.fc, built(net, 64), noise(3, 64))


def test_openvino_tells_nobody_that_it_was_imported() -> None:
    assert sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__.endswith(".telemetry_stub")


def test_openvino_gives_the_same_maps(tmp_path: Path) -> None:
    model, batch = built(Pooled()), noise(2)
    onnx.save(model, tmp_path / "m.onnx")
    compiled = openvino.Core().compile_model(tmp_path / "m.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert np.abs(compiled([batch])["cam"] - outputs(model, batch)["cam"]).max() < 1e-4


def written(body: str) -> onnx.ModelProto:
    """A graph from features `(B, 3, 4, 4)` to logits `(B, 4)`."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 18]>
        net (float[batch, 3, 4, 4] pixels) => (float[batch, 4] logits)
        <int64[2] last = {{2, 3}}, int64[1] row = {{2}}, int64[1] column = {{3}}, int64[2] two = {{-1, 3}},
         int64[2] twelve = {{-1, 12}}, int64[2] six = {{-1, 6}}>
        {{ maps = Relu(pixels) {body} }}
    """)
    shapes = {"weight": (4, 3), "turned": (3, 4), "wide": (4, 12), "bias": (4,), "pair": (4, 6), "turned_pair": (6, 4)}
    generator = np.random.default_rng(0)
    for name, shape in shapes.items():
        array = generator.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.checker.check_model(model)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


MEAN = "mean = ReduceMean <keepdims = 0> (maps, last)"
LINEAR = "logits = Gemm <transB = 1> (mean, weight, bias)"


@pytest.mark.parametrize(
    "body",
    [
        f"{MEAN} {LINEAR}",
        f"pooled = GlobalAveragePool(maps) mean = Flatten(pooled) {LINEAR}",
        "pooled = AveragePool <kernel_shape = [4, 4]> (maps) same = Identity(pooled) "
        f"mean = Reshape(same, two) {LINEAR}",
        f"{MEAN} logits = MatMul(mean, turned)",
        f"{MEAN} product = MatMul(mean, turned) logits = Add(bias, product)",
        f"{MEAN} logits = Gemm(mean, turned)",
    ],
)
def test_every_mean_before_a_linear_layer_is_recognised(body: str) -> None:
    model = with_cam(written(body))
    assert [output.name for output in model.graph.output] == ["logits", "cam"]
    maps = np.random.default_rng(1).normal(size=(5, 3, 4, 4)).astype(np.float32)
    logits, activations = ort.InferenceSession(model.SerializeToString()).run(None, {"pixels": maps})
    left = logits - activations.mean(axis=(2, 3))  # the bias, or nothing
    assert np.abs(left - left[0]).max() < 1e-5


@pytest.mark.parametrize(
    "body",
    [
        f"mean = ReduceMax <keepdims = 0> (maps, last) {LINEAR}",
        f"pooled = MaxPool <kernel_shape = [4, 4]> (maps) mean = Flatten(pooled) {LINEAR}",
        f"pooled = AveragePool <kernel_shape = [3, 3], strides = [3, 3]> (maps) mean = Flatten(pooled) {LINEAR}",
        "pooled = AveragePool <kernel_shape = [4, 4], pads = [2, 2, 1, 1], strides = [4, 4]> (maps) "
        f"mean = Flatten(pooled) {LINEAR}",
        "rows = ReduceMean(maps, row) flat = Reshape(rows, twelve) logits = Gemm <transB = 1> (flat, wide, bias)",
        f"rows = ReduceMean(maps, row) places = ReduceMax(rows, column) mean = Flatten(places) {LINEAR}",
        f"rows = ReduceMean <keepdims = 0> (maps, column) mean = ReduceMean <keepdims = 0> (rows, row) {LINEAR}",
        f"mean = ReduceMean <keepdims = 0> (pixels, last) {LINEAR}",
        # one place
        f"place = ReduceMax(maps, last) pooled = GlobalAveragePool(place) mean = Flatten(pooled) {LINEAR}",
        # halves of a picture
        f"{MEAN} pairs = Reshape(mean, six) logits = Gemm <transB = 1> (pairs, pair, bias)",
        f"{MEAN} pairs = Reshape(mean, six) logits = MatMul(pairs, turned_pair)",
        f"{MEAN} hidden = Relu(mean) logits = Gemm <transB = 1> (hidden, weight, bias)",
        f"{MEAN} product = Gemm <transB = 1> (mean, weight, bias) logits = Relu(product)",
        f"{MEAN} logits = Gemm <transB = 1, alpha = 0.5> (mean, weight, bias)",
        f"{MEAN} other = MatMul(mean, turned) logits = Gemm <transB = 1> (mean, weight, other)",
        f"{MEAN} one = MatMul(mean, turned) other = Relu(one) logits = Add(one, other)",
        f"{MEAN} computed = Relu(weight) logits = Gemm <transB = 1> (mean, computed, bias)",
    ],
)
def test_any_other_net_stays_as_it_is(body: str) -> None:
    model = written(body)
    data = model.SerializeToString(deterministic=True)
    assert with_cam(model).SerializeToString(deterministic=True) == data


def planted(count: int, seed: int) -> tuple[images.Pixels, np.ndarray, np.ndarray]:
    """Noise with a patch of one of three colours, or of none: pictures, classes and places."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    classes = generator.integers(0, len(CLASSES), count)
    places = generator.integers(0, 32 - SIDE + 1, (count, 2))
    for picture, k, (top, left) in zip(pixels, classes, places, strict=True):
        if k < len(COLOURS):
            picture[top : top + SIDE, left : left + SIDE] = COLOURS[k]
    return pixels, classes, places


def taught(net: nn.Module, output: Path) -> Path:
    """The net, trained for two seconds to tell the colours, as a file that has passed the gate."""
    pixels = Normalize()
    pixels.set_statistics([0.5] * 3, [0.29] * 3)
    model = nn.Sequential(pixels, net).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(150):
        batch, classes, _ = planted(64, seed=1000 + step)
        loss = cross_entropy(model(torch.from_numpy(batch).permute(0, 3, 1, 2)), torch.from_numpy(classes))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return write(pixels, net, output)


def write(pixels: Normalize, net: nn.Module, output: Path) -> Path:
    pictures = planted(8, seed=2)[0]
    samples = [Sample("picture", images.encode_png(each), images.fingerprint(each), each) for each in pictures]
    known = calibrated(pixels, net, CLASSES)
    model = nn.Sequential(pixels, net)
    write_model(model, samples, output, classes=CLASSES, size=32, resize="stretch", facts={}, calibration=known)
    return output


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return taught(Pooled(), tmp_path_factory.mktemp("taught") / "pooled.onnx")


def hits(classifier: Classifier) -> int:
    """Of 50 pictures with a patch, in how many the peak for its colour is on it."""
    pixels, classes, places = planted(80, seed=1)
    shown = np.flatnonzero(classes < len(COLOURS))[:50]
    assert len(shown) == 50
    count = 0
    for i in shown:
        heat = classifier.explain(pixels[i], CLASSES[classes[i]])
        peak = np.unravel_index(heat.argmax(), heat.shape)
        count += all(start <= at < start + SIDE for at, start in zip(peak, places[i], strict=True))
    return count


def test_the_peak_of_cam_is_on_the_planted_patch(pooled: Path) -> None:
    assert [output.name for output in onnx.load(pooled).graph.output] == [
        "logits",
        "probabilities",
        "familiarity",
        "cam",
    ]
    assert hits(Classifier(pooled)) >= 45


def test_explain_takes_the_map_of_the_label(pooled: Path) -> None:
    picture = planted(1, seed=3)[0]
    classifier = Classifier(pooled)
    maps = outputs(onnx.load(pooled), picture)["cam"][0]
    heats = [classifier.explain(picture[0], label) for label in CLASSES]
    for each, heat in zip(maps, heats, strict=True):
        assert np.allclose(heat, cam(each, 32), atol=1e-6)
    assert np.array_equal(classifier.explain(picture[0]), heats[CLASSES.index(classifier(picture[0]).label)])


def test_the_gate_finds_a_wrong_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attach = with_cam

    def of_the_other_classes(model: onnx.ModelProto) -> onnx.ModelProto:
        attach(model)
        (conv,) = (node for node in model.graph.node if node.output[0] == "cam")
        reverse = numpy_helper.from_array(np.arange(len(CLASSES))[::-1].copy(), "reverse")
        model.graph.initializer.append(reverse)
        model.graph.node.append(onnx.helper.make_node("Gather", ["wrong", "reverse"], ["cam"], axis=1))
        conv.output[0] = "wrong"
        return model

    monkeypatch.setattr(graph, "with_cam", of_the_other_classes)
    torch.manual_seed(0)
    with pytest.raises(ParityError, match=r"^cam: "):
        write(Normalize(), Pooled(), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
