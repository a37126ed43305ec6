"""curves.svg: how loss and accuracy went, epoch by epoch, from metrics.csv."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L

_STYLE = (
    "<style>svg{color:#1c2330;background:#fff}"
    "@media(prefers-color-scheme:dark){svg{color:#e6e9ef;background:#11151c}}</style>"
)
_DRAWN = ("train/loss", "val/loss", "val/accuracy")
_INK, _COLOURS = "#010203", {"train": "#f59e0b", "val": "#3b82f6"}


class Curves(L.Callback):
    """Draws the curves of a run beside its metrics.csv, when it has come to its end."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        folder = trainer.log_dir  # which the processes agree on: all have to ask
        if folder and trainer.is_global_zero:
            draw(Path(folder, "metrics.csv"), Path(folder, "curves.svg"))


def draw(metrics: Path, path: Path) -> None:
    """Draw the losses and the validation accuracy; nothing where no epoch has come to its end."""
    from matplotlib import rc_context  # which takes half a second to import
    from matplotlib.figure import Figure

    epochs = read(metrics)
    if not epochs:
        return
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "curves",
        "font.family": "sans-serif",
        **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    }
    with rc_context(style):
        figure = Figure((9, 3.6))
        figure.subplots_adjust(left=0.07, right=0.98, bottom=0.14, wspace=0.18)
        for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            for part, colour in _COLOURS.items():
                points = [(epoch, row[f"{part}/{name}"]) for epoch, row in epochs.items() if f"{part}/{name}" in row]
                if points:
                    axes.plot(
                        *zip(*points, strict=True), color=colour, label=part, marker="." if len(points) < 30 else ""
                    )
            axes.set(xlabel="epoch", title=name)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color=_INK, alpha=0.15)
            if axes.lines:
                axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
    text = path.read_text(encoding="utf-8").replace(_INK, "currentColor")
    path.write_text(text.replace("<defs>", f"{_STYLE}\n<defs>", 1), encoding="utf-8")


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
