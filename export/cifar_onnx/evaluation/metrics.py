"""What metrics are means of, picture by picture, the calibration of a classifier, and its confusion matrix.

Notation: `N` pictures, `K` classes.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import confusion_matrix

from cifar_onnx.evaluation.outcome import Booleans, Floats, Integers, Outcome, bands

BINS = 15  # of the confidence, for the expected calibration error
TOP = 5
_SMALLEST = np.finfo(np.float64).eps  # probabilities below it count as it: scikit-learn's log_loss
_DRAWS = 400  # of pictures, for the interval of that error
# Metrics that are no share of anything; the others are shown as percentages.
SCALES = frozenset({"negative_log_likelihood", "brier_score", "matthews_correlation", "cohen_kappa"})


def words(name: str) -> str:
    """A metric's name as people write it."""
    for code, word in (("_", " "), ("top5", "top-5"), ("f1", "F1"), ("roc auc", "ROC-AUC"), ("brier", "Brier")):
        name = name.replace(code, word)
    return name


@dataclass(frozen=True)
class Calibration:
    """Pictures by their confidence, in bins of equal width.

    Attributes:
        counts: `(BINS,)`.
        confidences: `(BINS,)`, their mean; NaN where there is none.
        accuracies: `(BINS,)`.
    """

    counts: Integers
    confidences: Floats
    accuracies: Floats


def bins(confidences: Floats) -> Integers:
    """Bin of each confidence: bin `i` is `(i / BINS, (i + 1) / BINS]`, the first from 0 (Guo et al. 2017)."""
    edges = np.linspace(0, 1, BINS + 1)
    return np.clip(np.searchsorted(edges, confidences) - 1, 0, BINS - 1)


def calibration(confidences: Floats, correct: Booleans) -> Calibration:
    """How often a classifier is right, `(N,)`, by how sure it says it is, `(N,)`."""
    places = bins(confidences)
    counts = np.bincount(places, minlength=BINS)
    with np.errstate(invalid="ignore"):
        means, accuracies = (np.bincount(places, values, BINS) / counts for values in (confidences, correct))
    return Calibration(counts, means, accuracies)


def expected_calibration_error(confidences: Floats, correct: Booleans) -> float:
    """Mean distance between confidence and accuracy, over bins of equal width (Guo et al. 2017)."""
    gaps = np.bincount(bins(confidences), confidences - correct, BINS)
    return float(np.abs(gaps).sum() / len(confidences))


def calibration_interval(confidences: Floats, correct: Booleans) -> tuple[float, float]:
    """95 % interval of the expected calibration error, by inverting a test, of confidences `(N,)` and hits `(N,)`.

    Chance makes gaps between confidence and accuracy where there are none, and few mistakes hide them. So accuracies of
    the bins are supposed, with 0 to 2 times the gaps found, or all shifted up or down. They are possible where the
    error found lies in the middle 95 % of the errors of pictures drawn at random with these accuracies (Bröcker and
    Smith 2007, https://doi.org/10.1175/WAF993.1, who suppose that there are no gaps). One that is improbably small even
    for a classifier without gaps counts as the least that is probable for it: the interval begins at 0 then.
    """
    known = calibration(confidences, correct)
    some = known.counts > 0
    counts, sure, right = known.counts[some], known.confidences[some], known.accuracies[some]  # (bins,)
    weights, accuracy = counts / counts.sum(), correct.mean()
    reach = 3 * np.sqrt(accuracy * (1 - accuracy) / len(correct)) + 5 / len(correct)
    shares, shifts = np.linspace(0, 2, 41)[:, None], np.linspace(-reach, reach, 41)[:, None]
    supposed = np.clip(np.concatenate([sure - shares * (sure - right), right + shifts]), 0, 1)  # (82, bins)
    hits = np.random.default_rng(0).binomial(counts, supposed, (_DRAWS, *supposed.shape))
    low, high = np.quantile(np.abs(sure - hits / counts) @ weights, [0.025, 0.975], axis=0)
    error = expected_calibration_error(confidences, correct)
    possible = (np.abs(sure - supposed) @ weights)[(low <= max(error, low[0]) + 1e-9) & (error - 1e-9 <= high)]
    return float(possible.min(initial=error)), float(possible.max(initial=error))


def in_top(outcome: Outcome) -> Booleans:
    """`(N,)`: whether the label is among the five most probable; ties as scikit-learn's top_k_accuracy_score."""
    classes, hits = np.arange(len(outcome.classes)), np.empty(len(outcome.labels), bool)
    for band in bands(outcome.probabilities):
        values, labels = outcome.probabilities[band], outcome.labels[band, None]
        own = np.take_along_axis(values, labels, axis=1)
        hits[band] = ((values > own) | ((values == own) & (classes > labels))).sum(axis=1) < TOP
    return hits


def losses(outcome: Outcome) -> dict[str, Floats]:
    """The losses of each picture, `(N,)`, of which metrics are means; scikit-learn's take five copies of `(N, K)`."""
    probabilities = outcome.probabilities
    own = probabilities[np.arange(len(outcome.labels)), outcome.labels]
    squares = np.einsum("nk,nk->n", probabilities, probabilities)
    return {
        "negative_log_likelihood": -np.log(np.clip(own, _SMALLEST, 1 - _SMALLEST)),
        "brier_score": np.maximum(squares - 2 * own + 1, 0),
    }


def confusion(outcome: Outcome) -> Integers:
    """`(K, K)`: pictures of class i taken for class j."""
    classes = np.arange(len(outcome.classes))
    table: Integers = confusion_matrix(outcome.labels, outcome.predictions, labels=classes)
    return table
