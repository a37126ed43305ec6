"""The command line, as people type it."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import pytest
import torch
import yaml
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning_utilities.core.imports import RequirementCache
from PIL import Image
from torch import nn

from cifar_lightning.callbacks import BestCheckpoint, EpochLines, LastCheckpoint
from cifar_lightning.checkpoint import write
from cifar_lightning.cli import usage
from cifar_lightning.cli.lightning_cli import CLI
from cifar_lightning.cli.settings import check_batch_norm
from cifar_lightning.data import Digits, ImageData
from cifar_lightning.files import target
from cifar_lightning.main import main
from cifar_lightning.nets import SpeedNet
from cifar_onnx import Classifier
from tests.conftest import BRIEF, Run, command_line

ONE_CYCLE = ["--data", "Digits", "--model.scheduler", "OneCycleLR", "--model.scheduler.max_lr", "0.1"]
RESNET = ["--model.net", "Torchvision", "--model.net.name", "resnet18"]
CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


def config_of(run: Run, *words: object) -> dict[str, Any]:
    """What a command would run with."""
    result = run(*words, "--print_config")
    assert result.code == 0, result.err
    config: dict[str, Any] = yaml.safe_load(result.out)
    return config


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


OWN_NETS = """from torch import nn
class Few(nn.Sequential):
    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3072, 3))
class Pair(Few):
    def forward(self, x):
        return super().forward(x), 0
class Deep(nn.Sequential):
    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Conv2d(3, 8, 1), *[nn.MaxPool2d(2)] * 6, nn.Flatten(), nn.Linear(8, num_classes))
class Wrong(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
    def forward(self, x):
        raise KeyError("no such layer")
class Lazy(nn.Sequential):
    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))
def build(num_classes: int):
    return Few(num_classes)
class Fixed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3072, 10))
class Twice(Fixed):
    def forward(self, x):
        return super().forward(x), super().forward(x)
class Squeezed(Fixed):
    def forward(self, x):
        return super().forward(x).squeeze()
class Double(Fixed):
    def forward(self, x):
        return super().forward(x).double()
class Relative(Fixed):
    def forward(self, x):
        y = super().forward(x)
        return y - y.mean(0)
class Whole(Fixed):
    def forward(self, x):
        return super().forward(x).view(2, 10)
class Unbuilt(Fixed):
    def __init__(self) -> None:
        raise KeyError("no such width")
