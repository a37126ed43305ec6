"""A resumed run is the run that never stopped, bit for bit."""

import csv
import hashlib
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning import interruption
from cifar_lightning.augment import AlternatingMirror, Mirror, ShiftedCrop
from cifar_lightning.callbacks import EMA, LastCheckpoint, Resume
from cifar_lightning.callbacks.resume import _move_best
from cifar_lightning.checkpoint import CheckpointFiles
from cifar_lightning.data.base import ImageData
from cifar_lightning.data.images import Images, Part
from cifar_lightning.distill import Distillation
from cifar_lightning.interruption import Interrupted
from cifar_lightning.module import Classifier
from cifar_lightning.nets import CNN, SpeedNet
from cifar_lightning.optim import MuonSGD, WarmupLinear
from cifar_onnx import InputError
from tests.conftest import Child, Run, Start, command_line, quiet, write_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:The number of training batches", "ignore:.*ckpt_path.*callbacks", "ignore:The dirpath has changed"
)


class Noise(ImageData):
    """27 images of 8x8 pixels, of which three are set aside: five batches, the last of four."""

    classes = property(lambda self: ["a", "b"])  # type: ignore[assignment]
    given = frozenset({"train", "val"})  # type: ignore[assignment]
    image_size = 8

    def load(self, part: Part) -> Images:
        generator, count = np.random.default_rng(3), 27 if part == "train" else 9
        pixels = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        return Images(pixels, generator.integers(0, 2, count), [str(number) for number in range(count)])


def fit(folder: Path, ckpt_path: Path | None = None, keep: Path | None = None, **settings: Any) -> tuple[object, ...]:
    """Train with dropout and augmentation; everything that is left of it, to be compared.

    `keep` gets a checkpoint from every hook in which Lightning writes one: after each step, validation and epoch.
    """
    L.seed_everything(1, verbose=False)
    ema, scheduler = settings.pop("ema", False), settings.pop("scheduler", None)
    scheduling = settings.pop("scheduling", None)
    size = settings.pop("batch_size", 5)
    fast, taught = settings.pop("fast", False), settings.pop("taught", False)
    loss = Distillation(write_model(folder.parent / "x.ckpt", Classifier(["a", "b"], CNN(2)))) if taught else None
    net = SpeedNet(2, (4, 4)) if fast else CNN(2, widths=(4, 4), hidden=8)
    optimizer = MuonSGD if fast else partial(torch.optim.Adam, lr=0.01)
    model = Classifier(["a", "b"], net, optimizer, scheduler=scheduler, loss=loss)
    data = Noise(batch_size=size, augment=[AlternatingMirror() if fast else Mirror(), ShiftedCrop(2)])
    callbacks: list[L.Callback] = [EMA(decay=0.9)] if ema else []
    callbacks += [GradientAccumulationScheduler(scheduling)] if scheduling else []
    callbacks += [Resume(), LastCheckpoint()]
    if keep:
        to = partial(ModelCheckpoint, dirpath=keep, save_top_k=-1, enable_version_counter=False)
        callbacks += [
            to(filename="{step}", every_n_train_steps=1),
            to(filename="validated-{step}", every_n_epochs=1, save_on_train_epoch_end=False, monitor="val/loss"),
            to(filename="epoch-{step}", every_n_epochs=1, save_on_train_epoch_end=True),
        ]
    logger = CSVLogger(folder, name="x", flush_logs_every_n_steps=1)
    files = {"logger": logger, "plugins": [CheckpointFiles()], "enable_checkpointing": True}
    trainer = quiet(**{"max_epochs": 2, "callbacks": callbacks, "log_every_n_steps": 1, **files, **settings})
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
    kept = checkpoints.load(Path(logger.log_dir, "checkpoints", "last.ckpt"))
    state = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "Noise", "run")
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return (
        digest(model.state_dict()),
        trainer.global_step,
        trainer.current_epoch,
        metrics,
        *(digest(kept.get(key)) for key in state),
    )


