"""best.ckpt: the best epoch so far."""

import os
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, but of equally good epochs it keeps that of the least val/loss, not the first.

    Where few images validate many epochs are equally accurate, and the first of these has learnt the least. Where more
    than one epoch is kept (save_top_k), Lightning's order counts.
    """

    _loss: Tensor | None = None  # val/loss of what is kept

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self.monitor == "train/loss":  # known then; a validation would find that of the epoch before, or none
            self._save_on_train_epoch_end = True

    def format_checkpoint_name(self, *args: Any, **kwargs: Any) -> str:
        """As Lightning's, but the slash in the names of metrics makes no folders."""
        path, folder = super().format_checkpoint_name(*args, **kwargs), os.path.join(self.dirpath or "", "")
        return folder + path.removeprefix(folder).replace("/", "-")

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        if str(self.monitor).startswith("val/") and self.monitor not in trainer.lightning_module.measured():  # type: ignore[operator]
            return False  # what is known of it is of other weights
        better = super().check_monitor_top_k(trainer, current)
        loss = trainer.callback_metrics.get("val/loss")
        one = self.save_top_k == 1 and current is not None
        if one and not better and loss is not None and self._loss is not None:
            ahead = current == self.best_model_score and loss < self._loss.to(loss.device)
            better = trainer.strategy.reduce_boolean_decision(bool(ahead))
        if better:
            self._loss = loss
        return better

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "val_loss": self._loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self.best_model_score is not None:  # the same folder
            self._loss = state_dict.get("val_loss")
