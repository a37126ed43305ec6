"""Metrics of a classifier, and how far they might be off: 95 % intervals by the bootstrap (Efron 1979).

The metrics are scikit-learn's, where it has them. For the intervals the same ones are computed of all resamples at
once, from how often each picture was drawn; the tests hold the two against each other.

Notation: `N` pictures, `K` classes, `R` resamples.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn import metrics

from cifar_onnx.evaluation.outcome import Booleans, Floats, Integers, Outcome

BINS = 15  # of the confidence, for the expected calibration error
TOP = 5
# Metrics that are no share of anything; the others are shown as percentages.
SCALES = frozenset({"negative_log_likelihood", "brier_score", "matthews_correlation", "cohen_kappa"})
_SMALLEST = np.finfo(np.float64).eps  # probabilities below it count as it: scikit-learn's log_loss
_CHUNK = 4_000_000  # draws in double precision at once

Draws = NDArray[np.uint8]
Counts = NDArray[np.int32]


def words(name: str) -> str:
    """A metric's name as people write it."""
    return name.replace("_", " ").replace("top5", "top-5").replace("f1", "F1").replace("roc auc", "ROC-AUC")


@dataclass(frozen=True)
class Estimate:
    """A figure of these pictures, and the interval that holds it for others like them in 95 of 100 cases.

    NaN where it is not defined: ROC-AUC of a single class, for one.
    """

    value: float
    low: float
    high: float


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


def _bins(confidences: Floats) -> Integers:
    """Bin of each confidence: bin `i` is `(i / BINS, (i + 1) / BINS]`, the first from 0 (Guo et al. 2017)."""
    edges = np.linspace(0, 1, BINS + 1)
    return np.clip(np.searchsorted(edges, confidences) - 1, 0, BINS - 1)


def calibration(outcome: Outcome) -> Calibration:
    """How often the classifier is right, by how sure it says it is."""
    bins = _bins(outcome.confidences)
    counts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        means, accuracies = (
            np.bincount(bins, values, BINS) / counts for values in (outcome.confidences, outcome.correct)
        )
    return Calibration(counts, means, accuracies)


def _top(outcome: Outcome) -> Booleans:
    """`(N,)`: whether the label is among the five most probable; ties as scikit-learn's top_k_accuracy_score."""
    best = np.argsort(outcome.probabilities, axis=1, kind="mergesort")[:, : -TOP - 1 : -1]
    hits: Booleans = (best == outcome.labels[:, None]).any(axis=1)
    return hits


def scores(outcome: Outcome) -> dict[str, float]:
    """Every metric of the pictures as they are."""
    labels, predictions, probabilities = outcome.labels, outcome.predictions, outcome.probabilities
    classes = np.arange(len(outcome.classes))
    found = {"accuracy": metrics.accuracy_score(labels, predictions)}
    if len(classes) > TOP:
        found["top5_accuracy"] = metrics.top_k_accuracy_score(labels, probabilities, k=TOP, labels=classes)
    for average in ("macro", "micro", "weighted"):
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            labels, predictions, average=average, zero_division=0
        )
        found |= {f"precision_{average}": precision, f"recall_{average}": recall, f"f1_{average}": f1}
    found["balanced_accuracy"] = metrics.recall_score(
        labels, predictions, labels=np.unique(labels), average="macro", zero_division=0
    )
    found["matthews_correlation"] = metrics.matthews_corrcoef(labels, predictions)
    several = len(np.union1d(labels, predictions)) > 1
    found["cohen_kappa"] = metrics.cohen_kappa_score(labels, predictions) if several else np.nan
    present = np.unique(labels)
    one_against_rest = [(labels == k, probabilities[:, k]) for k in present]
    found["roc_auc"] = (
        np.mean([metrics.roc_auc_score(*pair) for pair in one_against_rest]) if len(present) > 1 else np.nan
    )
    found["average_precision"] = np.mean([metrics.average_precision_score(*pair) for pair in one_against_rest])
    found["negative_log_likelihood"] = metrics.log_loss(labels, probabilities, labels=classes)
    found["brier_score"] = metrics.brier_score_loss(labels, probabilities, labels=classes, scale_by_half=False)
    known = calibration(outcome)
    gaps = np.nan_to_num(np.abs(known.confidences - known.accuracies))
    found["expected_calibration_error"] = (known.counts * gaps).sum() / known.counts.sum()
    return {name: float(value) for name, value in found.items()}


def draw(count: int, resamples: int, seed: int = 0) -> Draws:
    """How often each of `N` pictures is drawn, with replacement, in each resample of `N`: `(R, N)`.

    A byte is enough: 256 times the same one of many has a chance of 1e-507.
    """
    generator = np.random.default_rng(seed)
    draws = np.empty((resamples, count), np.uint8)
    for row in draws:
        row[:] = np.bincount(generator.integers(count, size=count, dtype=np.uint32), minlength=count)
    return draws


