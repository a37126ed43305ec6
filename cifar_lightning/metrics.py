"""Losses and metrics of an epoch, and the answers to the test set: what the LightningModule measures.

Notation: `B` batch, `N` images, `K` classes, `D` contrasts.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from cifar_lightning.recipe import Optimized, Recipe

Measurement = Literal["train", "val", "test"]


class MacroMean(Metric):
    """Precision, recall or F1 of each class that is shown or answered, and their mean, as torchmetrics has it.

    That is `hits / (share * answered + (1 - share) * shown)`. torchmetrics counts it by a table `(K, K)` of each batch,
    and on MPS or under `deterministic` by one `(B, K^2)`. Whole numbers add up to the same in whatever order.

    Args:
        classes: `K`.
        share: 1 for precision, 0 for recall, 0.5 for F1.
    """

    hits: Tensor
    answered: Tensor
    shown: Tensor

    def __init__(self, classes: int, share: float) -> None:
        super().__init__()
        self.share = share
        for name in ("hits", "answered", "shown"):
            self.add_state(name, torch.zeros(classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count the answers of logits `(B, K)` to labels `(B,)`."""
        answers, one = logits.argmax(1), torch.ones_like(labels)
        self.hits = self.hits.index_add(0, labels, (answers == labels).long())
        self.answered = self.answered.index_add(0, answers, one)
        self.shown = self.shown.index_add(0, labels, one)

    def compute(self) -> Tensor:
        """A scalar, 0 to 1."""
        scores = self.hits / (self.share * self.answered + (1 - self.share) * self.shown).clamp(min=0.5)  # (K,)
        return scores.sum() / (self.answered + self.shown).count_nonzero()


