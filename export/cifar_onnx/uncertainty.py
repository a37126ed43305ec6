"""Uncertainty: conformal prediction sets, and pictures that are unknown (out of distribution).

Notation: `N` pictures, `K` classes.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["lac", "aps"]


@dataclass(frozen=True)
class PredictionSets:
    """Split-conformal sets: of pictures like those of the validation set, `1 - alpha` or more hold the right label.

    The most probable label is always in the set: `lac` alone would leave those of a good net's surest pictures empty.

    Attributes:
        method: `lac` takes the labels of high probability (Sadinle et al. 2019, https://arxiv.org/abs/1609.00451),
            `aps` the most probable ones until their sum is high (Romano et al. 2020, https://arxiv.org/abs/2006.02544;
            with 0 in the place of its random draw, so that the same picture gives the same set).
        alpha: share of pictures whose right label may be missing.
        threshold: other labels that conform worse than this are not in the set.
    """

    method: Method
    alpha: float
    threshold: float

    def of(self, probabilities: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each label is in the set, `(N, K)`, from probabilities `(N, K)`."""
        inside: NDArray[np.bool_] = nonconformity(probabilities, self.method) <= self.threshold
        inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
        return inside


def nonconformity(probabilities: NDArray[Any], method: Method) -> NDArray[np.float64]:
    """How badly each label goes with its picture, `(N, K)` from 0 to 1, from probabilities `(N, K)`.

    `lac`: what the label's probability lacks to 1. `aps`: the sum of all higher ones; of equal ones, those of earlier
    classes count as higher.
    """
    p = probabilities.astype(np.float64)
    if method == "lac":
        return 1 - p
    order = np.argsort(-p, axis=1, kind="stable")
    sums = np.zeros_like(p)
    higher = np.take_along_axis(p, order[:, :-1], axis=1)
    np.put_along_axis(sums, order[:, 1:], np.cumsum(higher, axis=1), axis=1)
    return np.minimum(sums, 1)


@dataclass(frozen=True)
class Unknown:
    """Pictures unlike those that the model has learnt from, by a score that the file gives, its output `familiarity`.

    Attributes:
        score: what it is: `energy` (Liu et al. 2020, https://arxiv.org/abs/2010.03759), `max_logit` (Hendrycks et al.
            2022, https://arxiv.org/abs/1911.11132) or `contrasts`, the likelihood of how much the channels of the net
            vary over the picture.
        threshold: a picture with a lower score is unknown, and one whose score is not a number, too.
    """

    score: str
    threshold: float

    def of(self, familiarity: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each picture is unknown, `(N,)`, from its familiarity `(N,)`."""
        unknown: NDArray[np.bool_] = ~(familiarity >= self.threshold)
        return unknown
