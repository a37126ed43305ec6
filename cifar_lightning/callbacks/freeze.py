"""Frozen parts of a net: a linear probe, layers that are unfrozen later than others, statistics of pretrained nets."""

from collections.abc import Callable

import lightning.pytorch as L
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cifar_lightning.nets.weights import heads
from cifar_onnx import InputError


class Freeze(L.Callback):
    """Leaves parts of the model untouched, statistics of batch normalisation too; their dropout is off.

    Several of these callbacks, each with an epoch of its own, unfreeze a net in stages. Lightning's finders search
    without them: what has an `until_epoch` is trained there.

    Args:
        parts: their names, such as `net.blocks` or `net.body.layer1`; by default all of the net but its last layer (or
            both of two heads).
        until_epoch: the first epoch, counted from 0, that trains them; None is never.
    """

    def __init__(self, parts: list[str] | None = None, until_epoch: int | None = None) -> None:
        if parts is not None and not parts:
            raise InputError("Freeze.parts is empty: name parts, or leave it out for all but the last layer")
        if until_epoch is not None and until_epoch < 1:
            raise InputError(f"Freeze.until_epoch is {until_epoch}: it must be at least 1, or null for never")
        self.parts = parts
        self.until_epoch = until_epoch
        self._modules: list[nn.Module] = []
        self._parameters: list[nn.Parameter] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        inside = self._inside(pl_module)
        self._parameters = [each for name, each in pl_module.named_parameters() if each.requires_grad and inside(name)]
        every = [each._inside(pl_module) for each in trainer.callbacks if isinstance(each, Freeze)]  # type: ignore[attr-defined]
        trained = [name for name, each in pl_module.named_parameters() if each.requires_grad]
        if all(any(inside(name) for inside in every) for name in trained):
            raise InputError("Freeze: nothing is left to train in the first epoch: name fewer parts")
        if self.until_epoch is None:  # before optimizers and processes ask
            self._require(False)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Batch normalisation that is to be synchronised has been put in the place of the model's by now."""
        until, end = self.until_epoch or 0, trainer.max_epochs or 0
        if trainer.is_global_zero and 0 < end <= until:
            print(f"Freeze.until_epoch is {until}, and the run ends after {end} epochs: nothing will be unfrozen")
        inside = self._inside(pl_module)
        self._modules = [module for name, module in pl_module.named_modules() if inside(name)]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._switch(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._switch(trainer)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: object) -> None:
        """What has no gradient is not touched by torch's optimizers, whatever decay or momentum they have."""
        if self._frozen(trainer):
            for parameter in self._parameters:
                parameter.grad = None

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let the next training begin with all of the net."""
        if stage == "fit":
            self._require(True)
            for module in self._modules:
                module.training = pl_module.training

    def _frozen(self, trainer: L.Trainer) -> bool:
        return self.until_epoch is None or trainer.current_epoch < self.until_epoch

    def _switch(self, trainer: L.Trainer) -> None:
        self._set(trainer, self._frozen(trainer))
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(other, Freeze) and other._frozen(trainer):  # and may hold a part of this one's
                other._set(trainer, True)

    def _set(self, trainer: L.Trainer, frozen: bool) -> None:
        for module in self._modules:
            module.training = not frozen
        # Processes that have agreed on what they exchange must go on to compute it.
        if self.until_epoch is None or trainer.world_size == 1:
            self._require(not frozen)

    def _require(self, gradients: bool) -> None:
        for parameter in self._parameters:
            parameter.requires_grad = gradients

    def _inside(self, model: L.LightningModule) -> Callable[[str], bool]:
        """A test of names: whether what they name is frozen."""
        net: nn.Module = model.net  # type: ignore[assignment]
        if self.parts is None:
            last = tuple(f"net.{name}." for name in heads(net, len(model.classes)))  # type: ignore[arg-type]
            if not last:
                raise InputError("Freeze: the net has no last linear layer: name the parts that stay as they are")
            return lambda name: name.startswith("net.") and not f"{name}.".startswith(last)
        parts = tuple(f"{part}." for part in self.parts)
        for part in parts:
            if not any(f"{name}.".startswith(part) for name, _ in model.named_parameters()):
                there = ", ".join(f"net.{name}" for name, _ in net.named_children())
                raise InputError(f"Freeze: the model has no part {part[:-1]!r}: there are {there} and what is in them")
        return lambda name: f"{name}.".startswith(parts)


class FreezeBatchNorm(L.Callback):
    """Normalises by the running statistics of batch normalisation as they are, in training, too; gains are trained.

    For pretrained nets and few images: the statistics of a large set are better than those of small batches, by which
    layers would see other inputs in training than in use. Lightning's finders search without it.
    """

    def __init__(self) -> None:
        self._layers: list[_BatchNorm] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._layers = [module for module in pl_module.modules() if isinstance(module, _BatchNorm)]
        if not self._layers:
            raise InputError("FreezeBatchNorm: the net has no batch normalisation: leave this callback out")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """After whatever has put them into training mode."""
        for layer in self._layers:
            layer.training = False

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let the layers normalise as the model is set again."""
        if stage == "fit":
            for layer in self._layers:
                layer.training = pl_module.training
