"""Lightning's finders of a learning rate and of a size of batches, beside this project's optimizers and schedules."""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from cifar_lightning.callbacks import keep_found
from cifar_lightning.data import Digits
from cifar_lightning.module import Classifier
from cifar_lightning.nets import CNN
from cifar_lightning.optim import MuonSGD
from cifar_lightning.recipe import Recipe
from cifar_onnx import InputError
from tests.conftest import Run, quiet

CLASSES = list("0123456789")
SMALL = ("--data", "Digits", "--model.net.widths", "[4, 4]", "--model.net.hidden", 8)


class Watched(Classifier):
    """Notes the learning rates of all groups in each step."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.seen = [*getattr(self, "seen", []), [group["lr"] for group in optimizer.param_groups]]


def fit(model: Classifier, finder: L.Callback, epochs: int = 1) -> L.Trainer:
    trainer = quiet(callbacks=[finder], limit_val_batches=0, limit_train_batches=6, max_epochs=epochs)
    trainer.fit(model, datamodule=Digits())
    return trainer


@pytest.mark.parametrize(
    ("recipe", "shares"),
    [
        (Recipe(partial(MuonSGD, lr=0.1, dense_lr=0.02, bias_lr=3.0), None), [1, 0.2, 30]),
        (Recipe(partial(SGD, lr=0.1), None, {"net.head": 0.25}), [1, 0.25]),
        (Recipe(partial(SGD, lr=0.1), partial(OneCycleLR, max_lr=0.3), {"net.head": 0.25}), [1, 0.25]),
    ],
)
def test_the_search_for_a_learning_rate_begins_low_and_keeps_groups_in_proportion(
    recipe: Recipe, shares: list[float]
) -> None:
    model = Watched(CLASSES, CNN(10, (4, 4), 8), recipe.optimizer, recipe.scheduler, lr_factors=dict(recipe.factors))
    fit(model, LearningRateFinder(num_training_steps=5, early_stop_threshold=None))
    search = model.seen[:5]
    assert search[0][0] == pytest.approx(1e-8)
    assert search[-1][0] > 0.1
    assert all(rates == pytest.approx([rates[0] * share for share in shares]) for rates in search)


def test_rates_that_are_too_high_may_be_tried() -> None:
    class Diverging(Watched):
        def loss_of(self, *given: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            return super().loss_of(*given) + (math.nan if rate > 1 else 0)

    model = Diverging(CLASSES, CNN(10, (4, 4), 8), partial(SGD, lr=0.1))
    fit(model, LearningRateFinder(num_training_steps=5, max_lr=10, early_stop_threshold=None, update_attr=False))
    assert max(rate for (rate,) in model.seen) > 1


@pytest.mark.slow
def test_a_schedule_of_the_whole_training_is_that_of_the_batches_that_were_found() -> None:
    model = Watched(CLASSES, CNN(10, (4, 4), 8), partial(SGD, lr=0.1), partial(OneCycleLR, max_lr=0.1))
    finder = BatchSizeFinder(init_val=256, max_trials=2, steps_per_trial=1)
    trainer = fit(model, finder, epochs=4)
    assert trainer.global_step == 4 * 3  # of 512, 512 and the rest
    rates = [rate for (rate,) in model.seen[-12:]]
    assert max(rates) == pytest.approx(0.1, rel=0.1)
    assert rates[-1] < 1e-4


@pytest.mark.parametrize(
    ("finder", "settings"),
    [
        ("LearningRateFinder", {"num_training_steps": 13}),
        pytest.param(
            "BatchSizeFinder", {"init_val": 16, "max_trials": 2, "steps_per_trial": 1}, marks=pytest.mark.slow
        ),
    ],
)
def test_a_run_that_goes_on_does_not_search_again(run: Run, finder: str, settings: dict[str, int]) -> None:
    given = [word for name, value in settings.items() for word in (f"--trainer.callbacks.{name}", value)]
    words = ("fit", *SMALL, "--trainer.callbacks+", finder, *given, "--trainer.limit_train_batches", 13)
    assert run(*words, "--trainer.max_epochs", 2, "--experiment", "whole").code == 0
    assert run(*words, "--trainer.max_steps", 16, "--experiment", "cut").code == 0
    last = "checkpoints/last.ckpt"
    result = run(*words, "--trainer.max_epochs", 2, "--experiment", "on", "--ckpt_path", f"runs/cut/version_0/{last}")
    assert result.code == 0, result.err
    assert f"{finder} runs only at the start" in result.out
    whole, on = (torch.load(Path("runs", name, "version_0", last), weights_only=True) for name in ("whole", "on"))
    assert on["global_step"] == whole["global_step"] == 26
    assert all(torch.equal(value, on["state_dict"][name]) for name, value in whole["state_dict"].items())
    for each in (whole, on):
        each["lr"] = each["optimizer_states"][0]["param_groups"][0]["lr"]
        each["size"] = each["datamodule_hyper_parameters"]["batch_size"]
    assert (on["lr"], on["size"]) == (whole["lr"], whole["size"]) != (1e-3, 64)


def go_on(found: dict[str, object], asked: list[str], scheduler: object = None, **settings: object) -> SimpleNamespace:
    """A run that goes on from one whose rate was 0.001 and whose finders have found something: its model and data."""
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3, "weight_decay": 0.01}}
    hparams = {"optimizer": {**optimizer, "init_args": {**optimizer["init_args"], **settings}}}  # type: ignore[dict-item]
    model = SimpleNamespace(hparams=hparams, recipe=SimpleNamespace(scheduler=scheduler), lr=None)
    data = SimpleNamespace(hparams={}, batch_size=64)
    trainer = SimpleNamespace(callbacks=[LearningRateFinder(), BatchSizeFinder()], is_global_zero=True)
    checkpoint = {
        "run": {"found_lr": found.get("lr")},
        "hyper_parameters": {"optimizer": optimizer},
        "datamodule_hyper_parameters": {"batch_size": found.get("batch_size")},
    }
    keep_found(trainer, model, data, checkpoint, asked)  # type: ignore[arg-type]
    assert not trainer.callbacks
    return SimpleNamespace(lr=model.lr, batch_size=data.batch_size)


FOUND: dict[str, object] = {"lr": 0.05, "batch_size": 256}


def test_what_was_found_is_kept_beside_other_settings(capsys: pytest.CaptureFixture[str]) -> None:
    kept = go_on(FOUND, ["model.optimizer.weight_decay"], weight_decay=0.05)
    assert (kept.lr, kept.batch_size) == (0.05, 256)
    assert capsys.readouterr().out.count("keeps what it found then") == 2


@pytest.mark.parametrize(("asked", "settings"), [("model.optimizer.lr", {}), ("config", {"lr": 0.002})])
def test_a_rate_that_is_asked_for_beats_the_one_that_was_found(
    asked: str, settings: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert go_on(FOUND, [asked], **settings).lr is None
    assert (
        "LearningRateFinder runs only at the start: the resumed run takes what is asked for" in capsys.readouterr().out
    )


def test_a_size_of_batches_that_is_typed_beats_the_one_that_was_found() -> None:
    kept = go_on(FOUND, ["data.batch_size"])
    assert (kept.lr, kept.batch_size) == (0.05, 64)


def test_nothing_is_said_to_be_kept_where_nothing_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert go_on({}, []).lr is None
    assert "keeps" not in capsys.readouterr().out


def test_no_rate_is_taken_beside_a_schedule_that_began_with_the_one_that_was_found() -> None:
    with pytest.raises(InputError, match="began with the learning rate"):
        go_on(FOUND, ["model.optimizer.lr"], scheduler=object())


@pytest.mark.slow
def test_other_commands_with_the_config_of_a_run_do_not_search(run: Run) -> None:
    found = ("--trainer.callbacks+", "BatchSizeFinder", "--trainer.callbacks.max_trials", 1)
    assert run("fit", *SMALL, *found, "--trainer.max_epochs", 1, "--trainer.limit_train_batches", 2).code == 0
    folder = "runs/cnn/version_0"
    words = ("--ckpt_path", f"{folder}/checkpoints/best.ckpt", "--config", f"{folder}/config.yaml")
    for command in (("test", "--resamples", 2), ("predict",)):
        result = run(*command, *words)
        assert result.code == 0, result.err


@pytest.mark.slow
def test_the_rate_that_was_found_stays_without_the_config_that_asked_for_it(run: Run) -> None:
    found = ("--trainer.callbacks+", "LearningRateFinder", "--trainer.callbacks.num_training_steps", 13)
    assert run("fit", *SMALL, *found, "--trainer.max_epochs", 1, "--trainer.limit_train_batches", 13).code == 0
    last = "runs/cnn/version_0/checkpoints/last.ckpt"
    longer = ("--trainer.max_epochs", 2, "--trainer.limit_train_batches", 13)
    assert run("fit", "--ckpt_path", last, *longer, "--experiment", "longer").code == 0
    other = ("--model.optimizer.lr", 0.125, "--experiment", "other")
    assert run("fit", "--ckpt_path", last, *longer, *other).code == 0
    kept = [
        torch.load(path, weights_only=True) for path in (last, *(last.replace("cnn", x) for x in ("longer", "other")))
    ]
    before, after, other = (each["optimizer_states"][0]["param_groups"][0]["lr"] for each in kept)
    assert before == after != 1e-3
    assert other == 0.125