def digest(state: Any) -> str:
    """sha256 of all tensors and plain values in nested mappings and sequences."""
    if isinstance(state, torch.Tensor):
        return hashlib.sha256(state.numpy().tobytes()).hexdigest()
    if isinstance(state, dict):
        state = [(key, digest(value)) for key, value in sorted(state.items(), key=lambda item: str(item[0]))]
    elif isinstance(state, list | tuple):
        state = [digest(value) for value in state]
    return hashlib.sha256(repr(state).encode()).hexdigest()


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "EMA": {"ema": True},
    "OneCycle": {"scheduler": partial(OneCycleLR, max_lr=0.02)},
    "accumulation": {"accumulate_grad_batches": 2},
    "accumulation from the second epoch on": {"scheduling": {1: 3}, "scheduler": partial(OneCycleLR, max_lr=0.02)},
    "all of them": {"ema": True, "scheduler": partial(OneCycleLR, max_lr=0.02), "accumulate_grad_batches": 4},
    "whitened": {"ema": True, "scheduler": partial(WarmupLinear, warmup=0.2), "fast": True},
    "distilled": {"ema": True, "taught": True},
    "plateau": {"scheduler": partial(ReduceLROnPlateau, patience=0, threshold=0.5)},
    "validation now and then": {"check_val_every_n_epoch": 2},
    "validation twice an epoch": {
        "val_check_interval": 0.5,
        "scheduler": partial(ReduceLROnPlateau, patience=0, threshold=0.5),
    },
    "validation every four batches": {
        "check_val_every_n_epoch": None,
        "val_check_interval": 4,
        "scheduler": partial(ReduceLROnPlateau, patience=0, threshold=0.5),
    },
    "no validation": {"limit_val_batches": 0},
    "a part of the data": {"limit_train_batches": 4},
}
SLOW = {"distilled", "validation now and then"}


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key", "ignore:ReduceLROnPlateau conditioned")
@pytest.mark.parametrize("case", [pytest.param(each, marks=[pytest.mark.slow] * (each in SLOW)) for each in CASES])
def test_resumed_from_anywhere_it_is_equal_to_the_run_that_never_stopped(tmp_path: Path, case: str) -> None:
    whole = fit(tmp_path / "whole", keep=tmp_path / "all", **CASES[case])
    steps = whole[1]
    files = [path for path in (tmp_path / "all").iterdir() if path.name != f"epoch-step={steps}.ckpt"]  # the end
    assert len(files) >= steps
    for path in files:
        assert fit(tmp_path / "again", path, **CASES[case]) == whole, path.name


@pytest.mark.filterwarnings("ignore:ReduceLROnPlateau conditioned")
@pytest.mark.parametrize(
    ("case", "done", "first"),
    [("validation now and then", 5, "epoch-step=5.ckpt"), ("validation twice an epoch", 2, "validated-step=2.ckpt")],
)
def test_no_validation_is_run_that_is_done_or_not_due(tmp_path: Path, case: str, done: int, first: str) -> None:
    fit(tmp_path / "whole", keep=tmp_path / "all", **CASES[case])
    fit(tmp_path / "again", tmp_path / "all" / first, tmp_path / "rest", **CASES[case])
    left = {path.name for path in (tmp_path / "all").iterdir() if int(path.stem.rpartition("=")[2]) > done}
    assert {path.name for path in (tmp_path / "rest").iterdir()} == left


@pytest.mark.parametrize("case", [pytest.param("plain", marks=pytest.mark.slow), "all of them"])
def test_resumed_twice_it_is_equal_too(tmp_path: Path, case: str) -> None:
    whole = fit(tmp_path / "whole", keep=tmp_path / "all", **CASES[case])
    end = f"epoch-step={whole[1]}.ckpt"
    files = sorted(path for path in (tmp_path / "all").iterdir() if path.name != end)
    for number, first in enumerate(random.Random(0).sample(files, 4)):
        keep = tmp_path / str(number)
        assert fit(tmp_path / "again", first, keep, **CASES[case]) == whole
        for second in keep.iterdir():
            if second.name != end:
                assert fit(tmp_path / "again", second, **CASES[case]) == whole, (first.name, second.name)


