"""One step of training on invented pictures: settings that cannot work are refused before any image is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cifar_lightning.batch import Batch
from cifar_lightning.data import ImageData
from cifar_lightning.error_source import named
from cifar_lightning.module import Classifier
from cifar_onnx import InputError

_MOST = 2  # pictures
_ALIKE = 0.05  # of the largest logit: what a picture's may differ by, with others beside it, before anything is learnt


def dry_run(model: Classifier, data: ImageData, device: torch.device) -> None:
    """Augment, forward, loss, backward, optimizer, schedule, evaluate: a copy, and no random generator is moved.

    Args:
        model: as configured.
        data: as configured; its images are not read.
        device: where training will be.

    Raises:
        InputError: it cannot work; names the setting.
    """
    generator, count = torch.Generator().manual_seed(0), min(_MOST, data.batch_size)
    pictures = torch.randint(256, (count, data.image_size, data.image_size, 3), dtype=torch.uint8, generator=generator)
    labels = torch.zeros(count, dtype=torch.int64, device=device)
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"), _untuned():
        plain = pictures.to(device).permute(0, 3, 1, 2)
        with named("data.augment"):
            batch = data.augmented(Batch(plain, labels, torch.arange(count, device=device), seed=0))
            images, labels = batch.images, batch.labels
            if images.dtype != torch.uint8 or images.shape[:2] != plain.shape[:2]:
                raise InputError(
                    f"data.augment makes images {images.dtype} {tuple(images.shape)}: they must stay torch.uint8 "
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
            with named(f"model.net, on images of {images.shape[-1]} pixels (data.image_size)"):
                outputs = model(images)
            _check_logits(outputs, count, len(model.classes))
            with named("model.loss"):
                loss = model.loss_of(outputs, labels, images)
                torch.autograd.backward(loss)
            return float(loss.detach())

        with named("model.optimizer"):
            optimizer.step(closure)
        if schedule is not None:
            with named("model.scheduler"):
                if isinstance(schedule, ReduceLROnPlateau):
                    schedule.step(0.0)
                else:
                    schedule.step()
                schedule.state_dict()
        _check_evaluation(model.eval(), plain)


@contextmanager
def _untuned() -> Iterator[None]:
    """Without cuDNN's search for the fastest kernels (trainer.benchmark), which is for the sizes of the training."""
    asked = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = asked


def _check_logits(outputs: object, count: int, classes: int) -> None:
    every, expected = outputs if isinstance(outputs, tuple) else (outputs,), str((count, classes))
    if not every or any(_shape(each) != expected for each in every):
        raise InputError(
            f"model.net gives {_shape(outputs)} for {count} pictures and {classes} classes: "
            f"it must give logits {expected}"
        )
    if any(each.dtype == torch.float64 for each in every):  # as no other part of the way to an exported file is
        raise InputError("model.net gives logits in float64: let it end with .float()")


@torch.no_grad()
def _check_evaluation(model: Classifier, images: Tensor) -> None:
    """Refuse a net whose outputs in evaluation mode are no logits alone, or depend on the rest of the batch."""
    answers = []
    for given in (images, images[:1]):
        with named(f"model.net, in evaluation mode, on a batch of {len(given)}"):
            outputs = model(given)
        if _shape(outputs) != str(expected := (len(given), len(model.classes))):
            raise InputError(
                f"model.net, in evaluation mode, gives {_shape(outputs)} for a batch of {len(given)}: then it must "
                f"give logits {expected} alone"
            )
        answers.append(outputs[0])
    beside, alone = answers
    if beside.isfinite().all() and not (beside - alone).abs().max() <= _ALIKE * beside.abs().max():
        raise InputError(
            "model.net, in evaluation mode, answers a picture differently alone than in a batch: nothing in it may "
            "then be random or depend on the batch (self.training says when)"
        )


def _shape(outputs: object) -> str:
    return str(tuple(outputs.shape)) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
