"""Smaller files: written if they are as good, refused with figures if not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from onnxruntime.quantization.calibrate import HistogramCollector
from packaging.version import Version
from torch import nn
from torch.nn.functional import conv2d

from cifar_lightning.data import Digits
from cifar_lightning.export import ParityError, export, model_file, quantize
from cifar_lightning.export.graph import core
from cifar_lightning.familiarity import Contrasts, Energy, Familiarity, MaxLogit, Scored, Watched
from cifar_lightning.trained import load
from cifar_onnx import Classifier, InputError, session
from cifar_onnx.__main__ import main as receiver
from cifar_onnx.contract import Precision
from tests.conftest import Run


@pytest.mark.parametrize("precision", [pytest.param("fp16", marks=pytest.mark.slow), "int8"])
def test_a_smaller_file_answers_as_the_large_one(
    precision: str, run: Run, checkpoint: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "DROP", 0.01)  # of the digits there are 180 for validation
    result = run("export", "--ckpt_path", checkpoint, "--precision", precision, "--output", "small.onnx")
    assert result.code == 0, result.err
    assert f"{precision}" in result.out
    assert " on this machine" in result.out
    assert "parity with the smaller net alone on 256 pictures" in result.out
    assert "with torch" not in result.out
    small, large = Classifier("small.onnx"), Classifier(model)
    assert Path("small.onnx").stat().st_size < (0.62 if precision == "fp16" else 0.4) * model.stat().st_size
    assert small.contract.info["precision"] == precision
    assert receiver(["verify", "small.onnx"]) == 0
    pictures = list(np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8))
    pictures += [golden.encoded for golden in large.contract.golden]  # type: ignore[misc]
    pairs = zip(small(pictures), large(pictures), strict=True)
    assert np.mean([np.abs(np.subtract(a.probabilities, b.probabilities)).max() for a, b in pairs]) < 0.1
    assert [(each.domain, each.version) for each in onnx.load("small.onnx").opset_import] == [("", 18)]


def test_the_calibration_is_that_of_the_file(checkpoint: Path, tmp_path: Path) -> None:
    # A name that the file which it is measured beside once had.
    found = export(load(str(checkpoint)), Digits(), tmp_path / "fp32.onnx", precision="fp16")
    known = Classifier(found.path).contract
    assert (found.calibration.sets, found.calibration.unknown) == (known.sets, known.unknown)


class Drowned(nn.Module):
    """What tells the classes apart is a thousandth of what rounding sees."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)
        with torch.no_grad():
            self.first.weight.zero_()
            self.first.weight[0, 0] = 1e-3
            self.first.weight[1, 1] = 10
            self.first.bias.zero_()  # type: ignore[union-attr]
            self.second.weight.zero_()
            self.second.weight[1, 0] = 100
            self.second.bias.copy_(torch.tensor([12.75, 0]))  # type: ignore[union-attr]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).relu()).mean((2, 3))  # type: ignore[no-any-return]


def drowned() -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(200) % 2
    pixels[..., 0] = np.where(labels, 148, 108)[:, None, None]
    return core(Scored(Drowned(), Energy()).eval(), 8), pixels, labels