class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3072, 10), nn.BatchNorm1d(10))
"""

# Stops after the first epoch that it may stop after.
EARLY = ("--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss",
         "--trainer.callbacks.stopping_threshold", 1e9)  # fmt: skip


class TestFit:
    def test_without_a_further_word_it_is_the_tutorials_recipe(self, run: Run) -> None:
        config = config_of(run, "fit")
        assert config["data"]["class_path"] == "cifar_lightning.data.CIFAR10"
        assert config["data"]["init_args"]["batch_size"] == 64
        assert config["model"]["net"]["class_path"] == "cifar_lightning.nets.CNN"
        assert config["model"]["net"]["init_args"]["widths"] == [32, 64, 128]
        assert config["model"]["net"]["init_args"]["dropout"] == 0.5
        assert config["model"]["optimizer"]["class_path"] == "torch.optim.Adam"
        assert config["model"]["optimizer"]["init_args"]["lr"] == 1e-3
        assert config["model"]["scheduler"] is None
        assert config["trainer"]["max_epochs"] == 50
        assert config["trainer"]["accelerator"] == "auto"

    @pytest.mark.parametrize("given", ["typed", "typed path", "config", "short config"])
    def test_an_optimizer_that_is_chosen_has_settings_of_its_own_and_not_adams(self, run: Run, given: str) -> None:
        config = Path("chosen.yaml")
        chosen = "AdamW" if given == "short config" else {"class_path": "AdamW"}
        config.write_text(yaml.safe_dump({"model": {"optimizer": chosen}}))
        words: tuple[object, ...] = ("--config", config)
        if given.startswith("typed"):
            words = ("--model.optimizer", "AdamW") if given == "typed" else ("--model.optimizer.class_path=AdamW",)
        for last in ((), ("--ckpt_path", "last")):  # of which there is none
            optimizer = config_of(run, "fit", *words, *last)["model"]["optimizer"]
            assert optimizer["class_path"] == "torch.optim.AdamW"
            assert optimizer["init_args"]["weight_decay"] == 0.01

    def test_a_net_that_does_not_ask_for_the_number_of_classes_is_trained_and_tested(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "nets_of_my_own.py").write_text(OWN_NETS)
        monkeypatch.syspath_prepend(tmp_path)
        assert run("fit", *BRIEF, "--model.net", "nets_of_my_own.Fixed").code == 0
        best = "runs/cnn/version_0/checkpoints/best.ckpt"
        result = run("test", "--ckpt_path", best, "--allow_custom_classes", "--resamples", 10)
        assert result.code == 0, result.err

    def test_what_comes_next_is_said_for_classes_of_the_users_own_too(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "nets_beside_a_config.py").write_text(OWN_NETS)
        Path("mine/c.yaml").write_text("model: {net: nets_beside_a_config.Fixed}")
        monkeypatch.setattr(sys, "path", sys.path[:])
        result = run("fit", "--config", "mine/c.yaml", *BRIEF)
        for command in ("test", "export"):
            (line,) = lines(result.out, "next: python -m cifar_lightning ")
            words = shlex.split(line)[4:]
            assert words[0] == command
            sys.path[:] = [each for each in sys.path if not each.endswith("mine")]
            sys.modules.pop("nets_beside_a_config")
            result = run(*words)
            assert result.code == 0, result.err
            assert result.out.count("importing nets_beside_a_config, which") == 1
        best = "runs/cnn/version_0/checkpoints/best.ckpt"
        sys.path[:] = [each for each in sys.path if not each.endswith("mine")]
        sys.modules.pop("nets_beside_a_config")
        refused = run("test", "--ckpt_path", best, "--allow_custom_classes")
        assert refused.code == 2
        assert "or that of the run, with --config" in refused.err

    def test_names_of_metrics_make_no_folders(self, run: Run) -> None:
        assert run("fit", *BRIEF, "--checkpoint.filename", "{epoch}-{val/accuracy:.2f}").code == 0
        kept = sorted(path.name for path in Path("runs/cnn/version_0/checkpoints").iterdir())
        assert len(kept) == 2
        assert re.fullmatch(r"epoch=0-val-accuracy=0\.\d\d\.ckpt", kept[0])

    def test_nor_do_they_where_folders_end_with_another_sign(self, monkeypatch: pytest.MonkeyPatch) -> None:
        callback = BestCheckpoint(filename="{val/loss:.1f}")
        monkeypatch.setattr(os, "sep", "\\")  # as on Windows
        assert callback.format_checkpoint_name({"val/loss": torch.tensor(0.5)}) == "val-loss=0.5.ckpt"

    def test_lightnings_own_names_of_checkpoints_have_room_for_several(self, run: Run) -> None:
        words = ("--trainer.max_epochs", 2, "--checkpoint.save_top_k", -1, "--checkpoint.filename", "null")
        assert run("fit", *BRIEF, *words).code == 0
        kept = sorted(path.name for path in Path("runs/cnn/version_0/checkpoints").iterdir())
        assert kept == ["epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt", "last.ckpt"]

    def test_why_nothing_was_validated_is_said(self, run: Run) -> None:
        result = run("fit", *BRIEF, "--trainer.check_val_every_n_epoch", 9)
        assert "nothing was validated (trainer.check_val_every_n_epoch is 9, of 1 epochs); what has" in result.out
        with warnings.catch_warnings(record=True) as seen:
            result = run("fit", *BRIEF, "--trainer.limit_val_batches", 0)
        assert "nothing was validated; what has come of it is kept in" in result.out
        assert not [each for each in seen if "monitored key" in str(each.message)]

    def test_batches_that_are_too_large_for_few_images_are_named(self, run: Run, photos: Path) -> None:
        few = ("--data.root", photos, "--data.batch_size", 99, "--trainer.limit_train_batches", 0.5)
        result = run("fit", "--data", "ImageFolder", *few)
        assert result.code == 2
        assert result.err.endswith("Or take smaller batches: --data.batch_size.\n")

    def test_a_checkpoint_from_within_an_epoch_is_tested(self, run: Run) -> None:
        assert run("fit", *BRIEF, "--trainer.val_check_interval", 2, "--trainer.max_steps", 3).code == 0
        for name in ("best", "last"):
            path = Path("runs/cnn/version_0/checkpoints", f"{name}.ckpt")
            assert torch.load(path, weights_only=True)["Digits"]["batch"]
            result = run("test", "--ckpt_path", path, "--resamples", 10)
            assert result.code == 0, result.err

    def test_settings_without_a_class_are_adams(self, run: Run) -> None:
        Path("rate.yaml").write_text("model: {optimizer: {init_args: {lr: 0.1}}}")
        for words in (("--config", "rate.yaml"), ("--model.optimizer.lr", "0.1")):
            optimizer = config_of(run, "fit", *words)["model"]["optimizer"]
            assert optimizer["class_path"] == "torch.optim.Adam"
            assert optimizer["init_args"]["lr"] == 0.1

    def test_one_callback_need_be_no_list(self, run: Run) -> None:
        result = run("fit", *BRIEF, "--trainer.callbacks", "EMA")
        assert result.code == 0, result.err
        kept = torch.load("runs/cnn/version_0/checkpoints/last.ckpt", weights_only=True)
        assert "averaging_state" in kept

    def test_a_run_has_a_folder_that_the_next_leaves_alone(self, run: Run) -> None:
        for _ in range(2):
            assert run("fit", *BRIEF).code == 0
        for version in ("version_0", "version_1"):
            files = {str(path.relative_to(f"runs/cnn/{version}")) for path in Path("runs/cnn", version).rglob("*.*")}
            kept = {"config.yaml", "metrics.csv", "batch.svg", "curves.svg", "run.json"}
            assert files == {*kept, "checkpoints/best.ckpt", "checkpoints/last.ckpt"}
        with Path("runs/cnn/version_0/metrics.csv").open() as file:
            names = next(csv.reader(file))
        assert {"train/loss", "val/loss", "val/accuracy", "val/precision", "val/recall", "val/f1"} <= set(names)

    def test_its_config_runs_again(self, run: Run) -> None:
        assert run("fit", *BRIEF, "--experiment", "first").code == 0
        assert run("fit", "--config", "runs/first/version_0/config.yaml", "--experiment", "again").code == 0
        states = [torch.load(path, weights_only=True)["state_dict"] for path in Path("runs").rglob("last.ckpt")]
        assert len(states) == 2
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    def test_a_config_is_read_as_utf_8_where_the_locale_is_another(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "jsonargparse._paths.open", partial(open, encoding="cp1252"), raising=False
        )  # as on Windows
        Path("c.yaml").write_text("experiment: größe 猫", encoding="utf-8")
        assert config_of(run, "fit", "--config", "c.yaml")["experiment"] == "größe 猫"

    def test_it_ends_with_the_result_and_the_next_command(self, run: Run) -> None:
        result = run("fit", *BRIEF, "--experiment", "my cats")
        best = "runs/my cats/version_0/checkpoints/best.ckpt"
        assert re.fullmatch(rf"best val/accuracy 0\.\d{{4}}, kept in {best}", result.out.splitlines()[-2])
        assert result.out.splitlines()[-1] == f"next: python -m cifar_lightning test --ckpt_path '{best}'"

    def test_an_epoch_may_be_shorter_than_the_ticks_of_a_coarse_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: 1.0)  # on Windows it has 64 ticks a second
        known, module = EpochLines(), SimpleNamespace(device=torch.device("cpu"))
        known._begin()
        known.on_train_batch_end(SimpleNamespace(world_size=1), module, None, SimpleNamespace(labels=[0]), 0)  # type: ignore[arg-type]
        known.on_train_epoch_end(None, module)  # type: ignore[arg-type]
        assert known._speed

    def test_without_a_terminal_there_is_one_plain_line_an_epoch(self, run: Run) -> None:
        result = run("fit", *BRIEF, "--trainer.max_epochs", 3, "--trainer.check_val_every_n_epoch", 2)
        found = lines(result.out, "epoch ")
        assert len(found) == 3
        number, speed = r"\d\.\d{4}", r"[\d,]+ images/s  \d+ s left"
        validated = f"val/loss {number}  val/accuracy {number}"
        assert re.fullmatch(rf"epoch 2/3  train/loss {number}  {validated}  {speed}", found[1])
        assert re.fullmatch(rf"epoch 3/3  train/loss {number}  {speed}", found[2])  # which was not validated
        assert "\r" not in result.out + result.err

    @pytest.mark.filterwarnings("ignore:.*could not find the monitored key")
    def test_a_run_cut_short_says_so_without_a_last_epoch(self, run: Run) -> None:
        result = run("fit", *BRIEF, "--trainer.max_epochs", -1, "--trainer.max_steps", 3)
        assert result.code == 0, result.err
        assert lines(result.out, "epoch ")[0].endswith("images/s  0 s left")
        assert re.match(r"epoch 1  train/loss", lines(result.out, "epoch ")[0])

    def test_what_is_left_is_left_of_the_steps_that_are_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        known, moments = EpochLines(), iter((0.0, 0.0, 30.0))
        monkeypatch.setattr(time, "perf_counter", lambda: next(moments))
        trainer = SimpleNamespace(current_epoch=2, global_step=20, max_steps=50, max_epochs=None, callbacks=[])
        trainer.world_size, trainer.is_global_zero = 1, False
        module = SimpleNamespace(device=torch.device("cpu"), parameters=list)
        known.on_train_start(trainer, module)  # type: ignore[arg-type]
        trainer.global_step = 30
        assert list(known._left(trainer, 3, None)) == [60.0]  # type: ignore[arg-type]

    def test_on_a_terminal_there_is_a_bar_instead(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        result = run("fit", *BRIEF)
        assert not lines(result.out, "epoch ")
        assert "4/4" in result.out

    @pytest.mark.parametrize(
        ("capabilities", "precision", "told"),
        [
            ({"avx512_bf16": False}, "bf16-mixed", True),
            ({"avx512_bf16": False}, "32-true", False),
            ({"avx512_bf16": True}, "bf16-mixed", False),
            ({"sve_bf16": True}, "bf16-mixed", False),  # ARM
        ],
    )
    def test_bfloat16_is_told_to_be_slow_on_a_cpu_without_instructions_for_it(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], precision: str, told: bool
    ) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
        few = ("--data.batch_size", 8, "--trainer.limit_train_batches", 1, "--trainer.limit_val_batches", 1)
        words = ("--trainer.max_epochs", 1, "--trainer.accelerator", "cpu", "--trainer.precision", precision)
        result = run("fit", "--data", "Digits", *few, *words)
        assert result.code == 0, result.err
        assert ("precision bf16-mixed is slower than 32-true on this CPU" in result.err) == told

    @pytest.mark.parametrize("often", [("--trainer.val_check_interval", 0.5), ("--trainer.check_val_every_n_epoch", 2)])
    def test_the_best_by_the_training_loss_is_the_epoch_that_had_it(self, run: Run, often: tuple[object, ...]) -> None:
        monitored = ("--checkpoint.monitor", "train/loss", "--checkpoint.mode", "min")
        result = run("fit", *BRIEF, "--trainer.max_epochs", 2, *monitored, *often)
        assert result.code == 0, result.err
        folder = Path("runs/cnn/version_0")
        best = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
        (state,) = (state for key, state in best["callbacks"].items() if key.startswith("BestCheckpoint"))
        with (folder / "metrics.csv").open(newline="") as file:
            losses = {int(row["epoch"]): row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]}
        assert float(state["best_model_score"]) == pytest.approx(float(losses[best["epoch"]]))

    def test_the_best_epoch_and_the_last_are_kept(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a validation accuracy that falls from epoch to epoch, best is the first and last the last."""
        monkeypatch.setattr(
            "cifar_lightning.module.Classifier._log_metrics",
            lambda self, part, metrics: self.log("val/accuracy", 1.0 - self.current_epoch / 10),
        )
        assert run("fit", *BRIEF, "--trainer.max_epochs", 3).code == 0
        folder = Path("runs/cnn/version_0/checkpoints")
        epochs = {path.name: torch.load(path, weights_only=True)["epoch"] for path in folder.iterdir()}
        assert epochs == {"best.ckpt": 0, "last.ckpt": 2}

    @pytest.mark.parametrize("monitor", ["val/loss", "null"])
    def test_another_checkpoint_of_the_users_is_not_taken_for_the_best(self, run: Run, monitor: str) -> None:
        more = ("--trainer.callbacks+", "ModelCheckpoint", "--trainer.callbacks.monitor", monitor)
        result = run("fit", *BRIEF, *more, "--trainer.callbacks.filename", "mine")
        assert result.code == 0, result.err
        assert Path("runs/cnn/version_0/checkpoints/mine.ckpt").exists()
        assert re.search(r"^best val/accuracy 0\.\d{4}, kept in .*/best\.ckpt$", result.out, re.MULTILINE)

    @pytest.mark.parametrize("words", [("--checkpoint.monitor", "null"), ("--checkpoint.save_top_k", 0)])
    def test_that_no_epoch_was_chosen_is_said(self, run: Run, words: tuple[object, ...]) -> None:
        result = run("fit", *BRIEF, *words)
        assert "no epoch was chosen as the best; what has come of it is kept in" in result.out

    def test_of_equally_accurate_epochs_that_of_the_least_loss_is_kept(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        accuracies, losses = [0.5, 0.8, 0.8, 0.8, 0.7], [0.1, 0.9, 0.4, 0.6, 0.2]

        def log(self: Any, part: str, metrics: object) -> None:
            self.log("val/loss", losses[self.current_epoch])
            self.log("val/accuracy", accuracies[self.current_epoch])

        monkeypatch.setattr("cifar_lightning.module.Classifier._log_metrics", log)
        assert run("fit", *BRIEF, "--trainer.max_epochs", 5).code == 0
        best, last = (torch.load(f"runs/cnn/version_0/checkpoints/{name}.ckpt") for name in ("best", "last"))
        assert best["epoch"] == 2
        # A run that goes on knows it.
        (state,) = (state for key, state in last["callbacks"].items() if key.startswith("BestCheckpoint"))
        resumed = BestCheckpoint(monitor="val/accuracy", mode="max")
        resumed.dirpath = state["dirpath"]
        resumed.load_state_dict(state)
        assert resumed.state_dict()["val_loss"] == pytest.approx(0.4)

    @pytest.mark.parametrize("accumulated", [
        ("--trainer.accumulate_grad_batches", 2),
        ("--trainer.callbacks+", "GradientAccumulationScheduler", "--trainer.callbacks.scheduling", "{0: 1, 1: 2}"),
    ])  # fmt: skip
    def test_gradients_that_a_cuda_graph_overwrites_are_not_added_up(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, accumulated: tuple[object, ...]
    ) -> None:
        monkeypatch.setattr(SingleDeviceStrategy, "root_device", torch.device("cuda"))
        result = run("fit", *BRIEF, "--trainer.accelerator", "cpu", "--model.compile", "max-autotune", *accumulated)
        assert result.code == 2
        assert "gradients of 2 batches are to be added up, which model.compile max-autotune overwrites" in result.err

    @pytest.mark.parametrize(
        ("end", "epochs"),
        [
            (("--trainer.max_epochs", 3), [1, 2]),
            (("--trainer.max_steps", 12), [1, 2]),
            (EARLY, [0]),
            ((*EARLY, "--trainer.min_epochs", 3), [1, 2]),
        ],
        ids=["epochs", "steps", "early", "early, but not so early"],
    )
    def test_the_last_may_be_kept_after_some_epochs_and_is_after_the_last(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, end: tuple[object, ...], epochs: list[int]
    ) -> None:
        saved: list[int] = []
        save = LastCheckpoint._save

        def spy(self: LastCheckpoint, trainer: L.Trainer) -> None:
            saved.append(trainer.current_epoch)
            save(self, trainer)

        monkeypatch.setattr(LastCheckpoint, "_save", spy)
        result = run("fit", *BRIEF, "--trainer.max_epochs", 9, "--last.every_n_epochs", 2, *end)
        assert result.code == 0, result.err
        assert saved == epochs
        kept = torch.load("runs/cnn/version_0/checkpoints/last.ckpt", weights_only=True)
        assert kept["epoch"] == saved[-1]

    def test_only_test_reads_the_test_set(self, run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[str] = []
        images = ImageData.images
        monkeypatch.setattr(ImageData, "images", lambda self, part: read.append(part) or images(self, part))
        assert run("fit", *BRIEF).code == 0
        assert run("validate", "--ckpt_path", checkpoint).code == 0
        assert set(read) == {"train", "val"}
        assert run("test", "--ckpt_path", checkpoint).code == 0
        assert set(read) == {"train", "val", "test"}

    def test_tensorboard_is_one_line_of_yaml(self, run: Run) -> None:
        Path("tb.yaml").write_text("trainer:\n  logger: {class_path: TensorBoardLogger, init_args: {save_dir: runs}}\n")
        assert run("fit", "--config", "tb.yaml", *BRIEF).code == 0
        assert run("fit", "--config", "tb.yaml", *BRIEF, "--experiment", "other").code == 0
        assert sorted(path.parent.as_posix() for path in Path("runs").rglob("events.out.tfevents*")) == [
            "runs/cnn/version_0",  # beside metrics.csv
            "runs/other/version_0",
        ]

    def test_callbacks_come_from_yaml(self, run: Run) -> None:
        Path("stop.yaml").write_text(
            "trainer:\n  callbacks:\n  - class_path: EarlyStopping\n"
            "    init_args: {monitor: val/accuracy, mode: max, patience: 1, min_delta: 1.0}\n"
        )
        result = run("fit", "--config", "stop.yaml", *BRIEF, "--trainer.max_epochs", 9)
        assert result.code == 0, result.err
        assert len(lines(result.out, "epoch ")) == 2

    def test_a_default_that_is_an_enum_is_a_word_in_the_config_of_the_run(self, run: Run) -> None:
        result = run("fit", *BRIEF, "--trainer.callbacks+", "Timer")
        assert result.code == 0, result.err
        callbacks = yaml.safe_load(Path("runs/cnn/version_0/config.yaml").read_text())["trainer"]["callbacks"]
        assert callbacks[-1]["init_args"]["interval"] == "step"

    def test_a_progress_bar_of_ones_own_needs_no_terminal(self, run: Run) -> None:
        result = run("fit", *BRIEF, "--trainer.callbacks+", "RichProgressBar")
        assert result.code == 0, result.err

    def test_every_part_can_be_overridden_by_name(self, run: Run) -> None:
        Path("whole.yaml").write_text(
            """
seed_everything: 1
model:
  net: {class_path: CNN, init_args: {dropout: 0.1, widths: [8, 8]}}
  optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1, momentum: 0.9}}
  scheduler: {class_path: torch.optim.lr_scheduler.OneCycleLR, init_args: {max_lr: 0.1}}
  loss: {class_path: CrossEntropy, init_args: {label_smoothing: 0.1}}
data:
  class_path: Digits
  init_args: {batch_size: 32, augment: [{class_path: Mirror}, {class_path: Cutout, init_args: {size: 4}}]}
"""
        )
        config = config_of(run, "fit", "--config", "whole.yaml", "--model.net.init_args.dropout", 0.3)
        assert config["model"]["net"]["init_args"]["dropout"] == 0.3
        assert config["model"]["net"]["init_args"]["widths"] == [8, 8]
        words = {
            "--seed_everything": 2,
            "--model.optimizer.init_args.weight_decay": 0.01,
            "--model.scheduler.init_args.max_lr": 0.05,
            "--model.loss.init_args.label_smoothing": 0.2,
            "--data.init_args.batch_size": 16,
            "--trainer.max_epochs": 1,
            "--trainer.limit_train_batches": 2,
        }
        flat = [word for pair in words.items() for word in pair]
        result = run("fit", "--config", "whole.yaml", *flat)
        assert result.code == 0, result.err
        saved = yaml.safe_load(Path("runs/cnn/version_0/config.yaml").read_text())
        assert saved["seed_everything"] == 2
        assert saved["model"]["optimizer"]["init_args"]["weight_decay"] == 0.01
        assert saved["model"]["optimizer"]["init_args"]["momentum"] == 0.9
        assert saved["model"]["scheduler"]["init_args"]["max_lr"] == 0.05
        assert saved["model"]["loss"]["init_args"]["label_smoothing"] == 0.2
        assert saved["data"]["init_args"]["batch_size"] == 16
        assert len(saved["data"]["init_args"]["augment"]) == 2

    @pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
    def test_every_shipped_config_runs(self, run: Run, config: Path, photos: Path) -> None:
        source = yaml.safe_load(config.read_text())["data"]["class_path"]
        data = () if source == "Digits" else ("--data", "ImageFolder", "--data.root", photos)
        # Compilers take minutes: see test_a_compiled_net.
        quick = ("--trainer.max_epochs", 2, "--trainer.limit_train_batches", 2, "--model.compile", "null")
        brief: tuple[object, ...] = quick
        if "bf16" in config.read_text():  # slow on most CPUs
            brief += ("--model.net.widths", "[16, 16, 16]")
        if "weights: DEFAULT" in config.read_text():  # which are fetched
            brief += ("--model.net.weights", "null", "--data.image_size", 32)
        # Where it begins with the checkpoint of another experiment, that is run before it.
        before = re.findall(r"runs/(\w+)/version_0/checkpoints/best.ckpt", config.read_text())
        for path in (*(config.with_stem(name) for name in before), config):
            result = run("fit", "--config", path, *data, *brief, "--trainer.check_val_every_n_epoch", 1)
            assert result.code == 0, result.err
        assert len(config.read_text().splitlines()) <= 40
        assert Path("runs", config.stem).is_dir()

    def test_the_default_command_is_the_shipped_cnn_config(self, run: Run) -> None:
        (path,) = (path for path in CONFIGS if path.name == "cnn.yaml")
        assert config_of(run, "fit", "--config", path) == config_of(run, "fit")


def test_a_smaller_batch_is_compiled_for_itself(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, modes = [], []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        values = [node.meta["example_value"] for node in graph.graph.nodes if node.op == "placeholder"]
        sizes.extend([value.shape[0] for value in values if isinstance(value, torch.Tensor) and value.ndim == 4])
        modes.append(torch.is_grad_enabled())
        return graph.forward

    compiled = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda net, mode, **settings: compiled(net, backend=backend, **settings)
    )
    words = ("fit", "--data", "ImageFolder", "--data.root", photos, "--data.batch_size", 7, "--trainer.max_epochs", 2)
    assert run(*words, "--model.compile", "default").code == 0
    torch._dynamo.reset()
    assert 7 in sizes
    assert {type(size) for size in sizes} == {int}  # one compiled for all sizes would be slower at each of them
    assert all(modes)  # and none for validation, which is not worth minutes of compiling


@pytest.mark.slow
def test_a_compiled_net_learns_what_an_eager_one_does_and_is_exported(run: Run, photos: Path) -> None:
    net = ("--model.net", "SpeedNet", "--model.net.widths", "[8, 8]", "--model.net.views", 2)
    # Colours, and not Adam, whose first steps are signs of gradients: what is rounding stays small.
    data = ("--data", "ImageFolder", "--data.root", photos, "--trainer.max_epochs", 2)
    words = ("fit", *data, *net, "--model.optimizer", "SGD", "--model.optimizer.lr", 0.01)
    for experiment, mode in (("eager", "null"), ("compiled", "default")):
        assert run(*words, "--experiment", experiment, "--model.compile", mode).code == 0
    states = [
        torch.load(f"runs/{name}/version_0/checkpoints/last.ckpt")["state_dict"] for name in ("eager", "compiled")
    ]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.allclose(value.float(), states[1][name].float(), atol=1e-3), name
    result = run("export", "--ckpt_path", "runs/compiled/version_0/checkpoints/best.ckpt")
    assert result.code == 0, result.err


@pytest.mark.slow
def test_quickstart_reaches_97_percent_and_its_file_agrees(run: Run) -> None:
    (path,) = (path for path in CONFIGS if path.name == "quickstart.yaml")
    assert run("fit", "--config", path).code == 0
    checkpoint = "runs/quickstart/version_0/checkpoints/best.ckpt"
    tested = run("test", "--ckpt_path", checkpoint)
    assert tested.code == 0
    accuracy = json.loads(Path("runs/quickstart/version_0/report/metrics.json").read_text())["metrics"]["accuracy"]
    assert accuracy["value"] >= 0.97
    assert run("export", "--ckpt_path", checkpoint).code == 0
    images = Digits().images("test")
    predictions = Classifier("runs/quickstart/version_0/model.onnx")(list(images.pixels))
    right = [prediction.label == str(label) for prediction, label in zip(predictions, images.labels, strict=True)]
    assert sum(right) / len(right) == pytest.approx(accuracy["value"])


def test_letters_that_the_output_has_not_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), "cp1252")  # what a file or a pipe is on Windows
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr("cifar_lightning.main.main", lambda _: print("café 猫"))
    command_line("fit")
    out.seek(0)
    assert out.read() == "café \\u732b\n"