class Measured(Optimized):
    """Keeps sums on the device until the end of an epoch, so that no training step waits for one.

    Args:
        recipe: of optimizer and schedule.
        classes: names, in the order of the logits.

    Attributes:
        validated: whether the weights have been validated since the epoch began.
        tested: places `(N,)` of the test images that were judged, in their order, logits `(N, K)`, and contrasts
            `(N, D)`, which familiarity is computed from.
        seed: that of the run, once it has begun.
        origin: how its weights came to be, as the contract of a file tells it; empty where that is not known.
        input_rule: likewise, that of the data: the size of the images, and how pictures become square.
    """

    tested: tuple[Tensor, Tensor, Tensor]

    def __init__(self, recipe: Recipe, classes: list[str]) -> None:
        super().__init__(recipe)
        self.classes = classes
        metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(len(classes), average="micro", validate_args=False),
                "precision": MacroMean(len(classes), share=1.0),
                "recall": MacroMean(len(classes), share=0.0),
                "f1": MacroMean(len(classes), share=0.5),
            }
        )
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")
        self.validated = False
        self.seed = 0
        self.origin: dict[str, Any] = {}
        self.input_rule: dict[str, Any] = {}
        self._validated_step: int | None = None  # the last whose weights were validated
        self._known: dict[str, float] = {}  # metrics of the run that is resumed
        self._losses: dict[Measurement, tuple[Tensor, int]] = {}  # of this epoch: sum over images, and their number
        self._answers: list[tuple[Tensor, Tensor, Tensor]] = []  # to test images: indices, logits, contrasts

    def note_loss(self, part: Measurement, loss: Tensor, count: int) -> None:
        """Add the mean loss of some images to those of the epoch."""
        total, before = self._losses.get(part) or (torch.zeros((), device=loss.device), 0)
        self._losses[part] = torch.add(total.to(loss.device), loss.detach(), alpha=count), before + count

    def note_answers(self, indices: Tensor, logits: Tensor, contrasts: Tensor, labels: Tensor) -> None:
        """Keep logits `(B, K)` and contrasts `(B, D)` of the test images at `indices` `(B,)`, and judge them."""
        self.test_metrics.update(logits, labels)
        self._answers.append((indices, logits.float(), contrasts.float()))

    def loss_of_all(self, part: Measurement) -> tuple[Tensor, Tensor]:
        """Sum of the losses of all images of this epoch so far, in all processes, and their number."""
        total, count = self._losses.get(part, (torch.zeros(()), 0))
        # Restored from a checkpoint, it came before the model was on its device.
        both = torch.stack([total.to(self.device), torch.full((), float(count), device=self.device)])
        if self.trainer.world_size > 1:
            both = self.trainer.strategy.reduce(both, reduce_op="sum")
        return both[0], both[1]

    def log_loss(self, part: Measurement) -> None:
        """Log the mean loss of this epoch so far."""
        total, count = self.loss_of_all(part)
        self.log(f"{part}/loss", total / count, sync_dist=True)  # synchronised already; again, it spares a warning

    def _log_metrics(self, part: Measurement, metrics: MetricCollection) -> None:
        self.log_loss(part)
        for name, value in metrics.compute().items():
            self.log(name, value, prog_bar=name.endswith("accuracy"), sync_dist=True)
        metrics.reset()

    def on_train_epoch_start(self) -> None:
        self._losses.pop("train", None)

    def on_validation_epoch_start(self) -> None:
        self._losses.pop("val", None)

    def on_test_epoch_start(self) -> None:
        self._losses.pop("test", None)
        self._answers.clear()

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val", self.val_metrics)
        self.validated = not self.trainer.sanity_checking
        if self.validated:
            self._validated_step = self.trainer.global_step

    @property
    def cut_short(self) -> bool:
        """Whether the epoch that was trained last has ended before its last batch, as by trainer.max_time."""
        return bool(self.trainer.fit_loop.batch_idx + 1 < self.trainer.num_training_batches)

    def measured(self) -> dict[str, float]:
        """What was logged of these weights, without the metrics of a validation of earlier ones."""
        stale = self._validated_step != self.trainer.global_step
        known = self.trainer.callback_metrics.items()
        return {name: float(value) for name, value in known if not (stale and name.startswith("val/"))}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep with the weights what was measured of them, and the facts of the run."""
        total, count = self.loss_of_all("train")
        checkpoint["run"] = {
            "experiment": str(self.trainer.logger.name) if self.trainer.logger else "",
            "seed": self.seed,
            "threads": torch.get_num_threads(),
            "metrics": {name: float(value) for name, value in self.trainer.callback_metrics.items()},
            "measured": self.measured(),
            "validated": self.validated,
            "train_loss": (total.cpu(), int(count)),
            "found_lr": self._found_lr,
            "input": self.input_rule,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what is known of the weights, and an epoch that was interrupted; the first process has its loss."""
        run = checkpoint["run"]
        self._known = run["metrics"]
        self.validated = run["validated"]
        if self._trainer and self._trainer.is_global_zero:  # there is none in load_from_checkpoint
            total, count = run["train_loss"]
            self._losses["train"] = total, count
        measured, step = run.get("measured", run["metrics"]), checkpoint.get("global_step")
        self._validated_step = step if "val/loss" in measured else None
        provenance = {"seed": run["seed"], "epoch": checkpoint.get("epoch"), "step": step}
        self.origin = {"metrics": measured, "provenance": provenance}
        self.input_rule = run.get("input", {})

    def on_train_start(self) -> None:
        self.origin = {}  # from here on these are other weights
        self.input_rule = getattr(self.trainer.datamodule, "input_rule", {})  # type: ignore[attr-defined]
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self._known.items()})

    def on_fit_end(self) -> None:
        provenance = {"seed": self.seed, "step": self.trainer.global_step}
        self.origin = {"metrics": self.measured(), "provenance": provenance}

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test", self.test_metrics)
        found = [torch.cat(parts).cpu() for parts in zip(*self._answers, strict=True)]
        if self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, found)
            found = [torch.cat(each) for each in zip(*parts, strict=True)]
        order = found[0].argsort()
        indices, logits, contrasts = (each[order] for each in found)
        self.tested = indices, logits, contrasts
