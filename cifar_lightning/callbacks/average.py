"""Averaged weights: stochastic weight averaging (SWA), and an exponential moving average (EMA)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain, compress
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

from cifar_onnx import InputError


class Average(WeightAveraging, ABC):
    """Validates and saves a running average of the weights, updated after each step from some epoch on.

    Before that epoch it is the weights themselves. Statistics of batch normalisation are averaged likewise, and other
    buffers are copied. The average is in single precision, whatever the weights are in: in half precision, steps as
    small as those of a slow average round to nothing.

    Args:
        from_epoch: the first epoch whose weights are averaged, counted from 0.
    """

    def __init__(self, from_epoch: int) -> None:
        super().__init__()
        if from_epoch < 0:
            raise InputError(f"{type(self).__name__}.from_epoch is {from_epoch}: it must be at least 0")
        self.from_epoch = from_epoch
        self._counts = False
        self._trained: list[Tensor] = []  # while the average is in its place

    @abstractmethod
    def share(self, count: int) -> float:
        """How far an average of `count` weights is moved towards the next ones, 0 to 1."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device  # the model is not there yet
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            assert self._average_model is not None
            self._average_model.n_averaged = torch.tensor(0)  # where asking for it makes nobody wait
            self._latest_update_step = 0  # not that of a training before, with another Trainer

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero and 0 < (trainer.max_epochs or 0) <= self.from_epoch:
            print(
                f"{type(self).__name__}.from_epoch is {self.from_epoch}, and the run ends after {trainer.max_epochs} "
                "epochs: nothing will be averaged"
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average all at once; AveragedModel would copy the count to the device, which a GPU is waited for with."""
        self._counts = trainer.current_epoch >= self.from_epoch
        if trainer.global_step > self._latest_update_step and self.should_update(trainer.global_step - 1):
            self._update(pl_module)
            self._latest_update_step = trainer.global_step

    def _update(self, model: L.LightningModule) -> None:
        assert self._average_model is not None
        count, averaged = int(self._average_model.n_averaged), [*_state(self._average_model.module)]
        current = [each.to(old.dtype) for each, old in zip(_state(model), averaged, strict=True)]
        learnt = [*(True for _ in model.parameters()), *(_is_statistic(name) for name, _ in model.named_buffers())]
        moved = [count > 0 and each.is_floating_point() and one for each, one in zip(averaged, learnt, strict=True)]
        copied = [not each for each in moved]
        if any(moved):
            torch._foreach_lerp_([*compress(averaged, moved)], [*compress(current, moved)], self.share(count))
        if any(copied):
            torch._foreach_copy_([*compress(averaged, copied)], [*compress(current, copied)])
        self._average_model.n_averaged += 1

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up the weights that the average is of where they are trained further; elsewhere the average counts."""
        if trainer.state.fn == "fit":
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the average in the place of the weights; Lightning swaps them, and each is rounded as the other is."""
        if self._average_model is not None and trainer.state.fn == "fit":
            self._trained = [each.clone() for each in _state(pl_module)]
            self._copy_average_to_current(pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for each, trained in zip(_state(pl_module), self._trained, strict=False):
            each.copy_(trained)
        self._trained = []

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        if epoch_idx is not None:  # a run that goes on at the end of an epoch has seen no batch of it
            self._counts = epoch_idx >= self.from_epoch
        if not self._counts and self._average_model is not None:
            self._average_model.n_averaged.zero_()  # what is averaged next is copied
        return step_idx is not None


def _is_statistic(buffer: str) -> bool:
    """Whether a buffer is a statistic of normalisation by batches; others, such as masks, are no matter of averages."""
    return buffer.rpartition(".")[2] in ("running_mean", "running_var")


def _state(model: nn.Module) -> Iterator[Tensor]:
    return (each.detach() for each in chain(model.parameters(), model.buffers()))


class SWA(Average):
    """Validates and saves the mean of the weights after each step from some epoch on; before, the weights themselves.

    Stochastic weight averaging (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407), densely, as Cha et al. 2021
    (https://arxiv.org/abs/2102.08604). It leaves the learning rate to the schedule: a constant one, or one that does
    not end at zero, leaves most to be averaged.

    Args:
        from_epoch: the first epoch whose weights are averaged, counted from 0.
    """

    def share(self, count: int) -> float:
        return 1 / (count + 1)


class EMA(Average):
    """Validates and saves the exponential moving average of the weights after each step.

    Lightning's EMAWeightAveraging keeps its average on the CPU, and the weights from before the first step until it
    begins; and with its decay from the first step on, a run of few steps ends near the weights it began with.

    Args:
        decay: share of the old average that a step keeps: 0.999 looks back over some 1,000 steps. After n steps it is
            at most `(1 + n) / (10 + n)`, as in TensorFlow, so that the first weights fade soon.
        from_epoch: the first epoch whose weights are averaged, counted from 0.
    """

    def __init__(self, decay: float = 0.999, from_epoch: int = 0) -> None:
        super().__init__(from_epoch)
        if not 0 <= decay < 1:
            raise InputError(f"EMA.decay is {decay:g}: it must be at least 0 and below 1")
        self.decay = decay

    def share(self, count: int) -> float:
        return 1 - min(self.decay, (1 + count) / (10 + count))
