"""The export, from a trained model and its data to a file: calibrate, describe, prove that it answers as torch does."""

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from cifar_lightning.data import ImageData
from cifar_lightning.data.images import Images, Part, Sample, spread
from cifar_lightning.data.match import check_match
from cifar_lightning.error_source import named
from cifar_lightning.export.errors import ParityError
from cifar_lightning.files import check_writable, target
from cifar_lightning.module import Classifier
from cifar_lightning.outputs import check
from cifar_onnx import InputError, contract, shell
from cifar_onnx.contract import Precision
from cifar_onnx.errors import check_choice, some
from cifar_onnx.images import fingerprint
from cifar_onnx.uncertainty import Method

if TYPE_CHECKING:  # what they import takes seconds, and training needs none of it
    from cifar_lightning.calibration import Calibration
    from cifar_lightning.export.parity import Report

_SAMPLES = 256  # pictures that the file and torch are compared on
_ROUNDING = 2e-4  # that two calibrations by the same images may differ by: CPUs differ in the last bits of logits
_RANGES = 500  # training pictures that the ranges of int8 are found on


@dataclass(frozen=True)
class Exported:
    """A file that has been written.

    Attributes:
        path: where it is.
        calibration: what the validation images have shown of the net in the file.
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
) -> Exported:
    """Write a trained model as one ONNX file, calibrated, and proven on real images to give the same answers.

    The model stays as it is, and where it is. The file appears whole or not at all; an older one stays until then.

    Args:
        model: the model.
        data: what it was trained on; of the validation images, 10,000 at most calibrate the file.
        output: the file, or a folder for it.
        alpha: share of pictures whose right label may be missing from their prediction set.
        sets: how labels get into these sets, by probability (lac) or cumulatively (aps).
        precision: of the net: fp32, fp16 or int8. The smaller ones are written only if they are as good.

    Raises:
        ParityError: the file would answer otherwise than its net, or the smaller net is not as good.
        InputError: an argument has no such value, the data has other classes, or its pictures become square otherwise
            than the model has learnt them, the net gives something else than logits, torch cannot export it, or the
            file cannot be written.
    """
    from cifar_lightning.calibration import calibrate, calibration_images
    from cifar_lightning.export.model_file import write_model

    check_choice("sets", sets, Method)
    check_choice("precision", precision, Precision)
    check_match("the model", model.classes, model.input_rule, data)
    path = target(str(output), Path("model.onnx"))
    check_writable(path.parent)  # before the work: a large net takes minutes
    pictures = list(samples(data, _SAMPLES))
    net = as_exported(model, pictures)
    validation = calibration_images(data.images("val"))
    calibration = calibrate(net, validation, model.classes, alpha, sets)
    training = None
    if precision != "fp32":
        pixels = data.images("train").pixels
        training = pixels[np.unique(np.linspace(0, len(pixels) - 1, _RANGES).astype(int))]
    try:
        calibration, report = write_model(
            net,
            pictures,
            path,
            classes=model.classes,
            size=data.image_size,
            resize=data.resize_mode,
            facts=_facts(model, data, validation),
            calibration=calibration,
            precision=precision,
            training=training,
            known=validation,
        )
    except ParityError as error:
        raise ParityError(f"no file was written: {error}") from None
    return Exported(path, calibration, report)


def verify(model: Classifier, data: ImageData, file: str | Path = "model.onnx", *, images: int = _SAMPLES) -> "Report":
    """Compare a model file with the model that it was exported from, on real images, and their calibrations.

    Args:
        model: the model, which stays as it is.
        data: as for `export`.
        file: the model file.
        images: how many pictures to compare on.

    Raises:
        ParityError: naming the first stage that differs.
        InputError: the file is damaged, or of another precision than fp32, or the net gives something else than logits.
    """
    from cifar_lightning.calibration import calibrate, calibration_images
    from cifar_lightning.export.parity import compare
    from cifar_lightning.familiarity import Scored, outputs_of

    if images < 1:
        raise InputError(f"images is {images}: it must be at least 1")
    content, known = contract.read(file)
    if (precision := known.info.get("precision")) != "fp32":
        replay = shell.line("python", "-m", "cifar_onnx", "verify", file)
        raise InputError(f"{file} is {precision}, not an exact copy of the checkpoint: use {replay}")
    for own, other in zip_longest(known.classes, model.classes):
        if own != other:
            names = f"{some(known.classes)}, not {some(model.classes)}"
            first = f"{own or 'no class'}, not {other or 'no class'}"
            raise ParityError(f"labels: {file} knows {names}: the first that differs is {first}")
    # The mode is a setting only of data whose pictures are not all square already.
    seen = {"image_size": known.size, "resize_mode": known.resize}
    for key, value in data.input_rule.items():
        if seen[key] != value:
            raise ParityError(f"resize: {file} was exported with data.{key} {seen[key]}, and the data has {value}")
    pictures = list(samples(data, images))
    net = as_exported(model, pictures)
    validation = calibration_images(data.images("val"))
    now = calibrate(net, validation, model.classes, known.sets.alpha, known.sets.method)
    answers = outputs_of(Scored(net, now.score), np.stack([sample.pixels for sample in pictures]))
    report = compare(content, pictures, answers, model.classes)
    pairs = (
        (now.temperature, known.temperature),
        (now.sets.threshold, known.sets.threshold),
        (now.unknown.threshold, known.unknown.threshold),
    )
    alike = all(math.isclose(a, b, rel_tol=_ROUNDING, abs_tol=_ROUNDING) for a, b in pairs)
    if not alike or now.unknown.score != known.unknown.score:
        raise ParityError(f"calibration: {file} was calibrated on other images than the validation images are now")
    return report


def samples(data: ImageData, count: int) -> Iterator[Sample]:
    """Pictures that training knows, spread over the validation set and, where that is too small, over train."""
    parts: tuple[Part, Part] = ("val", "train")
    for part in parts:
        images = data.images(part)
        chosen = spread(len(images), count)
        for index in chosen:
            name = f"{part} image {images.names[index]}"
            yield Sample(name, *data.original(part, index), images.pixels[index])
        count -= len(chosen)
        if count <= 0:
            return


def as_exported(model: Classifier, pictures: Sequence[Sample]) -> nn.Sequential:
    """Normalisation and net as they are exported: a copy on the CPU, in float32 and evaluation mode.

    Args:
        model: the model.
        pictures: those on which branches that only training needs must make no difference, to be left out.

    Raises:
        InputError: the net cannot be copied, or gives something else than logits alone.
    """
    from cifar_lightning.export.parity import fused

    with named("model.net cannot be copied"):
        net = deepcopy(nn.Sequential(model.pixels, model.net))
    net = net.cpu().float().eval()
    few = np.stack([picture.pixels for picture in pictures[:2]])
    check(net, torch.from_numpy(few).permute(0, 3, 1, 2), len(model.classes))
    return fused(net, pictures)


def _facts(model: Classifier, data: ImageData, validation: Images) -> dict[str, Any]:
    """What a contract tells of how its weights came to be; no dates and no paths, so that bytes repeat."""
    versions = {name: version(name) for name in ("cifar-lightning", "cifar-onnx", "torch", "lightning", "onnx")}
    measured = model.origin.get("metrics", {}).items()  # and what callbacks have logged besides
    return {
        "metrics": {name: x for name, x in measured if name.startswith(("train/", "val/")) and math.isfinite(x)},
        "provenance": {
            **model.origin.get("provenance", {}),
            "data": {"source": type(data).__name__, "validation": fingerprint(validation.pixels)},
            # Which may be installed as onnxruntime-gpu or -openvino.
            "versions": {**versions, "onnxruntime": onnxruntime.__version__},
        },
    }