def test_torch_takes_no_more_threads_than_a_container_has_cpus(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr("cifar_lightning.main.usable_cpus", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    assert run("test").code == 2
    assert taken == [2]


class TestPrecedence:
    """Typed > config file > checkpoint > defaults."""

    def test_options_of_a_class_may_stand_before_its_name(self, run: Run) -> None:
        words = ("--data.mix.alpha", 0.3, "--data.batch_size=7", "--model.net.dropout", 0.2, "--data.mix=CutMix")
        config = config_of(run, "fit", *words, "--model.net", "CNN", "--experiment", "a", "--data", "Digits")
        assert config["data"]["class_path"].endswith("Digits")
        assert config["data"]["init_args"]["batch_size"] == 7
        assert config["data"]["init_args"]["mix"]["class_path"].endswith("CutMix")
        assert config["data"]["init_args"]["mix"]["init_args"] == {"alpha": 0.3}
        assert config["model"]["net"]["init_args"]["dropout"] == 0.2
        assert config["experiment"] == "a"

    @pytest.fixture
    def made(self, run: Run) -> Path:
        """A checkpoint with a dropout of 0.1 and a batch size of 32."""
        words = ("--model.net.init_args.dropout", 0.1, "--model.net.init_args.hidden", 8, "--data.batch_size", 32)
        assert run("fit", *BRIEF, *words).code == 0
        Path("c.yaml").write_text(
            "model: {net: {class_path: CNN, init_args: {dropout: 0.2}}}\ndata: {class_path: Digits}\n"
        )
        return Path("runs/cnn/version_0/checkpoints/last.ckpt")

    def test_the_checkpoint_beats_the_defaults(self, run: Run, made: Path) -> None:
        config = config_of(run, "fit", "--ckpt_path", made)
        assert config["model"]["net"]["init_args"]["dropout"] == 0.1
        assert config["data"]["class_path"].endswith("Digits")
        assert config["data"]["init_args"]["batch_size"] == 32

    def test_the_config_file_beats_the_checkpoint(self, run: Run, made: Path) -> None:
        config = config_of(run, "fit", "--config", "c.yaml", "--ckpt_path", made)
        assert config["model"]["net"]["init_args"]["dropout"] == 0.2
        assert config["model"]["net"]["init_args"]["hidden"] == 8

    def test_what_was_typed_beats_the_config_file(self, run: Run, made: Path) -> None:
        config = config_of(run, "fit", "--config", "c.yaml", "--model.net.init_args.dropout", 0.3)
        assert config["model"]["net"]["init_args"]["dropout"] == 0.3

    def test_what_was_typed_beats_a_config_file_that_comes_after_it(self, run: Run, made: Path) -> None:
        config = config_of(run, "fit", "--model.net.init_args.dropout", 0.3, "--config=c.yaml")
        assert config["model"]["net"]["init_args"]["dropout"] == 0.3

    def test_a_resumed_run_belongs_to_the_same_experiment(self, run: Run) -> None:
        assert run("fit", *BRIEF, "--experiment", "mine").code == 0
        assert config_of(run, "fit", "--ckpt_path", "runs/mine/version_0/checkpoints/last.ckpt")["experiment"] == "mine"

    def test_what_was_typed_beats_the_checkpoint_in_the_run_itself(self, run: Run, made: Path) -> None:
        words = ("--ckpt_path", made, "--model.net.init_args.dropout", 0.4, "--trainer.max_epochs", 2)
        assert run("fit", *words, "--experiment", "on").code == 0
        kept = torch.load("runs/on/version_0/checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]
        assert kept["net"]["init_args"]["dropout"] == 0.4
        assert kept["net"]["init_args"]["hidden"] == 8

    def test_a_typed_learning_rate_and_class_weights_beat_the_checkpoints(self, run: Run, made: Path) -> None:
        words = ("--model.optimizer.init_args.lr", 0.5, "--model.loss.class_weights", [2.0] * 10)
        result = run("fit", "--ckpt_path", made, *words, "--trainer.max_epochs", 2, "--experiment", "on")
        assert result.code == 0
        assert "no callbacks: --config runs/cnn/version_0/config.yaml takes over those of its run" in result.err
        kept = torch.load("runs/on/version_0/checkpoints/last.ckpt", weights_only=True)
        assert kept["optimizer_states"][0]["param_groups"][0]["lr"] == 0.5
        assert kept["hyper_parameters"]["loss"]["init_args"]["class_weights"] == [2.0] * 10
        assert "loss.weight" not in kept["state_dict"]


class TestFromACheckpoint:
    def test_metrics_need_no_config_and_write_no_run(self, run: Run, checkpoint: Path) -> None:
        result = run("validate", "--ckpt_path", checkpoint)
        assert result.code == 0, result.err
        for name in ("accuracy", "precision", "recall", "f1", "loss"):
            assert f"val/{name}" in result.out
        assert run("test", "--ckpt_path", checkpoint).code == 0
        assert not list(Path().iterdir())

    def test_predict_writes_a_row_for_every_test_image(self, run: Run, checkpoint: Path, tmp_path: Path) -> None:
        result = run("predict", "--ckpt_path", checkpoint, "--output", "p.csv")
        assert result.code == 0, result.err
        with Path("p.csv").open() as file:
            rows = list(csv.DictReader(file))
        images = Digits().images("test")
        assert [row["image"] for row in rows] == list(images.names)
        right = [row["label"] == str(label) for row, label in zip(rows, images.labels, strict=True)]
        assert sum(right) / len(right) > 0.8
        assert all(0.1 <= float(row["probability"]) <= 1 for row in rows)

    @pytest.mark.parametrize("folder", ["there", "new/"])
    def test_what_is_written_may_go_into_a_folder(self, run: Run, checkpoint: Path, folder: str) -> None:
        Path("there").mkdir()
        for command, name in (("predict", "predictions.csv"), ("export", "model.onnx")):
            assert run(command, "--ckpt_path", checkpoint, "--output", folder).code == 0
            assert Path(folder, name).is_file()

    def test_what_ends_with_a_separator_is_a_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sep", "\\")  # as on Windows
        for folder in ("new/", "new\\"):
            assert target(folder, Path("runs/a.csv")) == Path(folder, "a.csv")

    def test_predict_takes_a_folder_of_any_pictures(self, run: Run, photos: Path, tmp_path: Path) -> None:
        assert run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos).code == 0
        shutil.copytree(photos / "test" / "red", "new")
        Path("new/broken.jpg").write_bytes(b"nothing")
        ckpt = "runs/cnn/version_0/checkpoints/best.ckpt"
        result = run("predict", "--ckpt_path", ckpt, "--data.root", "new")
        assert result.code == 0, result.err
        with Path("runs/cnn/version_0/predictions.csv").open() as file:
            rows = list(csv.DictReader(file))
        broken = rows.pop()
        assert sorted(row["image"] for row in rows) == ["new/00.jpg", "new/01.png", "new/02.jpg"]
        assert {row["label"] for row in rows} <= {"blue", "green", "red"}
        assert {row["error"] for row in rows} == {""}
        assert (broken["image"], broken["label"]) == ("new/broken.jpg", "")
        assert "not a picture" in broken["error"]

    def test_held_out_photos_that_may_have_been_trained_on_are_told(self, run: Run, photos: Path) -> None:
        assert run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos / "train").code == 0
        kept = Path("runs/cnn/version_0/checkpoints")
        shutil.copy(photos / "test" / "red" / "00.jpg", photos / "train" / "red" / "new.jpg")
        tested = run("test", "--ckpt_path", kept / "best.ckpt", "--resamples", 2)
        assert "which fit may have used in part: they, or how they are split, have changed since" in tested.out
        assert [path.name for path in kept.parent.glob("report*")] == ["report-seen"]
        exported = run("export", "--ckpt_path", kept / "best.ckpt")
        assert "the run may have learnt from pictures that calibrate the file: they, or how they are" in exported.out
        resumed = run("fit", "--trainer.max_epochs", 2, "--ckpt_path", kept / "last.ckpt")
        assert "it may know some of those that are held out now" in resumed.out

    def test_a_part_of_the_test_set_leaves_the_runs_report_as_it_is(self, run: Run) -> None:
        assert run("fit", *BRIEF).code == 0
        words = ("test", "--ckpt_path", "runs/cnn/version_0/checkpoints/best.ckpt", "--resamples", 2)
        assert run(*words).code == 0
        report = Path("runs/cnn/version_0/report/metrics.json")
        whole = report.read_bytes()
        result = run(*words, "--trainer.limit_test_batches", 1)
        assert "only 16 of 179 images are judged" in result.out
        assert report.read_bytes() == whole
        assert json.loads(Path("runs/cnn/version_0/report-part/metrics.json").read_text())["images"] == 16

    @pytest.mark.parametrize("command", ["predict", "export"])
    def test_what_is_written_takes_no_checkpoints_place(self, run: Run, checkpoint: Path, command: str) -> None:
        kept = checkpoint.read_bytes()
        result = run(command, "--ckpt_path", checkpoint, "--output", checkpoint)
        assert result.code == 2
        assert f"{checkpoint} is called as checkpoints are: name another file, such as " in result.err
        assert checkpoint.read_bytes() == kept

    def test_where_nothing_can_be_written_nothing_is_predicted(
        self, run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("file").write_text("")
        monkeypatch.setattr(Digits, "load", None)
        result = run("predict", "--ckpt_path", checkpoint, "--output", "file/p.csv")
        assert result.code == 2
        assert "error: file: nothing can be written there" in result.err

    def test_pillow_warns_nobody_of_exif_that_is_rotten(self, run: Run, photos: Path) -> None:
        """A warning would be an error here, and the photo be left out."""
        Image.new("RGB", (9, 9)).save(photos / "train" / "red" / "rotten.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08")
        result = run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos)
        assert result.code == 0
        assert "left out" not in result.err

    @pytest.mark.parametrize(("command", "name"), [("test", "test"), ("predict", "predict"), ("validate", "val")])
    def test_no_batch_at_all_is_refused(self, run: Run, checkpoint: Path, command: str, name: str) -> None:
        result = run(command, "--ckpt_path", checkpoint, f"--trainer.limit_{name}_batches", 0)
        assert result.code == 2
        assert f"trainer.limit_{name}_batches is 0: {command} would have nothing to do" in result.err

    def test_a_folder_that_is_called_as_a_setting_is_no_danger(self, run: Run) -> None:
        assert run("fit", *BRIEF, "--model.loss.class_weights", "inverse").code == 0
        Path("inverse").mkdir()
        ckpt = "runs/cnn/version_0/checkpoints/best.ckpt"
        assert run("predict", "--ckpt_path", ckpt).code == 0

    def test_class_names_travel_with_the_checkpoint(self, run: Run, photos: Path) -> None:
        """A test set that lacks a class keeps the order of the training folder."""
        assert run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos).code == 0
        (Path("other") / "test").mkdir(parents=True)
        shutil.copytree(photos / "train" / "red", "other/test/red")
        ckpt = Path("runs/cnn/version_0/checkpoints/best.ckpt")
        assert torch.load(ckpt, weights_only=True)["hyper_parameters"]["classes"] == ["blue", "green", "red"]
        result = run("test", "--ckpt_path", ckpt, "--data.root", "other")
        assert result.code == 0
        assert "not calibrated, and nothing is unknown to it" in result.out

    def test_a_checkpoint_is_calibrated_by_its_own_photos_only(self, run: Run, photos: Path) -> None:
        assert run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos).code == 0
        words = ("test", "--ckpt_path", "runs/cnn/version_0/checkpoints/best.ckpt", "--resamples", 2, "--data.root")
        shutil.copytree(photos, "moved")
        assert "not calibrated" not in run(*words, "moved").out
        shutil.copytree(photos, "others")
        Path("others/train/red/00.jpg").unlink()
        assert "these are not the run's pictures (python -m cifar_onnx evaluate judges" in run(*words, "others").out

    def test_checkpoints_hold_nothing_but_tensors_and_plain_values(self, checkpoint: Path) -> None:
        for name in ("best.ckpt", "last.ckpt"):
            kept = torch.load(checkpoint.with_name(name), weights_only=True)
            assert kept["run"]["seed"] == 0
            assert kept["run"]["metrics"]["val/accuracy"] > 0.8


