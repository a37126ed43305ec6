"""A trained model as one file that anybody can run: calibrated, described, and proven to answer as torch does."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from cifar_lightning.data import ImageData
from cifar_lightning.files import target
from cifar_lightning.module import Classifier
from cifar_onnx import InputError, images
from cifar_onnx.contract import Precision
from cifar_onnx.uncertainty import Method

if TYPE_CHECKING:  # what they import takes seconds, and training needs none of it
    from cifar_lightning.calibration import Calibration
    from cifar_lightning.export.parity import Report

_SAMPLES = 256  # pictures that the file and torch are compared on
_RANGES = 500  # that ranges of 8-bit numbers are found by


class ParityError(Exception):
    """The exported file does not answer as the model does; the message names the stage that differs."""


@dataclass(frozen=True)
class Exported:
    """A file that has been written.

    Attributes:
        path: where it is.
        calibration: what the validation images have shown of the model.
        report: what differs between the file and torch.
    """

    path: Path
    calibration: "Calibration"
    report: "Report"

    def __str__(self) -> str:
        return f"{self.calibration}\n{self.report}"


def export(
    model: Classifier,
    data: ImageData,
    output: str | Path = "model.onnx",
    *,
    alpha: float = 0.1,
    sets: Method = "lac",
    precision: Precision = "fp32",
    origin: Mapping[str, Any] | None = None,
) -> Exported:
    """Write a trained model as one ONNX file, calibrated, and proven on real images to give the same answers.

    The model stays as it is, and where it is. The file appears whole or not at all; an older one stays until then.

    Args:
        model: the model.
        data: what it was trained on; the validation images calibrate the file.
        output: the file, or a folder for it.
        alpha: share of pictures whose right label may be missing from their prediction set.
        sets: how labels get into these sets, by probability (lac) or by sums of them (aps).
        precision: of the net: fp32, fp16 or int8. The smaller ones are written only if they are as good.
        origin: how the weights came to be, `metrics` and `provenance` of the contract; None is what the model's own
            Trainer knows.

    Raises:
        ParityError: the file would answer otherwise than torch, or the smaller net is not as good.
        InputError: the data has other classes, torch cannot export the net, or the file cannot be written.
    """
    from cifar_lightning.calibration import calibrate
    from cifar_lightning.export.model_file import write_model
    from cifar_lightning.export.parity import fused

    if [*model.classes] != [*data.classes]:
        knows, has = ", ".join(model.classes), ", ".join(data.classes)
        raise InputError(f"the model knows the classes {knows}; the data has {has}")
    path = target(str(output), Path("model.onnx"))
    samples = list(data.samples(_SAMPLES))
    net = fused(deepcopy(nn.Sequential(model.pixels, model.net)).cpu().eval(), samples)
    known, training = data.images("val"), None
    calibration = calibrate(net, known, model.classes, alpha, sets)
    if precision != "fp32":
        pixels = data.images("train").pixels
        training = pixels[np.unique(np.linspace(0, len(pixels) - 1, _RANGES).astype(int))]
    try:
        report = write_model(
            net,
            samples,
            path,
            classes=model.classes,
            size=data.image_size,
            resize=data.resize_mode,
            facts=_facts(data, origin or _origin(model)),
            calibration=calibration,
            precision=precision,
            training=training,
            known=known,
        )
    except ParityError as error:
        raise ParityError(f"no file was written: {error}") from None
    return Exported(path, calibration, report)


def _origin(model: Classifier) -> dict[str, Any]:
    """What the Trainer that a model is of knows of its training."""
    if (trainer := model._trainer) is None:
        return {"metrics": {}, "provenance": {}}
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {"metrics": metrics, "provenance": {"seed": model.seed, "step": trainer.global_step}}


def _facts(data: ImageData, origin: Mapping[str, Any]) -> dict[str, Any]:
    """What a contract tells of how its weights came to be; no dates and no paths, so that bytes repeat."""
    packages = ("cifar-lightning", "cifar-onnx", "torch", "lightning", "onnx", "onnxruntime")
    return {
        **origin,
        "provenance": {
            **origin["provenance"],
            "data": {"source": type(data).__name__, "validation": images.fingerprint(data.images("val").pixels)},
            "versions": {name: version(name) for name in packages},
        },
    }
