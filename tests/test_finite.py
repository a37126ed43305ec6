"""Losses and weights that are NaN or infinite."""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning import finite
from cifar_lightning.async_copy import in_any_process
from cifar_lightning.callbacks import Resume
from cifar_lightning.data import Digits
from cifar_lightning.finite import LossWatch, NotFiniteError
from cifar_lightning.loss import CrossEntropy
from cifar_lightning.module import Classifier
from cifar_lightning.nets import CNN
from tests.conftest import BRIEF, Run, quiet


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_at_that_step(
    run: Run, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """In the second epoch's second of four steps; what is kept is that of the first epoch."""
    steps: list[int] = []
    forward = CrossEntropy.forward

    def bad(self: CrossEntropy, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        steps.append(int(logits.requires_grad and len(labels) == 16))  # not in the dry run, nor in validation
        return forward(self, logits, labels) + (value if sum(steps) == 6 else 0)

    moved, gradients = Classifier.cpu, list[torch.Tensor | None]()

    def cpu(self: Classifier) -> Classifier:  # as Lightning does in the end: CUDA graphs have taken gradients back
        gradients.extend(parameter.grad for parameter in self.parameters())
        return moved(self)

    monkeypatch.setattr(Classifier, "cpu", cpu)
    monkeypatch.setattr(CrossEntropy, "forward", bad)
    result = run("fit", *BRIEF, "--trainer.max_epochs", 3)
    assert result.code == 3
    sentence = (
        rf"error: the loss is {value} in step 5 \(epoch 1\), at learning rate 0.001, for training images (.*): try"
    )
    found = re.search(sentence, result.err)
    assert found, result.err
    named, more, _ = found[1].partition(" and 8 more")
    assert more
    assert len(set(named.split(", "))) == 8
    assert gradients == [None] * 10
    folder = Path("runs/cnn/version_0/checkpoints")
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    for path in folder.iterdir():
        kept = checkpoints.load(path)
        assert kept["epoch"] == 0
        assert all(weight.isfinite().all() for weight in kept["state_dict"].values())


def test_only_the_images_are_named_whose_logits_are_not_finite(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = CNN.forward

    def bad(self: CNN, x: torch.Tensor) -> torch.Tensor:
        logits = forward(self, x)
        if not self.training or len(x) < 16:  # validation, or the dry run
            return logits
        return logits.index_fill(0, torch.tensor([3, 7]), math.nan)

    monkeypatch.setattr(CNN, "forward", bad)
    result = run("fit", *BRIEF)
    assert result.code == 3
    assert re.search(r"the loss is nan in step 0 .*, for training images \d+, \d+: try", result.err)
    assert Path("runs/cnn/version_0/config.yaml").exists()  # to look at


def test_photos_are_named_by_their_files(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Classifier, "loss_of", lambda self, outputs, *_: outputs.sum() * math.nan)
    monkeypatch.setattr("cifar_lightning.cli.lightning_cli.dry_run", lambda *_: None)
    result = run("fit", "--data", "ImageFolder", "--data.root", photos, "--data.batch_size", 4)
    assert result.code == 3
    found = re.search(r"for training images (.*): try", result.err)
    assert found, result.err
    assert len({*found[1].split(", ")} & {*map(str, photos.rglob("*.*"))}) == 4


@pytest.mark.parametrize("averaged", [False, True])
def test_weights_that_are_not_finite_are_not_saved(run: Run, monkeypatch: pytest.MonkeyPatch, averaged: bool) -> None:
    """Though no loss has shown it: they became so in the last step of the epoch."""

    def spoil(self: Resume, trainer: L.Trainer, module: L.LightningModule, *_: object) -> None:
        if trainer.global_step == 8:
            next(module.parameters()).data[0] = math.inf

    monkeypatch.setattr(Resume, "on_train_batch_end", spoil)
    average = ("--trainer.callbacks+", "EMA", "--trainer.callbacks.from_epoch", 100)
    result = run("fit", *BRIEF, "--trainer.max_epochs", 3, *(average if averaged else ()))
    assert result.code == 3
    assert "error: net.blocks.0.0.weight is not finite after step 7: no checkpoint is written" in result.err
    kept = Path("runs/cnn/version_0/checkpoints")
    steps = {path.name: checkpoints.load(path)["global_step"] for path in kept.iterdir()}
    assert steps == {"best.ckpt": 4, "last.ckpt": 4}


def test_a_learning_rate_that_is_too_high_ends_with_exit_code_3(run: Run) -> None:
    words = ("--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 1e20)
    assert run("fit", *BRIEF, *words).code == 3


def test_processes_tell_each_other_without_meeting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A group of one stands for several: what is looked at are the calls."""

    def meet(*_: object, **__: object) -> None:
        raise AssertionError("each step would wait for all processes")

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        monkeypatch.setattr(torch.distributed, "barrier", meet)
        assert in_any_process(torch.tensor([True])).tolist() == [1]
        assert in_any_process(torch.tensor([False])).tolist() == [0]
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        two = SimpleNamespace(world_size=2, global_step=3, current_epoch=0, optimizers=[optimizer], datamodule=None)
        watch, indices = LossWatch(), torch.arange(2)
        watch.watch(two, torch.tensor(1.0), indices, torch.zeros(2, 3))  # type: ignore[arg-type]
        with pytest.raises(NotFiniteError, match="the loss is nan in step 3"):
            watch.watch(two, torch.tensor(math.nan), indices, torch.zeros(2, 3))  # type: ignore[arg-type]
        monkeypatch.setattr(finite, "in_any_process", lambda flag: torch.ones(1))
        with pytest.raises(NotFiniteError, match="the loss of another process is not finite in step 3"):
            watch.watch(two, torch.tensor(1.0), indices, torch.zeros(2, 3))  # type: ignore[arg-type]
    finally:
        torch.distributed.destroy_process_group()


def test_a_mask_that_is_infinite_from_the_beginning_is_no_mistake() -> None:
    trainer, watch = SimpleNamespace(global_step=1), LossWatch()
    state = {"mask": torch.tensor([-math.inf]), "weight": torch.ones(1)}
    watch.begin(state)
    watch.check_weights(trainer, state)  # type: ignore[arg-type]
    with pytest.raises(NotFiniteError, match="weight is not finite"):
        watch.check_weights(trainer, state | {"weight": torch.tensor([math.nan])})  # type: ignore[arg-type]


def test_a_net_with_such_a_mask_is_kept_also_by_a_finder(tmp_path: Path) -> None:
    net = CNN(widths=(4,), hidden=4)
    net.register_buffer("mask", torch.tensor([-math.inf]))
    data = Digits()
    trainer = quiet(
        max_epochs=1, limit_train_batches=1, limit_val_batches=1, default_root_dir=tmp_path, enable_checkpointing=True,
        callbacks=[LearningRateFinder(num_training_steps=3)],
    )  # fmt: skip
    trainer.fit(Classifier(data.classes, net), data)
    assert [*tmp_path.rglob("*.ckpt")]


def test_on_a_device_a_loss_is_looked_at_in_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose logits may be in the memory of those that are looked at."""

    class Elsewhere(torch.Tensor):
        device = property(lambda self: torch.device("cuda"))  # type: ignore[assignment]

    monkeypatch.setattr(torch, "Event", lambda _: SimpleNamespace(record=lambda: None, synchronize=lambda: None))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    trainer = SimpleNamespace(world_size=1, global_step=3, current_epoch=0, optimizers=[optimizer], datamodule=None)
    watch, indices, logits = LossWatch(), torch.tensor([40, 41]), torch.zeros(2, 3)
    logits[1] = math.nan
    watch.watch(trainer, torch.tensor(math.nan).as_subclass(Elsewhere), indices, logits)  # type: ignore[arg-type]
    logits.zero_()
    trainer.global_step = 4
    with pytest.raises(NotFiniteError, match=r"the loss is nan in step 3 .*, for training images 41: "):
        watch.watch(trainer, torch.tensor(1.0).as_subclass(Elsewhere), indices, logits)  # type: ignore[arg-type]
    watch.check(trainer)  # type: ignore[arg-type]  # and not again
