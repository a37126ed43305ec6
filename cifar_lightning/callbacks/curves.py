"""curves.svg: loss and accuracy, epoch by epoch, from metrics.csv."""

import csv
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as L

from cifar_lightning.callbacks.run_folder import run_folder
from cifar_lightning.files import write_whole
from cifar_onnx.evaluation.axis import ticks
from cifar_onnx.evaluation.templates import render

_DRAWN = ("train/loss", "val/loss", "val/accuracy")
_COLOURS = {"train": "#f59e0b", "val": "#3b82f6"}  # amber and blue, to be told apart on light and dark
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 430, 40, 310  # of the axes, in pixels of a panel


class Curves(L.Callback):
    """Draws the curves of a run beside its metrics.csv, when it has come to its end."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if folder := run_folder(trainer):
            draw(folder / "metrics.csv", folder / "curves.svg")


def draw(metrics: Path, path: Path) -> None:
    """Draw the losses and the validation accuracy; nothing where no epoch has come to its end."""
    epochs = _read(metrics)
    if not epochs:
        return
    panels = [_panel(epochs, name) for name in ("loss", "accuracy")]
    text = render("cifar_lightning.callbacks", "curves.svg.jinja", panels=panels, colours=_COLOURS)
    write_whole(path, text.encode())


@dataclass(frozen=True)
class Panel:
    """What is drawn side by side.

    Attributes:
        title: of all.
        columns: numbers of epochs, and how far they lie from the left, in pixels.
        rows: values, and how far they lie from the top.
        curves: points from the left and from the top, for `train` and `val`.
    """

    title: str
    columns: list[tuple[str, float]]
    rows: list[tuple[str, float]]
    curves: dict[str, list[tuple[float, float]]]


def _panel(epochs: Mapping[int, Mapping[str, float]], name: str) -> Panel:
    known: dict[str, list[tuple[int, float]]] = {}
    for part in _COLOURS:
        every = [(epoch, row.get(f"{part}/{name}", math.nan)) for epoch, row in epochs.items()]
        if points := [(epoch, value) for epoch, value in every if math.isfinite(value)]:
            known[part] = points
    values = [value for points in known.values() for _, value in points] or [0.0, 1.0]
    columns, rows = ticks(min(epochs), max(epochs), 1), ticks(min(values), max(values))

    def at(value: float, scale: Sequence[float], start: float, end: float) -> float:
        return round(start + (end - start) * (value - scale[0]) / (scale[-1] - scale[0]), 1)

    return Panel(
        name,
        [(f"{tick:g}", at(tick, columns, _LEFT, _RIGHT)) for tick in columns],
        [(f"{tick:g}", at(tick, rows, _BOTTOM, _TOP)) for tick in rows],
        {
            part: [(at(epoch, columns, _LEFT, _RIGHT), at(value, rows, _BOTTOM, _TOP)) for epoch, value in points]
            for part, points in known.items()
        },
    )


def _read(metrics: Path) -> Mapping[int, Mapping[str, float]]:
    """Metrics of each epoch, counted from 1, whose rows Lightning splits in two."""
    epochs: dict[int, dict[str, float]] = {}
    if not metrics.exists():
        return epochs
    with metrics.open(newline="") as file:
        for row in csv.DictReader(file):
            with suppress(TypeError, ValueError):  # rows of other callbacks, without an epoch, or damaged ones
                known = {name: float(row[name]) for name in _DRAWN if row.get(name)}
                epochs.setdefault(int(float(row["epoch"])) + 1, {}).update(known)
    return epochs
