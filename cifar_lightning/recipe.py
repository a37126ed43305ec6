"""What makes an optimizer and its schedule."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from cifar_lightning.optim import WarmupLinear

SchedulerCallable = Callable[[Optimizer], LRScheduler]
WHOLE = (OneCycleLR, WarmupLinear)  # schedules of the whole training, which need to know its number of steps


@dataclass(frozen=True)
class Recipe:
    """What makes optimizer and schedule; a copy of the model, such as an average of its weights, shares it.

    What jsonargparse puts here cannot be copied.
    """

    optimizer: OptimizerCallable
    scheduler: SchedulerCallable | None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Recipe":
        return self

    def schedule(self, optimizer: Optimizer, total_steps: Callable[[], int]) -> LRScheduler | None:
        """The schedule; one that needs the number of steps asks for it."""
        make = self.scheduler
        if make is None:
            return None
        if isinstance(make, partial) and not {*WHOLE}.isdisjoint({make.func, *make.args}):
            known = {name for name, value in make.keywords.items() if value is not None}
            if known.isdisjoint({"total_steps", "epochs"}):
                make = partial(make, total_steps=total_steps())
        return make(optimizer)
