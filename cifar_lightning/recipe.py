"""The recipe of a run: optimizer, schedule and learning rates by part, as the LightningModule uses them."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.tuner.lr_finder import _ExponentialLR, _LinearLR
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from cifar_lightning.optim import WarmupLinear
from cifar_onnx import InputError

SchedulerCallable = Callable[[Optimizer], LRScheduler]
_WHOLE = (OneCycleLR, WarmupLinear)  # schedules of the whole training, which need to know its number of steps
_SEARCHING = (_ExponentialLR, _LinearLR)  # those of Lightning's learning-rate finder


def _takes(kind: type, name: str) -> bool:
    """Whether a class is made with an argument of that name; one's own may do without it, or pass all on."""
    parameters = inspect.signature(kind).parameters
    return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


@dataclass(frozen=True)
class Recipe:
    """What makes optimizer and schedule.

    Copies of the model, such as an average of its weights, share it: what jsonargparse puts here cannot be copied.

    Attributes:
        optimizer: makes one from parameters or groups of them.
        scheduler: makes a schedule from the optimizer.
        factors: for parts of the model, by name, what the optimizer's learning rate is multiplied by there.
    """

    optimizer: OptimizerCallable
    scheduler: SchedulerCallable | None
    factors: Mapping[str, float] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Recipe":
        return self

    def optimizer_of(self, model: nn.Module, lr: float | None = None) -> Optimizer:
        """The optimizer of a model's parameters.

        Args:
            model: the model.
            lr: learning rate in the place of the optimizer's own. Of several groups it is the first's, and those of the
                others are in proportion.

        Raises:
            InputError: a factor is of nothing in the model, or the optimizer makes groups of its own.
        """
        if negative := [f"{name} is {factor:g}" for name, factor in self.factors.items() if factor < 0]:
            raise InputError(f"model.lr_factors of {negative[0]}: it must be at least 0")
        if not self.factors:
            return _at_rate(self.optimizer(model.parameters()), lr)
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
        optimizer = _at_rate(self.optimizer([{"params": each} for each in groups.values()]), lr)
        for group, factor in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] *= factor
            group["factor"] = factor
        return optimizer

    def schedule(
        self, optimizer: Optimizer, total_steps: Callable[[], int], lr: float | None = None
    ) -> LRScheduler | None:
        """The schedule; one that needs the number of steps asks for it.

        Args:
            optimizer: whose learning rate it changes.
            total_steps: gives the number of steps.
            lr: the highest learning rate, in the place of `max_lr` of a schedule that has one and an end. Of several
                groups it is the first's, and those of the others are in proportion, as `max_lr` and `base_lr` are.
        """
        make = self.scheduler
        if make is None:
            return None
        if isinstance(make, type):
            make = partial(make)
        if isinstance(make, partial):
            classes = (each for each in (make.func, *make.args) if isinstance(each, type))
            ends = next((each for each in classes if issubclass(each, _WHOLE)), None)
            given = {name: value for name, value in make.keywords.items() if value is not None}
            if ends and _takes(ends, "total_steps") and given.keys().isdisjoint({"total_steps", "epochs"}):
                make = partial(make, total_steps=total_steps())
            for name in ("base_lr", "max_lr"):
                if isinstance(rate := given.get(name), float | int):
                    rate = lr if ends and lr else rate
                    make = partial(make, **{name: [rate * share for share in _shares(optimizer)]})
        return make(optimizer)


def _at_rate(optimizer: Optimizer, lr: float | None) -> Optimizer:
    if lr is not None:
        for group, share in zip(optimizer.param_groups, _shares(optimizer), strict=True):
            group["lr"] = lr * share
    return optimizer


def _shares(optimizer: Optimizer) -> list[float]:
    """Learning rates of the groups divided by the first's; where `lr_factors` made the groups, these."""
    groups = optimizer.param_groups
    first = groups[0]["lr"]
    return [group.get("factor", group["lr"] / first if first else 1.0) for group in groups]


