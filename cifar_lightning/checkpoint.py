"""What a checkpoint says besides its weights: where its run is, which net and data it had, what was measured."""

import argparse
import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cifar_lightning.data import ImageData
from cifar_onnx import InputError, images

KEYWORDS = ("best", "last", "hpc")  # what Lightning takes for a checkpoint of the run that is going on


def run_folder(ckpt_path: str) -> Path:
    """The folder of the run that a checkpoint belongs to, or the one it lies in."""
    folder = Path(ckpt_path).parent
    return folder.parent if folder.name == "checkpoints" else folder


def load(ckpt_path: str) -> dict[str, Any]:
    """Everything in a checkpoint; tensors and plain values only.

    Raises:
        InputError: there is no such file, or it is no checkpoint.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(ckpt_path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{ckpt_path}: no such checkpoint ({error.strerror})") from None
    except Exception:  # torch.load raises whatever the bytes lead it to
        raise InputError(f"{ckpt_path}: not a checkpoint, or a damaged one") from None
    needed = ("state_dict", "hyper_parameters", "datamodule_hyper_parameters", "run")
    if not isinstance(checkpoint, dict) or not all(key in checkpoint for key in needed):
        raise InputError(f"{ckpt_path}: not a checkpoint that this project's fit has written")
    return checkpoint


def named_in(args: Sequence[str]) -> dict[str, Any] | None:
    """The checkpoint that `--ckpt_path` names on a command line, if it names a file."""
    words = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    words.add_argument("--ckpt_path", nargs="?")
    path = words.parse_known_args(args)[0].ckpt_path
    return None if path is None or path in KEYWORDS else load(path)


def parser_defaults(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its experiment, net and data, as defaults of the parser."""
    model, data = (dict(checkpoint[key]) for key in ("hyper_parameters", "datamodule_hyper_parameters"))
    source = data.pop("_class_path")
    return {
        "experiment": checkpoint["run"]["experiment"],
        **{f"model.{key}": value for key, value in model.items() if key not in ("_instantiator", "classes")},
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
