"""Checkpoints: written whole or not at all, read without running what is in them, and what they say of their run."""

import hashlib
import io
import json
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import CheckpointIO

from cifar_lightning import runs
from cifar_lightning.files import NOTE_SIZE, note, noted_digest, write_whole
from cifar_onnx import InputError
from cifar_onnx.sources import is_address

_NEEDED: dict[str, dict[str, type]] = {
    "state_dict": {},
    "hyper_parameters": {"classes": list},
    "datamodule_hyper_parameters": {},
    "run": {"experiment": str, "seed": int, "threads": int, "metrics": dict, "validated": bool, "train_loss": tuple},
}
PARTS = ("net", "optimizer", "scheduler", "loss")  # of a model


class CheckpointFiles(CheckpointIO):
    """Lightning's way to the files."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        write(checkpoint, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return load(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def write(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Put a checkpoint in the place of the file `path`; whatever happens, the old or the new one is there, whole.

    Raises:
        InputError: it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    with buffer.getbuffer() as data:
        write_whole(Path(path), data, note(data))


def load(path: str | Path) -> dict[str, Any]:
    """Everything in a checkpoint; tensors and plain values only.

    Raises:
        InputError: there is no such file, it is damaged, or it is no checkpoint that `write` has written.
    """
    if is_address(path):
        raise InputError(f"{path}: an address is not taken as a checkpoint: download the file and name it")
    try:
        with open(path, "rb") as file:
            _check_digest(file, path)
            file.seek(0)
            # Explicitly, so that no environment variable can undo it.
            checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        kept = [*Path(path).glob(runs.BEST), *Path(path).glob(f"version_*/{runs.BEST}")]
        newest = max(kept, key=lambda each: each.stat().st_mtime, default=None)
        advice = f": did you mean {newest}?" if newest else ""
        raise InputError(f"{path}: no such checkpoint ({error.strerror}){advice}") from None
    except InputError:
        raise
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        found = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, UnpicklingError) else None
        what = f"it holds code ({found[1]})" if found else "it holds something else than tensors and plain values"
        raise InputError(f"{path}: not a checkpoint written by this project's fit: {what}") from None
    if not isinstance(checkpoint, dict) or not all(
        isinstance(part := checkpoint.get(key), dict)
        and all(isinstance(part.get(name), kind) for name, kind in needed.items())
        for key, needed in _NEEDED.items()
    ):
        raise InputError(f"{path}: not a checkpoint written by this project's fit")
    return checkpoint


def _check_digest(file: BinaryIO, path: str | Path) -> None:
    noted = noted_digest(file)
    if not noted:
        advice = ": an exported file is judged by python -m cifar_onnx evaluate" if str(path).endswith(".onnx") else ""
        raise InputError(f"{path}: damaged, or not a checkpoint written by this project's fit{advice}")
    size = file.tell() - NOTE_SIZE
    file.seek(0)
    digest = hashlib.sha256()
    while size > 0:
        chunk = file.read(min(size, 1 << 20))
        digest.update(chunk)
        size -= len(chunk)
    if digest.hexdigest() != noted:
        raise InputError(f"{path}: damaged: its checksum does not match")


def position(checkpoint: dict[str, Any]) -> dict[str, int]:
    """Where training stood, as its data module says it: `epoch`, `batch` and `batches`."""
    data = checkpoint["datamodule_hyper_parameters"]["_class_path"].rpartition(".")[2]
    found: dict[str, int] = checkpoint[data]
    return found


def validated(checkpoint: dict[str, Any]) -> bool:
    """Whether these very weights have been validated; `run.validated` says whether any of the epoch's have."""
    return "val/loss" in checkpoint["run"].get("measured", {})


def last_row(checkpoint: dict[str, Any]) -> dict[str, str] | None:
    """The last row of metrics.csv of the epoch at whose end a checkpoint was written; None of one within an epoch."""
    if position(checkpoint)["batch"]:
        return None
    loss = checkpoint["run"]["metrics"]["train/loss"]
    return {"epoch": str(checkpoint["epoch"]), "step": str(checkpoint["global_step"] - 1), "train/loss": str(loss)}


def origin(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of how its weights came to be, for the contract of a file."""
    settings = {key: checkpoint[key] for key in ("hyper_parameters", "datamodule_hyper_parameters")}
    return {
        "metrics": checkpoint["run"].get("measured", checkpoint["run"]["metrics"]),
        "provenance": {
            "config": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
            "seed": checkpoint["run"]["seed"],
            "epoch": checkpoint.get("epoch"),
            "step": checkpoint.get("global_step"),
        },
    }
