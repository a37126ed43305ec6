"""Metrics with 95 % confidence intervals by the bootstrap (Efron 1979); those of shares of groups by Wilson's formula.

A resample is how often each picture was drawn, so that all are computed at once, as products of matrices; the figures
themselves are those of a resample that has each picture once. Tests compare both with scikit-learn's.

Notation: `N` pictures, `K` classes, `R` resamples, `G` groups.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array, hstack
from scipy.stats import binomtest, norm

from cifar_onnx.evaluation.metrics import TOP, calibration_interval, expected_calibration_error, in_top, losses
from cifar_onnx.evaluation.outcome import Booleans, Floats, Integers, Outcome
from cifar_onnx.evaluation.ranking import Draws, mean, rankings

_CHUNK = 4_000_000  # draws in double precision at once
_LEAST = np.finfo(np.float64).eps  # never divide by less
Z = float(norm.ppf(0.975))  # of 95 % intervals
# Metrics that rest on fewer pictures than accuracy: means over classes (and *_macro), and those beyond chance.
_OF_CLASSES = ("balanced_accuracy", "roc_auc", "average_precision")
_BEYOND_CHANCE = ("matthews_correlation", "cohen_kappa")
# Those that are not widened at 0 or 1.
_LOSSES = ("negative_log_likelihood", "brier_score", "expected_calibration_error")


@dataclass(frozen=True)
class Estimate:
    """A figure of these pictures with its 95 % confidence interval.

    NaN where it is not defined: ROC-AUC of a single class, for one.
    """

    value: float
    low: float
    high: float


def draw(count: int, resamples: int, seed: int = 0) -> Draws:
    """How often each of `N` pictures is drawn, with replacement, in each resample of `N`: `(R, N)`.

    A byte is enough: 256 times the same one of many has a chance of 1e-507.
    """
    generator = np.random.default_rng(seed)
    draws = np.empty((resamples, count), np.uint8)
    for row in draws:
        row[:] = np.bincount(generator.integers(count, size=count, dtype=np.uint32), minlength=count)
    return draws


def _one_hot(classes: Integers, count: int) -> csr_array:
    """Numbers of classes `(N,)` as rows with a single 1: `(N, K)`."""
    return csr_array((np.ones(len(classes)), classes, np.arange(len(classes) + 1)), shape=(len(classes), count))


class Bootstrap:
    """Intervals from resamples of an outcome.

    Args:
        outcome: of `N` pictures.
        draws: `(R, N)`, from `draw`.
    """

    def __init__(self, outcome: Outcome, draws: Draws) -> None:
        self.outcome = outcome
        self.draws = draws

    @cached_property
    def resampled(self) -> dict[str, Floats]:
        """Every metric of each resample, `(R,)`, but for the calibration error; NaN where it is not defined."""
        return self._metrics(self.draws, "intervals, class by class")

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Every metric with its interval, in the order in which people ask for them."""
        sure, correct = self.outcome.confidences, self.outcome.correct
        once = self._metrics(np.ones((1, len(correct)), np.uint8), "metrics, class by class")
        found = {name: estimate(value, self.resampled[name]) for name, (value,) in once.items()}
        error = expected_calibration_error(sure, correct)  # not by resamples, which raise it
        found["expected_calibration_error"] = Estimate(error, *calibration_interval(sure, correct))
        return {name: each if name in _LOSSES else _widened(each, self._pictures(name)) for name, each in found.items()}

    def _metrics(self, draws: Draws, title: str) -> dict[str, Floats]:
        """`resampled` of some draws `(R, N)`; those of classes are means over the classes that have pictures."""
        outcome = self.outcome
        count, classes = outcome.probabilities.shape
        truth, guess = (_one_hot(which, classes) for which in (outcome.labels, outcome.predictions))
        hits = {"accuracy": outcome.correct, **({"top5_accuracy": in_top(outcome)} if classes > TOP else {})}
        means = {**hits, **losses(outcome)}
        columns = hstack([csr_array(np.column_stack([*means.values()])), truth, guess, truth * guess], "csr")
        step = max(1, _CHUNK // count)
        parts = (draws[start : start + step].astype(float) for start in range(0, len(draws), step))
        sums = np.concatenate([part @ columns for part in parts])
        averages = dict(zip(means, sums[:, : len(means)].T / count, strict=True))
        found = {name: averages[name] for name in hits}
        found |= _of_counts(*np.split(sums[:, len(means) :], 3, axis=1))
        found["roc_auc"], found["average_precision"] = rankings(outcome, draws, title)
        return found | averages

    def _pictures(self, name: str) -> float:
        """Of how many pictures, all of them right, accuracy would be as uncertain as this metric: for `_widened`.

        Where all classes count alike, the rarest one decides.
        """
        support = np.unique(self.outcome.labels, return_counts=True)[1]
        if name.endswith("_macro") or name in _OF_CLASSES:
            return float(len(support) * support.min())
        total = support.sum()
        return float(total - (support**2).sum() / total if name in _BEYOND_CHANCE else total)


def estimate(value: float, resampled: Floats) -> Estimate:
    """A figure and its interval: percentiles of the resamples, corrected for their bias and their skewness.

    They are moved by twice the distance from their mean to the figure: it is biased as they are. (By the share of those
    below it, they would collapse where nearly all lie on one side, as with many classes of few pictures.) Percentiles
    are of BCa for a mean (Efron 1987, https://doi.org/10.1080/01621459.1987.10478410), whose constants are a sixth of
    the skewness. An interval holds its figure, and what is beyond 0 and 1 only where resamples are.
    """
    known = resampled[~np.isnan(resampled)]
    if np.isnan(value) or not len(known):
        return Estimate(float(value), np.nan, np.nan)
    apart = known - known.mean()
    constant = np.clip(((apart / max(known.std(), _LEAST)) ** 3).mean() / 6, -0.25, 0.25)  # beyond, it is unstable
    ends = constant + np.array([-Z, Z])
    found = np.quantile(2 * value - known.mean() + apart, norm.cdf(constant + ends / (1 - constant * ends)))
    low, high = np.clip(found, min(0, known.min()), max(1, known.max()))
    return Estimate(float(value), float(min(low, value)), float(max(high, value)))


def shares(hits: Booleans, groups: Booleans) -> list[Estimate]:
    """Share of hits `(N,)` within each group `(N, G)` of pictures, with its interval.

    Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953: resamples of few pictures know too little.
    """
    found = []
    for own in (hits[group] for group in groups.T):
        if not len(own):
            found.append(Estimate(np.nan, np.nan, np.nan))
            continue
        interval = binomtest(int(own.sum()), len(own)).proportion_ci(method="wilson")
        found.append(Estimate(float(own.mean()), float(interval.low), float(interval.high)))
    return found


def _widened(share: Estimate, count: float) -> Estimate:
    """The interval of 0 or 1, on which all resamples agree, widened to the open end of Wilson's (1927) for `count`."""
    most = Z**2 / (count + Z**2)
    low = min(share.low, 1 - most) if share.value > 1 - 1e-9 else share.low
    high = max(share.high, most) if share.value == 0 else share.high
    return Estimate(share.value, low, high)


def _of_counts(support: Floats, predicted: Floats, hits: Floats) -> dict[str, Floats]:
    """What follows from how often each class `(R, K)` is there, is predicted, and both."""
    total, right = support.sum(axis=1), hits.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall, f1 = (
            np.nan_to_num(part / whole)
            for part, whole in ((hits, predicted), (hits, support), (2 * hits, support + predicted))
        )
        present = support > 0
        of_classes = {"precision": precision, "recall": recall, "f1": f1}
        found = {f"{name}_macro": mean(np.where(present, values, np.nan).T) for name, values in of_classes.items()}
        found |= {f"{name}_micro": right / total for name in of_classes}
        found |= {f"{name}_weighted": (support * values).sum(axis=1) / total for name, values in of_classes.items()}
        found["balanced_accuracy"] = found["recall_macro"]
        together = (support * predicted).sum(axis=1)
        spread = (total**2 - (support**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
        found["matthews_correlation"] = (right * total - together) / np.sqrt(np.maximum(spread, 1))
        found["cohen_kappa"] = 1 - (total - right) / (total - together / total)
    return found
