"""A watch for losses and weights that have become NaN or infinite.

Notation: `B` batch, `K` classes.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import lightning.pytorch as L
import torch
from torch import Tensor

from cifar_lightning.async_copy import AsyncCopy, in_any_process

_SHOWN = 8  # images in a message


class NotFiniteError(ArithmeticError):
    """The loss or the weights have become NaN or infinite."""


class _Loss(NamedTuple):
    """A loss on its way, of several processes also whether it is bad in any, and where it comes from."""

    numbers: AsyncCopy
    step: int
    indices: Tensor
    logits: Tensor


class LossWatch:
    """Looks at every training loss: on a CPU at once, elsewhere in the next step, so that the device need not wait."""

    def __init__(self) -> None:
        self._unseen: _Loss | None = None
        self._infinite: set[str] = set()

    def begin(self, state: Mapping[str, Tensor]) -> None:
        """Let what is not finite before the first step, such as a mask, be no mistake later."""
        self._infinite = {name for name, value in state.items() if not value.isfinite().all()}

    def watch(self, trainer: L.Trainer, loss: Tensor, indices: Tensor, logits: Tensor) -> None:
        """Take the loss of this step.

        Args:
            trainer: the trainer.
            loss: a scalar.
            indices: `(B,)`, of the images in their set.
            logits: `(B, K)`.

        Raises:
            NotFiniteError: it is not finite, or was not in the step before.
        """
        on_cpu = loss.device.type == "cpu"
        numbers, logits = loss.detach()[None], logits.detach()
        if trainer.world_size > 1:
            numbers = torch.cat([numbers.float(), in_any_process(~numbers.isfinite())])
        # Elsewhere a copy: the memory may be a CUDA graph's, which the next step writes to.
        taken = _Loss(AsyncCopy(numbers), trainer.global_step, indices, logits if on_cpu else logits.clone())
        if not on_cpu:
            self.check(trainer)  # the one before
        self._unseen = taken
        if on_cpu:
            self.check(trainer)

    def check(self, trainer: L.Trainer) -> None:
        """Look at a loss that has been taken and not yet looked at.

        Raises:
            NotFiniteError: naming step, learning rate and images; in all processes, where it is one's.
        """
        if self._unseen is None:
            return
        numbers, step, indices, logits = self._unseen
        self._unseen = None
        loss, *bad_in_any = numbers.read()
        finite = math.isfinite(loss)
        if finite and not any(bad_in_any):
            return
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        where = f"in step {step} (epoch {trainer.current_epoch}), at learning rate {rate:g}"
        if finite:
            raise NotFiniteError(f"the loss of another process is not finite {where}")
        bad = ~logits.isfinite().all(1)
        found = (indices[bad] if bad.any() else indices).tolist()
        if (data := trainer.datamodule) is not None:  # type: ignore[attr-defined]
            found = [data.images("train").names[index] for index in found]
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise NotFiniteError(
            f"the loss is {loss} {where}, for training images {', '.join(map(str, found[:_SHOWN]))}{more}: "
            "try a lower learning rate, or inspect these images"
        )

    def check_weights(self, trainer: L.Trainer, state: Mapping[str, Tensor]) -> None:
        """Look at weights that are to be saved.

        Raises:
            NotFiniteError: naming the first that is not.
        """
        for name, value in state.items():
            if name not in self._infinite and not value.isfinite().all():
                raise NotFiniteError(
                    f"{name} is not finite after step {trainer.global_step - 1}: no checkpoint is written"
                )
