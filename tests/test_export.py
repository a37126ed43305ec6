"""What is inside model.onnx, and that a fault at any stage stops the export."""

import errno
import io
import json
import math
import os
import re
import shutil
import subprocess
import textwrap
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, Literal
from unittest.mock import Mock

import lightning.pytorch as L
import numpy as np
import onnx
import onnxruntime as ort
import openvino
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from onnx import TensorProto
from PIL import Image
from torch import Tensor, nn

import cifar_lightning
from cifar_lightning import calibration
from cifar_lightning import checkpoint as checkpoints
from cifar_lightning.data import Digits, ImageFolder
from cifar_lightning.data.images import Images, Sample
from cifar_lightning.export import export, graph, parity, pipeline, verify
from cifar_lightning.export.model_card import write_card
from cifar_lightning.export.model_file import _cost, write_model
from cifar_lightning.export.nodes import Nodes
from cifar_lightning.export.parity import ParityError, Report, compare
from cifar_lightning.export.triton_server import write_triton
from cifar_lightning.familiarity import Energy, Scored, outputs_of
from cifar_lightning.module import Classifier as Model
from cifar_lightning.nets import CNN, Normalize, SpeedNet
from cifar_lightning.trained import load
from cifar_onnx import Classifier, InputError, contract, guard, images, resizing, shell, site
from cifar_onnx.evaluation import outcome
from cifar_onnx.images import Pixels
from cifar_onnx.session import _OPTIONS
from tests.conftest import BRIEF, Run, calibrated, quiet

MODES: list[resizing.ResizeMode] = ["stretch", "crop", "pad"]
SIZES = [
    (1, 1), (1, 9), (9, 1), (2, 3), (16, 31), (31, 33), (32, 32), (64, 64),
    (100, 37), (224, 224), (480, 640), (1000, 1500), (1500, 1000), (1, 200), (200, 1),
]  # fmt: skip
WEB = site.JS / "node_modules" / "onnxruntime-web" / "dist" / "ort.node.min.mjs"
CLASSES = ["ant", "bee", "cow"]
GOLDEN = ["plain", "wide", "tall", "grey", "16-bit grey", "transparent", "rotated", "JPEG"]


