"""Charts as SVG for an HTML page, in the page's own text colour, so that they can be read on dark and light.

Notation: `N` pictures, `K` classes.
"""

import io
import re
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cifar_onnx.evaluation.evaluation import OfClass
from cifar_onnx.evaluation.metrics import calibration, confusion
from cifar_onnx.evaluation.outcome import Outcome

ACCENT = (0.23, 0.51, 0.96)  # a blue that can be told from black and from white
_INK = "#010203"  # stands for the page's text colour
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "text.parse_math": False,  # a class may be called $a$
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
}
_CELLS = 20  # classes up to which each cell of the confusion matrix has its number

Draw = Callable[..., str]


def _chart(width: float, height: float) -> Callable[[Callable[..., Any]], Draw]:
    """Make a function that draws into axes one that returns SVG; sizes in inches."""

    def decorate(draw: Callable[..., Any]) -> Draw:
        @wraps(draw)
        def chart(*args: Any) -> str:
            with rc_context({**_STYLE, "svg.hashsalt": draw.__name__}):
                figure = Figure((width, height), layout="constrained")
                label = draw(figure, *args)
                buffer = io.StringIO()
                figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
            svg = buffer.getvalue()
            svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
            svg = re.sub(r' id="[a-z.]+_\d+"', "", svg)  # the same in every chart of a page
            return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)

        return chart

    return decorate


def _percent(axes: Axes, *names: str) -> None:
    for name in names:
        getattr(axes, f"{name}axis").set_major_formatter(PercentFormatter(1, decimals=0))


@_chart(6.4, 6.0)
def confusion_matrix(figure: Figure, outcome: Outcome) -> str:
    """Share of each class (rows) taken for each (columns); the numbers are pictures."""
    table = confusion(outcome)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes = figure.subplots()
    colours = np.empty((*shares.shape, 4))
    colours[..., :3], colours[..., 3] = ACCENT, np.sqrt(shares)  # the square root shows the few mistakes, too
    axes.imshow(colours, aspect="equal", interpolation="nearest")
    few = len(outcome.classes) <= _CELLS
    names = list(outcome.classes) if few else []
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="prediction", ylabel="label")
    if few:
        for i, j in np.ndindex(*table.shape):
            if table[i, j]:
                axes.text(j, i, f"{table[i, j]:,}", ha="center", va="center", fontsize=8)
    return "confusion matrix"


@_chart(6.4, 4.2)
def reliability_diagram(figure: Figure, outcome: Outcome) -> str:
    """Accuracy of the pictures of each confidence, against the confidence; below, how many there are."""
    known = calibration(outcome.confidences, outcome.correct)
    width = 1 / len(known.counts)
    centres = (np.arange(len(known.counts)) + 0.5) * width
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.bar(centres, np.nan_to_num(known.accuracies), 0.9 * width, color=(*ACCENT, 0.8), label="accuracy")
    upper.plot([0, 1], [0, 1], color=_INK, linestyle="--", linewidth=1, label="as sure as right")
    upper.plot(known.confidences, known.accuracies, ".", color=_INK, markersize=5)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    upper.legend(frameon=False, loc="upper left")
    lower.bar(centres, known.counts / known.counts.sum(), 0.9 * width, color=(*ACCENT, 0.4))
    lower.set(xlabel="confidence: probability of the predicted class", ylabel="pictures")
    _percent(upper, "x", "y")
    _percent(lower, "y")
    return "reliability diagram"


@_chart(6.4, 3.6)
def coverage_curve(figure: Figure, outcome: Outcome) -> str:
    """Accuracy if only the surest part of the pictures is answered."""
    order = np.argsort(-outcome.confidences, kind="stable")
    count = np.arange(1, len(order) + 1)
    accuracy = np.cumsum(outcome.correct[order]) / count
    # The first few jump between 0 and 1 and say nothing; a thousand points are enough to draw.
    first = min(len(order) - 1, len(order) // 100)
    points = np.unique(np.linspace(first, len(order) - 1, 1000).astype(int))
    axes = figure.subplots()
    axes.plot(count[points] / len(order), accuracy[points], color=ACCENT, linewidth=2)
    axes.set(xlim=(0, 1), xlabel="share of the pictures that are answered, the surest first", ylabel="accuracy")
    axes.grid(color=_INK, alpha=0.15)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    return "accuracy against coverage"


@_chart(6.4, 4.6)
def class_bars(figure: Figure, classes: Sequence[OfClass]) -> str:
    """Recall of each class with its interval, the worst on top, 40 at most, and precision as a mark."""
    ranked = sorted((each for each in classes if each.support), key=lambda each: -each.recall)[-40:]
    figure.set_figheight(max(2.0, 1.0 + 0.25 * len(ranked)))
    places = np.arange(len(ranked))
    recalls = np.array([each.recall for each in ranked])
    edges = np.array([(each.recall_interval.low, each.recall_interval.high) for each in ranked]).T
    axes = figure.subplots()
    axes.barh(places, recalls, color=(*ACCENT, 0.6), label="recall, with its interval")
    axes.errorbar(recalls, places, xerr=np.abs(edges - recalls), fmt="none", ecolor=_INK, elinewidth=1, capsize=2)
    axes.plot([each.precision for each in ranked], places, "D", color=_INK, markersize=4, label="precision")
    axes.set_yticks(places, [each.name for each in ranked])
    axes.set(xlim=(0, 1))
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    _percent(axes, "x")
    return "recall and precision of each class"
