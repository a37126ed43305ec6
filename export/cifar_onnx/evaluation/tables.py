"""The figures of an evaluation as files: metrics.json, per_class.csv, confusion.csv and predictions.csv."""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cifar_onnx.errors import InputError
from cifar_onnx.evaluation.compare import Comparison
from cifar_onnx.evaluation.evaluation import Evaluation
from cifar_onnx.evaluation.metrics import confusion
from cifar_onnx.evaluation.outcome import Outcome
from cifar_onnx.folders import try_writing

EVALUATION = ("report.html", "metrics.json", "per_class.csv", "confusion.csv", "predictions.csv")
COMPARISON = ("comparison.json", "newly_wrong.csv")


def check_folder(folder: Path, names: Sequence[str] = EVALUATION) -> Path:
    """Make sure that files can be written to a folder, which need not be there, before the work that they will hold.

    Args:
        folder: where they go.
        names: of these files, which may be there: read-only, or held open by a spreadsheet on Windows.

    Returns:
        the folder or, where it is not there, the nearest above it that is.

    Raises:
        InputError: they cannot.
    """
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    try:
        try_writing(there)
    except OSError:
        raise InputError(f"{folder} cannot be written to: name another folder with --output") from None
    for path in filter(Path.exists, (folder / name for name in names)):
        try:
            path.open("r+b").close()
        except OSError as error:
            advice = "close it where it is open, or name another folder with --output"
            raise InputError(f"{path} cannot be written ({error.strerror}): {advice}") from None
    return there


def write(evaluation: Evaluation, folder: Path) -> None:
    """Write the four files."""
    folder.mkdir(parents=True, exist_ok=True)
    outcome = evaluation.outcome
    _json(folder / "metrics.json", _summary(evaluation))
    columns = ["class", "support", "precision", "recall", "recall_low", "recall_high", "f1", "most_often_taken_for"]
    figures = (
        (each, (each.precision, each.recall, each.recall_interval.low, each.recall_interval.high, each.f1))
        for each in evaluation.classes
    )
    rows = ([each.name, each.support, *map(_6, values), each.taken_for] for each, values in figures)
    _csv(folder / "per_class.csv", columns, rows)
    table = confusion(outcome).tolist()
    rows = ([name, *row] for name, row in zip(outcome.classes, table, strict=True))
    _csv(folder / "confusion.csv", ["label \\ prediction", *outcome.classes], rows)
    _csv(
        folder / "predictions.csv", ["path", "label", "prediction", "probability", "margin", "error"], _answers(outcome)
    )


def write_comparison(
    comparison: Comparison,
    models: Sequence[str],
    megabytes: Sequence[float],
    milliseconds: Sequence[float],
    broken: Sequence[str],
    folder: Path,
) -> None:
    """Write comparison.json, and newly_wrong.csv with the pictures that only the first model gets right."""
    folder.mkdir(parents=True, exist_ok=True)
    a, b = comparison.a, comparison.b
    described = [
        {"file": file, "accuracy": float(outcome.correct.mean()), "megabytes": size, "milliseconds": time}
        for file, outcome, size, time in zip(models, (a, b), megabytes, milliseconds, strict=True)
    ]
    summary = {
        "models": described,
        "images": len(a.labels),
        "unreadable": len(a.unreadable),
        "accuracy_change": asdict(comparison.change),
        "verdict": comparison.verdict,
        "newly_right": len(comparison.newly_right),
        "newly_wrong": len(comparison.newly_wrong),
        "recall": {each.name: asdict(each) for each in comparison.classes},
        "broken": list(broken),
    }
    _json(folder / "comparison.json", summary)
    rows = (
        [a.names[i], a.classes[a.labels[i]], b.classes[b.predictions[i]], _6(b.confidences[i]), _6(a.confidences[i])]
        for i in comparison.newly_wrong.tolist()
    )
    _csv(folder / "newly_wrong.csv", ["path", "label", "prediction", "probability", "probability_before"], rows)


def _answers(outcome: Outcome) -> Iterable[list[object]]:
    classes = outcome.classes
    columns = (outcome.labels, outcome.predictions, outcome.confidences, outcome.margins)
    for name, label, prediction, probability, margin in zip(
        outcome.names, *(column.tolist() for column in columns), strict=True
    ):
        yield [name, classes[label], classes[prediction], _6(probability), _6(margin), ""]
    for each in outcome.unreadable:
        yield [each.name, classes[each.label], "", "", "", each.reason]


def _json(path: Path, summary: dict[str, Any]) -> None:
    path.write_text(json.dumps(_plain(summary), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _6(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


def _summary(evaluation: Evaluation) -> dict[str, Any]:
    outcome = evaluation.outcome
    summary: dict[str, Any] = {
        "model": {"name": evaluation.title, **evaluation.facts},
        "images": len(outcome.labels),
        "unreadable": len(outcome.unreadable),
        "classes": list(outcome.classes),
        "interval": {
            "level": 0.95,
            "method": "bootstrap, percentiles corrected for bias and skewness; of classes, slices, coverage and figures"
            " of 0 or 1 Wilson's; of the expected calibration error by inverting a test",
            "resamples": len(evaluation.bootstrap.draws),
        },
        "metrics": {name: asdict(each) for name, each in evaluation.estimates.items()},
        "slices": {
            slicing.title: {
                "groups": {each.name: {"images": each.count, **asdict(each.accuracy)} for each in slicing.slices},
                "worst": slicing.worst.name,
                "gap": slicing.gap,
                "may_be_chance": slicing.may_be_chance,
            }
            for slicing in evaluation.slicings
        },
    }
    if known := evaluation.reliability:
        coverage = known.coverage
        summary["reliability"] = {
            "temperature": known.temperature,
            "expected_calibration_error": {"before": known.uncalibrated, "after": known.calibrated},
            "prediction_sets": {
                **asdict(coverage.sets),
                "coverage": asdict(coverage.covered),
                "mean_size": coverage.mean_size,
                "single": coverage.single,
                "coverage_by_class": {name: share.value for name, share in coverage.by_class.items()},
            },
            "unknown": {
                **asdict(known.unknown),
                "rejected": known.rejected,
                "kinds": {each.kind: asdict(each) for each in known.rejections},
            },
        }
    for each in evaluation.robustness:
        rows = {kind: dict(zip(each.columns, row, strict=True)) for kind, row in each.rows.items()}
        summary[each.title.replace(" ", "_")] = {
            "accuracy": rows,
            **({} if each.mean is None else {"mean_accuracy": each.mean}),
            **({} if each.images is None else {"images": each.images}),
        }
    return summary


def _plain(value: Any) -> Any:
    """JSON knows no NaN: what is not defined is null."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
