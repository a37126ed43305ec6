"""One step of training on invented pictures: settings that cannot work are refused before any image is read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cifar_lightning.batch import Batch
from cifar_lightning.data import ImageData
from cifar_lightning.error_source import named
from cifar_lightning.module import Classifier
from cifar_lightning.outputs import check, shape
from cifar_onnx import InputError

_MOST = 2  # pictures


def dry_run(
    model: Classifier, data: ImageData, device: torch.device, checkpoint: Mapping[str, Any] | None = None
) -> None:
    """Augment, forward, loss, backward, optimizer, schedule, evaluate: a copy, and no random generator is moved.

    Args:
        model: as configured.
        data: as configured; its images are not read.
        device: where training will be.
        checkpoint: that the run goes on from, if it does.

    Raises:
        InputError: it cannot work; names the setting.
    """
    generator, count = torch.Generator().manual_seed(0), min(_MOST, data.batch_size)
    fixed = f"those of {type(data).__name__} stay so, ImageFolder and ImageNet have data.image_size"
    setting = "data.image_size" if "image_size" in data.hparams else fixed
    pictures = torch.randint(256, (count, data.image_size, data.image_size, 3), dtype=torch.uint8, generator=generator)
    labels = torch.zeros(count, dtype=torch.int64, device=device)
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"), _untuned():
        plain = pictures.to(device).permute(0, 3, 1, 2)
        key = "data.augment" if data.mix is None else "data.augment or data.mix"
        with named(key):
            batch = data.augmented(Batch(plain, labels, torch.arange(count, device=device), seed=0))
            images, labels = batch.images, batch.labels
            if images.dtype != torch.uint8 or images.shape[:2] != plain.shape[:2]:
                raise InputError(
                    f"{key} makes images {images.dtype} {tuple(images.shape)}: they must stay torch.uint8 "
                    f"{tuple(plain.shape)}"
                )
        with named("model cannot be copied"):
            model = deepcopy(model).to(device)
        with named("model.optimizer"):
            optimizer = model.recipe.optimizer_of(model)
        with named("model.scheduler"):
            schedule = model.recipe.schedule(optimizer, lambda: 100)

        def closure() -> float:
            optimizer.zero_grad()
            with named(f"model.net, on images of {images.shape[-1]} pixels ({setting})"):
                outputs = model(images)
            _check_logits(outputs, count, len(model.classes))
            with named("model.loss"):
                loss = model.loss_of(outputs, labels, images)
                torch.autograd.backward(loss)
            return float(loss.detach())

        with named("model.optimizer"):
            optimizer.step(closure)
        if checkpoint:
            _check_state(optimizer, model.hparams, checkpoint)
        if schedule is not None:
            with named("model.scheduler"):
                if isinstance(schedule, ReduceLROnPlateau):
                    schedule.step(0.0)
                else:
                    schedule.step()
                schedule.state_dict()
        check(model.eval(), plain, len(model.classes))


@contextmanager
def _untuned() -> Iterator[None]:
    """Without cuDNN's search for the fastest kernels (trainer.benchmark), which is for the sizes of the training."""
    asked = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = asked


def _check_state(optimizer: Optimizer, settings: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> None:
    """Refuse an optimizer that keeps more of each weight than the checkpoint holds; where that is nothing, it may."""
    kept, needed = (
        {name for each in states.values() for name in each}
        for states in (checkpoint["optimizer_states"][0]["state"], optimizer.state)
    )
    if kept and (missing := needed - kept):
        before, now = (each["optimizer"].get("init_args", {}) for each in (checkpoint["hyper_parameters"], settings))
        new = [f"model.optimizer.{name}" for name, value in now.items() if value and not before.get(name)]
        raise InputError(
            f"model.optimizer needs {', '.join(sorted(missing))} of each weight, which the checkpoint does not hold: "
            f"leave {' and '.join(new) or 'its settings'} as it was"
        )


def _check_logits(outputs: object, count: int, classes: int) -> None:
    every, expected = outputs if isinstance(outputs, tuple) else (outputs,), str((count, classes))
    if not every or any(shape(each) != expected for each in every):
        raise InputError(
            f"model.net gives {shape(outputs)} for {count} pictures and {classes} classes: "
            f"it must give logits {expected}"
        )
