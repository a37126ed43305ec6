"""Averaged weights: what is validated and kept is the mean of the last epochs, also in a run that goes on."""

from functools import partial
from pathlib import Path

import lightning.pytorch as L
import torch
from torch import Tensor

from cifar_lightning.callbacks import SWA
from tests.conftest import BRIEF, Run

FAST = (*BRIEF, "--trainer.max_epochs", 3, "--trainer.limit_train_batches", 4)
AVERAGED = (*FAST, "--trainer.callbacks+", "SWA", "--trainer.callbacks.from_epoch", 1)


def state(run: str) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = torch.load(f"runs/{run}/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return kept


def test_it_is_the_mean_after_each_step_from_an_epoch_on() -> None:
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
    trainer = L.Trainer(
        max_epochs=3, callbacks=[SWA(from_epoch=1), Watch()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, accelerator="cpu",
    )  # fmt: skip
    model = Line()
    trainer.fit(model, loader(), torch.utils.data.DataLoader(torch.zeros(1, 3)))
    assert torch.equal(validated[0], seen[3])
    assert torch.allclose(validated[1], torch.stack(seen[4:8]).mean(0))
    assert torch.allclose(model.layer.weight, torch.stack(seen[4:]).mean(0))


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


def test_lightnings_own_which_keeps_nothing_is_refused(run: Run) -> None:
    words = ("--trainer.callbacks+", "StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", 0.01)
    result = run("fit", *BRIEF, *words)
    assert result.code == 2
    assert "take --trainer.callbacks+ SWA" in result.err
    assert not list(Path().rglob("*.ckpt"))
