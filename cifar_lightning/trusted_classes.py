"""Which classes a checkpoint may name, decided before any code of others is imported."""

import importlib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cifar_lightning.augment import Augmentation
from cifar_lightning.checkpoint import PARTS
from cifar_lightning.data import ImageData
from cifar_lightning.mix import Mixing
from cifar_lightning.suggestion import hint
from cifar_onnx import InputError

_TRUSTED = ("torch.nn", "torch.optim", "torchvision.models", "torchvision.ops", "cifar_lightning")  # modules
_TEXTS = {  # settings that are text and nothing else: names of files, and of what libraries have
    "cifar_lightning.distill.Distillation": {"teacher"},
    "cifar_lightning.nets.Torchvision": {"weights"},
    "cifar_lightning.nets.Timm": {"name", "weights"},
}
_KINDS = (nn.Module, Optimizer, LRScheduler, ImageData, Augmentation, Mixing)


def check_classes(
    checkpoint: dict[str, Any],
    path: str,
    allow_custom: bool = False,
    advice: str = "if you trust that code, add --allow_custom_classes",
    named: Collection[str] = (),
) -> None:
    """Refuse a checkpoint that names code from outside this project and its libraries, before anything is imported.

    Args:
        checkpoint: what `load` has read.
        path: its file, for messages.
        allow_custom: import it all the same, and say so.
        advice: for messages.
        named: names of classes, and texts they are set by, that the user has given: the parser takes them in any case.

    Raises:
        InputError: it names such code, something that is no net, loss, optimizer, schedule, data or augmentation,
            something that the parser could take for a name in disguise, or a class that its module does not have.
    """
    model, data = checkpoint["hyper_parameters"], checkpoint["datamodule_hyper_parameters"]
    if "_class_path" not in data:
        raise InputError(f"{path}: does not name its data: it was not written by a command, but by other Python code")
    parts = {**{f"model.{part}": model.get(part) for part in PARTS}, "data": {"class_path": data["_class_path"]}}
    for key, part in parts.items():
        if part is not None and not (isinstance(part, dict) and isinstance(part.get("class_path"), str)):
            raise InputError(f"{path}: {key} is not the name and settings of a class")
    factors = model.get("lr_factors") or {}
    if not isinstance(factors, dict) or any(not isinstance(each, int | float) for each in factors.values()):
        raise InputError(f"{path}: model.lr_factors is not a mapping of names to numbers")
    names: set[str] = set()
    try:
        for part in (*parts.values(), data.get("augment"), data.get("mix")):
            names |= {*_classes_in(part, named)}
    except ValueError as error:
        if not allow_custom:
            raise InputError(f"{path}: {error}; {advice}") from None
    for name in sorted(names):
        if not (allow_custom or name in named or _is_ours(name)):
            raise InputError(f"{path}: {name} is not a class of this project or its libraries; {advice}")
    modules = {name.rpartition(".")[0] for name in names}
    for module in sorted(modules):
        if module.partition(".")[0] not in ("cifar_lightning", "torch", "torchvision", "lightning"):
            print(f"importing {module}, which {path} names")
    for name in sorted(names):
        _check_there(name, path)


def _check_there(name: str, path: str) -> None:
    """Refuse a class that its module does not have, since it was renamed; imports the module."""
    module, _, cls = name.rpartition(".")
    try:
        found = importlib.import_module(module)
    except Exception:  # the parser imports it again, and says why; or knows a class that lies within another
        return
    if getattr(found, cls, None) is None:
        raise InputError(f"{path}: {module} has no {cls!r}{hint(cls, dir(found))}")


def custom_classes(settings: Any) -> set[str]:
    """Names of classes in settings that are neither this project's nor its libraries'."""
    if isinstance(settings, dict):
        names = (settings.get(key) for key in ("class_path", "_class_path"))  # the latter of data
        own = {each for each in names if isinstance(each, str) and not _is_ours(each)}
        return own.union(*map(custom_classes, settings.values()))
    return set().union(*map(custom_classes, settings)) if isinstance(settings, list | tuple) else set()


def _classes_in(value: Any, named: Collection[str]) -> Iterator[str]:
    """Names of classes in the settings of a class, which may hold texts that the user has given, but for files.

    Raises:
        ValueError: there is something besides that jsonargparse could read as more than a plain value: it takes strings
            for YAML, and for names of classes and of files with settings.
    """
    if isinstance(value, str):
        plain = value in named or re.fullmatch(r"[A-Za-z0-9_+-]*", value)
        if not plain or (value and Path(value).is_file()):
            raise ValueError(f"{value!r} may be more than a plain value")
    elif isinstance(value, dict):
        texts = _TEXTS.get(str(value.get("class_path")), set())
        for key, each in value.items():
            if key == "class_path" and isinstance(each, str):
                yield each
            elif key == "init_args" and isinstance(each, dict):
                texts = {name for name in texts if isinstance(each.get(name), str)}
                yield from _classes_in({name: setting for name, setting in each.items() if name not in texts}, named)
            else:
                yield from _classes_in(each, named)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _classes_in(each, named)
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
