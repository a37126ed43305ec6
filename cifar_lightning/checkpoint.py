"""Checkpoints: written whole or not at all, read without running what is in them, and what they say of their run."""

import hashlib
import importlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cifar_lightning.augment import Augmentation
from cifar_lightning.data import ImageData
from cifar_onnx import InputError, images

_TRAILER = re.compile(rb"sha256:([0-9a-f]{64})\n")
_TRAILER_SIZE = 72  # bytes at the end of a file, of which zip readers, and so torch.load, take no notice
_TRUSTED = ("torch", "torchvision", "lightning", "cifar_lightning")
_NEEDED: dict[str, set[str]] = {
    "state_dict": set(),
    "hyper_parameters": {"classes"},
    "datamodule_hyper_parameters": set(),
    "run": {"experiment", "seed", "threads", "metrics", "validated", "train_loss"},
}
_PARTS = ("net", "optimizer", "scheduler", "loss")  # of a model
_KINDS = (nn.Module, Optimizer, LRScheduler, ImageData, Augmentation)


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
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    data = buffer.getbuffer()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(".*.part"):  # by a process that was killed
            left.unlink()
        try:
            with part.open("wb") as file:
                file.write(data)
                file.write(b"sha256:%s\n" % hashlib.sha256(data).hexdigest().encode())
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        if os.name == "posix":  # elsewhere a folder cannot be opened, and a rename is durable by itself
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        place = next(folder for folder in path.parents if folder.exists())
        free = shutil.disk_usage(place).free / 1e6
        raise InputError(
            f"{path} cannot be saved ({error.strerror}; it takes {len(data) / 1e6:,.1f} MB, {free:,.1f} MB are free): "
            "what was saved before is as it was"
        ) from None


def load(path: str | Path) -> dict[str, Any]:
    """Everything in a checkpoint; tensors and plain values only.

    Raises:
        InputError: there is no such file, it is damaged, or it is no checkpoint that `write` has written.
    """
    if "://" in str(path):
        raise InputError(f"{path}: an address is not taken as a checkpoint: download the file and name it")
    try:
        with open(path, "rb") as file:
            _check_digest(file, path)
            file.seek(0)
            # Explicitly, so that no environment variable can undo it.
            checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: no such checkpoint ({error.strerror})") from None
    except InputError:
        raise
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        found = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, UnpicklingError) else None
        what = f"it holds code ({found[1]})" if found else "it holds something else than tensors and plain values"
        raise InputError(f"{path}: not a checkpoint that this project's fit has written: {what}") from None
    if not isinstance(checkpoint, dict) or not all(
        isinstance(part := checkpoint.get(key), dict) and part.keys() >= needed for key, needed in _NEEDED.items()
    ):
        raise InputError(f"{path}: not a checkpoint that this project's fit has written")
    return checkpoint


def _check_digest(file: BinaryIO, path: str | Path) -> None:
    size = file.seek(0, os.SEEK_END) - _TRAILER_SIZE
    file.seek(max(size, 0))
    trailer = _TRAILER.fullmatch(file.read())
    if trailer is None:
        raise InputError(f"{path}: damaged, or not a checkpoint that this project's fit has written")
    file.seek(0)
    digest = hashlib.sha256()
    while size > 0:
        chunk = file.read(min(size, 1 << 20))
        digest.update(chunk)
        size -= len(chunk)
    if digest.hexdigest().encode() != trailer[1]:
        raise InputError(f"{path}: damaged: it is not, byte for byte, what was written")


def check_classes(checkpoint: dict[str, Any], path: str | Path, allow_custom: bool) -> None:
    """Refuse a checkpoint that names classes from outside this project and its libraries, before they are imported.

    Args:
        checkpoint: what `load` has read.
        path: its file, for messages.
        allow_custom: import them all the same, and say so.

    Raises:
        InputError: it names such a class, or something that is no net, loss, optimizer, schedule, data or augmentation,
            or no data at all.
    """
    model, data = checkpoint["hyper_parameters"], checkpoint["datamodule_hyper_parameters"]
    if not isinstance(data.get("_class_path"), str):
        raise InputError(f"{path}: does not name its data: it was not written by a command, but by other Python code")
    settings = [*(model.get(part) for part in _PARTS), data["_class_path"], data.get("augment")]
    for name in sorted({*_classes_in(settings)}):
        root = name.partition(".")[0]
        if root in _TRUSTED:
            if not _is_class(name):
                raise InputError(f"{path}: {name} is no class that a checkpoint may name")
        elif root in sys.modules or find_spec(root) is not None:
            if not allow_custom:
                raise InputError(
                    f"{path}: its class {name} is code from outside this project; if you trust that code, add "
                    "--allow_custom_classes"
                )
            print(f"importing {name.rpartition('.')[0]}, which {path} names")


def _classes_in(value: Any) -> Iterator[str]:
    """Every string that could be taken for the path of a class."""
    if isinstance(value, str) and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", value):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _classes_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _classes_in(each)


def _is_class(path: str) -> bool:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(found, type) and issubclass(found, _KINDS)


def run_folder(ckpt_path: str) -> Path:
    """The folder of the run that a checkpoint belongs to, or the one it lies in."""
    folder = Path(ckpt_path).parent
    return folder.parent if folder.name == "checkpoints" else folder


def parser_defaults(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its experiment, seed, net and data, as defaults of the parser."""
    model, data = (dict(checkpoint[key]) for key in ("hyper_parameters", "datamodule_hyper_parameters"))
    source = data.pop("_class_path")
    return {
        "experiment": checkpoint["run"]["experiment"],
        "seed_everything": checkpoint["run"]["seed"],
        **{f"model.{key}": model.get(key) for key in _PARTS},
        "data": {
            "class_path": source,
            "init_args": {key: value for key, value in data.items() if key != "_instantiator"},
        },
    }


def facts(checkpoint: dict[str, Any], datamodule: ImageData) -> dict[str, Any]:
    """What a contract tells of how its weights came to be; no dates and no paths, so that bytes repeat."""
    settings = {key: checkpoint[key] for key in ("hyper_parameters", "datamodule_hyper_parameters")}
    return {
        "metrics": checkpoint["run"]["metrics"],
        "provenance": {
            "config": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
            "data": {
                "source": type(datamodule).__name__,
                "validation": images.fingerprint(datamodule.images("val").pixels),
            },
            "seed": checkpoint["run"]["seed"],
            "epoch": checkpoint["epoch"],
            "step": checkpoint["global_step"],
            "versions": {
                name: version(name) for name in ("cifar-lightning", "cifar-onnx", "torch", "lightning", "onnx")
            },
        },
    }
