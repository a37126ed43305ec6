"""A watch for losses and weights that have become NaN or infinite.

Notation: `B` batch, `K` classes.
"""

from collections.abc import Mapping
from typing import NamedTuple

import lightning.pytorch as L
import torch
from torch import Tensor

_SHOWN = 64  # sample indices in a message


class NotFiniteError(ArithmeticError):
    """The loss or the weights have become NaN or infinite."""


class _Loss(NamedTuple):
    """A loss on its way to the host, and where it comes from."""

    value: Tensor
    arrival: torch.Event | None
    step: int
    indices: Tensor
    logits: Tensor


class LossWatch:
    """Looks at every training loss: on a CPU at once, elsewhere in the next step, so that the device need not wait."""

    def __init__(self) -> None:
        self._unseen: _Loss | None = None

    def see(self, trainer: L.Trainer, loss: Tensor, indices: Tensor, logits: Tensor) -> None:
        """Take the loss of this step.

        Args:
            trainer: the trainer.
            loss: a scalar.
            indices: `(B,)`, of the images in their set.
            logits: `(B, K)`.

        Raises:
            NotFiniteError: it is not finite, or was not in the step before.
        """
        if loss.device.type == "cpu":
            self._unseen = _Loss(loss.detach(), None, trainer.global_step, indices, logits.detach())
        self.check(trainer)
        if loss.device.type != "cpu":
            value, arrival = loss.detach().to("cpu", non_blocking=True), torch.Event(loss.device)
            arrival.record()
            # A copy: the memory may be a CUDA graph's, which the next step writes to.
            self._unseen = _Loss(value, arrival, trainer.global_step, indices, logits.detach().clone())

    def check(self, trainer: L.Trainer) -> None:
        """Look at a loss that has been taken and not yet looked at.

        Raises:
            NotFiniteError: naming step, learning rate and images; in all processes, where it is one's.
        """
        if self._unseen is None:
            return
        loss, arrival, step, indices, logits = self._unseen
        self._unseen = None
        if arrival is not None:
            arrival.synchronize()
        finite = everywhere = bool(loss.isfinite())
        if trainer.world_size > 1:
            everywhere = trainer.strategy.reduce_boolean_decision(finite)
        if everywhere:
            return
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        where = f"in step {step} (epoch {trainer.current_epoch}), at learning rate {rate:g}"
        if finite:
            raise NotFiniteError(f"the loss of another process is not finite {where}")
        bad = ~logits.isfinite().all(1)
        found = (indices[bad] if bad.any() else indices).tolist()
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise NotFiniteError(
            f"the loss is {float(loss)} {where}, for training images {', '.join(map(str, found[:_SHOWN]))}{more}: "
            "try a lower learning rate, or look at them"
        )

    def check_weights(self, trainer: L.Trainer, state: Mapping[str, Tensor]) -> None:
        """Look at weights that are to be saved.

        Raises:
            NotFiniteError: naming the first that is not.
        """
        for name, value in state.items():
            if value.is_floating_point() and not value.isfinite().all():
                raise NotFiniteError(f"{name} is not finite after step {trainer.global_step - 1}: it is not saved")
