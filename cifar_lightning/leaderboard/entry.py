"""What the files in a run's folder say of it; what cannot be read is not known."""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cifar_lightning import runs
from cifar_lightning.files import file_digest
from cifar_lightning.leaderboard.differences import flat

_FILES = ("run.json", "config.yaml", "metrics.csv", ".lock")
_DEPTH = 4  # levels of folders between DIR and a run: enough for those of a sweep, and not the whole disk
_QUANTILE = 1.959964  # of the normal distribution: 95 % lie within as many standard deviations
_MOST = 2**63  # nothing here is as large, and integers that are larger than any float cannot be computed with

Row = Mapping[str, float]


@dataclass(frozen=True)
class Entry:
    """What is known of a run: None where it is not.

    Attributes:
        run: its name, experiment/version_N.
        state: finished, running, pruned by a sweep or, also where its lock cannot be opened, unfinished.
        epochs: how many have been finished.
        val_accuracy: on the validation images, of the epoch that best.ckpt is of, with a 95 % interval.
        val_loss: likewise.
        test_accuracy: of that checkpoint, as `test` has found it, with its interval.
        seconds: of training and validation, over all sessions.
        parameters: of the net.
        checkpoint_mb: size of best.ckpt, or else last.ckpt.
        onnx_mb: size of model.onnx.
        seed: of everything.
        curve: the validation accuracies one after the other.
        best: place in the curve of the epoch that best.ckpt is of.
        settings: its config.
        validation: digest of its validation images.
        damaged: files that are there and cannot be read.
    """

    run: str
    state: str | None = None
    epochs: int | None = None
    val_accuracy: float | None = None
    val_accuracy_low: float | None = None
    val_accuracy_high: float | None = None
    val_loss: float | None = None
    test_accuracy: float | None = None
    test_accuracy_low: float | None = None
    test_accuracy_high: float | None = None
    seconds: float | None = None
    parameters: int | None = None
    checkpoint_mb: float | None = None
    onnx_mb: float | None = None
    seed: int | None = None
    curve: Sequence[float] = ()
    best: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    validation: str | None = None
    damaged: Sequence[Path] = ()


def find(place: Path) -> Iterator[Path]:
    """The folders of runs in a folder, which may itself be that of a run; not those that may not be looked into."""
    if _holds(place, "run.json", "metrics.csv"):
        yield place
        return
    for folder, names, _ in os.walk(place, followlinks=True):
        here = Path(folder)
        versions = [*filter(runs.is_run, names)]
        yield from (run for name in versions if _holds(run := here / name, *_FILES))
        deep = len(here.relative_to(place).parts) >= _DEPTH - 1
        names[:] = [] if deep else [name for name in names if name not in versions and not name.startswith(".")]


def _holds(folder: Path, *names: str) -> bool:
    """Whether one of these files is in a folder."""
    return any(os.path.exists(folder / name) for name in names)  # Path's own raises where it may not look


def read(folder: Path, place: Path) -> Entry:
    """What is known of a run.

    Args:
        folder: of the run.
        place: where it was found; the name is what lies between, and experiment and version at least.
    """
    damaged: list[Path] = []

    def parsed(name: str, parse: Callable[[str], Mapping[str, Any]]) -> Mapping[str, Any]:
        path = folder / name
        try:
            found = parse(path.read_text(encoding="utf-8"))
            if isinstance(found, Mapping):
                return found
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError, yaml.YAMLError, csv.Error):
            pass
        damaged.append(path)
        return {}

    facts, known = parsed("run.json", json.loads), parsed("config.yaml", _config)
    config = known.get("nested", {})
    tested, measured = parsed("report/metrics.json", json.loads), parsed("metrics.csv", _rows)
    checkpoint = folder / (runs.BEST if os.path.isfile(folder / runs.BEST) else runs.LAST)
    if tested and _at(tested, "model", "digest") != _digest(checkpoint):
        tested = {}
    if not measured.get("whole", True):
        damaged.append(folder / "metrics.csv")
    rows: Sequence[Row] = measured.get("rows", ())
    validated = [row for row in rows if "val/accuracy" in row]
    kept = _at(config, "checkpoint")
    place_of_best = _best(validated, kept if isinstance(kept, Mapping) else {})
    best = {} if place_of_best is None else validated[place_of_best]
    accuracy = best.get("val/accuracy")
    low, high = wilson(accuracy, _count(facts.get("validation_images")))
    test, test_low, test_high = (_number(_at(tested, "metrics", "accuracy", key)) for key in ("value", "low", "high"))
    done = [row["epoch"] for row in rows if "train/loss" in row and "epoch" in row]
    parts = folder.relative_to(place).parts
    return Entry(
        run="/".join(parts if len(parts) > 1 else Path(os.path.abspath(folder)).parts[-2:]),
        state=_state(folder, facts),
        epochs=int(max(done)) + 1 if done else 0 if rows else None,
        val_accuracy=accuracy,
        val_accuracy_low=low,
        val_accuracy_high=high,
        val_loss=best.get("val/loss"),
        test_accuracy=test,
        test_accuracy_low=test_low,
        test_accuracy_high=test_high,
        seconds=_number(facts.get("seconds")),
        parameters=_count(facts.get("parameters")),
        checkpoint_mb=_size(checkpoint),
        onnx_mb=_size(folder / "model.onnx"),
        seed=_count(facts.get("seed", config.get("seed_everything"))),
        curve=[row["val/accuracy"] for row in validated],
        best=place_of_best,
        settings=known.get("flat", {}),
        validation=facts["validation"] if isinstance(facts.get("validation"), str) else None,
        damaged=damaged,
    )


