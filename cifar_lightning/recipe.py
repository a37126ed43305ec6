"""What makes an optimizer and its schedule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from cifar_lightning.optim import WarmupLinear
from cifar_onnx import InputError

SchedulerCallable = Callable[[Optimizer], LRScheduler]
WHOLE = (OneCycleLR, WarmupLinear)  # schedules of the whole training, which need to know its number of steps


@dataclass(frozen=True)
class Recipe:
    """What makes optimizer and schedule; a copy of the model, such as an average of its weights, shares it.

    What jsonargparse puts here cannot be copied.

    Attributes:
        optimizer: makes one from parameters or groups of them.
        scheduler: makes a schedule from the optimizer.
        factors: by names of parts of the model, what their learning rate is of the optimizer's.
    """

    optimizer: OptimizerCallable
    scheduler: SchedulerCallable | None
    factors: Mapping[str, float] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Recipe":
        return self

    def optimizer_of(self, model: nn.Module) -> Optimizer:
        """The optimizer of a model's parameters.

        Raises:
            InputError: a factor is of nothing in the model, or the optimizer makes groups of its own.
        """
        if not self.factors:
            return self.optimizer(model.parameters())
        groups: dict[float, list[nn.Parameter]] = {}
        unused = set(self.factors)
        for name, parameter in model.named_parameters():
            parts = [part for part in self.factors if f"{name}.".startswith(f"{part}.")]
            unused -= set(parts)
            factor = self.factors[max(parts, key=len)] if parts else 1.0
            groups.setdefault(factor, []).append(parameter)
        if unused:
            first = ", ".join(dict.fromkeys(".".join(name.split(".")[:2]) for name, _ in model.named_parameters()))
            raise InputError(f"model.lr_factors: no parameter begins with {min(unused)!r}: there are {first} and so on")
        optimizer = self.optimizer([{"params": each} for each in groups.values()])
        for group, factor in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] *= factor
            group["factor"] = factor
        return optimizer

    def schedule(self, optimizer: Optimizer, total_steps: Callable[[], int]) -> LRScheduler | None:
        """The schedule; one that needs the number of steps asks for it."""
        make = self.scheduler
        if make is None:
            return None
        if isinstance(make, partial) and not {*WHOLE}.isdisjoint({make.func, *make.args}):
            known = {name for name, value in make.keywords.items() if value is not None}
            if known.isdisjoint({"total_steps", "epochs"}):
                make = partial(make, total_steps=total_steps())
            if self.factors and isinstance(highest := make.keywords.get("max_lr"), float | int):
                make = partial(make, max_lr=[highest * group["factor"] for group in optimizer.param_groups])
        return make(optimizer)
