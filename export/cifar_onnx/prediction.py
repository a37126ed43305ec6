"""Prediction: what a model says of a picture."""

import heapq
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]  # of a batch, as the net gives them


@dataclass(frozen=True)
class Prediction:
    """What the model says of one picture.

    Attributes:
        label: the most probable class.
        probability: its probability, from 0 to 1.
        classes: all class names, in the order of the outputs.
        probabilities: one for each class, in that order.
        labels: the prediction set, best first: of pictures like those it was validated with, as many have the right
            label in it as the exporter chose (90 % by default), or more. The first is `label`.
        unknown: whether the picture is of another kind than those the model has learnt from (noise, say), so that no
            answer should be believed. New objects in pictures of the same kind are mostly not noticed.
        familiarity: the score that says so where it is below `contract.unknown.threshold`; an app may be stricter.
            It is left out of ==, since its rounding depends on what other pictures run with this one.
    """

    label: str
    probability: float
    classes: tuple[str, ...] = field(repr=False)  # of ImageNet a thousand
    probabilities: tuple[float, ...] = field(repr=False)
    labels: tuple[str, ...]
    unknown: bool
    familiarity: float = field(compare=False)

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The `k` most probable classes as (label, probability), best first."""
        best = heapq.nlargest(k, range(len(self.classes)), key=self.probabilities.__getitem__)
        return [(self.classes[j], self.probabilities[j]) for j in best]

    def as_dict(self, k: int = 5) -> dict[str, Any]:
        """What commands and servers answer, in JSON's types: the `k` most probable classes with the rest."""
        return {
            "label": self.label,
            "probability": finite(self.probability),
            "top": [{"label": label, "probability": finite(probability)} for label, probability in self.top(k)],
            "labels": list(self.labels),
            "unknown": self.unknown,
        }


def finite(number: float) -> float | None:
    """A number as JSON can hold it, which has no NaN and no infinity, as nets in half precision can give."""
    return number if math.isfinite(number) else None
