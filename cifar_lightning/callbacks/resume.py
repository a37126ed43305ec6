"""Resuming from a checkpoint, bit for bit as if the run had never stopped."""

import os
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    Timer,
    WeightAveraging,
)

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning import runs
from cifar_onnx import InputError


class Resume(L.Callback):
    """Makes a resumed run equal, bit for bit, to one that never stopped, from whatever step.

    Lightning 2.6.6 restores the counters of its loops as they stood when a hook saved them, half way through being
    counted up; which of its cases of "restarted" it then takes is right for some hooks and wrong for others, and wrong
    for most when resumed twice. Here the counters are written anew from where the run stood: so many epochs, so many
    batches of the next, and whether that place was validated.
    """

    def __init__(self) -> None:
        self._validating = False  # with averaged weights in the place of the model's
        self._resuming = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Each process has looked for the run to go on with; they must have found the same."""
        first = trainer.strategy.broadcast(trainer.ckpt_path)
        if first != trainer.ckpt_path:
            raise InputError(
                f"one process resumes from {first}, another from {trainer.ckpt_path}: name the file with --ckpt_path"
            )

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit":
            return
        threads = checkpoint["run"]["threads"]
        if threads != torch.get_num_threads():
            print(
                f"the run used {threads} CPU threads and is resumed with {torch.get_num_threads()}: its result will "
                "not be the same bit for bit"
            )
        data = trainer.datamodule  # type: ignore[attr-defined]
        if type(data).__qualname__ not in checkpoint:  # of another class, which Lightning tells nothing
            data.load_state_dict({**checkpoints.position(checkpoint), "batches": 0})  # it has other batches
        epoch, batch = data.position
        begun = int(batch > 0)
        validating = int(begun and not checkpoints.validated(checkpoint))
        loops = checkpoint["loops"]["fit_loop"]
        for counts in loops["epoch_progress"].values():
            counts.update(ready=epoch + begun, started=epoch + begun, processed=epoch, completed=epoch)
        batches = loops["epoch_loop.batch_progress"]
        total = batches["total"]["processed"] - (batches["current"]["processed"] - batch) * begun
        batches["current"] = dict.fromkeys(batches["current"], batch)
        batches["total"] = dict.fromkeys(batches["total"], total)
        batches["is_last_batch"] = False
        # Half way through a validation is what makes Lightning run it, where it is due.
        for counts in (loops["epoch_loop.val_loop.batch_progress"][key] for key in ("total", "current")):
            counts.update(ready=validating, started=validating, processed=0, completed=0)
        self._resuming = True
        _move_best(trainer, checkpoint)
        same = runs.folder_of(str(trainer.ckpt_path)).resolve() == Path(str(trainer.log_dir)).resolve()
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Timer):  # max_time is that of each process: it would be over before the first step
                checkpoint["callbacks"].pop(callback.state_key, None)
            known = checkpoint["callbacks"].get(callback.state_key, {})
            if same and isinstance(callback, EarlyStopping) and known.get("stopping_reason"):  # and then was killed
                trainer.should_stop = True
                print(f"EarlyStopping had ended the run: {known['stopping_reason_message']}", flush=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning asks GradientAccumulationScheduler where epochs begin, which a run within one has passed."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, GradientAccumulationScheduler):
                trainer.accumulate_grad_batches = callback.get_accumulate_grad_batches(trainer.current_epoch)

    def _count_steps(self, trainer: L.Trainer, steps: int) -> None:
        """Set the number of steps that loggers are told, which Lightning guesses."""
        if self._resuming:
            trainer.fit_loop.epoch_loop._batches_that_stepped = steps
            self._resuming = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._count_steps(trainer, trainer.global_step)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._count_steps(trainer, trainer.global_step - 1)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validating = True

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validating = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._count_steps(trainer, trainer.global_step)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Put the model's own weights back before anything is saved; Lightning leaves the averaged ones in place."""
        pl_module.zero_grad()  # a CUDA graph may have taken their memory back, and Lightning moves them to the CPU
        if self._validating:
            self._validating = False
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, WeightAveraging):
                    callback.on_validation_epoch_end(trainer, pl_module)


def keep_found(
    trainer: L.Trainer,
    model: L.LightningModule,
    data: L.LightningDataModule,
    checkpoint: dict[str, Any],
    asked: Collection[str],
) -> None:
    """Let a resumed run keep what Lightning's finders found at its start, and take them away: they would search again.

    Args:
        trainer: loses its finders.
        model: gets the learning rate that was found, unless another than the checkpoint's was asked for since.
        data: gets the batch size that was found.
        checkpoint: that the run goes on from.
        asked: keys that were typed, without `init_args`: what they say beats what was found.

    Raises:
        InputError: a learning rate is typed, and the schedule that is restored began with the one that was found.
    """
    size = None if "data.batch_size" in asked else checkpoint["datamodule_hyper_parameters"].get("batch_size")
    rate = checkpoint["run"].get("found_lr")
    if rate and "model.optimizer.lr" in asked and model.recipe.scheduler:  # type: ignore[union-attr]
        raise InputError(
            f"the schedule of the resumed run began with the learning rate {rate:g}, which LearningRateFinder found: "
            "leave model.optimizer.lr out"
        )
    if "model.optimizer.lr" in asked or _rate(checkpoint["hyper_parameters"]) != _rate(model.hparams):
        rate = None
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for finder in [each for each in callbacks if type(each) in (LearningRateFinder, BatchSizeFinder)]:
        kept = size if isinstance(finder, BatchSizeFinder) else rate
        if trainer.is_global_zero:
            what = "keeps what it found then" if kept else "takes what is asked for"
            print(f"{type(finder).__name__} runs only at the start: the resumed run {what}")
        callbacks.remove(finder)
        if isinstance(finder, BatchSizeFinder) and size:
            data.batch_size = data.hparams["batch_size"] = size  # type: ignore[attr-defined]
    if rate:
        model.lr = rate


def _rate(settings: Mapping[str, Any]) -> object:
    """The learning rate that an optimizer from YAML is given."""
    return (settings.get("optimizer") or {}).get("init_args", {}).get("lr")


def _move_best(trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
    """Let the ModelCheckpoints of a run that goes on in its own folder find their files where that has been moved."""
    folder = Path(str(trainer.ckpt_path)).parent.resolve()
    for callback in trainer.checkpoint_callbacks:
        state = checkpoint["callbacks"].get(callback.state_key)
        if state and isinstance(callback, ModelCheckpoint) and Path(str(callback.dirpath)).resolve() == folder:
            here = partial(_moved, folder=str(callback.dirpath))
            for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
                state[key] = here(state[key])
            state["best_k_models"] = {here(path): score for path, score in state["best_k_models"].items()}
            state["dirpath"] = callback.dirpath


def _moved(path: str, folder: str) -> str:
    return path and os.path.join(folder, os.path.basename(path))
