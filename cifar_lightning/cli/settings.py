"""Settings that cannot work, refused before anything is trained."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import lightning.pytorch as L
import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, GradientAccumulationScheduler, WeightAveraging
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cifar_lightning.callbacks import BestCheckpoint
from cifar_lightning.module import Classifier
from cifar_onnx import InputError

# Callbacks that would do harm, and settings of `checkpoint` that would: why, and what to do instead.
_CALLBACKS = {
    "StochasticWeightAveraging": "averages after the last checkpoint is written, so that no checkpoint holds the "
    "average: use --trainer.callbacks+ SWA --trainer.callbacks.from_epoch N",
    "BackboneFinetuning": "is for modules with a backbone: "
    "use --trainer.callbacks+ Freeze --trainer.callbacks.until_epoch N",
}
_CHECKPOINT = {
    "dirpath": "checkpoints lie in the folder of their run, which --trainer.default_root_dir places",
    "save_last": "last.ckpt is kept anyway (see --last.every_n_epochs)",
    "save_on_exception": "it would put the weights of that moment in the place of the best, and last.ckpt is kept "
    "anyway, at the ends of epochs and where a signal ends the run",
}


def asked_callbacks(config: Namespace) -> list[Namespace]:
    """The callbacks that a config asks for, which may be none, one or a list."""
    given = config.trainer.callbacks or []
    return given if isinstance(given, list) else [given]


def check_trainer(config: Namespace, command: str) -> None:
    """Let Lightning judge the settings that it would look at only after data and model are built.

    Args:
        config: of a command.
        command: its name.

    Raises:
        InputError: a group of settings is missing, the average of a callback or a checkpoint would be lost, the best
            would be chosen by what is not measured then, the gradients of no batch are to be added up, or the command
            would have no batch.
        MisconfigurationException: Lightning takes a setting for impossible; also as ValueError or TypeError.
    """
    for group in ("checkpoint", "last"):
        if config[group] is None:
            raise InputError(f"{group} is null: give its settings, or leave it out")
    limit = {"fit": "train", "validate": "val"}.get(command, command)
    if config.trainer.get(f"limit_{limit}_batches") == 0:
        raise InputError(f"trainer.limit_{limit}_batches is 0: {command} would have nothing to do")
    if config.trainer.accumulate_grad_batches < 1:
        raise InputError("trainer.accumulate_grad_batches must be at least 1")
    if config.trainer.enable_checkpointing is False:
        raise InputError(
            "trainer.enable_checkpointing is false: a run keeps its best epoch and its last; "
            "--last.every_n_epochs writes the last less often"
        )
    for each in asked_callbacks(config):
        if (name := each.class_path.rpartition(".")[2]) in _CALLBACKS:
            raise InputError(f"{name} {_CALLBACKS[name]}")
        given = each.get("init_args", {})
        if any(given.get(f"update_starting_at_{name}") is not None for name in ("step", "epoch")):
            raise InputError(
                "EMAWeightAveraging saves the untrained weights until its averaging starts: "
                "use --trainer.callbacks+ EMA --trainer.callbacks.from_epoch N"
            )
    kept = config.checkpoint
    for name, why in _CHECKPOINT.items():
        if kept[name]:
            raise InputError(f"checkpoint.{name}: {why}: leave it out")
    if kept.filename == "last":
        raise InputError("checkpoint.filename is last, which is the name of the last step's checkpoint: use another")
    interval, steps = config.trainer.val_check_interval, kept.every_n_train_steps or kept.train_time_interval
    several = steps or isinstance(interval, int) or interval not in (None, 1)  # a whole number is one of batches
    differing = ("{step",) if several else ("{step", "{epoch")
    if kept.save_top_k not in (0, 1) and kept.filename and not any(each in kept.filename for each in differing):
        raise InputError(
            f"checkpoint.save_top_k is {kept.save_top_k}, and checkpoint.filename {kept.filename} may be one name for "
            f"several: add --checkpoint.filename {kept.filename}-{{step}}"
        )
    known = {
        "val": "only validations measure: take --trainer.val_check_interval for more of these, or",
        "train": "is known at the ends of epochs only: take",
    }.get(str(kept.monitor).partition("/")[0])
    if steps and known:
        raise InputError(
            f"checkpoint keeps the best by {kept.monitor}, which {known} --last.every_n_train_steps to keep the last "
            "steps"
        )
    if kept.save_on_train_epoch_end and interval not in (None, 1) and str(kept.monitor).startswith("val/"):
        raise InputError(
            f"checkpoint.save_on_train_epoch_end keeps the best by {kept.monitor} at the ends of epochs, where "
            f"trainer.val_check_interval {interval} need not have measured it: leave one of them out"
        )
    plain = {name: value for name, value in vars(config.trainer).items() if isinstance(value, str | int | float)}
    with quiet():
        BestCheckpoint(**vars(kept))
        L.Trainer(**{**plain, "logger": False, "callbacks": None, "enable_checkpointing": False})  # type: ignore[arg-type]


def check_training(config: Namespace, keys: Iterable[str]) -> None:
    """Refuse a training without optimizer, step or seed, and settings of which one would silently undo another.

    Args:
        config: of `fit`.
        keys: what was asked for, typed or by a sweep.

    Raises:
        InputError: it is one of these.
    """
    if config.model.optimizer is None:
        raise InputError("model.optimizer is null: name one, or leave it out for Adam")
    if config.seed_everything is False:
        raise InputError("seed_everything is false: give a number, which a checkpoint keeps to go on with")
    for name in ("max_epochs", "max_steps"):
        if config.trainer[name] == 0:
            raise InputError(f"trainer.{name} is 0: nothing would be trained")
    schedule = str(getattr(config.model.scheduler, "class_path", "")).rpartition(".")[2]
    rates = {"OneCycleLR": "max_lr", "CyclicLR": "base_lr and max_lr"}
    for each in asked_callbacks(config):
        if schedule == "CyclicLR" and each.class_path.endswith(".LearningRateFinder"):
            raise InputError("LearningRateFinder does nothing beside CyclicLR: leave it out")
    weights = (config.model.loss or {}).get("init_args", {}).get("class_weights")
    if isinstance(weights, str) and config.data.get("init_args", {}).get("sampling") == "balanced":
        raise InputError(
            f"model.loss.class_weights {weights} and data.sampling balanced each make up for rare classes, together "
            "twice: leave one of them out"
        )
    for key in keys:
        if schedule in rates and key.replace(".init_args", "") == "model.optimizer.lr":
            raise InputError(f"{key} does nothing beside {schedule}: give model.scheduler.{rates[schedule]}")


def check_batch_norm(net: nn.Module, device: torch.device) -> None:
    """Refuse to synchronise batch normalisations on CPUs, or those that do more: torch puts plain ones in their place.

    Args:
        net: the net.
        device: where training will be.

    Raises:
        InputError: torch has none for CPUs, or they are as timm's BatchNormAct2d, whose activation would be lost.
    """
    layers = {type(each) for each in net.modules() if isinstance(each, _BatchNorm)} - {nn.SyncBatchNorm}
    more = sorted(each.__name__ for each in layers if each.forward is not _BatchNorm.forward)
    remedy = "leave it out, and use batches of 32 or more per process"
    if more:
        raise InputError(
            f"trainer.sync_batchnorm would replace model.net's {more[0]} by plain batch normalisation, which does "
            f"less: {remedy}"
        )
    if layers and device.type == "cpu":
        raise InputError(f"trainer.sync_batchnorm works on GPUs only: {remedy}")


def check_compilation(mode: str | None, trainer: L.Trainer) -> None:
    """Refuse to add up gradients that lie in the memory of a CUDA graph.

    https://github.com/pytorch/pytorch/issues/169545, https://github.com/pytorch/pytorch/issues/96693

    Args:
        mode: the model's mode of compilation.
        trainer: as configured.

    Raises:
        InputError: the sums would be wrong, or the second step fail.
    """
    schedules = [each.scheduling for each in trainer.callbacks if isinstance(each, GradientAccumulationScheduler)]  # type: ignore[attr-defined]
    most = max([trainer.accumulate_grad_batches, *(count for each in schedules for count in each.values())])
    if trainer.strategy.root_device.type == "cuda" and mode in ("reduce-overhead", "max-autotune") and most > 1:
        raise InputError(
            f"model.compile {mode} overwrites gradients, and those of {most} batches are to be accumulated: "
            "use max-autotune-no-cudagraphs or default"
        )


def check_callbacks(callbacks: Sequence[Callback], model: Classifier) -> None:
    """Look for callbacks that would do harm without a word, or fail at the end of the first epoch only.

    EarlyStopping by train/loss, which is known at the ends of epochs, is told to look at it there.

    Raises:
        InputError: two average the weights, one takes the worst of a metric for its best, or one monitors a metric that
            nobody logs, where there is no callback of the user's own that may log it.
    """
    if len(averaging := [type(each).__name__ for each in callbacks if isinstance(each, WeightAveraging)]) > 1:
        raise InputError(f"{' and '.join(averaging)} cannot be combined, since each averages the weights: use one")
    names = ["train/loss", "val/loss", *map(str, model.val_metrics.keys()), "epoch", "step"]
    own = any(not type(each).__module__.startswith(("lightning.", "cifar_lightning.")) for each in callbacks)
    for callback in callbacks:
        kind, monitor = type(callback).__name__, getattr(callback, "monitor", None)
        mode = getattr(callback, "mode", None)
        best = "min" if str(monitor).endswith("/loss") else "max"
        if monitor in names and "/" in monitor and mode in ("min", "max") and mode != best:
            remedy = "add --checkpoint.mode" if isinstance(callback, BestCheckpoint) else "let its mode be"
            raise InputError(f"{kind} takes the {mode}imum of {monitor} for the best: {remedy} {best}")
        if monitor not in (None, *names) and not own:
            raise InputError(f"{kind} monitors {monitor!r}, which is not a metric: there are {', '.join(names)}")
        if isinstance(callback, EarlyStopping) and monitor == "train/loss":  # else in a validation, unless one an epoch
            callback._check_on_train_epoch_end = True


@contextmanager
def quiet() -> Iterator[None]:
    """Without what Lightning logs of itself, but for errors."""
    logs = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
