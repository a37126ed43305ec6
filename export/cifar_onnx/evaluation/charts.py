"""The charts of a report, as numbers; `charts.html.jinja` draws them.

Notation: `N` pictures, `K` classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cifar_onnx.evaluation.axis import ticks
from cifar_onnx.evaluation.evaluation import ClassMetrics
from cifar_onnx.evaluation.metrics import BINS, calibration, confusion
from cifar_onnx.evaluation.outcome import Floats, Integers, Outcome
from cifar_onnx.images import Pixels

_ACCENT = (59, 130, 246)  # the page's, a blue that can be told from black and from white
_CELLS = 20  # classes up to which each cell of the confusion matrix has its number
_PIXELS = 500  # a side of its picture: of more, browsers would leave most out
_BARS = 40  # classes that have a bar
_POINTS = 300  # of a curve


@dataclass(frozen=True)
class Bin:
    """Pictures of which the model is about as sure.

    Attributes:
        low: the end of the bin towards 0; `high` that towards 1.
        high: likewise.
        share: of all pictures.
        confidence: their mean confidence; NaN where there is none.
        accuracy: their accuracy; likewise.
    """

    low: float
    high: float
    share: float
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Curve:
    """Points `(x, y)` from 0 to 1, the ticks of the y axis, and its digits after the decimal point, in per cent."""

    points: list[tuple[float, float]]
    ticks: list[float]
    digits: int


@dataclass(frozen=True)
class Charts:
    """Everything that is drawn.

    Attributes:
        cells: of the confusion matrix, row by row: pictures, and how dark they are shown, from 0 to 1; None where there
            are too many classes for numbers.
        shades: the same as a picture `(K / block, K / block, 4)`, rounded up, where `cells` is None.
        block: each of its pixels is the darkest of `block` x `block` cells.
        classes: the lowest recall first.
        hidden: classes that have no place there.
        bins: by confidence.
        most: the largest share of a bin, rounded up.
        coverage: accuracy if only the surest part of the pictures is answered.
    """

    cells: list[list[tuple[int, float]]] | None
    shades: Pixels | None
    block: int
    classes: list[ClassMetrics]
    hidden: int
    bins: list[Bin]
    most: float
    coverage: Curve


def charts(outcome: Outcome, classes: Sequence[ClassMetrics]) -> Charts:
    """The charts of an outcome, with how each class fares."""
    table = confusion(outcome)
    shades = np.sqrt(table / np.maximum(table.sum(axis=1, keepdims=True), 1))  # the root shows the few mistakes, too
    few, block = len(outcome.classes) <= _CELLS, -(-len(outcome.classes) // _PIXELS)
    known = calibration(outcome.confidences, outcome.correct)
    shares = known.counts / known.counts.sum()
    edges = np.linspace(0, 1, BINS + 1).tolist()
    present = sorted((each for each in classes if each.support), key=lambda each: each.recall)
    columns = (column.tolist() for column in (shares, known.confidences, known.accuracies))
    return Charts(
        cells=_cells(table, shades) if few else None,
        shades=None if few else _picture(shades, block),
        block=block,
        classes=present[:_BARS],
        hidden=len(present[_BARS:]),
        bins=[Bin(*each) for each in zip(edges[:-1], edges[1:], *columns, strict=True)],
        most=max(ticks(0, float(shares.max()))),
        coverage=_coverage(outcome),
    )


def _cells(table: Integers, shades: Floats) -> list[list[tuple[int, float]]]:
    return [list(zip(*rows, strict=True)) for rows in zip(table.tolist(), shades.tolist(), strict=True)]


def _picture(shades: Floats, block: int) -> Pixels:
    edges = np.arange(0, len(shades), block)
    darkest = np.maximum.reduceat(np.maximum.reduceat(shades, edges, axis=0), edges, axis=1)
    alpha = np.rint(255 * darkest).astype(np.uint8)[..., None]
    return np.concatenate([np.broadcast_to(np.array(_ACCENT, np.uint8), (*darkest.shape, 3)), alpha], axis=2)


def _coverage(outcome: Outcome) -> Curve:
    order = outcome.ranked
    count = np.arange(1, len(order) + 1)
    accuracy = np.cumsum(outcome.correct[order]) / count
    # The first few jump between 0 and 1 and say nothing.
    places: Integers = np.unique(np.linspace(len(order) // 100, len(order) - 1, _POINTS).astype(int))
    points: NDArray[np.float64] = np.column_stack([count[places] / len(order), accuracy[places]])
    rows = ticks(float(points[:, 1].min()), 1.0)
    step = rows[1] - rows[0]
    return Curve([(x, y) for x, y in points.tolist()], rows, max(0, -math.floor(math.log10(100 * step) + 1e-9)))