@pytest.mark.parametrize("steps", [3, 6, 8])
@pytest.mark.parametrize("case", ["EMA", "plateau", "accumulation"])
def test_a_run_that_was_cut_short_goes_on_within_the_epoch(tmp_path: Path, steps: int, case: str) -> None:
    whole = fit(tmp_path / "whole", **CASES[case])
    steps = min(steps, int(str(whole[1])) - 1)
    fit(tmp_path / "cut", **CASES[case], max_epochs=-1, max_steps=steps)
    assert fit(tmp_path / "again", tmp_path / "cut/x/version_0/checkpoints/last.ckpt", **CASES[case]) == whole


@pytest.mark.parametrize("average", [EMA, WeightAveraging])
def test_a_crash_in_validation_saves_the_models_own_weights(tmp_path: Path, average: type[WeightAveraging]) -> None:
    """By a ModelCheckpoint that saves on exceptions: Lightning's averaging leaves the averages in the model's place."""
    live: dict[str, torch.Tensor] = {}

    class Watch(L.Callback):
        def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if not trainer.sanity_checking:
                live.update({name: value.clone() for name, value in pl_module.state_dict().items()})

    class Crashing(Classifier):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            super().validation_step(batch, batch_idx)
            if not self.trainer.sanity_checking:
                raise RuntimeError("crash")

    trainer = quiet(
        max_epochs=1,
        callbacks=[average(), Watch(), Resume(), ModelCheckpoint(tmp_path, "x", save_on_exception=True)],
        enable_checkpointing=True,
        plugins=[CheckpointFiles()],
    )
    model = Crashing(["a", "b"], CNN(2, widths=(4, 4), hidden=8), partial(torch.optim.SGD, lr=0.1))
    with pytest.raises(RuntimeError, match="crash"):
        trainer.fit(model, datamodule=Noise(batch_size=5))
    kept = checkpoints.load(tmp_path / "x.ckpt")
    assert all(torch.equal(kept["current_model_state"][name], value) for name, value in live.items())
    assert not all(torch.equal(kept["state_dict"][name], value) for name, value in live.items())


def test_weights_are_put_back_once_and_in_a_validation_only() -> None:
    average, resume, back = WeightAveraging(), Resume(), []
    average.on_validation_epoch_end = lambda *_: back.append(True)  # type: ignore[method-assign]
    hooks = (SimpleNamespace(callbacks=[average]), L.LightningModule())
    resume.on_validation_epoch_start(*hooks)  # type: ignore[arg-type]
    resume.on_validation_epoch_end(*hooks)  # type: ignore[arg-type]
    resume.on_exception(*hooks, Interrupted(signal.SIGTERM))  # type: ignore[arg-type]
    assert not back
    resume.on_validation_epoch_start(*hooks)  # type: ignore[arg-type]
    for _ in range(2):
        resume.on_exception(*hooks, Interrupted(signal.SIGTERM))  # type: ignore[arg-type]
    assert back == [True]


@pytest.mark.parametrize(("place", "known"), [("moved", "moved"), ("elsewhere", "before")])
def test_what_modelcheckpoint_knows_moves_with_the_folder_that_goes_on(tmp_path: Path, place: str, known: str) -> None:
    def state(folder: Path) -> dict[str, Any]:
        best = str(folder / "best.ckpt")
        paths = {"best_model_path": best, "kth_best_model_path": best, "last_model_path": ""}
        return {**paths, "best_k_models": {best: 0.5}, "dirpath": str(folder)}

    keeper = ModelCheckpoint(tmp_path / place, monitor="val/loss")
    trainer = SimpleNamespace(ckpt_path=tmp_path / "moved" / "last.ckpt", checkpoint_callbacks=[keeper])
    checkpoint = {"callbacks": {keeper.state_key: state(tmp_path / "before")}}
    _move_best(trainer, checkpoint)  # type: ignore[arg-type]
    assert checkpoint["callbacks"][keeper.state_key] == state(tmp_path / known)