class Transformer(nn.Module):
    """Patches, attention and an MLP, as in ViT, and a linear layer that is given maps, as in ConvNeXt and Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 64, 4, 4)
        self.block = nn.TransformerEncoderLayer(64, 2, 128, 0.0, "gelu", batch_first=True, norm_first=True)
        self.wide, self.head = nn.Linear(64, 64), nn.Linear(64, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = self.block(self.patches(x / 255).flatten(2).mT)  # (B, 64, 64)
        maps = places.unflatten(1, (8, 8))  # (B, 8, 8, 64)
        return self.head((maps + self.wide(maps).relu()).mean((1, 2)))  # type: ignore[no-any-return]


def test_linear_layers_of_transformers_are_quantised_but_not_attention_and_familiarity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantize, "_GRID", {"one": {**quantize._CHANNEL, **quantize._SEVEN}})
    torch.manual_seed(0)
    net = Transformer().eval()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    pixels[:30] //= 2
    with torch.inference_mode():
        logits, contrasts = Watched(net)(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
        net.head.bias -= logits.mean(0)  # so that half of the answers are of each class
    whole = core(Scored(net, Contrasts(contrasts.numpy())).eval(), 32)
    before, familiarity = quantize.runner(whole)(pixels)
    small, _ = quantize.smaller(whole, "int8", pixels, pixels, before.argmax(1), ["a", "b"])
    assert small.ByteSize() < 0.4 * whole.ByteSize()
    floats = [each for each in small.graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
    assert [each.name for each in floats if len(each.dims) > 1 and "directions" not in each.name] == []
    after, others = quantize.runner(small)(pixels)
    assert (after.argmax(1) == before.argmax(1)).mean() > 0.95
    assert np.allclose(others, familiarity, rtol=1e-4)
    onnx.checker.check_model(small, full_check=True)


def test_the_layer_that_is_left_alone_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "_GRID", {"one": {**quantize._CHANNEL, **quantize._SEVEN, **quantize._ALONE}})
    _, pixels, _ = drowned()
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2)
    ((_, small),) = quantize.variants(core(Scored(nn.Sequential(*layers).eval(), Energy()), 8), "int8", pixels)
    floats = [each for each in small.graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
    assert [each.dims for each in floats if len(each.dims) > 1] == [[4, 3, 3, 3]]


def test_filters_of_zeros_have_the_zero_point_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which older versions of onnxruntime ask of unsigned channels, when they run them."""
    settings = {**quantize._CHANNEL, **quantize._UNSIGNED, **quantize._ALONE}
    monkeypatch.setattr(quantize, "_GRID", {"one": settings})
    net, pixels, _ = drowned()
    ((_, small),) = quantize.variants(net, "int8", pixels)
    constants = {each.name: numpy_helper.to_array(each) for each in small.graph.initializer}
    nodes = [each for each in small.graph.node if each.op_type == "DequantizeLinear"]
    triples = [[constants[name] for name in each.input] for each in nodes if each.input[0] in constants]
    ((weights, scale, zeros),) = (each for each in triples if each[0].ndim == 4)
    assert zeros.tolist() == 2 * [127 if Version(onnxruntime.__version__) < Version("1.24") else 128]
    assert zeros.dtype == np.uint8
    found = (weights.astype(float) - zeros[0]) * scale[:, None, None, None]
    assert np.allclose(found[..., 0, 0], [[0, 0], [100, 0]], atol=0.5)


def test_a_small_file_is_timed_beside_the_large_one_as_classifier_runs_both(monkeypatch: pytest.MonkeyPatch) -> None:
    file = (Path(__file__).parent.parent / "export/tests/digits.onnx").read_bytes()
    monkeypatch.setattr(session, "session", made := Mock(wraps=session.session))
    assert " ms a picture, fp32 " in model_file._beside(file, file, 32)
    assert [each.kwargs for each in made.call_args_list] == [{"square": 32}] * 2


def test_a_net_that_onnxruntime_cannot_run_is_one_sentence() -> None:
    net, pixels, _ = drowned()
    run = quantize.runner(net)
    with pytest.raises(InputError, match=r"^the net: onnxruntime .* cannot run it \(.*pixels"):
        run(pixels[:, :7])


def test_a_net_that_rounding_breaks_is_refused_with_figures() -> None:
    net, pixels, labels = drowned()
    sentence = r"int8 .*validation accuracy goes from 100\.00% to .*, a fall of [\d.]+ points, more than 0\.3$"
    with pytest.raises(ParityError, match=sentence):
        quantize.smaller(net, "int8", pixels, pixels, labels, ["a", "b"])


@pytest.mark.parametrize("score", [Energy(), MaxLogit()])
def test_every_variant_is_a_whole_graph_whatever_familiarity_takes(score: Familiarity) -> None:
    _, pixels, _ = drowned()
    net = core(Scored(Drowned(), score).eval(), 8)
    for _, variant in quantize.variants(net, "int8", pixels[:77]):  # which is no number of whole batches
        onnx.checker.check_model(variant, full_check=True)


