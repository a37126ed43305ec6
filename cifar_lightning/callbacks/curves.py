"""curves.svg: how loss and accuracy went, epoch by epoch, from metrics.csv."""

import csv
from collections.abc import Mapping
from pathlib import Path

import lightning.pytorch as L

from cifar_lightning.picture import AMBER, BLUE, INK, drawn

_DRAWN = ("train/loss", "val/loss", "val/accuracy")
_COLOURS = {"train": AMBER, "val": BLUE}


class Curves(L.Callback):
    """Draws the curves of a run beside its metrics.csv, when it has come to its end."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        folder = trainer.log_dir  # which the processes agree on: all have to ask
        if folder and trainer.is_global_zero:
            draw(Path(folder, "metrics.csv"), Path(folder, "curves.svg"))


def draw(metrics: Path, path: Path) -> None:
    """Draw the losses and the validation accuracy; nothing where no epoch has come to its end."""
    epochs = read(metrics)
    if not epochs:
        return
    with drawn(path, 9, 3.6) as figure:
        for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            for part, colour in _COLOURS.items():
                points = [(epoch, row[f"{part}/{name}"]) for epoch, row in epochs.items() if f"{part}/{name}" in row]
                if points:
                    axes.plot(
                        *zip(*points, strict=True), color=colour, label=part, marker="." if len(points) < 30 else ""
                    )
            axes.set(xlabel="epoch", title=name)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(color=INK, alpha=0.15)
            if axes.lines:
                axes.legend(frameon=False)


def read(metrics: Path) -> Mapping[int, Mapping[str, float]]:
    """Metrics of each epoch, counted from 1, whose rows Lightning splits in two."""
    epochs: dict[int, dict[str, float]] = {}
    if not metrics.exists():
        return epochs
    with metrics.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["epoch"]:  # other callbacks write rows of their own
                known = {name: float(row[name]) for name in _DRAWN if row.get(name)}
                epochs.setdefault(int(row["epoch"]) + 1, {}).update(known)
    return epochs
