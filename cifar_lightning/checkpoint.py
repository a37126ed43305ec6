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
    except FileNotFoundError:
        raise InputError(f"{ckpt_path}: no such checkpoint") from None
    except Exception as error:
        raise InputError(f"{ckpt_path}: not a checkpoint, or a damaged one ({error})") from None
    return checkpoint


def parser_defaults(args: Sequence[str]) -> dict[str, Any]:
    """What the checkpoint of `--ckpt_path` says of its net and data, as defaults of the parser."""
    words = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    words.add_argument("--ckpt_path", nargs="?")
    path = words.parse_known_args(args)[0].ckpt_path
    if path is None or path in ("last", "best", "hpc"):
        return {}
    checkpoint = load(path)
    try:
        model, data = dict(checkpoint["hyper_parameters"]), dict(checkpoint["datamodule_hyper_parameters"])
        source = data.pop("_class_path")
    except KeyError as error:
        raise InputError(f"{path}: not a checkpoint of this project's fit, it has no {error}") from None
    return {
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
