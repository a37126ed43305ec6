"""The LightningModule: an injected net, loss, optimizer and schedule, and one step for train, val and test.

Notation: `B` batch, `K` classes, `S` side of the images in pixels.
"""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from cifar_lightning.nets.pixels import Pixels
from cifar_onnx import InputError

SchedulerCallable = Callable[[Optimizer], LRScheduler]
Batch = tuple[Tensor, Tensor, Tensor, int]  # images, labels, indices, seed of the augmentation


class Classifier(L.LightningModule):
    """Trains and judges any net that maps normalised pixels `(B, 3, S, S)` to logits `(B, K)`.

    Args:
        classes: names, in the order of the logits.
        net: the net.
        optimizer: makes the optimizer from the parameters.
        scheduler: makes the learning-rate schedule from the optimizer. One that needs the number of steps (OneCycleLR)
            is given it and steps per batch; others step per epoch, ReduceLROnPlateau by the validation loss.
        loss: of logits `(B, K)` and labels `(B,)`.
    """

    def __init__(
        self,
        classes: list[str],
        net: nn.Module,
        optimizer: OptimizerCallable = torch.optim.Adam,
        scheduler: SchedulerCallable | None = None,
        loss: nn.Module | None = None,
    ) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Attribute .* is an instance of `nn.Module`")
            self.save_hyperparameters(logger=False)
        # From YAML they are plain values; objects made in Python stay out of checkpoints, which hold nothing else.
        objects = [name for name, value in self.hparams.items() if callable(value)]
        self.remove_ignored_hparams(objects)
        self.classes = classes
        self.pixels = Pixels()
        self.net = net.to(memory_format=torch.channels_last)
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.loss = loss or nn.CrossEntropyLoss()
        weights = getattr(self.loss, "weight", None)
        if weights is not None and weights.shape != (len(classes),):
            raise InputError(
                f"model.loss has {weights.numel()} class weights for {len(classes)} classes: give one for each of "
                f"{', '.join(classes)}"
            )
        metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(len(classes), average="micro", validate_args=False),
                "precision": MulticlassPrecision(len(classes), average="macro", validate_args=False),
                "recall": MulticlassRecall(len(classes), average="macro", validate_args=False),
                "f1": MulticlassF1Score(len(classes), average="macro", validate_args=False),
            }
        )
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")

    def setup(self, stage: str) -> None:
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit" and datamodule is not None:
            self.pixels.set_statistics(*datamodule.statistics)

    def forward(self, images: Tensor) -> Tensor:
        """Pixels 0..255, uint8 or float `(B, 3, S, S)`, to logits `(B, K)`."""
        logits: Tensor = self.net(self.pixels(images))
        return logits

    def _step(self, batch: Batch, part: str) -> tuple[Tensor, Tensor]:
        """Loss and logits of a batch; the loss is summed on the device and logged at the end of the epoch."""
        images, labels, *_ = batch
        logits = self(images)
        if logits.shape != (len(labels), len(self.classes)):
            raise InputError(
                f"model.net gives {tuple(logits.shape)} for {len(labels)} images of {len(self.classes)} classes: "
                f"it must give {(len(labels), len(self.classes))}"
            )
        loss: Tensor = self.loss(logits, labels)
        self.log(f"{part}/loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss, logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")[0]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.val_metrics.update(self._step(batch, "val")[1], batch[1])

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.test_metrics.update(self._step(batch, "test")[1], batch[1])

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Indices `(B,)` and probabilities `(B, K)`."""
        return batch[2], self(batch[0]).softmax(1)

    def on_validation_epoch_end(self) -> None:
        self._log_metrics(self.val_metrics)

    def on_test_epoch_end(self) -> None:
        self._log_metrics(self.test_metrics)

    def _log_metrics(self, metrics: MetricCollection) -> None:
        for name, value in metrics.compute().items():
            self.log(name, value, prog_bar=name.endswith("accuracy"))
        metrics.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep with the weights what was measured of them, and the experiment and seed of the run."""
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        experiment = str(self.trainer.logger.name) if self.trainer.logger else ""
        checkpoint["run"] = {"experiment": experiment, "seed": torch.initial_seed(), "metrics": metrics}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        try:
            optimizer = self.optimizer(self.parameters())
        except (TypeError, ValueError) as error:
            raise InputError(f"model.optimizer: {error}") from None
        if self.scheduler is None:
            return optimizer
        make = self.scheduler
        if isinstance(make, partial) and OneCycleLR in (make.func, *make.args):
            make = self._with_total_steps(make)
        try:
            schedule = make(optimizer)
        except (TypeError, ValueError) as error:
            raise InputError(f"model.scheduler: {error}") from None
        per_batch = isinstance(schedule, OneCycleLR | CyclicLR)
        config = {"scheduler": schedule, "interval": "step" if per_batch else "epoch"}
        if isinstance(schedule, ReduceLROnPlateau):
            config["monitor"] = "val/loss"
        return {"optimizer": optimizer, "lr_scheduler": config}  # type: ignore[return-value]

    def _with_total_steps(self, make: partial[LRScheduler]) -> partial[LRScheduler]:
        if make.keywords.get("total_steps") is not None or make.keywords.get("epochs") is not None:
            return make
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps) or steps < 1:
            raise InputError("OneCycleLR needs an end: set --trainer.max_epochs or --trainer.max_steps")
        return partial(make, total_steps=int(steps))

    def on_train_start(self) -> None:
        """Settings of the optimizer are the config's, also where a checkpoint has brought back its own."""
        if self.scheduler is None and isinstance(self.optimizer, partial):
            for group in self.trainer.optimizers[0].param_groups:
                group.update({key: value for key, value in self.optimizer.keywords.items() if key in group})