def _sums(draws: Draws, columns: Floats) -> Floats:
    """Sums over each resample of columns `(N, M)`: `(R, M)`."""
    step = max(1, _CHUNK // draws.shape[1])
    return np.concatenate(
        [draws[start : start + step].astype(np.float64) @ columns for start in range(0, len(draws), step)]
    )


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
    def scores(self) -> dict[str, Floats]:
        """Every metric of each resample, `(R,)`; NaN where it is not defined."""
        outcome = self.outcome
        count, classes = outcome.probabilities.shape
        truth, guess = (np.eye(classes)[which] for which in (outcome.labels, outcome.predictions))  # (N, K)
        of_label = outcome.probabilities[np.arange(count), outcome.labels]
        gaps = np.zeros((count, BINS))
        gaps[np.arange(count), _bins(outcome.confidences)] = outcome.confidences - outcome.correct
        loss = -np.log(np.clip(of_label, _SMALLEST, 1 - _SMALLEST))
        brier = np.square(outcome.probabilities - truth).sum(axis=1)
        top = _top(outcome) if classes > TOP else np.zeros(count)
        sums = _sums(self.draws, np.column_stack([loss, brier, top, gaps, truth, guess, truth * guess]))
        loss, brier, top = sums[:, :3].T / count
        gaps = np.abs(sums[:, 3 : 3 + BINS]).sum(axis=1) / count
        found = _of_counts(*np.split(sums[:, 3 + BINS :], 3, axis=1))
        if classes > TOP:
            found["top5_accuracy"] = top
        found |= {"negative_log_likelihood": loss, "brier_score": brier, "expected_calibration_error": gaps}
        found["roc_auc"], found["average_precision"] = self._rankings()
        return found

    def _rankings(self) -> tuple[Floats, Floats]:
        """Mean ROC-AUC and average precision, one class against the rest, of the classes in each resample."""
        outcome = self.outcome
        present = np.unique(outcome.labels).tolist()
        found = []
        step = max(1, 5 * _CHUNK // len(outcome.labels))
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(self.draws), step):
                drawn = np.ascontiguousarray(self.draws[start : start + step].T).astype(np.int32)
                of_class = (
                    pool.submit(ranking, outcome.probabilities[:, k], outcome.labels == k, drawn) for k in present
                )
                found.append(np.array([each.result() for each in list(of_class)]))  # (K, 2, step)
        areas, precisions = np.concatenate(found, axis=2).transpose(1, 0, 2)
        return _mean(areas), _mean(precisions)

    def shares(self, hits: Booleans, groups: Booleans) -> list[Estimate]:
        """Share of hits `(N,)` within each group `(N, G)` of pictures."""
        drawn = _sums(self.draws, np.column_stack([groups * hits[:, None], groups]))
        with np.errstate(invalid="ignore"):
            of_all = (groups * hits[:, None]).sum(axis=0) / groups.sum(axis=0)
            resampled = drawn[:, : groups.shape[1]] / drawn[:, groups.shape[1] :]
        return [estimate(value, values) for value, values in zip(of_all, resampled.T, strict=True)]

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Every metric with its interval, in the order in which people ask for them."""
        return {name: estimate(value, self.scores[name]) for name, value in scores(self.outcome).items()}


def changes(a: Outcome, b: Outcome, groups: Booleans, draws: Draws) -> list[Estimate]:
    """Change of the accuracy from `a` to `b` within each group `(N, G)` of the same pictures, with paired intervals."""
    gained = groups * (b.correct.astype(np.float64) - a.correct)[:, None]
    drawn = _sums(draws, np.column_stack([gained, groups]))
    number = groups.shape[1]
    with np.errstate(invalid="ignore"):
        values, resampled = gained.sum(axis=0) / groups.sum(axis=0), drawn[:, :number] / drawn[:, number:]
    return [estimate(value, each) for value, each in zip(values, resampled.T, strict=True)]


def estimate(value: float, resampled: Floats) -> Estimate:
    """A figure and the middle 95 % of those of the resamples."""
    known = resampled[~np.isnan(resampled)]
    if np.isnan(value) or not len(known):
        return Estimate(float(value), np.nan, np.nan)
    low, high = np.quantile(known, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))


def _mean(rows: Floats) -> Floats:
    """Mean over the first axis of what is defined."""
    known = ~np.isnan(rows)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(known, rows, 0).sum(axis=0) / known.sum(axis=0)
    return mean


def _of_counts(support: Floats, predicted: Floats, hits: Floats) -> dict[str, Floats]:
    """What follows from how often each class `(R, K)` is there, is predicted, and both."""
    total, right = support.sum(axis=1), hits.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall, f1 = (
            np.nan_to_num(part / whole)
            for part, whole in ((hits, predicted), (hits, support), (2 * hits, support + predicted))
        )
        met = support + predicted > 0
        found = {"accuracy": right / total}
        for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
            found[f"{name}_macro"] = _mean(np.where(met, values, np.nan).T)
            found[f"{name}_micro"] = right / total
            found[f"{name}_weighted"] = (support * values).sum(axis=1) / total
        found["balanced_accuracy"] = _mean(np.where(support > 0, recall, np.nan).T)
        together = (support * predicted).sum(axis=1)
        spread = (total**2 - (support**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
        found["matthews_correlation"] = np.where(
            spread > 0, (right * total - together) / np.sqrt(np.maximum(spread, 1)), 0.0
        )
        found["cohen_kappa"] = 1 - (total - right) / (total - together / total)
    return found


def ranking(values: Floats, positive: Booleans, drawn: Counts) -> tuple[Floats, Floats]:
    """ROC-AUC and average precision of each resample, from cumulated draws along one sorting of the pictures.

    Args:
        values: `(N,)`, higher where the picture should be positive; equal ones share their place.
        positive: `(N,)`.
        drawn: `(N, R)`, how often each picture is in each resample.

    Returns:
        Two of `(R,)`; NaN where a resample has no positive or, for the area, nothing else.
    """
    count = len(values)
    order = np.argsort(-values, kind="stable")
    values, hits = values[order], positive[order]
    starts = np.flatnonzero(np.diff(values, prepend=np.inf))  # of groups of equal values
    ends = np.append(starts[1:], count)
    before = np.append(0, np.cumsum(hits))  # positives before each place
    useful = before[ends] > before[starts]
    starts, ends = starts[useful], ends[useful]  # of the G groups that hold a positive
    edges = np.column_stack([starts, ends]).ravel()

    def summed(places: Integers, edges: Integers) -> Counts:
        """Draws of consecutive places of the sorting, summed from each edge to the next."""
        ones = np.ones(len(places), np.int32)
        sums: Counts = csr_array((ones, places, edges), shape=(len(edges) - 1, count)) @ drawn
        return sums

    upto = _cumulated(summed(order[: edges[-1]], np.append(0, edges)))  # (2 G, R): at starts and ends
    gained = summed(order[hits], before[np.append(starts, count)])  # (G, R): positives of each group
    above = _cumulated(gained.copy())
    false = upto[::2] + upto[1::2] - 2 * above + gained  # negatives so far, twice their mean over the group
    positives = above[-1].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        pairs = np.einsum("gr,gr->r", gained, false, dtype=np.float64)
        shares = above / np.maximum(upto[1::2], 1)
        return (
            1 - pairs / (2 * positives * (count - positives)),
            np.einsum("gr,gr->r", gained, shares) / positives,
        )


def _cumulated(rows: Counts) -> Counts:
    """Running sums down the rows, in place; ten times as fast as numpy.cumsum, which walks down each column."""
    for above, row in pairwise(rows):
        row += above
    return rows


@dataclass(frozen=True)
class OfClass:
    """How one class fares.

    Attributes:
        name: of the class.
        support: how many pictures there are of it.
        precision: share of those taken for it that are of it.
        recall: share of its own that are taken for it.
        f1: their harmonic mean.
        taken_for: the other class that its pictures are most often taken for, empty where none is.
        recall_interval: of the bootstrap.
    """

    name: str
    support: int
    precision: float
    recall: float
    f1: float
    taken_for: str
    recall_interval: Estimate


def confusion(outcome: Outcome) -> Integers:
    """`(K, K)`: pictures of class i taken for class j."""
    classes = np.arange(len(outcome.classes))
    table: Integers = metrics.confusion_matrix(outcome.labels, outcome.predictions, labels=classes)
    return table


def by_class(outcome: Outcome, bootstrap: Bootstrap) -> list[OfClass]:
    """Every class of the model, also those without a picture."""
    classes = np.arange(len(outcome.classes))
    columns = metrics.precision_recall_fscore_support(
        outcome.labels, outcome.predictions, labels=classes, zero_division=0
    )
    wrong = confusion(outcome)
    np.fill_diagonal(wrong, 0)
    intervals = bootstrap.shares(outcome.correct, outcome.labels[:, None] == classes)
    return [
        OfClass(
            name,
            int(support),
            float(precision),
            float(recall),
            float(f1),
            outcome.classes[int(row.argmax())] if row.any() else "",
            interval,
        )
        for name, precision, recall, f1, support, row, interval in zip(
            outcome.classes, *columns, wrong, intervals, strict=True
        )
    ]
