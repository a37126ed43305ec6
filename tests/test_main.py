"""`fit`, as people type it."""

import csv
import io
import json
import os
import re
import shlex
import sys
import textwrap
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
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.strategies import SingleDeviceStrategy

from cifar_lightning import runs
from cifar_lightning.callbacks import BestCheckpoint, EpochLines, LastCheckpoint
from cifar_lightning.cli.devices import advise
from cifar_lightning.data import Digits, ImageData
from cifar_onnx import Classifier
from tests.conftest import BRIEF, Run, command_line, config_of, lines

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))

FIXED_NET = """from torch import nn
class Fixed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3072, 10))
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

    @pytest.mark.parametrize("given", ["typed", "typed path", "config", "short config", "dotted config"])
    def test_an_optimizer_that_is_chosen_has_settings_of_its_own_and_not_adams(self, run: Run, given: str) -> None:
        config = Path("chosen.yaml")
        chosen = "AdamW" if given == "short config" else {"class_path": "AdamW"}
        dotted = given == "dotted config"
        config.write_text(yaml.safe_dump({"model.optimizer": chosen} if dotted else {"model": {"optimizer": chosen}}))
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
        (tmp_path / "nets_of_my_own.py").write_text(FIXED_NET)
        monkeypatch.syspath_prepend(tmp_path)
        assert run("fit", *BRIEF, "--model.net", "nets_of_my_own.Fixed").code == 0
        best = "runs/cnn/version_0/checkpoints/best.ckpt"
        result = run("test", "--ckpt_path", best, "--allow_custom_classes", "--resamples", 10)
        assert result.code == 0, result.err

    def test_what_comes_next_is_said_for_a_source_of_the_users_own(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "own_source.py").write_text("from cifar_lightning.data import Digits\nclass Mine(Digits): pass\n")
        monkeypatch.syspath_prepend(tmp_path)
        result = run("fit", *BRIEF, "--data", "own_source.Mine")
        (line,) = lines(result.out, "next: python -m cifar_lightning ")
        assert line.endswith("best.ckpt --allow_custom_classes --config runs/cnn/version_0/config.yaml")

    @pytest.mark.slow
    def test_what_comes_next_is_said_for_classes_of_the_users_own_too(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "nets_beside_a_config.py").write_text(FIXED_NET)
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

    def test_the_classes_of_the_documentation_work(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        page = (Path(__file__).parent.parent / "docs/experiments.md").read_text()
        text = page.partition("## Classes of your own\n")[2]
        words = re.search(r"`(--model\.net mynet[^`]*)`", text)[1].split()  # type: ignore[index]
        block = re.search(r"\n\n((?:      .*\n|\n)+)", text)[1]  # type: ignore[index]
        Path("mynet.py").write_text(textwrap.dedent(block))
        monkeypatch.syspath_prepend(Path.cwd())
        result = run("fit", *BRIEF[2:], *words)
        assert result.code == 0, result.err
        assert "2 classes (dark, light): 240 training images of 24 x 24 pixels" in result.out
        model = yaml.safe_load(Path("runs/cnn/version_0/config.yaml").read_text())["model"]
        names = [model[part]["class_path"] for part in ("net", "loss", "scheduler")]
        assert names == ["mynet.Net", "mynet.Margin", "mynet.Slower"]
        del sys.modules["mynet"]

    def test_from_another_folder_the_config_of_a_run_finds_classes_of_ones_own(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One beside the config file that the run was made from, and one where it was begun."""
        Path("mine").mkdir()
        Path("mine/net_of_a_config.py").write_text(FIXED_NET)
        Path("mine/c.yaml").write_text("model: {net: net_of_a_config.Fixed}")
        Path("mirror_of_a_folder.py").write_text(
            "from cifar_lightning.augment import Mirror\nclass Mine(Mirror): pass\n"
        )
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        words = ("--config", "mine/c.yaml", "--data.augment+", "mirror_of_a_folder.Mine")
        assert run("fit", *BRIEF, *words).code == 0
        sys.path[:] = [each for each in sys.path if not each.startswith(str(tmp_path))]
        for name in ("net_of_a_config", "mirror_of_a_folder"):
            sys.modules.pop(name)
        Path("elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        kept = Path("../runs/cnn/version_0")
        words = ("--allow_custom_classes", "--config", kept / "config.yaml", "--trainer.limit_val_batches", 1)
        result = run("validate", "--ckpt_path", kept / "checkpoints/best.ckpt", *words)
        assert result.code == 0, result.err

    def test_names_of_metrics_make_no_folders(self, run: Run) -> None:
        assert run("fit", *BRIEF, "--checkpoint.filename", "{epoch}-{val/accuracy:.2f}").code == 0
        kept = sorted(path.name for path in Path("runs/cnn/version_0/checkpoints").iterdir())
        assert len(kept) == 2
        assert re.fullmatch(r"epoch=0-val-accuracy=0\.\d\d\.ckpt", kept[0])

    def test_names_of_metrics_make_no_folders_on_windows_either(self, monkeypatch: pytest.MonkeyPatch) -> None:
        callback = BestCheckpoint(filename="{val/loss:.1f}")
        monkeypatch.setattr(os, "sep", "\\")
        assert callback.format_checkpoint_name({"val/loss": torch.tensor(0.5)}) == "val-loss=0.5.ckpt"

    @pytest.mark.parametrize(
        ("filename", "names"),
        [
            ("null", ["epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt", "last.ckpt"]),  # Lightning's own
            ("best-{epoch}", ["best-epoch=0.ckpt", "best-epoch=1.ckpt", "last.ckpt"]),
        ],
    )
    def test_names_of_checkpoints_have_room_for_several(self, run: Run, filename: str, names: list[str]) -> None:
        words = ("--trainer.max_epochs", 2, "--checkpoint.save_top_k", -1, "--checkpoint.filename", filename)
        assert run("fit", *BRIEF, *words).code == 0
        assert sorted(path.name for path in Path("runs/cnn/version_0/checkpoints").iterdir()) == names

    def test_why_nothing_was_validated_is_said(self, run: Run) -> None:
        result = run("fit", *BRIEF, "--trainer.check_val_every_n_epoch", 9)
        assert "nothing was validated (trainer.check_val_every_n_epoch is 9, max_epochs 1); the last" in result.out
        with warnings.catch_warnings(record=True) as seen:
            result = run("fit", *BRIEF, "--trainer.limit_val_batches", 0)
        assert "nothing was validated; the last weights are in" in result.out
        assert not [each for each in seen if "monitored key" in str(each.message)]

    def test_that_the_last_weights_are_not_validated_is_said(self, run: Run) -> None:
        """Before the training and after it; but where they may be the best by another metric, not that they cannot."""
        words = (*BRIEF, "--trainer.max_epochs", 3, "--trainer.check_val_every_n_epoch", 2)
        result, last = run("fit", *words), "runs/cnn/version_0/checkpoints/last.ckpt"
        why = "(trainer.check_val_every_n_epoch is 2, max_epochs 3)"
        early, late = f"the last epoch will not be validated {why}\n", f"the last weights were not validated {why} and"
        assert early in result.out.partition("\nepoch 1/3")[0]
        assert f"{late} cannot be the best: they are in {last}\n" in result.out
        result = run("fit", *words, "--checkpoint.monitor", "train/loss", "--checkpoint.mode", "min")
        assert early in result.out
        assert "cannot be the best" not in result.out

    def test_weights_that_were_not_validated_are_not_the_best_by_the_metrics_of_others(self, run: Run) -> None:
        assert run("fit", *BRIEF).code == 0
        last = "runs/cnn/version_0/checkpoints/last.ckpt"
        more = ("--trainer.max_epochs", 2, "--trainer.limit_val_batches", 0, "--experiment", "more")
        result = run("fit", *BRIEF, "--ckpt_path", last, *more)
        assert result.code == 0, result.err
        assert "best val/accuracy" not in result.out
        assert not Path("runs/more/version_0/checkpoints/best.ckpt").exists()

    def test_an_epoch_that_ends_before_its_validation_is_not_among_the_best(self, run: Run) -> None:
        several = ("--checkpoint.save_top_k", 3, "--checkpoint.filename", "{epoch}-{step}")
        result = run("fit", *BRIEF, *several, "--trainer.max_epochs", 2, "--trainer.max_steps", 6)
        assert result.code == 0, result.err
        assert (
            "the last weights were not validated and cannot be the best: they are in runs/cnn/version_0" in result.out
        )
        kept = sorted(path.name for path in Path("runs/cnn/version_0/checkpoints").iterdir())
        assert kept == ["epoch=0-step=4.ckpt", "last.ckpt"]

    def test_each_process_reads_the_images_before_it_joins_the_others(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Which wait for it half an hour at the most: to decode photos may take longer."""
        done, load = list[str](), Digits.load
        monkeypatch.setattr(L.Trainer, "is_global_zero", False)
        monkeypatch.setattr(Digits, "load", lambda self, part: (done.append("reads"), load(self, part))[1])
        monkeypatch.setattr(L.Trainer, "fit", lambda *_, **__: done.append("joins"))
        result = run("fit", *BRIEF)
        assert done == ["reads", "joins"], result.err
        assert "10 classes" not in result.out  # which the first process says

    def test_batches_that_are_too_large_for_few_images_are_named(self, run: Run, photos: Path) -> None:
        few = ("--data.root", photos, "--data.batch_size", 99, "--trainer.limit_train_batches", 0.5)
        result = run("fit", "--data", "ImageFolder", *few)
        assert result.code == 2
        assert result.err.endswith("Or take smaller batches: --data.batch_size.\n")

    @pytest.mark.slow
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

    def test_a_config_is_read_as_utf_8_where_the_locale_is_another(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As on Windows.
        monkeypatch.setattr("jsonargparse._paths.open", partial(open, encoding="cp1252"), raising=False)
        Path("c.yaml").write_text("experiment: größe 猫", encoding="utf-8")
        assert config_of(run, "fit", "--config", "c.yaml")["experiment"] == "größe 猫"

    def test_it_ends_with_the_result_and_the_next_command(self, run: Run) -> None:
        result = run("fit", *BRIEF, "--experiment", "my cats")
        best = "runs/my cats/version_0/checkpoints/best.ckpt"
        assert re.fullmatch(rf"best val/accuracy 0\.\d{{4}}, kept in {best}", result.out.splitlines()[-2])
        assert result.out.splitlines()[-1] == f"next: python -m cifar_lightning test --ckpt_path '{best}'"

    def test_the_best_may_be_kept_at_the_ends_of_epochs_where_each_batch_is_validated(self, run: Run) -> None:
        words = ("--checkpoint.save_on_train_epoch_end", "true", "--trainer.val_check_interval", 1)
        assert run("fit", *BRIEF, *words).code == 0
        assert Path("runs/cnn/version_0/checkpoints/best.ckpt").exists()

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
        known, now = EpochLines(), 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: now)
        trainer = SimpleNamespace(current_epoch=2, global_step=20, max_steps=50, max_epochs=None, callbacks=[])
        trainer.world_size, trainer.is_global_zero = 1, False
        module = SimpleNamespace(device=torch.device("cpu"), parameters=list)
        known.on_train_start(trainer, module)  # type: ignore[arg-type]
        trainer.global_step, now = 30, 30.0
        assert list(known._left(trainer, 3, None)) == [60.0]  # type: ignore[arg-type]

    def test_on_a_terminal_there_is_a_bar_beneath_the_lines(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        result = run("fit", *BRIEF, "--trainer.max_epochs", 2)
        assert "epoch 2/2  train/loss" in result.out
        assert "4/4" in result.out
        assert {*re.findall(r"Epoch \d/\d", result.out)} == {"Epoch 1/2", "Epoch 2/2"}
        assert "v_num" not in result.out

    def test_the_bar_is_drawn_as_often_as_an_eye_sees(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Drawing takes the lock of Python, which training waits for."""
        bars: list[ProgressBar | None] = []
        begin = EpochLines.on_train_start

        def spy(self: EpochLines, trainer: L.Trainer, module: L.LightningModule) -> None:
            bars.append(trainer.progress_bar_callback)
            begin(self, trainer, module)

        monkeypatch.setattr(EpochLines, "on_train_start", spy)
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        assert run("fit", *BRIEF).code == 0
        assert run("fit", *BRIEF, "--trainer.enable_progress_bar", "false").code == 0
        assert run("fit", *BRIEF, "--trainer.callbacks+", "TQDMProgressBar").code == 0
        assert [each and each.refresh_rate for each in bars] == [10, None, 1]  # the last one: of steps

    def test_a_bar_of_tqdm_stands_in_no_line_of_an_epoch(self, run: Run) -> None:
        result = run("fit", *BRIEF, "--trainer.max_epochs", 2, "--trainer.callbacks+", "TQDMProgressBar")
        assert len(re.findall(r"[\r\n]epoch ./2  train/loss .* left\n", result.out)) == 2
        assert re.search(r"[\r\n]training [\d,]+ parameters on cpu\n", result.out)

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

    @pytest.mark.parametrize(("capability", "told"), [((7, 5), True), ((8, 0), False)])
    def test_bfloat16_is_told_to_be_slow_on_a_gpu_without_instructions_for_it(
        self,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        capability: tuple[int, int],
        told: bool,
    ) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        advise("auto", "16-mixed", torch.device("cuda"))
        assert not capsys.readouterr().err
        advise("auto", "bf16-mixed", torch.device("cuda"))
        assert ("bf16-mixed is slower than 16-mixed on this GPU" in capsys.readouterr().err) == told

    @pytest.mark.parametrize(
        ("asked", "hidden", "smi", "cuda", "told"),
        [
            ("auto", None, "/usr/bin/nvidia-smi", None, "but this PyTorch is built without CUDA: see https://pytorch"),
            (
                "auto",
                None,
                "/usr/bin/nvidia-smi",
                "13.0",
                "this PyTorch's CUDA 13.0 may need a newer one, or a",
            ),
            ("auto", None, None, None, None),
            ("auto", "", "/usr/bin/nvidia-smi", "13.0", None),
            ("cpu", None, "/usr/bin/nvidia-smi", None, None),
        ],
    )
    def test_a_gpu_that_this_pytorch_cannot_use_is_told_of(
        self,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        asked: str,
        hidden: str | None,
        smi: str | None,
        cuda: str | None,
        told: str | None,
    ) -> None:
        if hidden is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        monkeypatch.setattr("cifar_lightning.cli.devices.shutil.which", lambda _: smi)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        advise(asked, "32-true", torch.device("cpu"))
        said = capsys.readouterr().err
        assert told in said if told else not said
        advise(asked, "32-true", torch.device("cuda"))
        assert not capsys.readouterr().err

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
        assert "no epoch was chosen as the best; the last weights are in" in result.out

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
        assert "model.compile max-autotune overwrites gradients, and those of 2 batches" in result.err

    @pytest.mark.parametrize(
        ("end", "epochs"),
        [
            (("--trainer.max_epochs", 3), [1, 2]),
            (("--trainer.max_steps", 12), [1, 2]),
            (EARLY, [0]),
            ((*EARLY, "--trainer.min_epochs", 3), [1, 2]),
            ((*EARLY[:3], "train/loss", *EARLY[4:], "--trainer.val_check_interval", 0.5), [0]),  # of a whole epoch
        ],
        ids=["epochs", "steps", "early", "early, but not so early", "early, between validations"],
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
        told = yaml.unsafe_load(Path("runs/cnn/version_0/hparams.yaml").read_text())
        assert told["model"]["optimizer"]["init_args"]["lr"] == 0.001
        Path("runs/cnn/version_0/hparams.yaml").unlink()
        runs.record(Path("runs/cnn/version_0"), finished=False)
        more = ("--trainer.max_epochs", 2, "--ckpt_path", "last")
        result = run("fit", "--config", "tb.yaml", *BRIEF, *more)
        assert (result.code, "resuming runs/cnn/version_0" in result.err) == (0, True), result.err
        told = yaml.unsafe_load(Path("runs/cnn/version_0/hparams.yaml").read_text())
        assert told["trainer"]["max_epochs"] == 2

    def test_callbacks_come_from_yaml(self, run: Run) -> None:
        Path("stop.yaml").write_text(
            "trainer:\n  callbacks:\n  - class_path: EarlyStopping\n"
            "    init_args: {monitor: val/accuracy, mode: max, patience: 1, min_delta: 1.0}\n"
        )
        result = run("fit", "--config", "stop.yaml", *BRIEF, "--trainer.max_epochs", 9)
        assert result.code == 0, result.err
        assert len(lines(result.out, "epoch ")) == 2
        assert "\nEarlyStopping ended the run after epoch 2: Monitored metric val/accuracy did not" in result.out
        result = run("fit", "--config", "stop.yaml", *BRIEF)
        assert (result.code, "EarlyStopping" in result.out) == (0, False), result.out  # which had no reason

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
    assert out.buffer.getvalue().decode() == "café 猫\n"


def test_torch_takes_no_more_threads_than_a_container_has_cpus(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr("cifar_lightning.cli.run.usable_cpus", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    assert run("test").code == 2
    assert taken == [2]
