"""One step of training on invented pictures: settings that cannot work are refused before any image is read."""

import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from traceback import extract_tb

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cifar_lightning.batch import Batch
from cifar_lightning.data import ImageData
from cifar_lightning.module import Classifier
from cifar_onnx import InputError

_COUNT = 2  # pictures: batch normalisation asks for more than one


def dry_run(model: Classifier, data: ImageData, device: torch.device) -> None:
    """Augment, forward, loss, backward, optimizer, schedule: with a copy, and no random generator is moved.

    Args:
        model: as configured.
        data: as configured; its images are not read.
        device: where training will be.

    Raises:
        InputError: it cannot work; names the setting.
    """
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (_COUNT, data.image_size, data.image_size, 3), dtype=torch.uint8, generator=generator)
    labels = torch.zeros(_COUNT, dtype=torch.int64, device=device)
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
        images = pictures.to(device).permute(0, 3, 1, 2)
        with _named("data.augment"):
            batch = data.augmented(Batch(images, labels, torch.arange(_COUNT, device=device), seed=0))
            images, labels = batch.images, batch.labels
        model = deepcopy(model).to(device)
        with _named("model.optimizer"):
            optimizer = model.recipe.optimizer_of(model)
        with _named("model.scheduler"):
            schedule = model.recipe.schedule(optimizer, lambda: 100)

        def closure() -> float:
            optimizer.zero_grad()
            with _named(f"model.net, on images of {images.shape[-1]} pixels (data.image_size)"):
                outputs = model(images)
            _check_logits(outputs, len(model.classes))
            with _named("model.loss"):
                loss = model.loss_of(outputs, labels, images)
                torch.autograd.backward(loss)
            return float(loss.detach())

        with _named("model.optimizer"):
            optimizer.step(closure)
        if schedule is not None:
            with _named("model.scheduler"):
                if isinstance(schedule, ReduceLROnPlateau):
                    schedule.step(0.0)
                else:
                    schedule.step()
                schedule.state_dict()


def _check_logits(outputs: object, classes: int) -> None:
    every, expected = outputs if isinstance(outputs, tuple) else (outputs,), (_COUNT, classes)
    if not every or any(not isinstance(each, Tensor) or each.shape != expected for each in every):
        given = str(tuple(outputs.shape)) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise InputError(
            f"model.net gives {given} for {_COUNT} pictures and {classes} classes: it must give logits {expected}"
        )


@contextmanager
def _named(key: str) -> Iterator[None]:
    """Say of which setting an error is, and which line of the user's own code it comes from."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: "
        raise InputError(f"{key}: {kind}{' '.join(str(error).split())}{_line(error)}") from error


def _line(error: Exception) -> str:
    known = {*map(Path, sysconfig.get_paths().values()), Path(__file__).parent}
    frames = [each for each in extract_tb(error.__traceback__) if known.isdisjoint(Path(each.filename).parents)]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