def noise(height: int, width: int) -> images.Pixels:
    return np.random.default_rng(height * 10_000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_pillow(pixels: images.Pixels, size: int, mode: resizing.ResizeMode) -> images.Pixels:
    """The same rule by Pillow, which computes in double precision."""
    image, (height, width) = Image.fromarray(pixels), pixels.shape[:2]
    if mode == "stretch":
        return np.array(image.resize((size, size), Image.Resampling.BILINEAR))
    if mode == "crop":
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return np.array(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    inner = [max(1, int(length * size / max(height, width) + 0.5)) for length in (width, height)]
    canvas = Image.new("RGB", (size, size), (resizing.PAD_VALUE,) * 3)
    canvas.paste(
        image.resize((inner[0], inner[1]), Image.Resampling.BILINEAR),
        ((size - inner[0]) // 2, (size - inner[1]) // 2),
    )
    return np.array(canvas)


def tiny() -> tuple[Normalize, CNN]:
    torch.manual_seed(0)
    pixels = Normalize()
    pixels.set_statistics([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    return pixels, CNN(len(CLASSES), widths=(8, 8), hidden=8)


def samples(mode: resizing.ResizeMode = "stretch", size: int = 32) -> list[Sample]:
    pictures = [noise(height, width) for height, width in SIZES[:9] * 3]
    return [
        Sample(f"picture {i}", images.encode_png(p), images.fingerprint(p), resizing.resize(p, size, mode))
        for i, p in enumerate(pictures)
    ]


def write(output: Path, mode: resizing.ResizeMode = "stretch", size: int = 32) -> Report:
    return exported(output, *tiny(), samples(mode, size), mode, size)


def exported(
    output: Path,
    pixels: Normalize,
    net: torch.nn.Module,
    given: Sequence[Sample] | None = None,
    mode: resizing.ResizeMode = "stretch",
    size: int = 32,
    calibration: calibration.Calibration | None = None,
) -> Report:
    settings = {"classes": CLASSES, "size": size, "resize": mode, "facts": {"note": "é"}}
    calibration = calibration or calibrated(pixels, net, CLASSES, size)
    model = torch.nn.Sequential(pixels, net)
    return write_model(model, given or samples(), output, calibration=calibration, **settings)[1]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model for each resize mode."""
    folder = tmp_path_factory.mktemp("models")
    for mode in MODES:
        write(folder / f"{mode}.onnx", mode)
    return {mode: folder / f"{mode}.onnx" for mode in MODES}


class TestContract:
    def test_versions_input_and_outputs(self, models: dict[str, Path]) -> None:
        model = onnx.load(models["stretch"])
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
        assert 8 <= model.ir_version <= 10
        assert not model.functions
        (image,) = model.graph.input
        assert image.name == "image"
        assert image.type.tensor_type.elem_type == TensorProto.UINT8
        shape = [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim]
        assert shape == ["batch", "height", "width", 3]
        assert [output.name for output in model.graph.output] == ["logits", "probabilities", "familiarity"]
        for output in model.graph.output:
            assert output.type.tensor_type.elem_type == TensorProto.FLOAT
            shape = [dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim]
            assert shape == (["batch"] if output.name == "familiarity" else ["batch", len(CLASSES)])

    def test_metadata_is_json_with_golden_samples(self, models: dict[str, Path]) -> None:
        (entry,) = onnx.load(models["pad"]).metadata_props
        info = json.loads(entry.value)
        assert entry.key == "classifier"
        assert info["format"] == 1
        assert info["classes"] == CLASSES
        assert info["input"]["size"] == 32
        assert info["input"]["resize"] == "pad"
        assert info["note"] == "é"
        assert [golden["name"] for golden in info["golden"]] == GOLDEN

    @pytest.mark.parametrize("mode", MODES)
    def test_golden_samples_are_answered_as_they_say(self, models: dict[str, Path], mode: str) -> None:
        classifier = Classifier(models[mode])
        assert [replay.stage for replay in classifier.verify()] == [""] * len(GOLDEN)
        for golden in classifier.contract.golden:
            pixels = images.decode(golden.encoded)
            assert golden.fingerprint == images.fingerprint(pixels)
            assert golden.familiarity == pytest.approx(float(classifier.run(pixels[None])[2][0]), rel=1e-4)

    def test_golden_samples_are_of_the_kinds_that_they_are_named_by(self, models: dict[str, Path]) -> None:
        golden = contract.read(models["stretch"])[1].golden
        files = {each.name: Image.open(io.BytesIO(each.encoded)) for each in golden}
        assert (files["wide"].size, files["tall"].size) == ((64, 20), (7, 45))
        assert (files["grey"].mode, files["16-bit grey"].mode) == ("L", "I;16")
        assert np.asarray(files["16-bit grey"]).max() > 10_000
        assert files["transparent"].getextrema()[3][0] < 10  # type: ignore[index,operator]
        assert files["rotated"].getexif()[0x0112] == 6
        assert files["JPEG"].format == "JPEG"

    def test_the_same_weights_give_the_same_bytes(self, models: dict[str, Path], tmp_path: Path) -> None:
        write(tmp_path / "again.onnx")
        assert (tmp_path / "again.onnx").read_bytes() == models["stretch"].read_bytes()

    def test_it_is_one_file_without_paths(self, models: dict[str, Path]) -> None:
        data = models["stretch"].read_bytes()
        words = {str(Path(cifar_lightning.__file__).parent), "site-packages", ".py", str(Path.home()), "/tmp"}
        for word in words - {"/"}:  # which is the home of some
            assert word.encode() not in data, word
        assert {path.suffix for path in models["stretch"].parent.iterdir()} == {".onnx"}

    def test_the_cost_is_that_of_the_net(self, models: dict[str, Path], tmp_path: Path) -> None:
        path = tmp_path / "cnn.onnx"
        exported(path, Normalize(), CNN(3))
        products = 1024 * 27 * 32 + 256 * 288 * 64 + 64 * 576 * 128 + 2048 * 128 + 128 * 3
        assert Classifier(path).contract.info["cost"] == {"parameters": 356_810 - 7 * 129, "flops": 2 * products}

    def test_heads_for_training_alone_cost_nothing(self) -> None:
        class Auxiliary(nn.Sequential):
            def __init__(self) -> None:
                super().__init__(nn.Flatten(), nn.Linear(48, 3))
                self.auxiliary = nn.Linear(48, 3)

            def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
                return (self[1](x.flatten(1)), self.auxiliary(x.flatten(1))) if self.training else self[1](self[0](x))

        assert _cost(Auxiliary().eval(), 4) == {"parameters": 147, "flops": 2 * 144}

    def test_attention_costs_what_its_products_do(self) -> None:
        class Attention(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.patches = nn.Conv2d(3, 4, 1, bias=False)
                self.layer = nn.MultiheadAttention(4, 2, batch_first=True)

            def forward(self, x: Tensor) -> Tensor:
                places = self.patches(x).flatten(2).mT  # (B, 16, 4)
                return self.layer(places, places, places, need_weights=False)[0].mean(1)  # type: ignore[no-any-return]

        products = 16 * (3 * 4 + 4 * 12 + 4 * 4) + 2 * 16 * 16 * 4
        assert _cost(Attention().eval(), 4) == {"parameters": 92, "flops": 2 * products}

    @pytest.mark.parametrize("views", [2, pytest.param(6, marks=pytest.mark.slow)])
    def test_the_file_carries_the_views(self, tmp_path: Path, views: Literal[2, 6]) -> None:
        net, path = SpeedNet(3, (8, 8, 16), views=views), tmp_path / "speed.onnx"
        net.whitening.fit(torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
        exported(path, Normalize(), net)
        picture = noise(32, 32)
        logits, *_ = Classifier(path).run(np.stack([picture, picture[:, ::-1]]))
        assert (np.abs(logits[0] - logits[1]).max() < 1e-5) == (views == 2)
        compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        assert np.abs(compiled(picture[None])["logits"] - logits[:1]).max() < 1e-3

    def test_the_batch_is_dynamic_and_changes_no_answer(self, models: dict[str, Path]) -> None:
        classifier = Classifier(models["stretch"])
        batch = np.stack([np.roll(noise(40, 50), shift, axis=1) for shift in range(7)])
        _, together, familiar = classifier.run(batch)
        alone, own = (
            np.concatenate(each) for each in list(zip(*(classifier.run(p[None]) for p in batch), strict=True))[1:]
        )
        assert np.allclose(familiar, own, rtol=1e-4)
        assert together.shape == (7, 3)
        assert np.abs(together - alone).max() < 1e-6
        assert np.allclose(together.sum(1), 1, atol=1e-6)


class TestResize:
    @pytest.mark.parametrize("mode", MODES)
    def test_graph_and_training_see_the_same_pixels_in_onnxruntime(self, models: dict[str, Path], mode: str) -> None:
        session = ort.InferenceSession(graph.showing_pixels(onnx.load(models[mode])))
        self.check(lambda pictures: [session.run(["pixels"], {"image": each[None]})[0][0] for each in pictures], mode)

    @pytest.mark.parametrize("mode", MODES)
    def test_of_a_known_size_only_the_products_are_left_to_run(
        self, models: dict[str, Path], mode: str, tmp_path: Path
    ) -> None:
        size = contract.read(models[mode])[1].size
        options = ort.SessionOptions()
        options.log_severity_level = 3  # it warns that such a file is for this machine alone
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        for name in ("height", "width"):
            options.add_free_dimension_override_by_name(name, size)
        folded = ort.InferenceSession(models[mode], options)
        kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
        before = kinds[: kinds.index("Conv")]
        assert before.count("MatMul") == 2
        left = {"Cast", "Transpose", "MatMul", "Add", "Floor", "Min", "Sub", "Div"}  # of some 90 nodes
        new = tuple(map(int, ort.__version__.split(".")[:2])) >= (1, 32)
        assert left <= {*before} <= (left if new else left | {"Shape", "Concat"})
        squares = np.random.default_rng(0).integers(256, size=(3, size, size, 3), dtype=np.uint8)
        of_any_size = ort.InferenceSession(models[mode])
        for one, other in zip(*(each.run(None, {"image": squares}) for each in (folded, of_any_size)), strict=True):
            assert np.array_equal(one, other)
        if new:  # older versions cannot multiply no pictures
            assert len(of_any_size.run(None, {"image": np.zeros((0, 9, 5, 3), np.uint8)})[0]) == 0

    @pytest.mark.parametrize("mode", MODES)
    def test_graph_and_training_see_the_same_pixels_in_openvino(
        self, models: dict[str, Path], mode: str, tmp_path: Path
    ) -> None:
        (tmp_path / "pixels.onnx").write_bytes(graph.showing_pixels(onnx.load(models[mode])))
        core = openvino.Core()
        compiled = core.compile_model(tmp_path / "pixels.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self.check(lambda pictures: [compiled([each[None]])["pixels"][0] for each in pictures], mode)

    @pytest.mark.skipif(
        not (shutil.which("node") and WEB.exists()), reason="node or onnxruntime-web is not installed: make web"
    )
    @pytest.mark.parametrize("mode", MODES)
    def test_graph_and_training_see_the_same_pixels_in_onnxruntime_web(
        self, models: dict[str, Path], mode: str, tmp_path: Path
    ) -> None:
        (tmp_path / "pixels.onnx").write_bytes(graph.showing_pixels(onnx.load(models[mode])))
        code = f"""
            import * as ort from "{WEB.as_uri()}";
            import {{ readFileSync, appendFileSync }} from "node:fs";
            ort.env.wasm.numThreads = 1;
            const session = await ort.InferenceSession.create(readFileSync("pixels.onnx"));
            for (const [at, [height, width]] of JSON.parse(process.argv[1]).entries()) {{
              const pixels = new Uint8Array(readFileSync(`${{at}}`));
              const image = new ort.Tensor("uint8", pixels, [1, height, width, 3]);
              appendFileSync("seen", new Uint8Array((await session.run({{ image }})).pixels.data.buffer.slice(0)));
            }}
        """

        def by_node(pictures: list[Pixels]) -> list[np.ndarray]:
            for at, picture in enumerate(pictures):
                (tmp_path / str(at)).write_bytes(picture.tobytes())
            shapes = json.dumps([picture.shape[:2] for picture in pictures])
            command = ["node", "--liftoff-only", "--input-type=module", "-e", code, shapes]
            subprocess.run(command, cwd=tmp_path, check=True, timeout=100)
            return list(np.fromfile(tmp_path / "seen", np.float32).reshape(-1, 3, 32, 32))

        self.check(by_node, mode)

    def check(self, graph: Callable[[list[Pixels]], list[np.ndarray]], mode: resizing.ResizeMode) -> None:
        """Every pixel is that of training, and within one grey level of Pillow's."""
        pictures = [*(noise(height, width) for height, width in SIZES), np.full((16, 60_000, 3), 255, np.uint8)]
        squares = [seen.transpose(1, 2, 0) for seen in graph(pictures)]
        for square, picture in zip(squares, pictures, strict=True):
            assert np.array_equal(square, resizing.resize(picture, 32, mode)), picture.shape
        for square, picture in zip(squares[:-1], pictures, strict=False):
            assert np.abs(square - by_pillow(picture, 32, mode).astype(int)).max() <= 1, picture.shape

    def test_numbers_that_are_equal_are_two_constants_where_their_types_differ(self) -> None:
        op = Nodes("x")
        op.Sum(1, 1.0, [1], op.Neg(1))
        found = {name: onnx.numpy_helper.to_array(each) for name, each in op.constants.items()}
        assert [*op.nodes[1].input] == ["x/1", "x/1.0", "x/[1]", "x/Neg_0"]
        assert {name: (each.dtype, each.shape) for name, each in found.items()} == {
            "x/1": (np.int64, ()),
            "x/1.0": (np.float32, ()),
            "x/[1]": (np.int64, (1,)),
        }

    @pytest.mark.parametrize("mode", MODES)
    def test_a_picture_of_the_right_size_is_left_alone(self, mode: resizing.ResizeMode) -> None:
        picture = noise(32, 32)
        rows, columns = resizing.resize_weights(32, 32, 32, mode)
        assert np.array_equal(rows, np.eye(32))
        assert np.array_equal(columns, np.eye(32))
        assert np.array_equal(resizing.resize(picture, 32, mode), picture)

    def test_pad_keeps_what_crop_cuts_off(self) -> None:
        wide = np.full((20, 80, 3), 128, np.uint8)
        wide[:, :8] = 255
        assert resizing.resize(wide, 32, "pad").max() > 200
        assert resizing.resize(wide, 32, "crop").max() == 128


class TestGate:
    """A fault planted at each stage is found, named, and leaves no file."""

    def refused(self, output: Path, stage: str, given: Sequence[Sample] | None = None) -> None:
        output.write_text("an older file")
        with pytest.raises(ParityError, match=f"^{stage}: "):
            exported(output, *tiny(), given)
        assert [path.name for path in output.parent.iterdir()] == [output.name]
        assert output.read_text() == "an older file"

    def test_a_sound_model_passes_with_its_figures(self, tmp_path: Path) -> None:
        report = write(tmp_path / "m.onnx")
        assert report.count == report.labels == 27
        assert report.logits <= 1e-4

    def test_a_temperature_is_in_the_answers_and_in_the_golden_samples(self, tmp_path: Path) -> None:
        pixels, net = tiny()
        warm = replace(calibrated(pixels, net, CLASSES), temperature=0.25)
        exported(tmp_path / "m.onnx", pixels, net, calibration=warm)
        classifier = Classifier(tmp_path / "m.onnx")
        assert classifier.contract.temperature == 0.25
        assert all(replay.ok for replay in classifier.verify())

    def test_a_number_that_json_does_not_have_is_refused(self, tmp_path: Path) -> None:
        pixels, net = tiny()
        found = calibrated(pixels, net, CLASSES)
        found = replace(found, after=replace(found.after, negative_log_likelihood=math.inf))
        with pytest.raises(InputError, match="a golden sample or a validation image is not finite: let it mask"):
            exported(tmp_path / "m.onnx", pixels, net, calibration=found)
        assert not [*tmp_path.iterdir()]

    @pytest.mark.parametrize("by", [3e-4, -3e-4, math.nan])
    @pytest.mark.parametrize("stage", ["logits", "familiarity"])
    def test_one_number_that_is_off_is_found(self, models: dict[str, Path], stage: str, by: float) -> None:
        given, (pixels, net) = samples(), tiny()
        scored = Scored(torch.nn.Sequential(pixels, net), calibrated(pixels, net, CLASSES).score).eval()
        logits, familiarity = outputs_of(scored, np.stack([sample.pixels for sample in given]))
        compare(models["stretch"].read_bytes(), given, (logits, familiarity), CLASSES)
        if stage == "logits":
            logits[5, 1] += by
        else:
            familiarity[5] += 10 * by * max(1, abs(familiarity[5]))
        with pytest.raises(ParityError, match=f"^{stage}: "):
            compare(models["stretch"].read_bytes(), given, (logits, familiarity), CLASSES)

    @pytest.mark.slow
    def test_of_a_tie_either_label_will_do_and_is_told(self, tmp_path: Path) -> None:
        pixels, net = tiny()
        *_, last = (layer for layer in net.modules() if isinstance(layer, torch.nn.Linear))
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
        calibration = calibrated(pixels, net, CLASSES)
        assert exported(tmp_path / "m.onnx", pixels, net).labels == 27
        torch.nn.init.constant_(last.bias[2:], 5e-5)
        model = Scored(torch.nn.Sequential(pixels, net), calibration.score).eval()
        answers = outputs_of(model, np.stack([each.pixels for each in samples()]))
        report = compare((tmp_path / "m.onnx").read_bytes(), samples(), answers, CLASSES)
        assert (report.count, report.labels) == (27, 0)

    def test_a_single_class_is_always_right(self, tmp_path: Path) -> None:
        given, (pixels, _) = samples(), tiny()
        net, one = CNN(1, widths=(8,), hidden=8), CLASSES[:1]
        found = calibrated(pixels, net, one)
        model = nn.Sequential(pixels, net)
        report = write_model(
            model, given, tmp_path / "m.onnx", classes=one, size=32, resize="stretch", facts={}, calibration=found
        )[1]
        assert report.labels == 27

    def test_large_logits_are_held_to_what_float32_has(self, tmp_path: Path) -> None:
        pixels, net = tiny()
        *_, last = (layer for layer in net.modules() if isinstance(layer, torch.nn.Linear))
        with torch.no_grad():
            last.weight *= 1e5
        assert exported(tmp_path / "m.onnx", pixels, net).logits > 1e-4

    def test_decode(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        given, decode = samples(), images.decode
        monkeypatch.setattr(images, "decode", lambda source: decode(source)[:, :, ::-1])
        self.refused(tmp_path / "m.onnx", "decode", given)

    def test_resize(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(graph, "_axis", lambda *given, build=graph._axis: build(*given[:-1], "crop"))
        self.refused(tmp_path / "m.onnx", "resize")

    def test_resize_by_another_filter(self, tmp_path: Path) -> None:
        def nearest(sample: Sample) -> Sample:
            image = Image.fromarray(images.decode(sample.encoded)).resize((32, 32), Image.Resampling.NEAREST)
            return Sample(sample.name, sample.encoded, sample.fingerprint, np.array(image))

        self.refused(tmp_path / "m.onnx", "resize", [nearest(sample) for sample in samples()])

    def test_resize_by_one_grey_level_of_one_pixel(self, tmp_path: Path) -> None:
        given = samples()
        given[3].pixels[5, 7, 1] ^= 1
        self.refused(tmp_path / "m.onnx", "resize", given)

    @pytest.mark.parametrize("which", ["mean or std", "convolution"])
    def test_logits(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
        shape = {"mean or std": (1, 3, 1, 1), "convolution": (8, 3, 3, 3)}[which]
        core = graph.core

        def wrong(model: torch.nn.Module, size: int, name: str) -> onnx.ModelProto:
            proto = core(model, size, name)
            weight = next(weight for weight in proto.graph.initializer if tuple(weight.dims) == shape)
            changed = onnx.numpy_helper.to_array(weight).copy()
            changed.flat[0] += 0.01
            weight.CopyFrom(onnx.numpy_helper.from_array(changed, weight.name))
            return proto

        monkeypatch.setattr(graph, "core", wrong)
        self.refused(tmp_path / "m.onnx", "logits")

    def test_probabilities(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        attach = graph.with_softmax
        monkeypatch.setattr(graph, "with_softmax", lambda model, temperature: attach(model, temperature * 1.5))
        self.refused(tmp_path / "m.onnx", "probabilities")

    def test_familiarity(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        values = graph.core

        def wrong(model: torch.nn.Module, size: int, name: str) -> onnx.ModelProto:
            model.score.mean += 0.1  # type: ignore[union-attr,operator]
            proto = values(model, size, name)
            model.score.mean -= 0.1  # type: ignore[union-attr,operator]
            return proto

        monkeypatch.setattr(graph, "core", wrong)
        self.refused(tmp_path / "m.onnx", "familiarity")

    def test_labels(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        dumps = json.dumps
        monkeypatch.setattr(json, "dumps", lambda info, **_: dumps({**info, "classes": info["classes"][::-1]}))
        self.refused(tmp_path / "m.onnx", "labels")

    @pytest.mark.slow
    def test_a_folder_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match=r"file/m\.onnx cannot be saved"):
            write(tmp_path / "file" / "m.onnx")

    def test_a_full_disk_is_told_with_sizes_and_leaves_the_older_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        output = tmp_path / "m.onnx"
        output.write_text("an older file")
        monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(InputError, match=r"m\.onnx cannot be saved \(No space left on device; it takes 0\.\d MB, "):
            write(output)
        assert [path.name for path in tmp_path.iterdir()] == [output.name]
        assert output.read_text() == "an older file"

    def test_pictures_are_compared_one_by_one(self, models: dict[str, Path]) -> None:
        """A hundred of 512 pixels take 0.3 GB in float32, differences as much again: those of the resize, that is."""
        given = [replace(each, name=f"picture {number}") for number, each in enumerate(samples() * 12)]
        pixels = np.stack([each.pixels for each in given])
        answers = outputs_of(Scored(torch.nn.Sequential(*tiny()).eval(), Energy()), pixels)
        tracemalloc.start()
        with pytest.raises(ParityError, match=r"^logits"):  # of an uncalibrated score; the pixels were right
            compare(models["stretch"].read_bytes(), given, (answers[0] + 1, answers[1]), CLASSES)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * pixels.nbytes
        given[7].pixels[:16] ^= 1  # half of one of 27
        with pytest.raises(ParityError, match=r"^resize: 1\.85% of the .*, by up to 1 grey levels \(picture 7\)"):
            compare(models["stretch"].read_bytes(), given, answers, CLASSES)

    def test_each_picture_is_decoded_once(self, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        given, (pixels, net), data = samples(), tiny(), models["stretch"].read_bytes()
        scored = Scored(torch.nn.Sequential(pixels, net), calibrated(pixels, net, CLASSES).score).eval()
        answers = outputs_of(scored, np.stack([each.pixels for each in given]))
        monkeypatch.setattr(images, "decode", decode := Mock(side_effect=images.decode))
        assert compare(data, given, answers, CLASSES).labels == len(given)
        sources = [call.args[0] for call in decode.call_args_list]
        assert [each for each in sources if isinstance(each, bytes)] == [each.encoded for each in given]


class TestCommand:
    def test_it_writes_into_the_runs_folder_and_says_what_it_compared(self, run: Run, checkpoint: Path) -> None:
        result = run("export", "--ckpt_path", checkpoint)
        assert result.code == 0, result.err
        assert "parity with torch on 256 pictures" in result.out
        assert "labels 256 of 256" in result.out
        assert result.out.splitlines()[-1].startswith("next: python -m cifar_onnx classify --model ")

    def test_the_file_answers_as_the_checkpoint_does(self, run: Run, model: Path, checkpoint: Path) -> None:
        assert run("predict", "--ckpt_path", checkpoint, "--output", "p.csv").code == 0
        labels = [line.split(",")[1] for line in Path("p.csv").read_text().splitlines()[1:]]
        pixels = Digits().images("test").pixels
        assert [prediction.label for prediction in Classifier(model)(list(pixels))] == labels

    def test_the_file_says_where_its_weights_come_from(self, model: Path, checkpoint: Path) -> None:
        kept, told = checkpoints.load(checkpoint), contract.read(model)[1].info
        assert told["metrics"] == kept["run"]["metrics"]
        assert told["provenance"]["data"] == {
            "source": "Digits",
            "validation": images.fingerprint(Digits().images("val").pixels),
        }
        found = tuple(told["provenance"][key] for key in ("seed", "epoch", "step"))
        assert found == (kept["run"]["seed"], kept["epoch"], kept["global_step"])

    @pytest.mark.parametrize("words", [("--output", "file/m.onnx"), ("--output", "m.onnx", "--triton", "file")])
    def test_a_folder_that_cannot_be_written_is_told_before_the_work(
        self, run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
    ) -> None:
        Path("file").touch()
        monkeypatch.setattr(Digits, "load", None)
        result = run("export", "--ckpt_path", checkpoint, *words)
        assert result.code == 2
        assert "error: file: nothing can be written there (" in result.err
        assert result.err.endswith(f"): name another place with {words[-2]}\n")

    @pytest.mark.parametrize(
        "mode", ["stretch", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("crop", "pad"))]
    )
    def test_photos_of_any_size_pass_the_gate(self, run: Run, photos: Path, mode: str) -> None:
        words = ("--data.root", photos, "--data.image_size", 24, "--data.resize_mode", mode)
        assert run("fit", *BRIEF, "--data", "ImageFolder", *words).code == 0
        result = run("export", "--ckpt_path", "runs/cnn/version_0/checkpoints/best.ckpt", "--output", "m n.onnx")
        assert result.code == 0, result.err
        assert "labels 36 of 36" in result.out
        assert result.out.endswith("classify --model 'm n.onnx' PHOTO.jpg\n")
        classifier = Classifier("m n.onnx")
        assert classifier.classes == ("blue", "green", "red")
        assert (classifier.contract.size, classifier.contract.resize) == (24, mode)

    def test_another_size_than_the_trained_one_is_refused(self, run: Run, photos: Path) -> None:
        assert run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos).code == 0
        ckpt = "runs/cnn/version_0/checkpoints/best.ckpt"
        for words in (("--data.image_size", 64), ("--data.resize_mode", "pad")):
            result = run("export", "--ckpt_path", ckpt, *words)
            assert result.code == 2
            assert "was trained with data." in result.err

    def test_a_gate_that_refuses_ends_with_exit_code_1(
        self, run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parity, "TOLERANCE", 0.0)
        result = run("export", "--ckpt_path", checkpoint, "--output", "m.onnx")
        assert result.code == 1
        assert "error: no file was written: logits: differ from the net's by up to" in result.err
        assert not Path("m.onnx").exists()


class TestPython:
    """A model that a Trainer of the user's own has trained."""

    @pytest.fixture
    def data(self, photos: Path) -> ImageFolder:
        return ImageFolder(str(photos), image_size=24, batch_size=8)

    def test_a_trained_model_becomes_a_file_and_stays_as_it_is(
        self, data: ImageFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        L.seed_everything(7, verbose=False)
        model = Model(data.classes, CNN(3, widths=(8,), hidden=8))
        trainer = quiet(max_epochs=2)
        trainer.fit(model, data)
        accuracy, step = float(trainer.callback_metrics["val/accuracy"]), trainer.global_step
        trainer.test(model, data, verbose=False)  # forgets them
        quiet().validate(model, data, verbose=False)
        model.train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        found = export(model, data, tmp_path, alpha=0.2, sets="aps")
        assert found.path == tmp_path / "model.onnx"
        assert "calibrated on 3 validation images" in str(found)
        assert "labels 36 of 36" in str(found)
        assert model.training
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        classifier = Classifier(found.path)
        assert classifier.classes == ("blue", "green", "red")
        known = classifier.contract
        assert (known.sets.alpha, known.sets.method) == (0.2, "aps")
        told = known.info["provenance"]
        assert (told["seed"], told["step"]) == (7, step)
        assert told["data"]["source"] == "ImageFolder"
        assert known.info["metrics"]["val/accuracy"] == accuracy
        pixels = data.images("test").pixels
        with torch.inference_mode():
            expected = model.eval()(torch.from_numpy(pixels[:]).permute(0, 3, 1, 2)).argmax(1)
        assert [each.label for each in classifier(list(pixels))] == [data.classes[each] for each in expected]

    def test_a_model_that_was_not_trained_has_no_metrics_and_others_only_finite_ones(
        self, data: ImageFolder, tmp_path: Path
    ) -> None:
        model = Model(data.classes, CNN(3, widths=(8,)))
        info = contract.read(export(model, data, tmp_path / "m.onnx").path)[1].info
        assert info["metrics"] == {}
        assert info["provenance"].keys() == {"data", "versions"}
        model.origin = {"metrics": {"val/accuracy": 0.5, "val/loss": math.nan, "lr-Adam": 0.1}, "provenance": {}}
        assert contract.read(export(model, data, tmp_path / "m.onnx").path)[1].info["metrics"] == {"val/accuracy": 0.5}

    def test_onnxruntime_may_be_installed_under_another_name(
        self, data: ImageFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def installed(name: str) -> str:
            if name == "onnxruntime":
                raise PackageNotFoundError(name)
            return "1"

        monkeypatch.setattr(pipeline, "version", installed)
        facts = pipeline._facts(Model(data.classes, CNN(3, widths=(8,))), data, data.images("val"))
        versions = facts["provenance"]["versions"]
        assert (versions["torch"], versions["onnxruntime"]) == ("1", ort.__version__)

    def test_weights_in_half_precision_are_exported_in_float32(self, data: ImageFolder, tmp_path: Path) -> None:
        model = Model(data.classes, CNN(3, widths=(8,)))
        quiet(max_epochs=1, precision="bf16-true").fit(model, data)
        assert next(model.net.parameters()).dtype == torch.bfloat16
        assert export(model, data, tmp_path).report.labels == 36

    @pytest.mark.slow
    def test_what_a_checkpoint_holds_becomes_the_file_that_the_command_writes(
        self, checkpoint: Path, model: Path, tmp_path: Path
    ) -> None:
        assert export(load(str(checkpoint)), Digits(), tmp_path).path.read_bytes() == model.read_bytes()

    def test_pictures_that_become_square_otherwise_are_refused(self, data: ImageFolder, tmp_path: Path) -> None:
        model = Model(data.classes, CNN(3, widths=(8,)))
        quiet(max_epochs=1, limit_train_batches=1).fit(model, data)
        other = ImageFolder(data.root, image_size=32)
        with pytest.raises(InputError, match="image_size 24, and the data has 32"):
            export(model, other, tmp_path)
        other = ImageFolder(data.root, image_size=24, resize_mode="pad")
        with pytest.raises(InputError, match="resize_mode stretch, and the data has pad"):
            export(model, other, tmp_path)

    def test_the_best_epoch_brings_its_own_metrics_along(self, data: ImageFolder, tmp_path: Path) -> None:
        model = Model(data.classes, CNN(3, widths=(8,)))
        best = ModelCheckpoint(tmp_path / "kept", monitor="train/loss", mode="max")
        trainer = quiet(max_epochs=2, callbacks=[best], enable_checkpointing=True)
        trainer.fit(model, data)
        assert best.best_model_path.startswith(str(tmp_path / "kept" / "epoch=0"))
        loaded = Model.load_from_checkpoint(best.best_model_path, net=CNN(3, widths=(8,)))
        assert loaded.input_rule == {"image_size": 24, "resize_mode": "stretch"}
        trainer.validate(datamodule=data, ckpt_path="best", verbose=False)
        info = contract.read(export(model, data, tmp_path).path)[1].info
        assert info["provenance"]["step"] * 2 == trainer.global_step
        assert info["metrics"]["train/loss"] == pytest.approx(float(best.best_model_score or 0))

    def test_a_fit_that_was_stopped_leaves_nothing_that_is_known(self, data: ImageFolder, tmp_path: Path) -> None:
        class Stop(L.Callback):
            def on_train_batch_end(self, *_: object) -> None:
                raise RuntimeError("stopped")

        model = Model(data.classes, CNN(3, widths=(8,)))
        quiet(max_epochs=1).fit(model, data)
        with pytest.raises(RuntimeError, match="stopped"):
            quiet(max_epochs=1, callbacks=[Stop()]).fit(model, data)
        assert model.origin == {}
        assert model.input_rule == {"image_size": 24, "resize_mode": "stretch"}

    def test_where_pictures_were_square_already_they_may_become_so_in_any_way(self, checkpoint: Path) -> None:
        trained = Model(Digits().classes, CNN(widths=(8,)))
        quiet(max_epochs=1, limit_train_batches=1).fit(trained, Digits())
        for model in (load(str(checkpoint)), trained):
            assert model.input_rule == {"image_size": 32}

    def test_what_a_checkpoint_was_trained_with_is_known(self, run: Run, photos: Path, tmp_path: Path) -> None:
        assert run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos, "--data.image_size", 24).code == 0
        model = load("runs/cnn/version_0/checkpoints/best.ckpt")
        with pytest.raises(InputError, match="image_size 24, and the data has 32"):
            export(model, ImageFolder(str(photos)), tmp_path)

    @pytest.mark.parametrize("given", [{"precision": "int4"}, {"precision": "FP16"}, {"sets": "raps"}])
    def test_arguments_of_no_such_value_are_refused(
        self, data: ImageFolder, tmp_path: Path, given: dict[str, Any]
    ) -> None:
        (name,) = given
        with pytest.raises(InputError, match=f"{name} is '{given[name]}': it must be one of "):
            export(Model(data.classes, CNN(3, widths=(8,))), data, tmp_path, **given)

    def test_a_net_that_cannot_be_copied_is_refused(self, data: ImageFolder, tmp_path: Path) -> None:
        model = Model(data.classes, CNN(3, widths=(8,)))
        model.net.product = next(model.net.parameters()) * 2
        with pytest.raises(InputError, match=r"^model\.net cannot be copied: RuntimeError: Only Tensors created"):
            export(model, data, tmp_path)

    def test_a_net_that_gives_no_logits_alone_is_refused(
        self, data: ImageFolder, tmp_path: Path, models: dict[str, Path]
    ) -> None:
        class Squeezed(CNN):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x).squeeze()

        class Pair(CNN):
            def forward(self, x: Tensor) -> Any:
                return super().forward(x), x

        class Double(CNN):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x).double()

        for net, said in (
            (CNN(10, widths=(8,)), r"gives \(2, 10\) for a batch of 2: then it must give logits \(2, 3\) alone"),
            (Pair(3, widths=(8,)), "gives a tuple for a batch of 2"),
            (Squeezed(3, widths=(8,)), r"gives \(3,\) for a batch of 1"),
            (Double(3, widths=(8,)), "gives logits in float64"),
        ):
            with pytest.raises(InputError, match=f"^model.net.* {said}"):
                export(Model(data.classes, net), data, tmp_path)
        with pytest.raises(InputError, match="gives a tuple"):
            verify(Model(CLASSES, Pair(3, widths=(8,))), ImageFolder(data.root), models["stretch"])

    @pytest.mark.filterwarnings("ignore:The number of training batches", "ignore:`isinstance")
    def test_the_lines_of_the_documentation_work(self, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
        text = (Path(__file__).parent.parent / "docs/experiments.md").read_text().partition("## In Python\n")[2]
        block = textwrap.dedent(re.search(r"\n\n((?:    .*\n|\n)+)", text)[1])  # type: ignore[index]
        assert photos == Path("photos").resolve()
        exec(block.replace("max_epochs=10", "max_epochs=1, accelerator='cpu'"), {})
        assert "labels 36 of 36" in capsys.readouterr().out
        assert Classifier("model.onnx").classes == ("blue", "green", "red")

    def test_other_classes_than_the_datas_are_refused(self, data: ImageFolder, tmp_path: Path) -> None:
        model = Model(["ant", "bee"], CNN(2, widths=(8,)))
        with pytest.raises(InputError, match="the model knows the classes ant, bee; the data has blue, green, red"):
            export(model, data, tmp_path)


class TestVerify:
    def test_of_many_validation_images_all_commands_calibrate_by_the_same_few(
        self, run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(calibration, "_MOST", 60)  # of 179
        result = run("export", "--ckpt_path", checkpoint, "--output", "m.onnx")
        assert "calibrated on 60 validation images" in result.out, result.err
        known, pixels = contract.read("m.onnx")[1], Digits().images("val").pixels
        assert known.info["calibration"]["images"] == 60
        few = pixels[np.linspace(0, 178, 60).round().astype(int)]
        assert known.info["provenance"]["data"]["validation"] == images.fingerprint(few)
        assert run("verify", "m.onnx", "--against", checkpoint, "--images", 20).code == 0
        seen = []

        def judged(net: nn.Module, known: Images, classes: list[str]) -> calibration.Calibration:
            seen.append(len(known))
            return calibration.calibrate(net, known, classes)

        def smaller(net: onnx.ModelProto, _precision: str, _ranges: Pixels, *known: Any) -> tuple[onnx.ModelProto, str]:
            seen.extend(map(len, known[:2]))
            return net, "smaller"

        monkeypatch.setattr("cifar_lightning.evaluation.calibrate", judged)
        assert run("test", "--ckpt_path", checkpoint, "--output", "report", "--resamples", 10).code == 0
        monkeypatch.setattr("cifar_lightning.export.quantize.smaller", smaller)
        result = run("export", "--ckpt_path", checkpoint, "--output", "s.onnx", "--precision", "fp16")
        assert result.code == 0, result.err
        assert seen == [60, 60, 60]
        assert result.err.count("calibrating (1)") == 2  # of the net, and of the smaller one

    def test_a_file_is_compared_with_its_checkpoint(self, run: Run, checkpoint: Path, model: Path) -> None:
        result = run("verify", model, "--against", checkpoint, "--images", 20)
        assert result.code == 0, result.err
        assert "parity with torch on 20 pictures" in result.out
        assert result.out.splitlines()[-1] == f"{model} answers as {checkpoint} does"
        assert run("verify", f"--file={model}", f"--against={checkpoint}").code == 0

    def test_other_weights_and_another_calibration_are_found(
        self, run: Run, checkpoint: Path, model: Path, tmp_path: Path
    ) -> None:
        data, known = contract.read(model)
        (graph_,) = (value for number, value in guard.fields(memoryview(data)) if number == 7)
        weights = max(
            (bytes(v) for n, t in guard.fields(graph_) if n == 5 for m, v in guard.fields(t) if m == 9),  # type: ignore[arg-type]
            key=len,
        )
        first = b'"temperature": ' + str(known.temperature)[:1].encode()
        for old, new, stage in (
            (weights, weights[::-1], "logits: "),
            (first, b'"temperature": 9', "probabilities: "),
            (b'"threshold": 0.', b'"threshold": 1.', "calibration: "),
        ):
            assert old in data
            changed = data.replace(old, new, 1).replace(known.digest.encode(), contract.BLANK.encode())
            (tmp_path / "changed.onnx").write_bytes(contract.seal(changed))
            result = run("verify", "changed.onnx", "--against", checkpoint, "--images", 20)
            assert result.code == 1
            assert stage in result.err

    @pytest.mark.parametrize(
        ("classes", "said"),
        [
            (["bee", "ant", "cow"], "ant, not bee"),
            (["ant", "bee"], "cow, not no class"),
            ([*CLASSES, "none"], "no class, not none"),
        ],
    )
    def test_of_other_classes_the_first_that_differs_is_said(
        self, models: dict[str, Path], photos: Path, classes: list[str], said: str
    ) -> None:
        model, data = Model(classes, CNN(len(classes), widths=(8,))), ImageFolder(str(photos))
        with pytest.raises(ParityError, match=f"^labels: .* knows ant, bee, cow, not .*: the first .* is {said}$"):
            verify(model, data, models["stretch"])

    def test_images_of_another_size_or_mode_are_found(self, models: dict[str, Path], photos: Path) -> None:
        model = Model(CLASSES, CNN(3, widths=(8,)))
        for mode, size, said in (
            ("stretch", 24, "data.image_size 32, and the data has 24"),
            ("pad", 32, "data.resize_mode stretch, and the data has pad"),
        ):
            data = ImageFolder(str(photos), image_size=size, resize_mode=mode)  # type: ignore[arg-type]
            with pytest.raises(ParityError, match=f"^resize: .*stretch.onnx was exported with {said}"):
                verify(model, data, models["stretch"])

    @pytest.mark.slow
    def test_a_calibration_that_is_rounded_otherwise_is_the_same(
        self, run: Run, checkpoint: Path, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, last in (("fit_temperature", 1e-4), ("conformal_threshold", 1e-6), ("unknown_threshold", 1e-4)):
            found = getattr(calibration, name)
            with monkeypatch.context() as patch:
                patch.setattr(calibration, name, lambda *args, found=found, last=last: found(*args) + last)
                result = run("verify", model, "--against", checkpoint, "--images", 20)
                assert result.code == 0, (name, result.err)
                patch.setattr(calibration, name, lambda *args, found=found: found(*args) * 1.01)
                result = run("verify", model, "--against", checkpoint, "--images", 20)
                assert "calibration: " in result.err, name

    def test_of_a_smaller_file_the_command_that_replays_it_is_said(
        self, run: Run, checkpoint: Path, model: Path
    ) -> None:
        data, known = contract.read(model)
        smaller = data.replace(b'"precision": "fp32"', b'"precision": "int8"', 1)
        Path("m n.onnx").write_bytes(contract.seal(smaller.replace(known.digest.encode(), contract.BLANK.encode())))
        result = run("verify", "m n.onnx", "--against", checkpoint)
        assert result.code == 2
        assert "m n.onnx is int8, not an exact copy of the checkpoint: use " in result.err
        assert result.err.endswith("python -m cifar_onnx verify 'm n.onnx'\n")

    def test_what_cannot_be_compared_is_named(self, run: Run, checkpoint: Path, model: Path) -> None:
        for words, sentence in (
            (("nowhere.onnx", "--against", checkpoint), "nowhere.onnx: cannot be read"),
            ((model, "--against", "nowhere.ckpt"), "nowhere.ckpt: no such checkpoint"),
            ((model, "--against", checkpoint, "--images", 0), "images is 0: it must be at least 1"),
        ):
            result = run("verify", *words)
            assert result.code == 2
            assert sentence in result.err


class TestHandover:
    def test_the_card_tells_what_is_known(self, run: Run, checkpoint: Path) -> None:
        shutil.copytree(checkpoint.parent, "run/checkpoints")  # without the report of another test
        checkpoint = Path("run/checkpoints", checkpoint.name)
        assert run("test", "--ckpt_path", checkpoint, "--resamples", 20).code == 0
        words = ("export", "--ckpt_path", checkpoint.resolve(), "--output", "out/m.onnx", "--license", "apache-2.0")
        assert run(*words).code == 0
        card = Path("out/m.MODEL_CARD.md")  # MODEL_CARD.md is model.onnx's
        _, matter, text = card.read_text().split("---\n", 2)
        front = yaml.safe_load(matter)
        assert (front["license"], front["pipeline_tag"]) == ("apache-2.0", "image-classification")
        report = checkpoint.parent.parent / "report"
        found = json.loads((report / "metrics.json").read_text())["metrics"]["accuracy"]
        (result,) = front["model-index"][0]["results"]
        assert result["metrics"][0] == {"type": "accuracy", "value": round(found["value"], 4)}
        assert f"| accuracy | {found['value']:.4f} | {found['low']:.4f} | {found['high']:.4f} |" in text
        head, *rows = (report / "per_class.csv").read_text().splitlines()
        first, *others = (f"| {' | '.join(row.split(','))} |" for row in (head.replace("_", " "), *rows))
        assert "\n".join([first, "|" + "---|" * len(head.split(",")), *others]) in text
        assert "apache-2.0" in text
        known = Classifier("out/m.onnx").contract
        assert known.digest in text
        assert f"`familiarity` (unknown below {known.unknown.threshold})" in text

        data, small = contract.read("out/m.onnx")[0], Path("out/small.onnx")
        data = data.replace(b'"precision": "fp32"', b'"precision": "int8"', 1)
        small.write_bytes(contract.seal(data.replace(known.digest.encode(), contract.BLANK.encode())))
        tested = json.loads((report / "metrics.json").read_text())["model"]["digest"]
        _, matter, text = write_card(small, "x", report / "metrics.json", tested, None).read_text().split("---\n", 2)
        assert "model-index" not in yaml.safe_load(matter)
        assert "these are figures of the float32 model" in text
        untested = write_card(small, "x", report / "metrics.json", "another checkpoint's digest", None).read_text()
        assert "On the validation pictures, by the float32 model of which this one is a smaller copy:" in untested

        write_card(Path("out/m.onnx"), "cnn", report / "metrics.json", "another checkpoint's digest", None)
        assert "Not tested yet" in card.read_text()
        assert "license" not in yaml.safe_load(card.read_text().split("---\n")[1])
        assert "\n- accuracy: " in card.read_text()
        assert "train" not in card.read_text().partition("On the validation pictures:")[2].partition("##")[0]

    def test_doubts_on_the_card_are_those_of_the_test_where_it_judged_the_same(
        self, run: Run, checkpoint: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(checkpoint.parent, "run/checkpoints")
        words = ("--ckpt_path", Path("run/checkpoints", checkpoint.name))
        assert run("test", *words, "--resamples", 20).code == 0
        assert run("export", *words, "--output", tmp_path / "model.onnx").code == 0
        report, card = Path("run/report/metrics.json"), tmp_path / "MODEL_CARD.md"
        found = json.loads(report.read_text())
        doubts, digest = found["reliability"], found["model"]["digest"]
        error, coverage, unknown = (
            doubts["expected_calibration_error"],
            doubts["prediction_sets"]["coverage"],
            doubts["unknown"],
        )
        text = card.read_text().partition("## Calibration")[2]
        assert f"the test pictures: {100 * error['before']:.1f} % before, {100 * error['after']:.1f} % after" in text
        covered, low, high = (f"{100 * coverage[key]:.1f} %" for key in ("value", "low", "high"))
        assert f"They do for {covered} of the test pictures (95 % interval: {low} to {high})" in text
        kinds = [f"{100 * each['rejected']:.1f} % of {kind}" for kind, each in unknown["kinds"].items()]
        assert ", ".join([f": {100 * unknown['rejected']:.1f} % of the test pictures", *kinds]) + ".\n" in text
        assert "validation pictures" not in text

        data, known = contract.read(tmp_path / "model.onnx")
        changes = ((b'"precision": "fp32"', b'"precision": "int8"'), (b'"alpha": 0.1', b'"alpha": 0.2'))
        for old, new in (*changes, (b'"method": "lac"', b'"method": "aps"')):
            assert old in data
            changed = data.replace(old, new, 1).replace(known.digest.encode(), contract.BLANK.encode())
            Path("model.onnx").write_bytes(contract.seal(changed))
            text = write_card(Path("model.onnx"), "x", report, digest, None).read_text().partition("## Calibration")[2]
            assert " validation pictures, by which the temperature was found: " in text
            assert " (on the pictures that the score was chosen on)." in text
            assert "test pictures" not in text

    def test_the_name_in_a_checkpoint_is_no_path(self, run: Run, checkpoint: Path) -> None:
        kept = checkpoints.load(checkpoint)
        checkpoints.write({**kept, "run": {**kept["run"], "experiment": "../../x"}}, "x.ckpt")
        result = run("export", "--ckpt_path", "x.ckpt", "--experiment", "fine", "--triton", "repository")
        assert result.code == 2
        assert "../../x" in result.err
        assert not Path("repository").exists()

    @pytest.mark.parametrize("content", ["", "[1]", "{}", '{"model": 1}', '{"model": {"digest": "x"}}', "[" * 100_000])
    def test_a_damaged_report_is_none(self, model: Path, tmp_path: Path, content: str) -> None:
        (tmp_path / "metrics.json").write_text(content)  # and no per_class.csv
        shutil.copy(model, tmp_path / "model.onnx")
        card = write_card(tmp_path / "model.onnx", "x", tmp_path / "metrics.json", "x", None)
        assert "Not tested yet" in card.read_text()

    def test_the_command_in_the_card_can_be_pasted(self, model: Path, tmp_path: Path) -> None:
        path = Path(shutil.copy(model, tmp_path / "m #1.onnx"))
        text = write_card(path, "x", tmp_path / "metrics.json", "x", None).read_text()
        assert f"`{shell.line('python', '-m', 'cifar_onnx', 'verify', path.name)}` checks the file" in text

    def test_what_a_report_does_not_know_is_no_row_of_the_card(self, model: Path, tmp_path: Path) -> None:
        known = {"value": 0.5, "low": 0.4, "high": 0.6}
        unknown = {"roc_auc": {**known, "low": None, "high": None}, "cohen_kappa": dict.fromkeys(known)}
        metrics = {"accuracy": known, "f1_macro": known, **unknown}
        (tmp_path / "metrics.json").write_text(json.dumps({"model": {"digest": "x"}, "images": 2, "metrics": metrics}))
        (tmp_path / "per_class.csv").write_text('class,support\n"a, ""b""\n|c",7\n')  # a name of anybody's
        shutil.copy(model, tmp_path / "model.onnx")
        card = write_card(tmp_path / "model.onnx", "x", tmp_path / "metrics.json", "x", None)
        assert re.findall(r"^\| ([\w ]+) \| 0\.", card.read_text(), re.MULTILINE) == ["accuracy", "f1 macro"]
        assert '| a, "b" \\|c | 7 |' in card.read_text().splitlines()

    def test_a_net_that_is_too_large_for_one_file_is_refused_before_it_is_captured(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(graph.contract, "MAX_BYTES", 1000)
        with pytest.raises(InputError, match=r"model\.net \(CNN\) has 0\.0 GB of weights, and one ONNX file holds"):
            graph.core(Scored(nn.Sequential(*tiny()).eval(), Energy()), 32, "CNN")

    def test_pictures_are_run_some_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those of 380 pixels a side 29 at a time: 256 would take 5 GB for one layer of EfficientNet-B4."""
        assert [outcome.at_once(size) for size in (32, 128, 224, 380, 5000)] == [256, 256, 83, 29, 1]
        monkeypatch.setattr(outcome, "_BATCH", 5)
        net, pictures, seen = nn.Sequential(*tiny()).eval(), np.stack([each.pixels for each in samples()]), []
        net.register_forward_hook(lambda _module, _inputs, output: seen.append(len(output)))
        logits, _ = outputs_of(Scored(net, Energy()), pictures)
        assert seen == [5, 5, 5, 5, 5, 2]
        with torch.inference_mode():
            whole = net(torch.from_numpy(pictures).permute(0, 3, 1, 2)).numpy()
        assert np.allclose(logits, whole, atol=1e-5)

    def test_a_model_may_be_in_its_place_in_a_triton_repository_already(self, tmp_path: Path) -> None:
        digits, place = Path(__file__).parent.parent / "export" / "tests" / "digits.onnx", tmp_path / "digits"
        (place / "1").mkdir(parents=True)
        shutil.copy(digits, place / "1" / "model.onnx")
        assert write_triton(place / "1" / "model.onnx", "digits", tmp_path) == place
        assert (place / "1" / "model.onnx").read_bytes() == digits.read_bytes()
        assert {path.name for path in place.rglob("*")} == {"1", "model.onnx", "labels.txt", "config.pbtxt"}

    def test_a_triton_repository(self, run: Run, checkpoint: Path) -> None:
        result = run("export", "--ckpt_path", checkpoint, "--output", "m.onnx", "--triton", "repository")
        assert result.code == 0
        place = Path("repository/cnn")
        assert (place / "1" / "model.onnx").read_bytes() == Path("m.onnx").read_bytes()
        assert (place / "labels.txt").read_text().split() == list("0123456789")
        config = (place / "config.pbtxt").read_text()
        session = ort.InferenceSession("m.onnx")
        for output in session.get_outputs():
            (line,) = (line for line in config.splitlines() if f'"{output.name}"' in line)
            assert f"dims: [ {output.shape[1] if output.shape[1:] else 1} ]" in line
            assert ("reshape" in line) == (len(output.shape) == 1)
        assert config.count("{") == config.count("}")
        assert "\n# Send squares as Classifier.square of cifar_onnx makes them (32 x 32 pixels, stretch)" in config
        options = re.findall(r'key: "(\w+)" value: "(\w+)"', config.partition('name: "cuda"')[2])
        assert dict(options) == _OPTIONS["CUDAExecutionProvider"]
