"""The model card beside a model file, for people and for the Hugging Face hub.

https://huggingface.co/docs/hub/model-cards
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cifar_onnx import contract, shell
from cifar_onnx.evaluation.templates import render

_SOURCES = {  # what is said of sources of pictures that go by another name
    "CIFAR10": "CIFAR-10",
    "CIFAR100": "CIFAR-100",
    "Digits": "scikit-learn's handwritten digits",
    "ImageFolder": "pictures that its maker has collected",
}


def write_card(model: Path, name: str, report: Path, checkpoint: str, license_name: str | None) -> Path:
    """Write MODEL_CARD.md beside a model file, or NAME.MODEL_CARD.md where it has a name of its own.

    Args:
        model: the file.
        name: of the model.
        report: metrics.json of `test`, which need not be there; that of another checkpoint is not taken.
        checkpoint: sha256 of the checkpoint that the model was exported from.
        license_name: as the Hugging Face hub names it, such as apache-2.0.
    """
    known = contract.read(model)[1]
    tested = _tested(report, checkpoint)
    source = known.info["provenance"]["data"]["source"]
    # Null is what is not defined: ROC-AUC of one class, or the interval of too few resamples.
    results = {name: each for name, each in (tested or {}).get("metrics", {}).items() if None not in each.values()}
    front: dict[str, Any] = {
        **({"license": license_name} if license_name else {}),
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "onnx", "onnxruntime", "cifar-lightning"],
        **({"datasets": [source.lower()]} if source in ("CIFAR10", "CIFAR100") else {}),
        "metrics": ["accuracy"],
    }
    if results and known.info["precision"] == "fp32":  # they are the larger net's
        dataset = {"name": source, "type": source.lower(), "split": "test"}
        metrics = [{"type": each, "value": round(results[each]["value"], 4)} for each in ("accuracy", "f1_macro")]
        result = {"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics}
        front["model-index"] = [{"name": name, "results": [result]}]
    path = model.with_name("MODEL_CARD.md" if model.name == "model.onnx" else f"{model.stem}.MODEL_CARD.md")
    text = render(
        "cifar_lightning.export",
        "model_card.md.jinja",
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        name=name,
        file=model.name,
        verify=shell.line("python", "-m", "cifar_onnx", "verify", model.name),
        known=known,
        megabytes=model.stat().st_size / 1e6,
        source=_SOURCES.get(source, source),
        tested=tested,
        results=results,
        doubts=_doubts(tested, known),
        license=license_name,
    )
    path.write_text(text, encoding="utf-8")
    return path


def _tested(report: Path, checkpoint: str) -> Mapping[str, Any] | None:
    """metrics.json of `test`, with the rows of per_class.csv, where it is of the checkpoint with this sha256."""
    try:
        found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        if found["model"]["digest"] != checkpoint:
            return None
        with (report.parent / "per_class.csv").open(newline="", encoding="utf-8") as file:
            # As cells of a table in Markdown.
            rows = [[" ".join(cell.split()).replace("|", r"\|") for cell in row] for row in csv.reader(file)]
    except (OSError, ValueError, LookupError, TypeError, RecursionError, csv.Error):
        return None
    return {**found, "per_class": rows}


def _doubts(tested: Mapping[str, Any] | None, known: contract.Contract) -> Mapping[str, Any] | None:
    """What `test` has measured of a file's doubts; that of a larger net or of other prediction sets is not taken."""
    found: Mapping[str, Any] | None = (tested or {}).get("reliability")
    if not found or known.info["precision"] != "fp32":
        return None
    sets = found["prediction_sets"]
    return found if (sets["method"], sets["alpha"]) == (known.sets.method, known.sets.alpha) else None
