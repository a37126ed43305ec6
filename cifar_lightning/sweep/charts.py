"""Charts of a sweep: its history, the importance of its keys, and where the good values are.

They are SVG files in the text colour of the page that shows them, so that they can be read on light and dark.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from optuna import create_study
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from cifar_lightning.files import write_whole
from cifar_lightning.sweep.plan import Plan
from cifar_lightning.sweep.space import Choice, Range
from cifar_lightning.sweep.study import failed

_ENOUGH = 10  # trials: of 4, a key that does nothing came first in 19 of 60 simulated sweeps; of 10, in 2
_ROW = 3  # slices side by side
_WIDE = 20  # times the least is the greatest value, for a logarithmic axis
_INK, _BLUE, _AMBER = "#010203", "#3b82f6", "#f59e0b"  # the first stands for the text colour
_STYLE = (
    "<style>svg{color:#1c2330;background:#fff}"
    "@media(prefers-color-scheme:dark){svg{color:#e6e9ef;background:#11151c}}</style>"
)


def draw(trials: Sequence[FrozenTrial], plan: Plan) -> list[str]:
    """Draw history.svg, slices.svg and, of enough trials, importance.svg.

    Args:
        trials: those that have ended.
        plan: the plan.

    Returns:
        Names of the files.
    """
    measured = [trial for trial in trials if plan.measured(trial) is not None and not failed(trial)]
    varied = [key for key in plan.names if len({str(trial.params[key]) for trial in measured}) > 1]
    _history(measured, plan)
    files = ["history.svg"]
    if varied:
        _slices(measured, varied, plan)
        files.append("slices.svg")
        if len(measured) >= _ENOUGH and len({plan.measured(trial) for trial in measured}) > 1:
            _importance(measured, varied, plan)
            files.append("importance.svg")
    return files


def _history(trials: Sequence[FrozenTrial], plan: Plan) -> None:
    with _drawn(plan.folder / "history.svg", 7, 3.8) as figure:
        axes = figure.subplots()
        done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        best = (np.maximum if plan.mode == "max" else np.minimum).accumulate([float(each.value or 0) for each in done])
        axes.step([each.number for each in done], best, where="post", color=_AMBER, label="best so far")
        _points(axes, trials, [each.number for each in trials], plan)
        axes.set_xlabel("trial")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper center", ncols=4, frameon=False)


def _slices(trials: Sequence[FrozenTrial], keys: Sequence[str], plan: Plan) -> None:
    rows = -(-len(keys) // _ROW)
    columns = min(len(keys), _ROW)
    with _drawn(plan.folder / "slices.svg", 1 + 2.8 * columns, 0.8 + 2.6 * rows) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, key in zip(grid.flat, keys, strict=False):
            part, found = plan.space[key], [trial.params[key] for trial in trials]
            if isinstance(part, Choice):
                _points(axes, trials, [part.labels.index(value) for value in found], plan)
                axes.set_xticks(range(len(part.labels)), [_trimmed(str(label)) for label in part.labels])
                axes.set_xlim(-0.5, len(part.labels) - 0.5)
            else:
                _points(axes, trials, found, plan)
                if part.log:
                    axes.set_xscale("log")
                    _plain(axes.xaxis)
            axes.set_xlabel(plan.names[key])
        for axes in grid.flat[len(keys) :]:
            axes.set_visible(False)
        for axes in grid[:, 1:].flat:
            axes.set_ylabel("")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)


def _importance(trials: Sequence[FrozenTrial], keys: Sequence[str], plan: Plan) -> None:
    found = _importances(trials, keys, plan)
    shares = sorted(found.items(), key=lambda item: item[1])
    with _drawn(plan.folder / "importance.svg", 6, 0.9 + 0.35 * len(keys)) as figure:
        axes = figure.subplots()
        bars = axes.barh([plan.names[key] for key, _ in shares], [share for _, share in shares], color=_BLUE)
        axes.bar_label(bars, [f"{share:.0%}" for _, share in shares], padding=4)
        axes.set(xlabel=f"importance for {plan.monitor} (fANOVA)", xlim=(0, 1.1 * max(found.values())))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _importances(trials: Sequence[FrozenTrial], keys: Sequence[str], plan: Plan) -> dict[str, float]:
    """Shares of the keys in how much trials differ.

    Also pruned ones: the key that ruins trials would look least important. A range that is searched on a logarithmic
    scale is averaged over on it.
    """
    study = create_study()
    for trial in trials:
        params, distributions = dict[str, Any](), dict[str, BaseDistribution]()
        for key in keys:
            part, params[key] = plan.space[key], trial.params[key]
            distributions[key] = part.distribution
            if isinstance(part, Range) and part.log:
                params[key] = math.log10(params[key])
                distributions[key] = FloatDistribution(math.log10(part.low), math.log10(part.high))
        study.add_trial(create_trial(value=plan.measured(trial), params=params, distributions=distributions))
    # Of few trials Optuna's default, PED-ANOVA, judges by the best one or two only.
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0), params=[*keys])


def _points(axes: Axes, trials: Sequence[FrozenTrial], places: Sequence[float], plan: Plan) -> None:
    """A point for each trial: full where it came to its end, hollow where it was pruned; the best stands out."""
    values = [float(plan.measured(trial) or 0) for trial in trials]
    done = [trial.state == TrialState.COMPLETE for trial in trials]
    best = plan.best(value for value, whole in zip(values, done, strict=True) if whole)
    kinds = [
        ("the best" if value == best else "to the end") if whole else "pruned"
        for value, whole in zip(values, done, strict=True)
    ]
    for kind, face, edge in (("to the end", _BLUE, _BLUE), ("pruned", "none", _BLUE), ("the best", _AMBER, _INK)):
        points = [point for *point, each in zip(places, values, kinds, strict=True) if each == kind]
        if points:
            x, y = zip(*points, strict=True)
            axes.scatter(x, y, s=32, facecolor=face, edgecolor=edge, linewidth=1, label=kind, zorder=3)
    if min(values) > 0 and max(values) > _WIDE * min(values):
        axes.set_yscale("log")
        _plain(axes.yaxis)
    axes.set_ylabel(plan.monitor)
    axes.grid(color=_INK, alpha=0.15)


def _plain(axis: Axis) -> None:
    """Numbers at powers of ten without typesetting."""
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _trimmed(text: str) -> str:
    return text if len(text) <= 12 else f"{text[:10]}..."


@contextmanager
def _drawn(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure to draw into, which then is written to `path`; sizes in inches."""
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": path.name,
        "font.family": "sans-serif",
        "text.parse_math": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    }
    with rc_context(style):
        figure = Figure((width, height), layout="constrained")
        yield figure
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().replace(_INK, "currentColor")
    write_whole(path, text.replace("<defs>", f"{_STYLE}\n<defs>", 1).encode())
