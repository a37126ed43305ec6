"""Callbacks: what a run says of itself while it goes."""

import time

import lightning.pytorch as L
import torch
from torch import Tensor


class EpochLines(L.Callback):
    """Prints one plain line an epoch: for where there is no terminal, and a bar would only fill a log file."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        count = sum(parameter.numel() for parameter in pl_module.parameters())
        print(f"training {count:,} parameters on {pl_module.device}", flush=True)
        self._start = time.monotonic()
        self._first_epoch = trainer.current_epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch_start = time.monotonic()
        self._images = 0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: tuple[Tensor, ...],
        batch_idx: int,
    ) -> None:
        self._images += len(batch[1])
        if trainer.is_last_batch:
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            self._seconds = time.monotonic() - self._epoch_start

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        done = trainer.current_epoch + 1
        words = [f"epoch {done}" + (f"/{trainer.max_epochs}" if trainer.max_epochs else "")]
        metrics = trainer.callback_metrics
        shown = (name for name in ("train/loss", "val/loss", "val/accuracy") if name in metrics)
        words += [f"{name} {float(metrics[name]):.4f}" for name in shown]
        words.append(f"{self._images / self._seconds:,.0f} images/s")
        if trainer.max_epochs and trainer.max_epochs > 0:
            each = (time.monotonic() - self._start) / (done - self._first_epoch)
            words.append(f"{_duration(each * (trainer.max_epochs - done))} left")
        print("  ".join(words), flush=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
