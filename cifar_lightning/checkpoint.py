"""Checkpoints: written whole or not at all, read without running what is in them, and what they say of their run."""

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO

from cifar_lightning import runs
from cifar_lightning.data import ImageData
from cifar_lightning.files import write_whole
from cifar_onnx import InputError
from cifar_onnx.errors import some

_TRAILER = re.compile(rb"sha256:([0-9a-f]{64})\n")
_TRAILER_SIZE = 72  # bytes at the end of a file, of which zip readers, and so torch.load, take no notice
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
        kept = [*Path(path).glob(runs.BEST), *Path(path).glob(f"version_*/{runs.BEST}")]
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
        advice = ": an exported file is judged by python -m cifar_onnx evaluate" if str(path).endswith(".onnx") else ""
        raise InputError(f"{path}: damaged, or not a checkpoint that this project's fit has written{advice}")
    file.seek(0)
    digest = hashlib.sha256()
    while size > 0:
        chunk = file.read(min(size, 1 << 20))
        digest.update(chunk)
        size -= len(chunk)
    if digest.hexdigest().encode() != trailer[1]:
        raise InputError(f"{path}: damaged: it is not, byte for byte, what was written")


def file_digest(ckpt_path: str) -> str:
    """sha256 of a checkpoint's file, in hexadecimal."""
    with Path(ckpt_path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def without(config: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """A checkpoint's settings but for lists that are appended to: what is typed again is not there twice."""
    for key in keys:
        *parents, name = key.split(".")
        node: Any = config
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict):
            for place in (node, node.get("init_args") or {}):
                place.pop(name, None)
    return config


def place(checkpoint: dict[str, Any]) -> tuple[int, bool]:
    """Batches done in the epoch that was going on, and whether the model has been validated after these."""
    data = checkpoint["datamodule_hyper_parameters"]["_class_path"].rpartition(".")[2]
    return checkpoint[data]["batch"], checkpoint["callbacks"]["Resume"]["validated"]


def ended(checkpoint: dict[str, Any]) -> dict[str, str] | None:
    """The last row of metrics.csv of the epoch at whose end a checkpoint was written; None of one within an epoch."""
    if place(checkpoint)[0]:
        return None
    loss = checkpoint["run"]["metrics"]["train/loss"]
    return {"epoch": str(checkpoint["epoch"]), "step": str(checkpoint["global_step"] - 1), "train/loss": str(loss)}


def check_resumable(checkpoint: dict[str, Any], config: Namespace) -> None:
    """Refuse to go on from a checkpoint with settings that it cannot go on with.

    Args:
        checkpoint: what `load` has read.
        config: of `fit`.

    Raises:
        InputError: it holds weights only, or another optimizer, schedule or seed was asked for.
    """
    if not checkpoint.get("optimizer_states"):
        raise InputError(f"{config.ckpt_path} holds weights only: fit cannot go on from it")
    for part in ("optimizer", "scheduler"):
        before, now = checkpoint["hyper_parameters"].get(part), config.model[part]
        if now and (before or {}).get("class_path") != now.class_path:
            was = before["class_path"] if before else f"no {part}"
            raise InputError(f"{config.ckpt_path} was trained with {was}: it cannot go on with {now.class_path}")
        if config.model.scheduler and before and now:  # which has the rates in its hands, and these are restored
            for name, value in now.as_dict().get("init_args", {}).items():
                if json.dumps(value) != json.dumps(before.get("init_args", {}).get(name, value)):
                    raise InputError(
                        f"{config.ckpt_path} has a schedule that began with model.{part}.{name} "
                        f"{before['init_args'][name]}: it cannot go on with {value}"
                    )
    batch, _ = place(checkpoint)
    seed = checkpoint["run"]["seed"]
    if batch and config.seed_everything != seed:
        raise InputError(f"{config.ckpt_path} is in the middle of an epoch: it can go on with seed {seed} only")


def check_data(checkpoint: dict[str, Any], data: ImageData, exported: bool) -> None:
    """Refuse data that a checkpoint's net cannot be used with.

    Args:
        checkpoint: what `load` has read.
        data: the data.
        exported: whether it is for `export`, whose file makes pictures square as this data does.

    Raises:
        InputError: it has other classes, or its pictures were made square otherwise.
    """
    if (known := checkpoint["hyper_parameters"]["classes"]) != data.classes:
        raise InputError(f"the checkpoint knows the classes {some(known)}; the data has {some(data.classes)}")
    for name, value in sees(checkpoint).items():
        if exported and getattr(data, name) != value:
            raise InputError(f"the checkpoint was trained with data.{name} {value}: export takes no other")


def sees(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The size of the images that a checkpoint's net knows and, where that is a setting, how they became square."""
    data, names = checkpoint["datamodule_hyper_parameters"], ("image_size", "resize_mode")
    return {"image_size": ImageData.image_size} | {name: data[name] for name in names if name in data}


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
        **{f"model.{key}": model.get(key) for key in (*PARTS, "lr_factors")},
        "model.net": net,
        "data": {
            "class_path": source,
            # Where to download from, what to write and how much fits are the matter of who runs the command.
            "init_args": {key: data[key] for key in data.keys() - {"_instantiator", "url", "cache_dir", "memory"}},
        },
    }


def origin(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of how its weights came to be, for the contract of a file."""
    settings = {key: checkpoint[key] for key in ("hyper_parameters", "datamodule_hyper_parameters")}
    return {
        "metrics": checkpoint["run"]["metrics"],
        "provenance": {
            "config": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
            "seed": checkpoint["run"]["seed"],
            "epoch": checkpoint.get("epoch"),
            "step": checkpoint.get("global_step"),
        },
    }