def test_of_the_commands_only_the_one_that_is_asked_for_gets_a_parser() -> None:
    def parsers(word: str) -> set[str]:
        return {*CLI.subcommands(SimpleNamespace(command=SimpleNamespace(words=[word])))}  # type: ignore[arg-type]

    assert parsers("test") == {"test"}
    assert parsers("tset") == {"fit", "validate", "test", "predict", "export", "verify"}


class TestMistakes:
    """Each is one sentence with the nearest valid name, exit code 2, and nothing written."""

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["fti"], "there is no command 'fti': did you mean 'fit'?"),
            (["fit", "--trainer.max_epoch", "3"], "no option 'trainer.max_epoch': did you mean 'trainer.max_epochs'?"),
            (["fit", "--trainer.max_epoch=3"], "no option 'trainer.max_epoch': did you mean 'trainer.max_epochs'?"),
            (["fit", "--model.net.init_args.dropuot", "0.3"], "there is no option 'dropuot': did you mean 'dropout'?"),
            (["fit", "--model.net.dropuot", "0.3"], "there is no option 'dropuot': did you mean 'dropout'?"),
            (["fit", "--modle.net.dropout", "0.3"], "'modle.net.dropout': did you mean 'model.net.dropout'?"),
            (["fit", "--data.batchsize", "3"], "there is no option 'batchsize': did you mean 'batch_size'?"),
            (["fit", "--data", "Digit"], "data: no class is called 'Digit': did you mean 'Digits'?"),
            (["fit", "--model.net", "CNNN"], "model.net: no class is called 'CNNN': did you mean 'CNN'?"),
            (["fit", "--model.net", "cifar_lightning.nets.CNNN"], "has no 'CNNN': did you mean 'CNN'?"),
            (["fit", "--model.net", "cifar_lightnin.nets.CNN"], "'cifar_lightnin': did you mean 'cifar_lightning'?"),
            (["fit", "--model.optimizer", "Adma"], "no class is called 'Adma': did you mean 'Adam'?"),
            (["fit", "--model.optimizer.lrr", "1"], "there is no option 'lrr': did you mean 'lr'?"),
            (["fit", "--trainer.callbacks+", "EarlyStoping"], "'EarlyStoping': did you mean 'EarlyStopping'?"),
            (["fit", "--data.augment+", "CutMix"], "data.augment: CutMix is a class of another kind, Mixing"),
            (["fit", "--data.batch_size", "many"], "batch_size: expected int, got 'many'"),
            (["fit", "--trainer.max_epochs", "x"], "trainer.max_epochs: expected int or null, got 'x'"),
            (["fit", "--data", "ImageFolder"], "root"),
            (["fit", "--data", "ImageFolder", "--data.root", "nowhere"], "data.root 'nowhere' is not a folder"),
            (["fit", "--data", "Digits", "--data.batch_size", "0"], "data.batch_size is 0: it must be at least 1"),
            (["fit", "--config", "nowhere.yaml"], "nowhere.yaml: cannot be read (No such file or directory)"),
            (["fit", "--data", "ImageFolder", "--data.resize_mode", "croop"], "got 'croop': did you mean 'crop'?"),
            (["fit", "--data", "ImageFolder", "--data.memory", "much"], "memory: expected auto or float, got 'much'"),
            (["fit", "--model.net", "nowhere.Net"], "there is no module 'nowhere'"),
            (["fit", "--trainer.accelerator", "gpuu"], "gpuu"),
            (["fit", "--data", "Digits", "--model.loss.class_weights", "[1.0]"], "1 class weights for 10 classes"),
            (["test"], "test needs a checkpoint: name its file with --ckpt_path"),
            (["test", "--ckpt_path", "last"], "last: no such checkpoint"),
            (["verify", "m.onnx"], "verify needs a checkpoint: name its file with --against"),
            (["fit", "--epochs", "3"], "there is no option 'epochs': did you mean 'trainer.max_epochs'?"),
            (["fit", "--seed", "3"], "there is no option 'seed': did you mean 'seed_everything'?"),
            (
                ["fit", "--data", "Digits", "--imgsz", "3"],
                "there is no option 'imgsz': did you mean 'data.image_size'?",
            ),
            (["fit", "--model.net", "cnn"], "model.net: no class is called 'cnn': did you mean 'CNN'?"),
            (["fit", "--model.optimizer", "adamw"], "no class is called 'adamw': did you mean 'AdamW'?"),
            (["fit", "--model", "CNN"], "model: there is no file 'CNN' with settings: did you mean --model.net CNN?"),
            (["classify", "a.jpg"], "classify is a command of the other package: python -m cifar_onnx classify"),
            (["fit", "--data", "/"], "data: '/' is a folder: --data ImageFolder --data.root /"),
            (["fit", "--ckpt_path", "best"], "best: no such checkpoint"),
            (["fit", "--data", "ImageFolder", "--data.root", "caf\udce9"], "'caf\\udce9' is no text in UTF-8"),
            (["predict"], "predict needs a checkpoint: name its file with --ckpt_path"),
            (["fit", "--data", "Digits", "--trainer.accumulate_grad_batches", "0"], "must be at least 1"),
            (["fit", "--model.net.widths", "32"], "model.net.widths: expected tuple, got '32': write [32]"),
            (["fit", "--model.scheduler", "ReduceLROnPlateau"], "such as torch.optim.lr_scheduler.ReduceLROnPlateau"),
            (["fit", "--model.scheduler", "CosineAnnealingLR"], "model.scheduler.T_max is missing: give it as --model"),
            (["fit", "--data", "Digits", "--checkpoint.save_top_k", "3"], "--checkpoint.filename best-{epoch}"),
            (
                ["fit", "--data", "Digits", "--trainer.devices", "2", "--trainer.strategy", "ddp_spawn"],
                "fit takes no strategy that spawns or forks",
            ),
            (
                ["fit", *ONE_CYCLE, "--model.optimizer.lr", "5"],
                "model.optimizer.lr does nothing beside OneCycleLR: give model.scheduler.max_lr",
            ),
            (
                ["fit", *RESNET, "--model.net.weights", "DEFAULT", "--model.net.sha256", "00"],
                "model.net.weights is the name DEFAULT: leave the digest out (null)",
            ),
            (["fit", "--data", "Digits", "--trainer.callbacks+", "BackboneFinetuning"], "--trainer.callbacks+ Freeze"),
            (["fit", "--data", "Digits", "--trainer.max_epochs", "0"], "trainer.max_epochs is 0: nothing"),
            (["fit", "--data", "Digits", "--trainer.val_check_interval", "99"], "val_check_interval"),
            (["fit", "--data", "Digits", "--seed_everything", "-3"], "-3 is not in bounds"),
            (["fit", "--data", "Digits", "--last.every_n_train_steps", "-1"], "last.every_n_train_steps is -1"),
            (["fit", "--data", "Digits", "--last.every_n_epochs", "0"], "last.every_n_epochs is 0"),
            (["export", "--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_on_the_command_line(self, run: Run, words: list[str], sentence: str) -> None:
        result = run(*words)
        assert result.code == 2
        (line,) = lines(result.err, "error: ")
        assert sentence in line
        assert "Traceback" not in result.err
        assert not list(Path().iterdir())

    def test_a_reader_that_has_gone(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as pipe:
            monkeypatch.setattr(sys, "stdout", pipe)
            monkeypatch.setattr("cifar_lightning.main.run", lambda _: print("epoch 1", flush=True))
            assert main(["fit"]) == 2
        assert capsys.readouterr().err == "error: standard output was closed before the end\n"

    def test_pillow_says_nothing_of_large_pictures(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From 89 million pixels on it would."""
        Image.new("1", (9500, 9500)).save("large.png")
        monkeypatch.setattr("cifar_lightning.main.run", lambda _: Image.open("large.png").close())
        assert main(["fit"]) == 0

    def test_a_logger_that_is_not_installed(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
        result = run("fit", *BRIEF, "--trainer.logger", "WandbLogger")
        assert result.code == 2
        assert len(lines(result.err, "error: ")) == 1
        assert "Traceback" not in result.err

    def test_a_net_of_ones_own_is_named_with_its_module(self, run: Run) -> None:
        Path("mynet.py").write_text("from torch import nn\n\n\nclass Net(nn.Module): ...\n")
        for name, sentence in (
            ("Net", "model.net: no class is called 'Net': did you mean 'mynet.Net'?"),
            ("mynet.py", "model.net: mynet.py is a file: name a class in it, such as mynet.Net"),
        ):
            result = run("fit", "--data", "Digits", "--model.net", name)
            assert result.code == 2
            assert sentence in result.err

    def test_what_a_callback_of_lightning_needs_is_not_the_users_own(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        missing = RequirementCache("psutil>=999")
        monkeypatch.setattr("lightning.pytorch.callbacks.device_stats_monitor._PSUTIL_AVAILABLE", missing)
        result = run("fit", *BRIEF, "--trainer.callbacks+", "DeviceStatsMonitor")
        assert result.code == 2
        (line,) = lines(result.err, "error: ")
        assert "psutil" in line
        assert "your own" not in line

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("trainer: {max_epoch: 3}", "'trainer.max_epoch': did you mean 'trainer.max_epochs'?"),
            ("trainr: {max_epochs: 3}", "'trainr.max_epochs': did you mean 'trainer.max_epochs'?"),
            ("model: {net: {class_path: CNN, init_args: {dropuot: 0.3}}}", "did you mean 'dropout'?"),
            ("data: {class_path: Digits, init_args: {augment: [Miror]}}", "did you mean 'Mirror'?"),
            ("model: {loss: {class_path: CrossEntropy, init_args: {label_smothing: 1}}}", "'label_smoothing'?"),
            ("fit: {trainer: {max_epochs: 3}}", "'fit.trainer.max_epochs': leave 'fit' out"),
            ("trainer: [", "c.yaml: not a YAML file"),
            ("- trainer", "c.yaml: not a mapping of options"),
            ("", "c.yaml: not a mapping of options"),
        ],
    )
    def test_in_a_config_file(self, run: Run, text: str, sentence: str) -> None:
        Path("c.yaml").write_text(text)
        result = run("fit", "--config", "c.yaml")
        assert result.code == 2
        (line,) = lines(result.err, "error: ")
        assert sentence in line
        assert not Path("runs").exists()

    def test_a_file_that_is_no_checkpoint_is_named(self, run: Run) -> None:
        sentence = "error: x.ckpt: damaged, or not a checkpoint that this project's fit has written"
        for content in (b"", b"not a checkpoint"):
            Path("x.ckpt").write_bytes(content)
            result = run("test", "--ckpt_path", "x.ckpt")
            assert result.code == 2
            assert lines(result.err, "error: ") == [sentence]
        torch.save({"state_dict": {}}, "x.ckpt")
        assert lines(run("test", "--ckpt_path", "x.ckpt").err, "error: ") == [sentence]
        for kept in ({"state_dict": {}}, torch.zeros(3)):
            write(kept, "x.ckpt")  # type: ignore[arg-type]
            result = run("test", "--ckpt_path", "x.ckpt")
            assert "error: x.ckpt: not a checkpoint that this project's fit has written" in result.err

    def test_data_with_other_classes_than_the_checkpoints_is_refused(
        self, run: Run, checkpoint: Path, photos: Path
    ) -> None:
        for command in ("test", "export"):
            result = run(command, "--ckpt_path", checkpoint, "--data", "ImageFolder", "--data.root", photos)
            assert result.code == 2
            assert "the checkpoint knows the classes 0, 1, 2" in result.err
            assert "the data has blue, green, red" in result.err

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (
                ["--model.scheduler", "OneCycleLR", "--model.scheduler.max_lr", 0.1, "--trainer.max_epochs", -1],
                "model.scheduler needs an end",
            ),
            (["--trainer.val_check_interval", 99], "number of the training batches"),
        ],
    )
    def test_that_show_only_in_the_run(self, run: Run, words: list[object], sentence: str) -> None:
        result = run("fit", *BRIEF, *words)
        assert result.code == 2
        (line,) = lines(result.err, "error: ")
        assert sentence in line

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--model.net.dropout", 2], "dropout probability has to be between 0 and 1"),
            (["--model.net", "ownnets.Few"], "model.net gives (2, 3) for 2 pictures and 10 classes"),
            (["--model.net", "ownnets.Pair"], "model.net gives a tuple for 2 pictures and 10 classes"),
            (["--model.net", "ownnets.Deep"], "model.net, on images of 32 pixels (data.image_size): RuntimeError: "),
            (["--model.net", "ownnets.Wrong"], "pixels (data.image_size): KeyError: 'no such layer' ("),
            (["--model.net", "ownnets.Lazy"], "model.net has lazy layers, whose sizes are not known"),
            (["--model.net", "ownnets.Twice"], "in evaluation mode, gives a tuple for a batch of 2: then it must give"),
            (["--model.net", "ownnets.Squeezed"], "in evaluation mode, gives (10,) for a batch of 1: then it must"),
            (["--model.net", "ownnets.Double"], "model.net gives logits in float64: let it end with .float()"),
            (["--model.net", "ownnets.Whole"], "model.net, in evaluation mode, on a batch of 1: RuntimeError: shape"),
            (["--model.net", "ownnets.Relative"], "answers a picture differently alone than in a batch: nothing"),
            (["--model.net", "ownnets.build"], "ownnets.build is not a subclass of Module: name one"),
            (["--model.loss", "ownnets.build"], "model.loss: ownnets.build is not a subclass of Module: name one"),
            (["--data", "torch.nn.Linear"], "data: torch.nn.Linear is not a subclass of ImageData: name one"),
            (["--data.augment+", "torch.nn.Linear"], "data.augment: torch.nn.Linear is not a subclass of Augmentation"),
            (["--model.optimizer", "torch.nn.Linear"], "torch.nn.Linear is not a subclass of Optimizer: name one"),
            (["--model.scheduler", "torch.nn.Linear"], "torch.nn.Linear is not a subclass of LRScheduler: name one"),
            (["--trainer.logger", "torch.nn.Linear"], "torch.nn.Linear is not a subclass of Logger: name one"),
            (["--trainer.enable_checkpointing", "false"], "a run keeps its best epoch and its last"),
            (["--model.net", "torch.nn.Identity"], "model.optimizer: optimizer got an empty parameter list"),
            (
                ["--model.net.widths", "[4, 4, 4, 4, 4, 4]"],
                "CNN with 6 blocks needs pictures of at least 64 pixels, not 32",
            ),
            (["--model.optimizer.lr", "-1"], "model.optimizer: Invalid learning rate: -1"),
            (["--model.optimizer", "LBFGS"], "model.optimizer: RuntimeError: view size"),
            (
                ["--model.loss", "torch.nn.TripletMarginLoss"],
                "model.loss: TripletMarginLoss.forward() missing 1 required",
            ),
            (["--model.loss.label_smoothing", 2], "model.loss: RuntimeError: label_smoothing must be between"),
            (
                ["--model.scheduler", "CosineAnnealingLR", "--model.scheduler.T_max", 0],
                "model.scheduler: ZeroDivisionError",
            ),
            (
                ["--model.scheduler", "LambdaLR", "--model.scheduler.lr_lambda", "math.sqrt"],
                "model.scheduler: AttributeError",
            ),
            (
                ["--data.augment+", "ShiftedCrop", "--data.augment.pixels", 32],
                "ShiftedCrop cannot shift images of 32 x 32",
            ),
            (
                ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val/acc"],
                "EarlyStopping monitors 'val/acc', which is not a metric: there are train/loss, val/loss, val/accuracy",
            ),
            (["--checkpoint.every_n_train_steps", 3], "keeps the best by val/accuracy, which only validations measure"),
            (["--checkpoint.train_time_interval", "00:00:01"], "or --last.every_n_train_steps to keep the last steps"),
            (["--checkpoint.monitor", "val/acc"], "BestCheckpoint monitors 'val/acc'"),
            (["--seed_everything", "false"], "seed_everything is false: give a number, which a checkpoint keeps"),
            (["--data.batch_size", 0], "data.batch_size is 0: it must be at least 1"),
            (["--trainer.max_epochs", -2], "max_epochs"),
            (["--checkpoint.mode", "most"], "most"),
            (["--checkpoint.monitor", "val/loss"], "maximum of val/loss for the best: add --checkpoint.mode min"),
            (
                ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val/accuracy"],
                "EarlyStopping takes the minimum of val/accuracy for the best: let its mode be max",
            ),
            (["--checkpoint.filename", "last"], "checkpoint.filename is last, as that of the last step is called"),
            (
                ["--trainer.callbacks+", "EMA", "--trainer.callbacks+", "SWA", "--trainer.callbacks.from_epoch", 0],
                "EMA and SWA would each put an average in the place of the weights: take one",
            ),
            (["--trainer.callbacks+", "EMA", "--trainer.callbacks+", "EMA"], "more than one stateful callback"),
            (["--trainer.limit_train_batches", 0], "trainer.limit_train_batches is 0: fit would have nothing to do"),
            (["--model.net.widths", "[-4, 4]"], "RuntimeError: "),
            (["--model.net", "ownnets.Unbuilt"], "KeyError: 'no such width' ("),
            (["--model.loss.class_weights", "[-1,1,1,1,1,1,1,1,1,1]"], "none may be below 0"),
            (["--model.optimizer", "MuonSGD", "--model.optimizer.lr", -1], "MuonSGD.lr is -1.0: it must be at least 0"),
            (["--data.augment+", "Mirror", "--data.augment.probability", 50], "Mirror.probability is 50: it must lie"),
            (["--data.augment+", "Cutout", "--data.augment.size", -4], "Cutout.size is -4: it must be at least 1"),
            (
                ["--data.augment+", "RandAugment", "--data.augment.magnitude", 31],
                "RandAugment.magnitude is 31: it must",
            ),
            (["--data.augment+", "RandAugment", "--data.augment.changes", 0], "RandAugment.changes is 0: it must"),
            (
                ["--model.loss.class_weights", "[0, 0]"],
                "class_weights are [0.0, 0.0]: none may be below 0, and not all",
            ),
            (
                ["--model.net", "ownnets.Normed", "--data.batch_size", 1],
                "model.net, on images of 32 pixels (data.image",
            ),
            (["--config"], "--config is given without a value"),
            (["--config="], "--config is given without a value"),
            (["--ckpt_path"], "--ckpt_path is given without a value"),
        ],
    )
    def test_that_show_before_an_image_is_read(
        self, run: Run, words: list[object], sentence: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("ownnets.py").write_text(OWN_NETS)
        monkeypatch.syspath_prepend(".")
        monkeypatch.setattr(Digits, "load", None)
        result = run("fit", *BRIEF, *words)
        assert result.code == 2
        (line,) = lines(result.err, "error: ")
        assert sentence in line
        assert ("ownnets.py, line 16" in line) == ("Wrong" in str(words))

    def test_a_schedule_whose_end_nobody_knows_is_refused(self, run: Run) -> None:
        """Lightning counts the steps of a run as if the first epoch's number of batches were that of all."""
        callback = ("--trainer.callbacks+", "GradientAccumulationScheduler", "--trainer.callbacks.scheduling", "{1: 2}")
        schedule = ("--model.scheduler", "OneCycleLR", "--model.scheduler.max_lr", 0.1)
        result = run("fit", *BRIEF, *callback, *schedule)
        assert result.code == 2
        assert "model.scheduler cannot tell how many steps there will be beside Gradient" in result.err
        result = run("fit", *BRIEF, *callback, *schedule, "--model.scheduler.total_steps", 9)
        assert result.code == 0, result.err

    def test_a_net_that_the_weights_do_not_fit_is_named(self, run: Run, checkpoint: Path) -> None:
        result = run("test", "--ckpt_path", checkpoint, "--model.net.init_args.hidden", 9)
        assert result.code == 2
        (line,) = lines(result.err, "error: ")
        assert "size mismatch for net.head.1.weight" in line

    @pytest.mark.parametrize(
        "sentence",
        ["No working C++ compiler found", "Failed to find C compiler. Please specify", "Compiler: cl is not found."],
    )
    def test_a_compiler_that_is_missing_is_one_sentence(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, sentence: str
    ) -> None:
        def compiled(*_: object) -> None:
            raise RuntimeError(sentence)

        monkeypatch.setattr("cifar_lightning.module.Classifier.training_step", compiled)
        result = run("fit", *BRIEF)
        assert result.code == 2
        assert result.err.splitlines()[-1] == f"error: {sentence}"

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (
                torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"),
                "(CUDA out of memory. Tried to allocate 2.00 GiB)",
            ),
            (
                RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
                "(DefaultCPUAllocator: can't allocate",
            ),
            (MemoryError("Unable to allocate 7.5 GiB for an array"), "(Unable to allocate 7.5 GiB for an array)"),
            (MemoryError(), "(MemoryError)"),
        ],
    )
    def test_too_little_memory_is_one_sentence_with_a_remedy(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
    ) -> None:
        def full(*_: object) -> None:
            raise error

        monkeypatch.setattr("cifar_lightning.module.Classifier.training_step", full)
        result = run("fit", *BRIEF)
        assert result.code == 2
        (line,) = lines(result.err, "error: ")
        assert f"memory is not enough {said}" in line
        less = "take smaller batches (--data.batch_size), smaller pictures (--data.image_size) or a smaller net"
        assert line.endswith(f": {less}")

    def test_batch_normalisation_that_does_more_is_not_made_plain(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = ("--model.net", "Timm", "--model.net.name", "tf_efficientnet_lite0", "--trainer.sync_batchnorm", "true")
        assert run("fit", *BRIEF, *words).code == 0  # where there is one process, nothing is put in its place
        monkeypatch.setattr(L.Trainer, "world_size", 2)
        result = run("fit", *BRIEF, *words)
        assert result.code == 2
        assert "in the place of model.net's BatchNormAct2d" in result.err
        check_batch_norm(nn.Sequential(SpeedNet(3), nn.SyncBatchNorm(3)))

    def test_what_short_help_names_for_fit_is_taken(self, run: Run) -> None:
        named = [shlex.split(words) for words in re.findall(r"^  (--(?:\S| \S)+)", usage.OPTIONS["fit"], re.MULTILINE)]
        other = ("CIFAR100", "last", "gpu", "--help_all", "--data.help", "--print_config")  # in a line of its own
        words = [word for words in named if not {*other} & {*words} for word in words]
        assert len(words) >= 30
        config = config_of(run, "fit", *words, "--model.scheduler.max_lr", 0.01)
        assert config["data"]["class_path"].endswith("ImageFolder")
        assert config["model"]["optimizer"]["init_args"]["lr"] == 0.001

    @pytest.mark.parametrize("command", re.findall(r"cifar_lightning ((?!runs|sweep)[a-z]+) ", usage.COMMANDS))
    def test_help_is_short_and_names_what_there_is(self, run: Run, command: str) -> None:
        short = run(command, "--ckpt_path", "nowhere", "--help")
        assert short.code == 0
        assert len(short.out.splitlines()) < 50
        everything = run(command, "--help_all").out
        named = {option for option in re.findall(r"--[a-z_.+]*[a-z_+]", short.out) if not option.endswith("help")}
        of_classes = {"--data.root", "--data.labels", "--data.image_size", "--data.batch_size", "--data.augment+"}
        of_classes |= {"--model.net.name", "--model.optimizer.lr", "--model.scheduler.max_lr", "--data.resize_mode"}
        of_classes |= {"--model.loss.label_smoothing"}
        assert [each for each in named - of_classes - {"--help_all", "--against"} if each not in everything] == []

    def test_help_of_a_command_is_complete(self, run: Run) -> None:
        result = run("fit", "--help_all")
        assert result.code == 0
        for option in ("--model.net", "--model.optimizer", "--data", "--trainer.max_epochs", "--checkpoint.monitor"):
            assert option in result.out