def wilson(share: float | None, count: int | None) -> tuple[float | None, float | None]:
    """Ends of the 95 % interval of a share of so many images; None where one of them is not known.

    Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953.
    """
    if share is None or not count or not 0 <= share <= 1:
        return None, None
    square = _QUANTILE**2 / count
    middle, half = share + square / 2, math.sqrt(square * (share * (1 - share) + square / 4))
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))


def _config(text: str) -> Any:
    """A config as it is nested, and flat, which it cannot be where it holds itself."""
    # The loader in C, where PyYAML has it, is eight times as fast.
    config = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    return {"nested": config, "flat": flat(config)} if isinstance(config, Mapping) else config


def _rows(text: str) -> dict[str, Any]:
    """What was measured after each step, and whether all of it could be read."""
    complete = text[: text.rfind("\n") + 1]  # the last line may be half written
    whole, steps = bool(text) and complete == text, dict[str, dict[str, float]]()
    for row in csv.DictReader(io.StringIO(complete)):
        try:
            known = {name: float(value) for name, value in row.items() if value != ""}
        except (TypeError, ValueError):  # TypeError: too few values, or too many
            whole = False
        else:
            known = {name: value for name, value in known.items() if math.isfinite(value)}
            steps.setdefault(row.get("step", ""), {}).update(known)
    return {"rows": list(steps.values()), "whole": whole}


def _best(validated: Sequence[Row], kept: Mapping[str, Any]) -> int | None:
    """Which of some validations the best checkpoint is of: of equally good ones as BestCheckpoint has it.

    Args:
        validated: what was measured in each.
        kept: the settings of BestCheckpoint.
    """
    monitor, lowest = kept.get("monitor", "val/accuracy"), kept.get("mode") == "min"
    every = _count(kept.get("every_n_epochs")) or 1
    possible = [(place, row) for place, row in enumerate(validated) if (row.get("epoch", 0) + 1) % every == 0]
    if monitor is None and possible:
        return possible[-1][0]
    if not any(monitor in row for row in validated):
        monitor, lowest = "val/accuracy", False
    by_loss = kept.get("save_top_k", 1) == 1
    order = [
        (row[monitor] if lowest else -row[monitor], row.get("val/loss", math.inf) if by_loss else 0, place)
        for place, row in possible
        if monitor in row
    ]
    return min(order)[-1] if order else None


def _state(folder: Path, facts: Mapping[str, Any]) -> str | None:
    if facts.get("finished") is True:
        return "finished"
    if os.access(folder / ".lock", os.W_OK) and runs.held(folder):  # or nobody knows whether it is held
        return "running"
    if facts.get("pruned") is True:
        return "pruned"
    return "unfinished" if facts else None


def _digest(checkpoint: Path) -> str:
    """By what a report names the checkpoint that it judges; empty where it cannot be read.

    Only its note of that is read: all runs are looked at each time.
    """
    try:
        return file_digest(checkpoint)
    except OSError:
        return ""


def _at(node: Any, *keys: str) -> Any:
    """What lies so deep in mappings, None where nothing does."""
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _number(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST
    return float(value) if known else None  # type: ignore[arg-type]


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST else None


def _size(path: Path) -> float | None:
    """Megabytes of a file."""
    return path.stat().st_size / 1e6 if os.path.isfile(path) else None
