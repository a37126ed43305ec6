"""Averaged weights: what is validated and kept is the average, also in a run that goes on."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cifar_lightning.callbacks import EMA, SWA
from cifar_lightning.callbacks.average import Average
from cifar_lightning.data import Digits
from cifar_lightning.module import Classifier
from cifar_lightning.nets import CNN
from tests.conftest import BRIEF, Run, quiet

FAST = (*BRIEF, "--trainer.max_epochs", 3, "--trainer.limit_train_batches", 4)
AVERAGED = (*FAST, "--trainer.callbacks+", "SWA", "--trainer.callbacks.from_epoch", 1)


def state(run: str) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = torch.load(f"runs/{run}/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return kept


@pytest.mark.parametrize("kind", ["SWA", "EMA"])
def test_it_is_the_average_after_each_step_from_an_epoch_on(kind: str) -> None:
    seen: list[Tensor] = []
    validated: list[Tensor] = []

    class Line(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def training_step(self, batch: Tensor, _: int) -> Tensor:
            return self.layer(batch).square().mean()

        def validation_step(self, batch: Tensor, _: int) -> None:
            validated.append(self.layer.weight.detach().clone())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
            seen.append(pl_module.layer.weight.detach().clone())  # type: ignore[union-attr,operator]

    torch.manual_seed(0)
    loader = partial(torch.utils.data.DataLoader, torch.randn(8, 3), batch_size=2)
    average = SWA(1) if kind == "SWA" else EMA(0.3, 1)
    trainer = quiet(max_epochs=3, callbacks=[average, Watch()], num_sanity_val_steps=0)
    model = Line()
    trainer.fit(model, loader(), torch.utils.data.DataLoader(torch.zeros(1, 3)))
    assert torch.equal(validated[0], seen[3])
    for average, steps in ((validated[1], seen[4:8]), (model.layer.weight, seen[4:])):
        expected = steps[0]
        for number, weight in enumerate(steps[1:], 2):
            share = 1 / number if kind == "SWA" else 1 - min(0.3, number / (9 + number))
            expected = expected + (weight - expected) * share
        assert torch.allclose(average, expected)


def test_a_moving_average_of_few_steps_is_not_of_the_first_ones() -> None:
    average = 1.0
    for step in range(1, 200):  # the weights of each step are as far as they have come
        average += EMA().share(step) * (step - average)
    assert average > 150


@pytest.mark.slow
def test_a_run_that_goes_on_averages_on(run: Run) -> None:
    assert run("fit", *AVERAGED, "--experiment", "whole").code == 0
    assert run("fit", *FAST, "--experiment", "plain").code == 0
    cut = ("--experiment", "cut", "--trainer.max_steps", 6)
    assert run("fit", *AVERAGED, *cut).code == 0
    path = Path("runs/cut/version_0/checkpoints/last.ckpt")
    result = run("fit", *AVERAGED, "--experiment", "again", "--ckpt_path", path)
    assert result.code == 0, result.err
    whole = state("whole")
    assert all(torch.equal(value, whole[name]) for name, value in state("again").items())
    assert not all(torch.equal(value, whole[name]) for name, value in state("plain").items())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_the_average_of_weights_in_any_precision_is_in_single_precision(run: Run, precision: str) -> None:
    words = ("--trainer.callbacks+", "EMA", "--trainer.callbacks.decay", 0.99, "--trainer.precision", precision)
    result = run("fit", *BRIEF, *words)
    assert result.code == 0, result.err
    kept = torch.load("runs/cnn/version_0/checkpoints/last.ckpt", weights_only=True)
    name = "net.head.4.weight"
    assert kept["state_dict"][name].dtype == torch.float32
    assert kept["current_model_state"][name].dtype == (torch.float64 if precision == "64-true" else torch.bfloat16)
    average, weights = kept["state_dict"][name], kept["current_model_state"][name]
    assert not torch.equal(average, weights.float())
    if precision == "64-true":  # nor has a validation rounded the one as the other is
        assert not torch.equal(weights, weights.float().double())
    else:
        assert not torch.equal(average, average.bfloat16().float())


@pytest.mark.parametrize("kind", ["SWA", "EMA"])
def test_a_checkpoint_of_weights_only_holds_the_average_that_was_judged(run: Run, kind: str) -> None:
    from_epoch = ("--trainer.callbacks.from_epoch", 0)
    words = ("--trainer.callbacks+", kind, *from_epoch, "--checkpoint.save_weights_only", "true")
    assert run("fit", *BRIEF, *words).code == 0
    kept = torch.load("runs/cnn/version_0/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    average = state("cnn")
    assert kept.keys() == average.keys()
    assert all(torch.equal(value, average[name]) for name, value in kept.items())


@pytest.mark.parametrize("kind", ["EMA", "SWA"])
def test_class_weights_that_the_training_set_decides_need_not_be_averaged(run: Run, kind: str) -> None:
    words = ["--trainer.callbacks+", kind, *(["--trainer.callbacks.from_epoch", 0] if kind == "SWA" else [])]
    result = run("fit", *BRIEF, "--model.loss.class_weights", "inverse", *words)
    assert result.code == 0, result.err


def test_lightnings_own_which_keeps_nothing_is_refused(run: Run) -> None:
    words = ("--trainer.callbacks+", "StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", 0.01)
    result = run("fit", *BRIEF, *words)
    assert result.code == 2
    assert "use --trainer.callbacks+ SWA" in result.err
    assert not list(Path().rglob("*.ckpt"))


@pytest.mark.parametrize("average", [SWA(0), EMA(0.1)])
def test_batch_statistics_are_averaged_and_other_buffers_are_copied(average: Average) -> None:
    class Net(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(2)
            self.register_buffer("fitted", torch.tensor(False))
            self.register_buffer("mask", torch.tensor([-torch.inf]))

    net, trainer = Net(), SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    average.setup(trainer, net, "fit")  # type: ignore[arg-type]
    kept = average._average_model
    assert kept is not None
    for step in range(1, 4):
        net.norm.running_mean.fill_(step)  # type: ignore[union-attr]
        net.norm.num_batches_tracked.fill_(10 * step)  # type: ignore[union-attr]
        net.fitted.fill_(step > 1)
        average.on_train_batch_end(SimpleNamespace(current_epoch=0, global_step=step), net, None, None, 0)  # type: ignore[arg-type]
    state = kept.module.state_dict()
    assert state["norm.running_mean"].tolist() == pytest.approx([2.0 if isinstance(average, SWA) else 2.89] * 2)
    assert state["norm.num_batches_tracked"] == 30
    assert state["fitted"]
    assert state["mask"] == -torch.inf


@pytest.mark.parametrize("average", [SWA(0), EMA(0.1)])
def test_in_another_training_it_averages_anew(average: Average) -> None:
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    for value in (1.0, 2.0):
        net = L.LightningModule()
        net.layer = nn.Linear(2, 2)
        average.setup(trainer, net, "fit")  # type: ignore[arg-type]
        for step in range(1, 4):
            nn.init.constant_(net.layer.weight, value)
            average.on_train_batch_end(SimpleNamespace(current_epoch=0, global_step=step), net, None, None, 0)  # type: ignore[arg-type]
        assert average._average_model is not None
        assert average._average_model.n_averaged == 3
        assert torch.equal(average._average_model.module.layer.weight, net.layer.weight)


def test_the_average_is_where_the_model_will_be() -> None:
    net = L.LightningModule()
    net.layer = nn.Linear(2, 2)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))
    average = EMA()
    average.setup(trainer, net, "fit")  # type: ignore[arg-type]
    assert average._average_model is not None
    assert average._average_model.module.layer.weight.device.type == "meta"
    assert average._average_model.n_averaged.device.type == "cpu"  # where nobody waits for it
    assert net.layer.weight.device.type == "cpu"


def test_nothing_is_copied_to_the_device_which_would_be_waited_for() -> None:
    class Copies(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            Copies.count += func is torch.ops.aten._to_copy.default
            return func(*args, **(kwargs or {}))

    net = L.LightningModule()
    net.layer = nn.BatchNorm1d(2).to("meta")
    average, trainer = EMA(), SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))
    average.setup(trainer, net, "fit")  # type: ignore[arg-type]
    with Copies():
        for step in (1, 2):
            average.on_train_batch_end(SimpleNamespace(current_epoch=0, global_step=step), net, None, None, 0)  # type: ignore[arg-type]
        assert Copies.count == 0
        torch.zeros(1).to("meta")
        assert Copies.count == 1


def test_a_run_that_goes_on_at_the_end_of_an_epoch_keeps_what_it_has_averaged() -> None:
    net, trainer = L.LightningModule(), SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    net.layer = nn.Linear(2, 2)
    average = SWA(1)
    average.setup(trainer, net, "fit")  # type: ignore[arg-type]
    assert average._average_model is not None
    average._average_model.n_averaged.fill_(5)
    assert not average.should_update(epoch_idx=1)
    assert average._average_model.n_averaged == 5
    assert not average.should_update(epoch_idx=0)
    assert average._average_model.n_averaged == 0


def test_weights_that_a_checkpoint_brings_are_judged_as_they_are(tmp_path: Path) -> None:
    """With a Trainer of one's own, which has still the callback that averaged them."""
    data = Digits()
    best = ModelCheckpoint(tmp_path / "kept", monitor="train/loss", mode="max")  # of the first epoch
    trainer = quiet(max_epochs=3, limit_train_batches=4, callbacks=[EMA(), best], enable_checkpointing=True)
    model = Classifier(data.classes, CNN(widths=(4, 4), hidden=8))
    trainer.fit(model, data)
    assert "epoch=0" in best.best_model_path
    kept = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    judged: list[bool] = []
    hook = model.net.register_forward_hook(
        lambda *_: judged.append(all(torch.equal(kept[name], value) for name, value in model.state_dict().items()))
    )
    for command in (trainer.test, trainer.validate):
        with torch.no_grad():
            next(model.net.parameters()).add_(1)
        command(model, data, ckpt_path=best.best_model_path, verbose=False)
    hook.remove()
    assert judged
    assert all(judged)


