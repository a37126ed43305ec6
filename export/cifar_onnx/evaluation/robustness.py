"""Robustness: accuracy under corruptions, after Hendrycks and Dietterich 2019.

https://arxiv.org/abs/1903.12261
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from cifar_onnx.evaluation.corruptions import KINDS, SEVERITIES, corrupt
from cifar_onnx.evaluation.outcome import Answers, Outcome, at_once
from cifar_onnx.progress import track

_MOST = 10_000  # pictures: of more, an accuracy is within a point of theirs, but takes hours


@dataclass(frozen=True)
class Robustness:
    """Accuracy on pictures that were made harder.

    Attributes:
        title: how.
        columns: the steps, such as severities or radii.
        rows: kind -> accuracy at each step.
        mean: accuracy over all kinds and steps, where these are a fixed set and not the user's choice.
        images: of how many of the pictures, evenly spread; None of all.
    """

    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, Sequence[float]]
    mean: float | None = None
    images: int | None = None


def under_corruptions(outcome: Outcome, run: Answers) -> Robustness:
    """Corrupt the squares that the net sees, by every kind and severity, and classify them again.

    Of more than 10,000 pictures as many are taken, evenly spread: also over the classes, as these follow each other.

    Args:
        outcome: the pictures.
        run: the net.
    """
    whole, step = len(outcome.labels), at_once(outcome.pixels.shape[1])
    count = min(whole, _MOST)
    places = np.arange(count) * whole // count
    hits = {kind: np.zeros(len(SEVERITIES), np.int64) for kind in KINDS}
    work = list(product(KINDS, SEVERITIES, np.split(places, range(step, count, step))))
    for kind, severity, some in track(work, "corrupting", len(work)):
        # Noise of its own for each picture, by its place.
        logits, _ = run(corrupt(outcome.pixels[some], kind, severity, some.tolist()))
        hits[kind][SEVERITIES.index(severity)] += (logits.argmax(axis=1) == outcome.labels[some]).sum()
    rows = {kind: (right / count).tolist() for kind, right in hits.items()}
    mean = float(np.mean([*rows.values()]))
    return Robustness("corruptions", tuple(map(str, SEVERITIES)), rows, mean, count if count < whole else None)
