"""The gate: a model file must answer as its net does, stage by stage, from the encoded bytes of pictures.

Notation: `B` pictures, `S` side of the square that the net sees, `K` classes.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import nn

from cifar_lightning.data.images import Sample
from cifar_lightning.export import graph
from cifar_lightning.export.errors import ParityError
from cifar_lightning.familiarity import Energy, Scored, outputs_of
from cifar_lightning.nets.zoo import Named
from cifar_onnx import Classifier, images
from cifar_onnx.evaluation.outcome import in_parts
from cifar_onnx.prediction import Scores
from cifar_onnx.session import run, session

TOLERANCE = 1e-4  # of logits and probabilities from the same pixels
_LARGE = 3  # beyond this, logits may differ by as much more: float32 has no more digits


@dataclass(frozen=True)
class Report:
    """What the gate measured, over `count` pictures: largest differences between the file and its net.

    It is compared with torch or, for a smaller variant, with that net alone, run by onnxruntime; `variant` then says
    what was lost and won.
    """

    count: int
    logits: float
    probabilities: float
    labels: int
    variant: str = ""

    def __str__(self) -> str:
        peer = "the smaller net alone" if self.variant else "torch"
        return self.variant + (
            f"parity with {peer} on {self.count} pictures, from their encoded bytes: decoded and resized pixels equal, "
            f"logits within {self.logits:.1e}, probabilities within {self.probabilities:.1e}, "
            f"labels {self.labels} of {self.count}"
        )


def fused(net: nn.Sequential, samples: Sequence[Sample]) -> nn.Sequential:
    """The net without the branches that are there for training, where it can do without and gives the same logits.

    Args:
        net: normalisation and net, in evaluation mode.
        samples: pictures to compare on.
    """
    pixels, own = net
    if not isinstance(own, Named) or (found := own.fused()).state_dict().keys() == own.state_dict().keys():
        return net
    fewer = nn.Sequential(pixels, found)
    pictures = np.stack([sample.pixels for sample in samples])  # (B, S, S, 3)
    logits, others = (outputs_of(Scored(each, Energy()), pictures)[0] for each in (net, fewer))
    off, allowed = float(np.abs(logits - others).max()), _allowed(logits)
    if not off <= allowed:
        print(
            f"{own.name} is exported with its branches: fused, its logits would be off by {off:.3g}, more than "
            f"{allowed:.3g}",
            file=sys.stderr,
        )
        return net
    return fewer


def _allowed(logits: Scores) -> float:
    """By how much logits `(B, K)` may be off."""
    return TOLERANCE * max(1, float(np.abs(logits).max()) / _LARGE)


def compare(data: bytes, samples: Sequence[Sample], answers: tuple[Scores, Scores], classes: Sequence[str]) -> Report:
    """Run a model file on pictures from their encoded bytes and compare it, stage by stage, with training.

    Args:
        data: the model file.
        samples: `B` pictures.
        answers: the net's logits `(B, K)` and familiarities `(B,)`, from the pixels that training saw.
        classes: `K` names.

    Raises:
        ParityError: naming the first stage that differs: decode, resize, logits, probabilities, familiarity, cam or
            labels.
        InputError: onnxruntime cannot run the file.
    """
    classifier = Classifier(data)
    showing = session(graph.showing_pixels(onnx.load_from_string(data)), "the model")
    labels, differing, largest, worst = [], 0.0, 0.0, ""
    for sample in samples:  # one by one: a photo may take 300 MB once decoded
        picture = images.decode(sample.encoded)
        if images.fingerprint(picture) != sample.fingerprint:
            raise ParityError(f"decode: {sample.name} decodes to other pixels than it did for training")
        resized = run(showing, "the model", ["pixels"], {"image": picture[None]})[0][0]
        off = np.abs(resized - sample.pixels.transpose(2, 0, 1))  # (3, S, S)
        differing += np.count_nonzero(off) / off.size
        if not off.max() <= largest:
            largest, worst = float(off.max()), sample.name
        labels.append(classifier(picture).label)
    if differing:
        raise ParityError(
            f"resize: {differing / len(samples):.2%} of the pixels differ from training's, by up to {largest:g} grey "
            f"levels ({worst})"
        )

    trained = np.stack([sample.pixels for sample in samples])
    logits, familiarity = answers
    got_logits, got_probabilities, got_familiarity = in_parts(classifier.run, trained)
    logits_off = float(np.abs(got_logits - logits).max())
    allowed = _allowed(logits)
    if not logits_off <= allowed:
        raise ParityError(f"logits: differ from the net's by up to {logits_off:.3g}, more than {allowed:.3g}")
    expected = torch.from_numpy(logits / classifier.contract.temperature).softmax(1).numpy()
    probabilities_off = float(np.abs(got_probabilities - expected).max())
    if not probabilities_off <= TOLERANCE:
        raise ParityError(
            f"probabilities: differ from the net's by up to {probabilities_off:.3g}, more than {TOLERANCE:g}"
        )
    familiarity_off = float((np.abs(got_familiarity - familiarity) / np.maximum(np.abs(familiarity), 1)).max())
    if not familiarity_off <= 10 * TOLERANCE:
        raise ParityError(f"familiarity: differs from the net's by up to {familiarity_off:.2%}")
    if classifier.has_maps:
        # What the mean of a map (B, K, h, w) leaves of the logits is the bias: the same for every picture.
        (means,) = in_parts(
            lambda part: [run(showing, "the model", ["cam"], {"image": part})[0].mean((2, 3), dtype=float)], trained
        )
        left = logits - means  # (B, K)
        cam_off = float(np.abs(left - left.mean(axis=0)).max())
        if not cam_off <= allowed:
            raise ParityError(
                f"cam: means of the maps miss the net's logits by up to {cam_off:.3g}, more than {allowed:.3g}"
            )

    margins = np.diff(np.sort(logits, axis=1), prepend=-np.inf)[:, -1]  # infinite where there is one class
    agree = [label == classes[best] for label, best in zip(labels, logits.argmax(1), strict=True)]
    for sample, same, margin in zip(samples, agree, margins, strict=True):
        if not same and margin > 2 * allowed:
            raise ParityError(f"labels: {sample.name} gets another label than from the net")
    return Report(len(samples), logits_off, probabilities_off, sum(agree))
