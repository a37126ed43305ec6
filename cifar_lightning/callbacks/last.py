"""last.ckpt: the last epoch that was kept, or step where a signal ends the run."""

import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from cifar_lightning import interruption, runs
from cifar_lightning.async_copy import AsyncCopy, in_any_process
from cifar_lightning.interruption import Interrupted
from cifar_onnx import InputError


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt` at the end of epochs and, where SIGTERM or SIGINT comes, after the step that it met.

    Lightning's ModelCheckpoint(save_last=True) writes it only when it writes another one too, and its
    `every_n_train_steps` leaves epochs out.

    Args:
        every_n_train_steps: within an epoch too, after so many optimizer steps; 0 for never.
        every_n_epochs: at the end of every so many epochs, and of the last: there are epochs on a GPU that take less
            time than writing a checkpoint.
    """

    def __init__(self, every_n_train_steps: int = 0, every_n_epochs: int = 1) -> None:
        if every_n_train_steps < 0:
            raise InputError(f"last.every_n_train_steps is {every_n_train_steps}: it must be at least 0")
        if every_n_epochs < 1:
            raise InputError(f"last.every_n_epochs is {every_n_epochs}: it must be at least 1")
        self.every_n_train_steps = every_n_train_steps
        self.every_n_epochs = every_n_epochs
        self._steps = 0  # finished
        self._training = self._kept = self._accumulating = False
        self._told: AsyncCopy | None = None  # whether any process was to stop when it was last asked

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        folder = trainer.log_dir
        self._path = Path(folder, runs.LAST) if folder and not trainer.fast_dev_run else None  # type: ignore[attr-defined]

    def _save(self, trainer: L.Trainer) -> None:
        if self._path:
            trainer.save_checkpoint(self._path, weights_only=False)
            self._kept = True

    def _stopping(self, trainer: L.Trainer) -> bool:
        """Whether any of the processes has had a signal: they all stop after the same step, on GPUs after the next."""
        stopping = interruption.received() is not None
        if trainer.world_size == 1:
            return stopping
        device = trainer.strategy.root_device
        flag = torch.full((1,), stopping, device=device)  # a copy to the device would be waited for
        told = AsyncCopy(in_any_process(flag))
        before, self._told = told if device.type == "cpu" else self._told, told
        return before is not None and any(before.read())

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Lightning has put its own handler in front, which ends with exit code 0 and saves nothing.
        interruption.listen()
        interruption.defer(True)
        # Nor does Lightning need to ask all processes in each step whether they have met it: a GPU would be waited for.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        self._training = True
        self._told = None
        self._steps = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Any, batch_idx: int
    ) -> None:
        self._accumulating = trainer.global_step == self._steps
        if self._accumulating:
            return  # there is nothing yet to resume from
        self._steps = trainer.global_step
        self._kept = False
        if self._stopping(trainer):
            raise _interrupted()
        if self.every_n_train_steps and self._steps % self.every_n_train_steps == 0:
            self._save(trainer)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._training and not self._accumulating and self._stopping(trainer):
            raise _interrupted()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        done = trainer.current_epoch + 1
        stopping = trainer.should_stop and done >= (trainer.min_epochs or 0)
        ending = stopping or done == trainer.max_epochs or trainer.global_step == trainer.max_steps
        if ending or done % self.every_n_epochs == 0:
            self._save(trainer)
        if self._stopping(trainer):
            raise _interrupted()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._training = False
        interruption.defer(False)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if self._training and isinstance(exception, Interrupted):
            self._training = False
            if not self._kept and self._steps:
                self._save(trainer)
            if self._path and trainer.is_global_zero:
                print(f"{exception} after step {self._steps:,}, kept in {self._path}")


def _interrupted() -> Interrupted:
    return Interrupted(interruption.received() or signal.SIGTERM)  # the latter where another process has had it
