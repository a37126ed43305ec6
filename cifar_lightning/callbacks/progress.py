"""What is shown of a run while it goes on: one plain line an epoch, and on a terminal a bar."""

import sys
import time
from collections.abc import Iterator

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import RichProgressBar, Timer, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from cifar_lightning.batch import Batch
from cifar_onnx.shell import duration


class EpochLines(L.Callback):
    """Prints one plain line an epoch, above the bar where there is one: what a terminal, or a log file, keeps."""

    def __init__(self) -> None:
        self._start = self._epoch_start = self._validation_start = 0.0  # moments
        self._validation_seconds = 0.0  # seconds of this epoch
        self._first_epoch = self._first_step = self._images = 0
        self._speed: float | None = None  # images per second of an epoch whose line is to come

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        every = [(parameter.numel(), parameter.requires_grad) for parameter in pl_module.parameters()]
        total, count = sum(number for number, _ in every), sum(number for number, trained in every if trained)
        of = f" of {total:,}" if count < total else ""
        processes = f" and {trainer.world_size - 1} more" if trainer.world_size > 1 else ""
        self._print(trainer, f"training {count:,}{of} parameters on {pl_module.device}{processes}")
        self._start = time.perf_counter()
        self._first_epoch, self._first_step = trainer.current_epoch, trainer.global_step
        self._begin()  # a resumed epoch does not start

    def _begin(self) -> None:
        self._epoch_start = time.perf_counter()
        self._images = 0
        self._validation_seconds = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._line(trainer, trainer.current_epoch)
        self._begin()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self._images += len(batch.labels) * trainer.world_size

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation_start = _now(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._validation_seconds += time.perf_counter() - self._validation_start

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The line itself waits for the module to log its loss, which comes after this hook."""
        self._speed = self._images / (_now(pl_module) - self._epoch_start - self._validation_seconds)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._line(trainer, trainer.current_epoch)
        for callback in trainer.early_stopping_callbacks:
            if (why := callback.stopping_reason_message) and callback.stopped_epoch >= self._first_epoch:
                self._print(trainer, f"EarlyStopping ended the run after epoch {trainer.current_epoch}: {why}")

    def _line(self, trainer: L.Trainer, done: int) -> None:
        if self._speed is None:
            return
        last = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs > 0 else None
        words = [f"epoch {done}/{last}" if last else f"epoch {done}"]
        metrics = trainer.callback_metrics
        # What was last validated stands in the metrics until it is again.
        shown = ("train/loss", "val/loss", "val/accuracy") if self._validation_seconds else ("train/loss",)
        words += [f"{name} {float(metrics[name]):.4f}" for name in shown if name in metrics]
        words.append(f"{self._speed:,.0f} images/s")
        if left := list(self._left(trainer, done, last)):
            words.append(f"{duration(max(min(left), 0))} left")
        self._print(trainer, "  ".join(words))
        self._speed = None

    def _left(self, trainer: L.Trainer, done: int, last: int | None) -> Iterator[float]:
        """Seconds until each of the ends that the run has, whichever comes first."""
        passed = time.perf_counter() - self._start
        if last:
            yield passed / (done - self._first_epoch) * (last - done)
        if trainer.max_steps > 0:
            steps = trainer.global_step - self._first_step
            yield passed / max(steps, 1) * (trainer.max_steps - trainer.global_step)
        for timer in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(timer, Timer) and (seconds := timer.time_remaining()) is not None:
                yield seconds

    def _print(self, trainer: L.Trainer, line: str) -> None:
        if trainer.is_global_zero:
            by_tqdm = isinstance(trainer.progress_bar_callback, TQDMProgressBar)
            (Tqdm.write if by_tqdm else print)(line)  # Rich's bar takes what is printed itself
            sys.stdout.flush()


class EpochProgressBar(RichProgressBar):
    """Lightning's bar, with epochs counted from 1, as the lines above it have them, and without the run's number.

    It is drawn 10 times a second: 100 times, as Lightning has it, take some 8 % more of two CPUs with steps of 10 ms.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}

    def _get_train_description(self, current_epoch: int) -> str:
        last = self.trainer.max_epochs or 0
        words = f"Epoch {current_epoch + 1}" + (f"/{last}" if last > 0 else "")
        return words.ljust(len(self.validation_description))  # of one length, so that the bar stays where it is


def _now(module: L.LightningModule) -> float:
    """The moment when the steps that are queued on its device are done."""
    if module.device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()