class Optimized(L.LightningModule):
    """What a LightningModule does with a recipe.

    Args:
        recipe: of its optimizer and schedule.

    Attributes:
        searching: whether these steps are those of Lightning's learning-rate finder.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.searching = False
        self._found_lr: float | None = None

    @property
    def lr(self) -> float:
        """The learning rate; Lightning's finder sets another one than the optimizer has."""
        groups = self._optimizer().param_groups
        group = max(groups, key=lambda each: each.get("factor", 1))  # of the largest factor: others may be 0
        return float(group["lr"] / group.get("factor", 1))

    @lr.setter
    def lr(self, value: float) -> None:
        self._found_lr = value

    def _optimizer(self) -> Optimizer:
        return self.recipe.optimizer_of(self, self._found_lr)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self._optimizer()
        schedule = self.recipe.schedule(optimizer, self._total_steps, self._found_lr)
        if schedule is None:
            return optimizer
        per_batch = isinstance(schedule, (*_WHOLE, CyclicLR))
        config = {"scheduler": schedule, "interval": "step" if per_batch else "epoch"}
        if isinstance(schedule, ReduceLROnPlateau):
            config |= {"monitor": "val/loss", "strict": False}  # type: ignore[dict-item]
        return {"optimizer": optimizer, "lr_scheduler": config}  # type: ignore[return-value]

    def _total_steps(self) -> int:
        steps = self._last_step()
        if math.isinf(steps) or steps < 1:
            raise InputError("model.scheduler needs an end: set --trainer.max_epochs or --trainer.max_steps")
        return int(steps)

    def _last_step(self) -> float:
        """The number of steps at which the run will end, counted on from where it stands; infinite without an end.

        Lightning's estimated_stepping_batches counts from step 0, whatever the epochs before were like, and takes one
        epoch's accumulation for that of all.
        """
        trainer, loop = self.trainer, self.trainer.fit_loop
        if trainer.train_dataloader is None:  # optimizers are made before it
            loop.setup_data()
        limit = math.inf if trainer.max_steps == -1 else trainer.max_steps
        batches, epoch = trainer.num_training_batches, trainer.current_epoch
        if trainer.max_epochs == -1 or math.isinf(batches):
            return limit
        steps = sum(math.ceil(batches / self._accumulated(each)) for each in range(epoch, trainer.max_epochs or 0))
        if steps and loop.epoch_progress.current.ready > epoch:  # within one, whose last batch makes a step in any case
            every, done = self._accumulated(epoch), loop.epoch_loop.batch_progress.current.ready
            steps -= done // every if done < batches else math.ceil(batches / every)
        return min(trainer.global_step + steps, limit)

    def _accumulated(self, epoch: int) -> int:
        """How many batches' gradients a step of this epoch adds up."""
        for each in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(each, GradientAccumulationScheduler):
                return each.get_accumulate_grad_batches(epoch)
        return self.trainer.accumulate_grad_batches

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if not isinstance(scheduler, ReduceLROnPlateau):  # which is stepped before checkpoints are written
            super().lr_scheduler_step(scheduler, metric)
        if isinstance(scheduler, _SEARCHING):
            self._keep_proportions()

    def _keep_proportions(self) -> None:
        """Where Lightning's finder has given all groups one rate, let it be the first's."""
        for group, share in zip(self.trainer.optimizers[0].param_groups, _shares(self._optimizer()), strict=True):
            group["lr"] *= share

    def settle_optimizer(self) -> None:
        """Let the optimizer's settings be the recipe's, also where a checkpoint has brought back its own.

        What Lightning's finders have found before the first step (a learning rate, a size of batches, by which a
        schedule has another number of steps) counts from here.

        Raises:
            InputError: more steps are asked for than the schedule has, by its settings or by those of a checkpoint.
        """
        schedule = self.lr_schedulers()
        self.searching = isinstance(schedule, _SEARCHING)
        if self.searching:
            self._keep_proportions()
            return
        if self.recipe.scheduler is None or not self.trainer.global_step:
            asked = self._optimizer()
            begun = self.recipe.schedule(asked, self._total_steps, self._found_lr)
            for group, settings in zip(self.trainer.optimizers[0].param_groups, asked.param_groups, strict=True):
                group.update({key: value for key, value in settings.items() if key != "params"})
            if begun is not None:
                schedule.load_state_dict(begun.state_dict())  # type: ignore[union-attr]
        if isinstance(schedule, _WHOLE):
            self._compare_ends(schedule)

    def _compare_ends(self, schedule: OneCycleLR | WarmupLinear) -> None:
        name, steps, end = type(schedule).__name__, schedule.total_steps, self._last_step()
        own, done = getattr(self.recipe.scheduler, "keywords", {}), self.trainer.global_step
        told = any(own.get(each) is not None for each in ("total_steps", "epochs"))
        # One that was told where to end stays at its final rate; OneCycleLR refuses to be stepped further.
        if steps < end and not (told and isinstance(schedule, WarmupLinear)):
            there = f"; --trainer.max_steps {steps} ends the run with it" if done < steps else ""
            resumed = f"the schedule of a resumed run cannot be made longer{there}"
            new = "leave model.scheduler.total_steps, or epochs, out"
            raise InputError(
                f"the {name} ends after {steps:,} steps, before the {end:,} that are asked for: "
                f"{resumed if done else new}"
            )
        if done and steps > end and not told and self.trainer.is_global_zero:
            print(f"the {name} ends after {steps:,} steps, and the run after {end:,}: its rate will not have come down")
