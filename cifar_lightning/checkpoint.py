"""Checkpoints: written whole or not at all, read without running what is in them, and what they say of their run."""

import hashlib
import importlib
import io
import json
import os
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cifar_lightning.augment import Augmentation, Mixing
from cifar_lightning.data import ImageData
from cifar_lightning.files import write_whole
from cifar_onnx import InputError, images

_TRAILER = re.compile(rb"sha256:([0-9a-f]{64})\n")
_TRAILER_SIZE = 72  # bytes at the end of a file, of which zip readers, and so torch.load, take no notice
_TRUSTED = ("torch.nn", "torch.optim", "torchvision.models", "torchvision.ops", "cifar_lightning")  # modules
_NEEDED: dict[str, dict[str, type]] = {
    "state_dict": {},
    "hyper_parameters": {"classes": list},
    "datamodule_hyper_parameters": {},
    "run": {"experiment": str, "seed": int, "threads": int, "metrics": dict, "validated": bool, "train_loss": tuple},
}
_PARTS = ("net", "optimizer", "scheduler", "loss")  # of a model
_TEXTS = {  # settings that are text and nothing else: names of files, and of what libraries have
    "cifar_lightning.distill.Distillation": {"teacher"},
    "cifar_lightning.nets.Torchvision": {"weights"},
    "cifar_lightning.nets.Timm": {"name", "weights"},
}
_KINDS = (nn.Module, Optimizer, LRScheduler, ImageData, Augmentation, Mixing)


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
    data = buffer.getbuffer()
    write_whole(Path(path), data, b"sha256:%s\n" % hashlib.sha256(data).hexdigest().encode())


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
        kept = [*Path(path).glob("checkpoints/best.ckpt"), *Path(path).glob("version_*/checkpoints/best.ckpt")]
        newest = max(kept, key=lambda each: each.stat().st_mtime, default=None)
        advice = f": did you mean {newest}?" if newest else ""
        raise InputError(f"{path}: no such checkpoint ({error.strerror}){advice}") from None
    except InputError:
        raise
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        found = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, UnpicklingError) else None
        what = f"it holds code ({found[1]})" if found else "it holds something else than tensors and plain values"
        raise InputError(f"{path}: not a checkpoint that this project's fit has written: {what}") from None
    if not isinstance(checkpoint, dict) or not all(
        isinstance(part := checkpoint.get(key), dict)
        and all(isinstance(part.get(name), kind) for name, kind in needed.items())
        for key, needed in _NEEDED.items()
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


def check_classes(
    checkpoint: dict[str, Any],
    path: str,
    allow_custom: bool = False,
    advice: str = "if you trust that code, add --allow_custom_classes",
) -> None:
    """Refuse a checkpoint that names code from outside this project and its libraries, before anything is imported.

    Args:
        checkpoint: what `load` has read.
        path: its file, for messages.
        allow_custom: import it all the same, and say so.
        advice: for messages.

    Raises:
        InputError: it names such code, something that is no net, loss, optimizer, schedule, data or augmentation, or
            something that the parser could take for a name in disguise.
    """
    model, data = checkpoint["hyper_parameters"], checkpoint["datamodule_hyper_parameters"]
    if "_class_path" not in data:
        raise InputError(f"{path}: does not name its data: it was not written by a command, but by other Python code")
    parts = {f"model.{part}": model.get(part) for part in _PARTS}
    for key, part in {**parts, "data": {"class_path": data["_class_path"]}}.items():
        if part is not None and not (isinstance(part, dict) and isinstance(part.get("class_path"), str)):
            raise InputError(f"{path}: {key} is not the name and settings of a class")
    factors = model.get("lr_factors") or {}
    if not isinstance(factors, dict) or any(not isinstance(each, int | float) for each in factors.values()):
        raise InputError(f"{path}: model.lr_factors is not a mapping of names to numbers")
    names: set[str] = set()
    try:
        for part in (*parts.values(), {"class_path": data["_class_path"]}, data.get("augment"), data.get("mix")):
            names |= {*_classes_in(part)}
    except ValueError as error:
        if not allow_custom:
            raise InputError(f"{path}: {error}; {advice}") from None
    for name in sorted(names):
        if not allow_custom and not _is_ours(name):
            raise InputError(f"{path}: {name} is no class of this project or its libraries; {advice}")
        if name.partition(".")[0] not in ("cifar_lightning", "torch", "torchvision", "lightning"):
            print(f"importing {name.rpartition('.')[0]}, which {path} names")


def _classes_in(value: Any) -> Iterator[str]:
    """Names of classes in the settings of a class.

    Raises:
        ValueError: there is something besides that jsonargparse could read as more than a plain value: it takes strings
            for YAML, and for names of classes and of files with settings.
    """
    if isinstance(value, str):
        if not re.fullmatch(r"[A-Za-z0-9_+-]*", value) or (value and Path(value).exists()):
            raise ValueError(f"{value!r} may be more than a plain value")
    elif isinstance(value, dict):
        texts = _TEXTS.get(str(value.get("class_path")), set())
        for key, each in value.items():
            if key == "class_path" and isinstance(each, str):
                yield each
            elif key == "init_args" and isinstance(each, dict):
                texts = {name for name in texts if isinstance(each.get(name), str)}
                yield from _classes_in({name: setting for name, setting in each.items() if name not in texts})
            else:
                yield from _classes_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _classes_in(each)
    elif not isinstance(value, int | float | None):
        raise ValueError(f"a {type(value).__name__} may be more than a plain value")


def _is_ours(path: str) -> bool:
    """Whether a name is that of a class that a checkpoint may name; imports nothing else."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+", path):
        return False
    module, _, name = path.rpartition(".")
    if not any(module == trusted or module.startswith(f"{trusted}.") for trusted in _TRUSTED):
        return False
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception:  # there is no such module, or it does not belong on this machine
        return False
    return isinstance(found, type) and issubclass(found, _KINDS)


def run_folder(ckpt_path: str) -> Path:
    """The folder of the run that a checkpoint belongs to, or the one it lies in."""
    folder = Path(ckpt_path).parent
    return folder.parent if folder.name == "checkpoints" else folder


def file_digest(ckpt_path: str) -> str:
    """sha256 of a checkpoint's file, in hexadecimal."""
    with Path(ckpt_path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def place(checkpoint: dict[str, Any]) -> tuple[int, bool]:
    """Batches done in the epoch that was going on, and whether the model has been validated after these."""
    data = checkpoint["datamodule_hyper_parameters"]["_class_path"].rpartition(".")[2]
    return checkpoint[data]["batch"], checkpoint["callbacks"]["Resume"]["validated"]


def parser_defaults(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its experiment, seed, net and data, as defaults of the parser."""
    model, data = (dict(checkpoint[key]) for key in ("hyper_parameters", "datamodule_hyper_parameters"))
    source = data.pop("_class_path")
    net = dict(model["net"])
    # The classes decide their number, and there are nets that do not ask for it.
    net["init_args"] = {key: value for key, value in net.get("init_args", {}).items() if key != "num_classes"}
    return {
        "experiment": checkpoint["run"]["experiment"],
        "seed_everything": checkpoint["run"]["seed"],
        **{f"model.{key}": model.get(key) for key in (*_PARTS, "lr_factors")},
        "model.net": net,
        "data": {
            "class_path": source,
            # Where to download from, what to write and how much fits are the matter of who runs the command.
            "init_args": {key: data[key] for key in data.keys() - {"_instantiator", "url", "cache_dir", "memory"}},
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
                name: version(name)
                for name in ("cifar-lightning", "cifar-onnx", "torch", "lightning", "onnx", "onnxruntime")
            },
        },
    }