@pytest.mark.parametrize("kind", [Energy, MaxLogit, Contrasts])
def test_in_half_precision_familiarity_overflows_no_sooner(kind: type[Familiarity]) -> None:
    """Contrasts of a thousand, whose squares no number in half precision holds."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    generator = torch.Generator().manual_seed(0)
    nn.init.uniform_(net[0].weight, 5, 20, generator)  # type: ignore[arg-type]
    nn.init.uniform_(net[1].weight, 0, 0.01, generator)  # type: ignore[arg-type]
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    pixels[0] = 7  # a plain picture
    with torch.inference_mode():
        contrasts = Watched(net)(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())[1].numpy()
    score = kind(contrasts[1:]) if kind is Contrasts else kind()  # type: ignore[call-arg]
    whole = core(Scored(net, score).eval(), 8)
    ((_, half),) = quantize.variants(whole, "fp16", pixels)
    onnx.checker.check_model(half, full_check=True)
    (logits, right), (halved, familiarity) = (quantize.runner(each)(pixels) for each in (whole, half))
    assert np.allclose(halved, logits, rtol=1e-2)
    assert np.allclose(familiarity, right, rtol=1e-2, atol=0.05)


@pytest.mark.parametrize("count", [3, 10, 11, 77])
def test_ranges_are_found_by_few_pictures_at_a_time(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where outliers are clipped, for which onnxruntime would keep every map of every picture."""
    monkeypatch.setattr(quantize, "_GRID", {"clipped": {**quantize._SEVEN, **quantize._CLIPPED}})
    net, pixels, _ = drowned()
    seen, sizes, collect = [], [], HistogramCollector.collect

    def noted(self: HistogramCollector, maps: dict[str, list[np.ndarray]]) -> None:
        seen.extend(np.concatenate(maps["pixels"]))
        sizes.append(sum(map(len, maps["pixels"])))
        collect(self, maps)

    monkeypatch.setattr(HistogramCollector, "collect", noted)
    assert len(list(quantize.variants(net, "int8", pixels[:count]))) == 1
    size = min(count, 10)
    assert sizes == [size] * (count // size)
    given = {each.astype(np.float32).tobytes() for each in pixels[:count].transpose(0, 3, 1, 2)}
    assert len({each.tobytes() for each in seen} & given) == len(seen)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_net_that_onnxruntime_cannot_load_is_one_sentence(precision: Precision) -> None:
    class Double(Drowned):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return conv2d(x.double(), self.first.weight.double()).mean((2, 3)).float()

    net, pixels = core(Scored(Double(), Energy()).eval(), 8), np.zeros((9, 8, 8, 3), np.uint8)
    with pytest.raises(InputError, match=r"^the net: onnxruntime .* cannot load it \(.*Conv"):
        quantize.smaller(net, precision, pixels, pixels, np.zeros(9, np.int64), ["a", "b"])


def test_a_net_of_nothing_to_quantise_is_refused() -> None:
    class Means(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    net, pixels = core(Scored(Means(), Energy()).eval(), 8), np.zeros((9, 8, 8, 3), np.uint8)
    with pytest.raises(InputError, match="none of the operations that int8 quantizes: Conv, Gemm, MatMul"):
        list(quantize.variants(net, "int8", pixels))


def test_of_several_variants_one_that_holds_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    net, pixels, labels = drowned()
    _, broken = next(quantize.variants(net, "int8", pixels))
    found = [("first", broken), ("rescued", net), ("last", broken)]
    monkeypatch.setattr(quantize, "variants", lambda *_: iter(found))
    variant, what = quantize.smaller(net, "int8", pixels, pixels, labels, ["a", "b"])
    assert variant is net
    assert what == "int8 (rescued): validation accuracy 100.00% before, 100.00% after"


def test_of_variants_that_are_as_good_the_first_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which the grid has before coarser ones."""
    net, pixels, labels = drowned()
    monkeypatch.setattr(quantize, "variants", lambda *_: iter([(name, net) for name in ("fine", "coarse")]))
    _, what = quantize.smaller(net, "int8", pixels, pixels, labels, ["a", "b"])
    assert what.startswith("int8 (fine): ")


def test_one_that_holds_is_taken_before_one_that_is_right_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat([0, 1], [900, 100])
    answers = {name: labels.copy() for name in ("net", "fair", "unfair")}
    answers["net"][:2] = answers["fair"][:3] = 1
    answers["unfair"][900:902] = 0  # two of a hundred
    net, fair, unfair = (onnx.ModelProto(producer_name=name) for name in answers)
    monkeypatch.setattr(quantize, "variants", lambda *_: iter([("fair", fair), ("unfair", unfair)]))
    monkeypatch.setattr(quantize, "runner", lambda net: lambda *_: (np.eye(2)[answers[net.producer_name]], None))
    nothing = np.empty(0, np.uint8)
    variant, _ = quantize.smaller(net, "int8", nothing, nothing, labels, ["a", "b"])
    assert variant is fair


def test_one_that_overflows_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though of logits that are not numbers the first is the largest to numpy, and here the right one."""
    labels = np.repeat([0, 1], 500)
    logits = {"net": np.eye(2)[labels], "half": np.eye(2)[labels]}
    logits["half"][7] = np.nan
    net, half = (onnx.ModelProto(producer_name=name) for name in logits)
    monkeypatch.setattr(quantize, "variants", lambda *_: iter([("", half)]))
    monkeypatch.setattr(quantize, "runner", lambda net: lambda *_: (logits[net.producer_name], None))
    nothing = np.empty(0, np.uint8)
    with pytest.raises(ParityError, match=r"^fp16: its answers to 1 of 1,000 validation images are not fin"):
        quantize.smaller(net, "fp16", nothing, nothing, labels, ["a", "b"])


@pytest.mark.parametrize(("precision", "total"), [("fp16", 1), ("int8", len(quantize._GRID))])
def test_progress_begins_with_the_first_variant(
    precision: Precision, total: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, progress, titles, nothing = [], [], list[str](), np.empty(0, np.uint8)

    def making(*_: object) -> Iterator[tuple[str, onnx.ModelProto]]:
        for name in "abc":
            made.append(name)
            yield name, onnx.ModelProto()

    def tracked(steps: Iterator[Any], _: str, count: int) -> Iterator[Any]:
        for step in steps:
            progress.append((count, len(made)))
            yield step

    monkeypatch.setattr(quantize, "variants", making)
    monkeypatch.setattr(quantize, "track", tracked)
    monkeypatch.setattr(quantize, "runner", lambda _: lambda _, *title: titles.extend(title) or (np.eye(2), None))
    quantize.smaller(onnx.ModelProto(), precision, nothing, nothing, np.arange(2), ["a", "b"])
    assert progress == [(total, 1), (total, 2), (total, 3)]
    assert titles == ["trying fp32"]


def test_a_class_that_loses_more_than_a_point_is_named() -> None:
    labels = np.arange(1000) % 2
    before, after = np.ones(1000, bool), np.ones(1000, bool)
    assert quantize._loss(before, after, labels, ["a", "b"]) is None
    after[1:7:2] = False  # 3 of 1000
    assert quantize._loss(before, after, labels, ["a", "b"]) is None
    before[1:40:2], after[1:40:2] = False, True
    after[41:101:2] = False  # 30 of b lost, 20 won
    after[0:10:2] = True
    before[0:14:2] = False
    assert "recall of b falls by 2 points, more than 1" in str(quantize._loss(before, after, labels, ["a", "b"]))


def test_a_fall_that_is_too_far_is_not_rounded_to_what_may_be() -> None:
    labels = np.zeros(990, np.int64)
    assert quantize._loss(labels == 0, np.arange(990) >= 3, labels, ["a"]) == (
        "validation accuracy goes from 100.00% to 99.70%, a fall of 0.303 points, more than 0.3"
    )


@pytest.mark.parametrize(
    ("size", "lost", "won", "fall"),
    [
        (50, 1, 0, None),
        (50, 6, 0, 12),
        (50, 9, 3, None),
        (99, 3, 0, None),
        (99, 5, 0, 5.051),
        (100, 2, 0, 2),
        (500, 6, 0, 1.2),
        (1050, 11, 0, 1.048),
    ],
)
def test_of_a_small_class_chance_is_left_out(size: int, lost: int, won: int, fall: float | None) -> None:
    """One of 50 pictures is two points; among hundred such classes there is always one that loses it."""
    labels = np.repeat([0, 1], [size, 10_000])
    before, after = np.ones((2, len(labels)), bool)
    after[:lost] = False
    before[lost : lost + won] = False
    found = quantize._loss(before, after, labels, ["a", "b"])
    assert found is None if fall is None else f"recall of a falls by {fall:g} points, more than 1" in str(found)


def test_a_class_without_pictures_for_validation_loses_none() -> None:
    right, labels = np.ones(10, bool), np.zeros(10, np.int64)
    assert quantize._loss(right, right, labels, ["a", "b"]) is None


def test_the_command_refuses_with_exit_code_1(run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "DROP", -1.0)
    result = run("export", "--ckpt_path", checkpoint, "--precision", "fp16", "--output", "small.onnx")
    assert result.code == 1
    assert "error: no file was written: fp16: validation accuracy goes from" in result.err
    assert not Path("small.onnx").exists()
