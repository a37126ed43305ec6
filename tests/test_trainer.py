"""`test`: one evaluation with and without PyTorch, and attacks on what can be differentiated."""

import base64
import csv
import json
import shutil
import signal
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning.pytorch as L
import numpy as np
import onnx
import pytest
import torch
from captum.robust import FGSM, PGD
from torch import nn
from torch.nn.functional import cross_entropy

from cifar_lightning.attacks import fgsm, pgd, under_attacks
from cifar_lightning.batch import Batch
from cifar_lightning.callbacks import curves, first_batch
from cifar_lightning.cli.trainer import _validated_others
from cifar_lightning.data import Digits
from cifar_lightning.export.graph import core
from cifar_lightning.module import Classifier
from cifar_lightning.nets import CNN, Normalize
from cifar_onnx import contract, images
from cifar_onnx.__main__ import main as receiver
from cifar_onnx.errors import NoContractError
from cifar_onnx.evaluation.foreign import ForeignClassifier
from cifar_onnx.evaluation.outcome import Outcome
from tests.conftest import BRIEF, Run, make_photos

SVG = "{http://www.w3.org/2000/svg}"


def figures(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def numbers(value: Any, at: str = "") -> Iterator[tuple[str, float]]:
    """Every number below a value, with the way to it."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from numbers(each, f"{at}/{key}")
    elif isinstance(value, int | float):
        yield at, value


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def trained(run: Run, photos: Path) -> Path:
    """A run on photos of many sizes, one of which is broken, with groups of the test photos."""
    shutil.rmtree(photos / "test")
    make_photos(photos / "test", 40)
    (photos / "test" / "red" / "broken.jpg").write_bytes(b"nothing")
    names = sorted(path.relative_to(photos / "test") for path in (photos / "test").rglob("*.*"))
    rows = [f"{name},{'odd' if number % 2 else 'even'}" for number, name in enumerate(names)]
    Path("groups.csv").write_text("path,parity\n" + "\n".join(rows))
    words = ("--data", "ImageFolder", "--data.root", photos, "--data.image_size", 16)
    assert run("fit", *BRIEF, *words, "--model.optimizer.lr", 1e-4).code == 0
    return Path("runs/cnn/version_0")


class TestBothWays:
    def test_the_same_pictures_give_the_same_figures(self, run: Run, trained: Path, photos: Path) -> None:
        ckpt = trained / "checkpoints" / "best.ckpt"
        assert run("test", "--ckpt_path", ckpt, "--groups", "groups.csv").code == 0
        assert run("export", "--ckpt_path", ckpt).code == 0
        words = ["evaluate", str(trained / "model.onnx"), str(photos / "test"), "--groups", "groups.csv"]
        assert receiver([*words, "--output", "out"]) == 0
        ours, theirs = figures(trained / "report" / "metrics.json"), figures(Path("out/metrics.json"))
        assert len(ours["slices"]) == 4
        assert 0.34 < ours["metrics"]["accuracy"]["value"] < 1
        for one in (ours, theirs):
            del one["model"]
        got, expected = dict(numbers(ours)), dict(numbers(theirs))
        assert got == pytest.approx(expected, abs=1e-6)
        assert len(got) > 100
        for name in ("per_class.csv", "confusion.csv"):
            assert (trained / "report" / name).read_text() == Path("out", name).read_text()
        for mine, other in zip(*(table(p / "predictions.csv") for p in (trained / "report", Path("out"))), strict=True):
            assert float(mine.pop("probability") or 0) == pytest.approx(float(other.pop("probability") or 0), abs=5e-6)
            assert float(mine.pop("margin") or 0) == pytest.approx(float(other.pop("margin") or 0), abs=5e-6)
            assert mine == other
        assert ours["unreadable"] == 1
        (broken,) = [row for row in table(Path("out/predictions.csv")) if row["error"]]
        assert broken["path"].endswith("red/broken.jpg")

    def test_they_are_those_of_torchmetrics(self, run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which watch validation inside `fit` by the same step."""
        seen: dict[str, float] = {}

        def keep(self: Classifier) -> None:
            hook(self)
            seen.update({name: float(value) for name, value in self.trainer.callback_metrics.items()})

        hook = Classifier.on_test_epoch_end
        monkeypatch.setattr(Classifier, "on_test_epoch_end", keep)
        assert run("test", "--ckpt_path", trained / "checkpoints" / "best.ckpt", "--output", "out").code == 0
        found = figures(Path("out/metrics.json"))["metrics"]
        names = {
            "accuracy": "accuracy",
            "precision": "precision_macro",
            "recall": "recall_macro",
            "f1": "f1_macro",
            "loss": "negative_log_likelihood",
        }
        assert {name: found[name]["value"] for name in names.values()} == pytest.approx(
            {ours: seen[f"test/{theirs}"] for theirs, ours in names.items()}, abs=1e-6
        )

    def test_the_summary_is_printed(self, run: Run, checkpoint: Path) -> None:
        result = run("test", "--ckpt_path", checkpoint)
        found = figures(checkpoint.parent.parent / "report" / "metrics.json")["metrics"]["accuracy"]
        assert f"accuracy                    {found['value']:.1%} (" in result.out
        assert "report.html" in result.out
        assert "next: python -m cifar_lightning export" in result.out

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--groups", "none.csv"], "none.csv cannot be read as a CSV file"),
            (["--groups", "others.csv"], "others.csv lists none of the pictures: its paths must be like"),
            (
                ["--trainer.devices", 2, "--trainer.strategy", "ddp_spawn"],
                "test takes no strategy that spawns or forks",
            ),
            (["--attacks", "[-1]"], "attacks has a radius of -1 grey levels"),
            (["--resamples", 0], "resamples is 0: it must be at least 1"),
            (["--output", "file/out"], "file/out"),
        ],
    )
    def test_mistakes_show_before_the_work(
        self, run: Run, checkpoint: Path, words: list[object], sentence: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(L.Trainer, "test", tested := Mock())
        Path("file").write_text("")
        Path("others.csv").write_text("path,kind\nelsewhere/1.png,small\n")
        result = run("test", "--ckpt_path", checkpoint, *words)
        assert result.code == 2
        assert sentence in result.err
        tested.assert_not_called()


def test_a_file_of_another_maker_is_normalised_as_it_was_said(tmp_path: Path) -> None:
    """A plain export, channels first, of a net on normalised pixels; and one that ends in softmax."""
    torch.manual_seed(0)
    pixels = Normalize()
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    pixels.set_statistics(mean, std)
    net = CNN(4, widths=(4, 4), hidden=8).eval()
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = net(pixels(torch.from_numpy(pictures).permute(0, 3, 1, 2)))
    for model, logits in ((net, expected), (nn.Sequential(net, nn.Softmax(1)), expected.log_softmax(1))):
        path = tmp_path / "foreign.onnx"
        path.write_bytes(core(model.eval(), 32).SerializeToString())
        foreign = ForeignClassifier(path, list("abcd"), mean, std)
        assert foreign.size == 32
        assert foreign.logits(pictures) == pytest.approx(logits.numpy(), abs=1e-4)


@pytest.fixture(scope="module")
def net(checkpoint: Path) -> nn.Module:
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    model = Classifier([str(digit) for digit in range(10)], CNN())
    model.load_state_dict({name: value for name, value in state.items() if "metrics" not in name}, strict=False)
    return model.eval()


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    images = Digits().images("test")
    return torch.from_numpy(images.pixels[:32]).permute(0, 3, 1, 2).float(), torch.from_numpy(images.labels[:32])


TAKES = {  # how a picture is taken, and the way from there to float (B, H, W, 3) from 0 to 255
    "uint8, channels last": ("uint8[batch, 4, 4, 3]", "values = Cast <to = 1> (x)"),
    "half, channels first": ("float16[batch, 3, 4, 4]", "y = Transpose <perm = [0, 2, 3, 1]> (x) {half}"),
    "double, channels last": ("double[batch, 4, 4, 3]", "y = Identity(x) {half}"),
    "batches of four": ("float[4, 4, 4, 3]", "y = Identity(x) {half}"),
}
SCALED = "z = Cast <to = 1> (y) white = Constant <value_float = 255.0> () values = Mul(z, white)"


@pytest.mark.parametrize("takes", TAKES)
@pytest.mark.parametrize("outside", [False, True])
def test_whatever_a_file_takes_it_is_given(takes: str, outside: bool, tmp_path: Path) -> None:
    """Logits are the mean of each channel, times a weight that may lie in a file of its own."""
    of, way = TAKES[takes]
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 18]>
        net ({of} x) => (float[batch, 3] logits)
        <float[3, 3] weight = {{1, 0, 0, 0, 2, 0, 0, 0, 3}}, int64[2] places = {{1, 2}}>
        {{
            {way.format(half=SCALED)}
            means = ReduceMean <keepdims = 0> (values, places)
            logits = MatMul(means, weight)
        }}
    """)
    weight = model.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight), weight.name))
    path = tmp_path / "foreign.onnx"
    onnx.save(model, path, save_as_external_data=outside, location="weights", size_threshold=0)
    assert (tmp_path / "weights").exists() == outside
    pictures = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    expected = pictures.mean(axis=(1, 2)) * [1, 2, 3]
    assert ForeignClassifier(path, list("abc")).logits(pictures) == pytest.approx(expected, rel=2e-3)
    with pytest.raises(NoContractError, match="without a contract"):
        contract.read(path)


def differing(a: torch.Tensor, b: torch.Tensor) -> float:
    """Share of the values that are not the same."""
    return float(((a - b).abs() > 1e-3).float().mean())


class TestAttacks:
    @pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
    def test_they_are_captums(self, net: nn.Module, pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
        images, labels = pictures

        def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return cross_entropy(logits, target, reduction="none")

        one = FGSM(net, loss, lower_bound=0, upper_bound=255)
        many = PGD(net, loss, lower_bound=0, upper_bound=255)
        one.zero_thresh = many.fgsm.zero_thresh = 0  # captum leaves pixels of small gradients alone
        known = one.perturb(images, epsilon=8.0, target=labels)
        assert differing(fgsm(net, images, labels, 8.0), known) < 1e-4
        known = many.perturb(images, radius=8.0, step_size=1.0, step_num=20, target=labels)
        changed = pgd(net, images, labels, 8.0)
        assert differing(changed, known) < 0.02  # where rounding turns the sign of a gradient near zero
        with torch.inference_mode():
            assert torch.equal(net(changed).argmax(1), net(known).argmax(1))

    def test_they_stay_within_the_radius(self, net: nn.Module, pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
        images, labels = pictures
        for changed in (fgsm(net, images, labels, 3.0), pgd(net, images, labels, 3.0)):
            assert (changed - images).abs().max() <= 3.0001
            assert changed.min() >= 0
            assert changed.max() <= 255

    def test_a_net_does_not_escape_them_by_half_precision(self) -> None:
        """The slope of the loss of a picture with a margin of 24 is less than the smallest number of float16."""
        layer = nn.Linear(3 * 4 * 4, 2, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[1.0], [-1.0]]).expand(2, 48) / 48)
        net = nn.Sequential(nn.Flatten(), layer)
        images = torch.full((1, 3, 4, 4), 12.0)
        with torch.autocast("cpu", dtype=torch.float16):
            changed = fgsm(net, images, torch.tensor([0]), 1.0)
            assert net(images).dtype == torch.float16
        assert (changed < images).all()

    @pytest.mark.parametrize("sureness", [0.1, 100.0])
    def test_a_net_does_not_escape_them_by_being_surer(self, sureness: float) -> None:
        def net(images: torch.Tensor) -> torch.Tensor:
            brighter = images.mean((1, 2, 3)) - 128
            return sureness * torch.stack([brighter, -brighter], 1)

        images, labels = torch.full((1, 3, 4, 4), 129.0), torch.tensor([0])
        for changed in (fgsm(net, images, labels, 2.0), pgd(net, images, labels, 2.0)):
            assert net(changed).argmax(1).tolist() == [1]

    def test_accuracy_falls_with_the_radius_and_more_steps_do_more_harm(
        self, net: nn.Module, pictures: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        images, labels = pictures
        pixels = images.permute(0, 2, 3, 1).to(torch.uint8).numpy()
        with torch.inference_mode():
            logits = net(images).numpy()
        whole = Outcome(tuple("0123456789"), [""] * len(labels), labels.numpy(), logits, pixels)
        first, second = under_attacks(whole, net, [0, 4, 16, 32], torch.device("cpu")).rows.values()
        assert first[0] == second[0] == whole.correct.mean()
        for row in (first, second):
            assert [*row] == sorted(row, reverse=True)
            assert row[-1] < row[0] - 0.3
        assert all(many <= one for one, many in zip(first, second, strict=True))
        assert second[-1] < first[-1]

    def test_they_are_in_the_report(self, run: Run, checkpoint: Path) -> None:
        few = ("--data.batch_size", 32, "--trainer.limit_test_batches", 2)
        result = run("test", "--ckpt_path", checkpoint, "--attacks", "[0, 8]", "--output", "out", *few)
        assert result.code == 0, result.err
        found = figures(Path("out/metrics.json"))
        clean = found["metrics"]["accuracy"]["value"]
        first, second = found["adversarial_attacks"]["accuracy"].values()
        assert first["0/255"] == second["0/255"] == clean
        assert second["8/255"] < clean
        assert "8/255" in Path("out/report.html").read_text()
        assert (
            f"adversarial attacks         accuracy {clean:.1%} at 0/255, {second['8/255']:.1%} at 8/255" in result.out
        )


@pytest.mark.slow
def test_corruptions_by_torch_and_onnxruntime_are_the_same(run: Run, trained: Path, photos: Path) -> None:
    ckpt = trained / "checkpoints" / "best.ckpt"
    assert run("test", "--ckpt_path", ckpt, "--corruptions", "--resamples", 5).code == 0
    assert run("export", "--ckpt_path", ckpt).code == 0
    words = ["evaluate", str(trained / "model.onnx"), str(photos / "test"), "--corruptions", "--resamples", "5"]
    assert receiver([*words, "--output", "out"]) == 0
    ours, theirs = (figures(p / "metrics.json")["corruptions"] for p in (trained / "report", Path("out")))
    assert ours == theirs


@pytest.mark.slow
def test_attacks_see_the_precision_that_figures_have(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def attack(*args: Any) -> Any:
        seen.append(torch.is_autocast_enabled("cpu"))
        return under_attacks(*args)

    monkeypatch.setattr("cifar_lightning.evaluation.under_attacks", attack)
    few = ("--data.batch_size", 4, "--trainer.limit_test_batches", 1)  # bfloat16 is slow on most CPUs
    words = ("--trainer.precision", "bf16-mixed", "--attacks", "[0]", "--output", "out")
    assert run("test", "--ckpt_path", checkpoint, *words, *few).code == 0
    assert seen == [True]
    found = figures(Path("out/metrics.json"))
    assert found["adversarial_attacks"]["accuracy"]["FGSM"]["0/255"] == found["metrics"]["accuracy"]["value"]


@pytest.mark.slow
def test_attacks_are_where_the_net_is_and_not_where_lightning_has_left_the_module(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = L.Trainer.test

    def test(self: L.Trainer, model: L.LightningModule, **words: Any) -> Any:
        found = judge(self, model, **words)
        model._device = torch.device("meta")  # as the CPU after a test on a GPU
        return found

    monkeypatch.setattr(L.Trainer, "test", test)
    result = run("test", "--ckpt_path", checkpoint, "--attacks", "[1]", "--output", "out")
    assert result.code == 0, result.err


def test_files_of_a_flat_folder_that_cannot_be_read_are_rows_of_the_test(run: Run, photos: Path) -> None:
    flat = photos / "train"
    (flat / "red" / "broken.png").write_bytes(b"nothing")
    assert run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", flat).code == 0
    assert run("test", "--ckpt_path", "runs/cnn/version_0/checkpoints/best.ckpt", "--output", "out").code == 0
    (row,) = (row for row in table(Path("out/predictions.csv")) if row["error"])
    assert row["path"].endswith("broken.png")


class TestFirstBatch:
    def test_it_is_drawn_as_the_net_sees_it(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[Batch] = []

        def train(self: Classifier, batch: Batch, batch_idx: int) -> torch.Tensor:
            seen.append(batch)
            return step(self, batch, batch_idx)

        step = Classifier.training_step
        monkeypatch.setattr(Classifier, "training_step", train)
        assert run("fit", *BRIEF, "--data.batch_size", 40, "--data.augment+", "ShiftedCrop").code == 0
        first = seen[-4]  # the dry run comes before
        root = ET.fromstring(Path("runs/cnn/version_0/batch.svg").read_text())
        sources = [image.get("href") or "" for image in root.iter(f"{SVG}image")]
        drawn = [images.decode(base64.b64decode(source.partition(",")[2])) for source in sources]
        assert torch.equal(torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2), first.images[:32])
        words = [text.text for cell in root.iter(f"{SVG}svg") for text in cell.findall(f"{SVG}text")]
        assert words == [
            "The first training batch, as the net sees it: 32 of 40 images",
            *map(str, first.labels[:32].tolist()),
        ]

    def test_mixed_images_have_both_labels_and_names_are_no_markup(self, tmp_path: Path) -> None:
        labels = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0]])
        batch = Batch(torch.zeros(2, 3, 200, 100, dtype=torch.uint8), labels, torch.arange(2), 0)
        first_batch.draw(batch, ["<b>", "\udcff", "c"], tmp_path / "batch.svg")
        root = ET.fromstring((tmp_path / "batch.svg").read_text())
        cells = [[text.text for text in cell.iter(f"{SVG}text")] for cell in root.findall(f"{SVG}svg")]
        assert cells == [["70% <b>", "30% \\udcff"], ["100% c"]]

    def test_a_run_that_goes_on_keeps_its_own(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Classifier, "on_train_batch_end", lambda *_: signal.raise_signal(signal.SIGTERM))
            assert run("fit", *BRIEF).code == 143
        path = Path("runs/cnn/version_0/batch.svg")
        path.write_text("as it was")
        assert run("fit", *BRIEF, "--ckpt_path", "last").code == 0
        assert path.read_text() == "as it was"
        assert not Path("runs/cnn/version_1").exists()


class TestCurves:
    def test_fit_leaves_curves_beside_the_metrics(self, run: Run) -> None:
        """Whatever else is logged: a learning rate has rows without an epoch."""
        words = ("--trainer.callbacks+", "LearningRateMonitor", "--trainer.log_every_n_steps", 1)
        assert run("fit", *BRIEF, "--trainer.max_epochs", 2, *words).code == 0
        text = Path("runs/cnn/version_0/curves.svg").read_text()
        ET.fromstring(text)
        for word in ("epoch", "loss", "accuracy", "train", "val", "prefers-color-scheme"):
            assert word in text

    @pytest.mark.parametrize(
        ("rows", "points"),
        [("0,nan,1e3\n1,inf,\n2,0.5,-inf\n", 1), ("0.0,1,1\nx,1,1\n1,\x00,1\n\n2\n3,1,1\n", 2)],
        ids=["not finite", "damaged"],
    )
    def test_what_is_no_number_has_no_point(self, tmp_path: Path, rows: str, points: int) -> None:
        (tmp_path / "metrics.csv").write_text(f"epoch,train/loss,val/loss\n{rows}")
        curves.draw(tmp_path / "metrics.csv", tmp_path / "curves.svg")
        root = ET.fromstring((tmp_path / "curves.svg").read_text())
        lines = list(root.iter(f"{SVG}polyline"))
        assert [len((line.get("points") or "").split()) for line in lines] == [points, points]

    @pytest.mark.parametrize("epochs", [1, 2, 40])
    def test_points_are_where_the_values_are(self, tmp_path: Path, epochs: int) -> None:
        """Losses 2, 1, 2/3, ... from top to bottom; the curve is as wide as the axis of whole epochs."""
        rows = [f"{epoch},{2 / (epoch + 1)},{3 / (epoch + 1)},{epoch / 100}" for epoch in range(epochs)]
        (tmp_path / "metrics.csv").write_text("\n".join(["epoch,train/loss,val/loss,val/accuracy", *rows]))
        curves.draw(tmp_path / "metrics.csv", tmp_path / "curves.svg")
        root = ET.fromstring((tmp_path / "curves.svg").read_text())
        lines = list(root.iter(f"{SVG}polyline"))
        assert [line.get("class") for line in lines] == ["train", "val", "val"]
        train, val, accuracy = (
            [tuple(map(float, point.split(","))) for point in (line.get("points") or "").split()] for line in lines
        )
        assert len(train) == len(val) == len(accuracy) == epochs
        # Value is linear in height: three losses of the one are two of the other.
        assert all(above < below for (_, above), (_, below) in zip(val, train, strict=True))
        zero = val[0][1] + 3 * (train[0][1] - val[0][1])
        for epoch, (_, y) in enumerate(train):
            assert (zero - y) * (epoch + 1) == pytest.approx(zero - train[0][1], abs=0.5 * (epoch + 1))
        assert [x for x, _ in train] == sorted({x for x, _ in train})
        dots = list(root.iter("{http://www.w3.org/2000/svg}circle"))
        assert len(dots) == (3 * epochs if epochs < 30 else 0)


def test_of_what_a_run_was_validated_on_is_not_known_where_it_noted_nothing(tmp_path: Path) -> None:
    assert not _validated_others(Digits(), str(tmp_path / "checkpoints" / "best.ckpt"))