def test_data_that_a_run_was_resumed_with_are_whole_for_the_next(tmp_path: Path) -> None:
    data, seen = Noise(batch_size=5), list[int]()
    for steps, epochs, path in ((3, 1, None), (-1, 1, tmp_path / "x.ckpt"), (-1, 1, None)):
        trainer = quiet(max_steps=steps, max_epochs=epochs, callbacks=[Resume()], plugins=[CheckpointFiles()])
        trainer.fit(Classifier(["a", "b"], CNN(2, widths=(4, 4), hidden=8)), datamodule=data, ckpt_path=path)
        seen.append(trainer.fit_loop.epoch_loop.batch_progress.total.completed)
        if path is None:
            trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert seen == [3, 5, 5]


def test_a_schedule_must_not_end_before_the_run_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After seven of ten steps the second epoch restarts: batches of six make four more steps, those of twelve two."""
    schedule = partial(OneCycleLR, max_lr=0.02)
    fit(tmp_path / "whole", keep=tmp_path / "all", scheduler=schedule)
    again = partial(fit, tmp_path / "again", tmp_path / "all" / "step=7.ckpt", scheduler=schedule)
    with pytest.raises(InputError, match=r"after 10 steps, before the 11 .*; --trainer\.max_steps 10 ends the run"):
        again(batch_size=6)
    assert again(batch_size=6, max_steps=10)[1] == 10
    assert "come down" not in capsys.readouterr().out
    assert again(batch_size=12)[1] == 9
    assert "the OneCycleLR ends after 10 steps, and the run after 9" in capsys.readouterr().out


def test_batches_of_another_size_start_the_epoch_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Noise(batch_size=9)
    data.trainer = quiet()
    data.setup("fit")
    data.load_state_dict({"epoch": 3, "batch": 4, "batches": 6})
    assert data.position == (3, 0)
    assert "the data or the batch size differ" in capsys.readouterr().out
    data.load_state_dict({"epoch": 3, "batch": 2, "batches": 3})
    assert data.position == (3, 2)


# --- The same through the command line. Small, so that a trial is quick: 23 steps an epoch.

SMALL = (
    *("--data", "Digits", "--model.net.widths", "[4,4]", "--model.net.hidden", 8, "--trainer.max_epochs", 3),
    *("--data.augment+", "ShiftedCrop", "--model.scheduler", "OneCycleLR", "--model.scheduler.max_lr", 0.01),
)


def weights(folder: Path, name: str = "last.ckpt") -> str:
    """sha256 of the weights in the newest run's checkpoint."""
    path = max(folder.glob(f"runs/*/version_*/checkpoints/{name}"))
    return digest(checkpoints.load(path)["state_dict"])


def rows(folder: Path) -> list[dict[str, str]]:
    with max(folder.glob("runs/*/version_*/metrics.csv")).open() as file:
        return list(csv.DictReader(file))


