"""Averaged weights: the mean of the last epochs."""

from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import WeightAveraging


class SWA(WeightAveraging):
    """Validates and keeps the mean of the weights after each step from some epoch on; until then, the weights.

    Stochastic weight averaging (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407), densely, as Cha et al. 2021
    (https://arxiv.org/abs/2102.08604); statistics of batch normalisation are averaged likewise. It leaves the learning
    rate to the schedule: a constant one, or one that does not end at zero, leaves most to be averaged.

    Args:
        from_epoch: the first epoch that counts, from 0.
    """

    def __init__(self, from_epoch: int) -> None:
        super().__init__()
        self.from_epoch = from_epoch
        self._counts = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._counts = trainer.current_epoch >= self.from_epoch
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        if epoch_idx is not None:  # a run that goes on at the end of an epoch has seen no batch of it
            self._counts = epoch_idx >= self.from_epoch
        if not self._counts and self._average_model is not None:
            self._average_model.n_averaged.zero_()  # what is averaged next is copied
        return step_idx is not None
