"""ROC-AUC and average precision of many resamples at once.

Notation: `N` pictures, `K` classes, `R` resamples, `G` groups.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from cifar_onnx.cpus import usable_cpus
from cifar_onnx.evaluation.outcome import Booleans, Floats, Integers, Outcome
from cifar_onnx.progress import track

_CHUNK = 20_000_000  # draws at once
_MANY = 100  # classes: with fewer there is nothing to wait for

Draws = NDArray[np.uint8]
Counts = NDArray[np.int32]


def rankings(outcome: Outcome, draws: Draws, title: str) -> tuple[Floats, Floats]:
    """Mean ROC-AUC and average precision, one class against the rest, of the classes in each resample: two of `(R,)`.

    Args:
        outcome: of `N` pictures.
        draws: `(R, N)`, how often each picture is in each resample.
        title: of what is being done; of thousands of classes it takes minutes.
    """
    present = np.unique(outcome.labels).tolist()
    step = max(1, _CHUNK // len(outcome.labels))
    starts = range(0, len(draws), step)

    def one(k: int, drawn: Counts) -> tuple[Floats, Floats]:
        return ranking(outcome.probabilities[:, k], outcome.labels == k, drawn)

    def every() -> Iterator[tuple[Floats, Floats]]:
        for start in starts:
            drawn = np.ascontiguousarray(draws[start : start + step].T).astype(np.int32)
            yield from pool.map(partial(one, drawn=drawn), present)

    with ThreadPoolExecutor(usable_cpus()) as pool:
        total = len(starts) * len(present)
        found = [*(track(every(), title, total) if len(present) > _MANY else every())]
    chunks = [found[first : first + len(present)] for first in range(0, len(found), len(present))]
    areas, precisions = np.concatenate(chunks, axis=2).transpose(1, 0, 2)  # of (K, 2, R)
    return mean(areas), mean(precisions)


def mean(rows: Floats) -> Floats:
    """Mean over the first axis of what is defined."""
    known = ~np.isnan(rows)
    with np.errstate(invalid="ignore"):
        found: Floats = np.where(known, rows, 0).sum(axis=0) / known.sum(axis=0)
    return found


def ranking(values: Floats, positive: Booleans, drawn: Counts) -> tuple[Floats, Floats]:
    """ROC-AUC and average precision of each resample, from cumulated draws along one sorting of the pictures.

    Args:
        values: `(N,)`, higher where the picture should be positive; equal ones share their place.
        positive: `(N,)`.
        drawn: `(N, R)`, how often each picture is in each resample.

    Returns:
        Two of `(R,)`; NaN where a resample has no positive, or nothing else.
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
            np.where(positives < count, np.einsum("gr,gr->r", gained, shares) / positives, np.nan),
        )


def _cumulated(rows: Counts) -> Counts:
    """Running sums down the rows, in place; ten times as fast as numpy.cumsum, which walks down each column."""
    for above, row in pairwise(rows):
        row += above
    return rows