def place(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


@pytest.fixture(scope="module")
def whole(start_for_all: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert start_for_all("fit", *SMALL, folder=folder).wait().code == 0
    return folder


class TestSameBytes:
    @pytest.mark.slow
    def test_another_run_another_hash_seed_and_no_validation(self, start: Start, whole: Path, tmp_path: Path) -> None:
        again, blind, other = (place(tmp_path, name) for name in ("again", "blind", "other"))
        hashed = subprocess.Popen(
            [sys.executable, "-m", "cifar_lightning", "fit", *map(str, SMALL)],
            cwd=other,
            env={"PATH": "", "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert start("fit", *SMALL, folder=again).wait().code == 0
        assert start("fit", *SMALL, "--trainer.limit_val_batches", 0, folder=blind).wait().code == 0
        assert hashed.wait(120) == 0
        assert {weights(folder) for folder in (again, blind, other)} == {weights(whole)}
        assert rows(again) == rows(whole)

    def test_another_seed_gives_others(self, start: Start, whole: Path, tmp_path: Path) -> None:
        other = place(tmp_path, "other")
        assert start("fit", *SMALL, "--seed_everything", 1, folder=other).wait().code == 0
        assert weights(other) != weights(whole)

    @pytest.mark.slow
    def test_the_thread_count_is_recorded_and_another_is_told(
        self, run: Run, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert start("fit", *SMALL, folder=tmp_path, function=stop_at(14)).wait().code == 143
        assert '"threads": 1' in (tmp_path / "runs/cnn/version_0/run.json").read_text()
        monkeypatch.setattr("cifar_lightning.cli.run.usable_cpus", lambda: 7)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
        result = run("fit", *SMALL, "--ckpt_path", "last")
        assert "the run used 1 CPU threads and is resumed with 7" in result.out


class Stop:
    """A command that gets a signal after a step; picklable."""

    def __init__(self, step: int, signum: int, again: bool, where: str) -> None:
        self.step, self.signum, self.again, self.where = step, signum, again, where

    def __call__(self, *words: object) -> int:
        def hook(callback: L.Callback, trainer: L.Trainer, *_: object) -> None:
            if trainer.global_step == self.step and not trainer.sanity_checking:
                signal.raise_signal(self.signum)
                if self.again:
                    signal.raise_signal(self.signum)
                    time.sleep(60)

        setattr(Resume, self.where, hook)
        return command_line(*map(str, words))


def stop_at(step: int, signum: int = signal.SIGTERM, again: bool = False, where: str = "on_train_batch_start") -> Stop:
    return Stop(step, signum, again, where)


MOMENTS = [  # where a signal comes, after how many steps, and how many are kept then
    ("on_train_batch_start", 30, 31),
    ("on_train_batch_start", 22, 23),
    ("on_validation_batch_start", 46, 46),
    ("on_train_epoch_end", 23, 23),
    ("on_train_epoch_end", 46, 46),
    ("on_train_epoch_start", 46, 47),
]


class TestSignals:
    @pytest.mark.parametrize(
        ("signum", "code", "where", "step", "kept"),
        [
            (signal.SIGTERM, 143, *MOMENTS[0]),
            *(pytest.param(signal.SIGTERM, 143, *moment, marks=pytest.mark.slow) for moment in MOMENTS[1:]),
            *(pytest.param(signal.SIGINT, 130, *moment, marks=pytest.mark.slow) for moment in MOMENTS),
        ],
    )
    def test_the_step_is_finished_and_kept_and_the_rest_is_as_if_nothing_had_happened(
        self, start: Start, whole: Path, tmp_path: Path, signum: int, code: int, where: str, step: int, kept: int
    ) -> None:
        result = start("fit", *SMALL, function=stop_at(step, signum, where=where)).wait()
        assert result.code == code, result.err
        last = Path("runs/cnn/version_0/checkpoints/last.ckpt")
        assert checkpoints.load(last)["global_step"] == kept
        assert f"after step {kept}, kept in {last}" in result.out
        assert "next: python -m cifar_lightning fit --ckpt_path last" in result.out
        resumed = start("fit", "--ckpt_path", "last").wait()
        assert resumed.code == 0, resumed.err
        assert "resuming runs/cnn/version_0" in resumed.out
        assert weights(tmp_path) == weights(whole)
        assert weights(tmp_path, "best.ckpt") == weights(whole, "best.ckpt")
        assert rows(tmp_path) == rows(whole)

    @pytest.mark.slow
    def test_an_epoch_is_kept_where_last_ckpt_is_written_after_others_only(
        self, start: Start, whole: Path, tmp_path: Path
    ) -> None:
        assert start("fit", *SMALL, "--last.every_n_epochs", 3, function=stop_at(22)).wait().code == 143
        assert checkpoints.load("runs/cnn/version_0/checkpoints/last.ckpt")["global_step"] == 23
        assert start("fit", "--ckpt_path", "last").wait().code == 0
        assert weights(tmp_path) == weights(whole)

    @pytest.mark.slow
    def test_a_signal_in_the_epoch_that_early_stopping_ends_leaves_nothing_to_do(
        self, start: Start, tmp_path: Path
    ) -> None:
        whole, words = place(tmp_path, "whole"), (*SMALL, "--trainer.callbacks+", "EarlyStopping")
        words += ("--trainer.callbacks.monitor", "val/loss", "--trainer.callbacks.stopping_threshold", 1e9)
        assert start("fit", *words, folder=whole).wait().code == 0
        assert start("fit", *words, function=stop_at(23, where="on_train_epoch_end")).wait().code == 143
        assert start("fit", "--ckpt_path", "last").wait().code == 0
        assert checkpoints.load("runs/cnn/version_0/checkpoints/last.ckpt")["global_step"] == 23
        assert weights(tmp_path) == weights(whole)
        assert rows(tmp_path) == rows(whole)

    @pytest.mark.slow
    def test_a_folder_that_was_moved_goes_on_and_knows_its_best(self, start: Start, tmp_path: Path) -> None:
        """The best of it is the first epoch, of which no later one may take the place."""
        words = (*SMALL, "--checkpoint.monitor", "epoch", "--checkpoint.mode", "min", "--trainer.default_root_dir")
        assert start("fit", *words, tmp_path / "a", function=stop_at(30)).wait().code == 143
        (tmp_path / "a").rename(tmp_path / "b")
        assert start("fit", *words, tmp_path / "b", "--ckpt_path", "last").wait().code == 0
        folder = tmp_path / "b/runs/cnn/version_0/checkpoints"
        kept = {path.name: checkpoints.load(path)["epoch"] for path in folder.iterdir()}
        assert kept == {"best.ckpt": 0, "last.ckpt": 2}

    @pytest.mark.slow
    @pytest.mark.parametrize("average", [["EMA"], ["SWA", "--trainer.callbacks.from_epoch", 1]])
    def test_averaged_weights_survive_too(self, start: Start, tmp_path: Path, average: list[object]) -> None:
        whole, words = place(tmp_path, "whole"), (*SMALL, "--trainer.max_epochs", 4, "--trainer.callbacks+", *average)
        assert start("fit", *words, folder=whole).wait().code == 0
        stop = stop_at(69, where="on_validation_batch_start")
        assert start("fit", *words, function=stop).wait().code == 143
        assert start("fit", *words, "--ckpt_path", "last").wait().code == 0
        assert weights(tmp_path) == weights(whole)
        assert rows(tmp_path) == rows(whole)

    @pytest.mark.slow
    def test_in_a_validation_while_gradients_are_accumulated_the_step_is_finished_first(
        self, start: Start, tmp_path: Path
    ) -> None:
        """After nine batches, the last of which is half a step."""
        accumulated = ("--trainer.accumulate_grad_batches", 2, "--trainer.val_check_interval", 3)
        whole, words = place(tmp_path, "whole"), (*SMALL, *accumulated, "--trainer.limit_val_batches", 1)
        assert start("fit", *words, folder=whole).wait().code == 0
        stop = stop_at(4, where="on_validation_batch_start")
        assert start("fit", *words, function=stop).wait().code == 143
        assert checkpoints.load("runs/cnn/version_0/checkpoints/last.ckpt")["global_step"] == 5
        assert start("fit", *words, "--ckpt_path", "last").wait().code == 0
        assert weights(tmp_path) == weights(whole)
        losses = [[row["train/loss"] for row in rows(folder) if row["train/loss"]] for folder in (tmp_path, whole)]
        assert len(losses[0]) == 3
        assert losses[0] == losses[1]

    def test_a_run_that_goes_on_finishes_its_first_step_too(self) -> None:
        """The sixth, whose gradients are added up over two batches."""
        loop = SimpleNamespace(epoch_loop=SimpleNamespace())
        trainer, last = SimpleNamespace(global_step=5, world_size=1, fit_loop=loop), LastCheckpoint()
        with interruption.handled():
            last.on_train_start(trainer, None)  # type: ignore[arg-type]
            signal.raise_signal(signal.SIGTERM)
            last.on_train_batch_end(trainer, None, None, None, 0)  # type: ignore[arg-type]
            trainer.global_step = 6
            with pytest.raises(Interrupted):
                last.on_train_batch_end(trainer, None, None, None, 1)  # type: ignore[arg-type]

    def test_lightning_does_not_ask_all_processes_in_each_step_as_well(self, monkeypatch: pytest.MonkeyPatch) -> None:
        trainer = quiet()
        with interruption.handled():
            LastCheckpoint().on_train_start(trainer, None)  # type: ignore[arg-type]
            monkeypatch.setattr(torch, "tensor", None)  # by which it would ask
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor()

    def test_a_second_one_ends_it_at_once(self, start: Start) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            assert start("fit", *SMALL, function=stop_at(30, signum, again=True)).wait().code == -signum

    def test_on_windows_a_parent_can_send_one(self) -> None:
        code = (
            "import signal, sys; sys.platform, signal.SIGBREAK = 'win32', signal.SIGUSR1\n"
            "from cifar_lightning import interruption\n"
            "with interruption.handled(): signal.raise_signal(signal.SIGUSR1)"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "Interrupted: stopped by SIGUSR1" in ended.stderr

    def test_they_are_taken_for_as_long_as_a_command_lasts_and_anew_for_the_next(self) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as Python begins
        before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
        with interruption.handled():
            interruption.defer(True)
            signal.raise_signal(signal.SIGINT)
            assert interruption.received() == signal.SIGINT
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
        assert interruption.received() is None  # a Trainer of one's own, later in this process, is not to stop
        with interruption.handled():
            assert interruption.received() is None
            with pytest.raises(Interrupted, match="stopped by SIGTERM"):  # at once
                signal.raise_signal(signal.SIGTERM)

    def test_before_training_there_is_nothing_to_keep(self, start: Start, tmp_path: Path) -> None:
        result = start("fit", *SMALL, function=stop_at(0, where="on_fit_start")).wait()
        assert result.code == 143
        assert result.err.splitlines()[-1] == "error: stopped by SIGTERM"
        assert not (tmp_path / "runs").exists()


class TestKill:
    @pytest.mark.parametrize("trials", [range(2), pytest.param(range(2, 20), marks=pytest.mark.slow)], ids=["2", "18"])
    def test_killed_at_twenty_random_moments_and_resumed_it_is_equal(
        self, start: Start, whole: Path, tmp_path: Path, trials: range
    ) -> None:
        """Two hits each at least, while training or writing a checkpoint after every third step."""
        expected = weights(whole)
        words = ("fit", *SMALL, "--last.every_n_train_steps", 3, "--ckpt_path", "last")

        def trial(number: int) -> int:
            folder, generator = place(tmp_path, str(number)), random.Random(number)
            hits = sum(kill(start(*words, folder=folder), folder, generator) for _ in range(2))
            result = start(*words, folder=folder).wait()
            assert result.code == 0, result.err
            assert weights(folder) == expected
            assert rows(folder) == rows(whole)
            assert len(list(folder.glob("runs/cnn/*"))) == 1
            assert not list(folder.rglob(".*.part"))
            return hits

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(trial, trials)) == [2] * len(trials)


def kill(child: Child, folder: Path, generator: random.Random) -> bool:
    """Kill -9 some checkpoints later, at any moment before the next one, and say whether that hit."""
    last = folder / "runs/cnn/version_0/checkpoints/last.ckpt"

    def written(since: int = 0) -> int:
        return max(last.stat().st_mtime_ns - since, 0) if last.exists() else 0

    moments = []
    for _ in range(generator.randint(2, 6)):  # of some 25: the run is not to end before the second of two
        assert child.wait_for(partial(written, since=written())), child.log.read_text()
        moments.append(time.monotonic())
    time.sleep(generator.uniform(0, min(end - begin for begin, end in pairwise(moments))))
    child.process.kill()
    return child.wait().code == -signal.SIGKILL
