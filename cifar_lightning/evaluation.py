"""The evaluation of a checkpoint after its test, as `python -m cifar_onnx evaluate` makes it of a file.

Notation: `B` batch, `S` side of the images in pixels, `K` classes.
"""

from collections.abc import Sequence

import lightning.pytorch as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cifar_lightning import runs
from cifar_lightning.attacks import under_attacks
from cifar_lightning.calibration import calibrate, calibration_images
from cifar_lightning.data import ImageData
from cifar_lightning.data.images import Images
from cifar_lightning.familiarity import Watched, outputs_of, values
from cifar_lightning.files import file_digest
from cifar_lightning.module import Classifier
from cifar_onnx import InputError
from cifar_onnx.evaluation.bootstrap import Bootstrap, draw
from cifar_onnx.evaluation.evaluation import Evaluation
from cifar_onnx.evaluation.outcome import Answers, Outcome
from cifar_onnx.evaluation.reliability import reliability
from cifar_onnx.evaluation.robustness import under_corruptions
from cifar_onnx.evaluation.slices import Groups, slicings
from cifar_onnx.images import Pixels


def evaluate(
    trainer: L.Trainer,
    model: Classifier,
    datamodule: ImageData,
    ckpt_path: str,
    *,
    groups: Groups | None,
    corruptions: bool,
    attacks: Sequence[float],
    resamples: int,
) -> tuple[Evaluation, Answers]:
    """Evaluate a model that has just been tested.

    Args:
        trainer: that has tested it.
        model: with its answers.
        datamodule: with the test set.
        ckpt_path: where its weights come from.
        groups: of the pictures, by the user.
        corruptions: also with noise, blur, fog and the like, of 10,000 images at most, evenly spread.
        attacks: radii of adversarial attacks, in grey levels of 255.
        resamples: of the bootstrap.

    Returns:
        what is known, and the net itself: uint8 `(B, S, S, 3)` to calibrated logits `(B, K)` and familiarity `(B,)`.
    """
    images, device = datamodule.images("test"), trainer.strategy.root_device
    indices, answers, contrasts = (tensor.numpy() for tensor in model.tested)
    judged, net = images.take(indices), nn.Sequential(model.pixels, model.net)
    net.to(device).eval()
    known, score, watched = None, None, Watched(net)
    if validation := _validation(datamodule, ckpt_path):
        with trainer.precision_plugin.forward_context():
            # As export does, which may fuse branches first.
            known = calibrate(net, calibration_images(validation), model.classes)
        score = values(known.score, answers, contrasts)
    temperature = np.float32(known.temperature if known else 1)

    def run(batch: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        with trainer.precision_plugin.forward_context():
            answers, contrasts = outputs_of(watched, batch)
        scaled: NDArray[np.float32] = answers / temperature
        return scaled, values(known.score, answers, contrasts) if known else None

    outcome = Outcome(
        classes=tuple(model.classes),
        names=judged.names,
        labels=judged.labels,
        logits=(answers / temperature).astype(np.float32),
        pixels=judged.pixels,
        areas=judged.areas,
        unreadable=images.unreadable,
        familiarity=score,
    )
    properties = groups.of(judged.names, datamodule.folder("test")) if groups else None
    harder = [under_corruptions(outcome, run)] if corruptions else []
    if attacks:
        with trainer.precision_plugin.forward_context():
            harder.append(under_attacks(outcome, model, attacks, device))
    bootstrap = Bootstrap(outcome, draw(len(outcome.labels), resamples))
    facts = {
        "checkpoint": ckpt_path,
        "digest": file_digest(ckpt_path),
        "net": type(model.net).__name__,
        "input": f"{datamodule.image_size} x {datamodule.image_size} pixels ({datamodule.resize_mode})",
        "maps_by": "occlusion",
        "run_by": f"PyTorch {torch.__version__}",
    }
    title = str(runs.folder_of(ckpt_path))
    doubts = reliability(outcome, known.temperature, known.sets, known.unknown, run) if known else None
    return Evaluation(title, facts, bootstrap, slicings(outcome, properties), harder, doubts), run


def _validation(datamodule: ImageData, ckpt_path: str) -> Images | None:
    """The run's own pictures to calibrate by; None, which is said, where the data has none of them."""
    noted = runs.facts(runs.folder_of(ckpt_path)).get("images")
    try:
        validation = datamodule.images("val")
        others = datamodule.elsewhere and noted != datamodule.images("train").digest
    except InputError as error:
        reason = str(error)
    else:
        if not others:
            return validation
        known = "known to be " if noted is None else ""
        advice = "python -m cifar_onnx evaluate judges an exported file as it is"
        reason = f"these are not {known}the run's pictures ({advice})"
    print(f"skipping calibration, prediction sets and unknown pictures: {reason}")
    return None