def test_what_is_kept_before_it_begins_are_the_weights(run: Run) -> None:
    """With the statistics of the training images, which came after the average was made."""
    late = ("--trainer.callbacks+", "EMA", "--trainer.callbacks.from_epoch", 100)
    result = run("fit", *FAST, "--experiment", "late", *late)
    assert result.code == 0
    assert "EMA.from_epoch is 100, and the run ends after 3 epochs: nothing will be averaged" in result.out
    assert run("fit", *FAST, "--experiment", "plain").code == 0
    plain = state("plain")
    assert all(torch.equal(value, plain[name]) for name, value in state("late").items())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("EMA", "--trainer.callbacks.decay", 1), "EMA.decay is 1: it must be at least 0 and below 1"),
        (("SWA", "--trainer.callbacks.from_epoch", -1), "SWA.from_epoch is -1: it must be at least 0"),
        (
            ("EMAWeightAveraging", "--trainer.callbacks.update_starting_at_step", 5),
            "use --trainer.callbacks+ EMA --trainer.callbacks.from_epoch N",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(run: Run, words: tuple[object, ...], reason: str) -> None:
    result = run("fit", *BRIEF, "--trainer.callbacks+", *words)
    assert result.code == 2
    assert reason in result.err
    assert not Path("runs").exists()
