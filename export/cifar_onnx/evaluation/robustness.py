"""Robustness: accuracy under corruptions, after Hendrycks and Dietterich 2019.

https://arxiv.org/abs/1903.12261
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from cifar_onnx.evaluation.corruptions import KINDS, SEVERITIES, corrupt
from cifar_onnx.evaluation.outcome import Answers, Outcome, parts
from cifar_onnx.progress import track


@dataclass(frozen=True)
class Robustness:
    """Accuracy on pictures that were made harder.

    Attributes:
        title: how.
        columns: the steps, such as severities or radii.
        rows: kind -> accuracy at each step.
        mean: accuracy over all kinds and steps, where these are a fixed set and not the user's choice.
    """

    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, Sequence[float]]
    mean: float | None = None


def under_corruptions(outcome: Outcome, run: Answers) -> Robustness:
    """Corrupt the squares that the net sees, by every kind and severity, and classify them again.

    Args:
        outcome: the pictures.
        run: the net.
    """
    count = len(outcome.labels)
    hits = {kind: np.zeros(len(SEVERITIES), np.int64) for kind in KINDS}
    work = list(product(KINDS, SEVERITIES, parts(outcome.pixels)))
    for kind, severity, part in track(work, "corrupting", len(work)):
        seeds = range(*part.indices(count))  # noise of its own for each picture, by its place
        logits, _ = run(corrupt(outcome.pixels[part], kind, severity, seeds))
        hits[kind][SEVERITIES.index(severity)] += (logits.argmax(axis=1) == outcome.labels[part]).sum()
    rows = {kind: (right / count).tolist() for kind, right in hits.items()}
    return Robustness("corruptions", tuple(map(str, SEVERITIES)), rows, float(np.mean([*rows.values()])))
