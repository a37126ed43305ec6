"""The temperature that logits are divided by, and how good probabilities are with it and without.

Notation: `N` pictures, `K` classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from cifar_onnx.evaluation.metrics import expected_calibration_error
from cifar_onnx.evaluation.outcome import Floats, Integers
from cifar_onnx.prediction import Scores

_TEMPERATURES = (0.05, 20.0)
_MASKED = 1000  # below the highest logit no temperature makes a class likely
_ROWS = 500  # pictures at a time

Own = tuple[Integers, Integers]  # places in logits `(N, K)` of the right labels


@dataclass(frozen=True)
class Quality:
    """How good probabilities are: mean negative log-likelihood and expected calibration error (15 bins)."""

    negative_log_likelihood: float
    expected_calibration_error: float


def fit_temperature(logits: Scores, labels: Integers) -> float:
    """What to divide logits by, so that the labels are most likely (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    One picture in `N + 2` is taken for mislabelled, after Platt 1999: a net that makes no mistake on the validation set
    would be made sure beyond measure. Not for a class that is masked, as by -1e4. It is 1 where another one would make
    the labels less likely.
    """
    if logits.shape[1] == 1:
        return 1.0
    # With z the logits and t how likely each label is, -sum t log softmax(z / T) = log sum exp(z / T) - sum t z / T.
    smoothing = logits.shape[1] / (logits.shape[1] - 1) / (len(labels) + 2)

    def expected(z: Floats, own: Own) -> Floats:  # sum t z
        seen = z > z.max(axis=1, keepdims=True) - _MASKED
        means: Floats = (1 - smoothing) * z[own] + smoothing * z.mean(axis=1, where=seen)
        return means

    target = by_rows(expected, logits, labels).mean()

    def loss(x: float) -> float:
        def log_sums(z: Floats, _: Own) -> Floats:  # of exponentials; scipy's takes ten times as long
            z /= math.exp(x)
            highest = z.max(axis=1, keepdims=True)
            z -= highest
            sums: Floats = highest[:, 0] + np.log(np.exp(z, out=z).sum(axis=1))
            return sums

        return float(by_rows(log_sums, logits, labels).mean() - target / math.exp(x))

    found = minimize_scalar(
        loss,
        bounds=[math.log(each) for each in _TEMPERATURES],
        method="bounded",
        options={"xatol": 1e-4},
    )
    temperature = round(math.exp(found.x), 4)
    before, after = (quality(logits, labels, each).negative_log_likelihood for each in (1, temperature))
    return temperature if after <= before else 1.0


def quality(logits: Scores, labels: Integers, temperature: float) -> Quality:
    """How good the probabilities of logits `(N, K)` are for labels `(N,)`, at a temperature."""

    def judged(z: Floats, own: Own) -> Floats:
        likelihoods = log_softmax(z / temperature, axis=1)
        return np.stack([likelihoods[own], likelihoods.max(axis=1), likelihoods.argmax(axis=1) == own[1]])

    own, best, right = by_rows(judged, logits, labels)
    return Quality(float(-own.mean()), expected_calibration_error(np.exp(best), right == 1))


def by_rows(function: Callable[[Floats, Own], Floats], logits: Scores, labels: Integers) -> Floats:
    """What a function makes of logits `(N, K)` in double precision and the places of the labels in them, `(..., N)`.

    Of copies of some pictures' at a time: those of all of ImageNet's would take gigabytes.
    """
    parts = [(logits[start : start + _ROWS], labels[start : start + _ROWS]) for start in range(0, len(labels), _ROWS)]
    return np.concatenate([function(z.astype(np.float64), (np.arange(len(own)), own)) for z, own in parts], axis=-1)
