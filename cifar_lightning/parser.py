"""An argument parser that answers a mistake with one sentence and the nearest valid name."""

import importlib
import inspect
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NoReturn

import lightning.pytorch as L
import torch
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from torch import nn

from cifar_lightning.augment import Augmentation
from cifar_lightning.data import ImageData

_BASES = (nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, L.Callback, Logger, ImageData, Augmentation)


class Parser(LightningArgumentParser):
    """LightningCLI's parser with errors for people; exit code 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        keys = [action.dest for action in parser._actions]
        sys.stderr.write(f"error: {explain(message, keys)}\n")
        raise SystemExit(2)


def explain(message: str, keys: Iterable[str]) -> str:
    """One sentence for a message of jsonargparse.

    Args:
        message: what jsonargparse says.
        keys: the options of the parser that said it.
    """
    match = re.search(r'Parser key "([^"]+)"', message)
    key = match[1] if match else ""
    if match := re.search(r"unrecognized arguments: -*([^\s=]+)|option '([^']+)'$|Option '([^']+)' is not accepted", message):
        name = next(group for group in match.groups() if group)
        if owner := re.findall(r"class_path[ =]'([^']+)'", message):
            return f"{key}: {owner[-1]} has no option {name!r}{_hint(name, _options(owner[-1]))}"
        return f"there is no option {name!r}{_hint_key(name, keys)}"
    if match := re.search(r"dot import path string: (\S+)", message):
        return f"{key}: no class is called {match[1]!r}{_hint(match[1], _classes())}"
    if match := re.search(r"module '([^']+)' has no attribute '([^']+)'", message):
        return f"{key}: {match[1]} has no {match[2]!r}{_hint(match[2], dir(importlib.import_module(match[1])))}"
    if match := re.search(r"No module named '([^']+)'", message):
        return f"{key}: there is no module {match[1]!r}{_hint(match[1], sys.modules)}"
    if match := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
        return f"there is no command {match[1]!r}{_hint(match[1], re.findall(r'[a-z]+', match[2]))}"
    return re.sub(r"\s*\n\s*(?:- )?", " ", message.replace("Parser key ", "").strip())


def _hint(name: str, valid: Iterable[str]) -> str:
    near = get_close_matches(name, sorted(set(valid)), n=1)
    return f": did you mean {near[0]!r}?" if near else ""


def _hint_key(name: str, keys: Iterable[str]) -> str:
    """As `_hint` for dotted keys, of which the parser knows only the first parts."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        head, rest = ".".join(parts[:count]), parts[count:]
        if near := get_close_matches(head, [key for key in keys if key.count(".") == count - 1], n=1):
            return f": did you mean {'.'.join([near[0], *rest])!r}?"
    return ""


def _options(class_path: str) -> set[str]:
    """Names of the constructor's parameters, those of its base classes too."""
    module, _, name = class_path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    inits = [base.__init__ for base in inspect.getmro(cls) if "__init__" in vars(base)]
    return {parameter for init in inits for parameter in inspect.signature(init).parameters} - {"self", "args", "kwargs"}


def _classes() -> set[str]:
    """Short names of every class that a config may name without its module."""
    found: set[type] = set()
    todo: list[type] = list(_BASES)
    while todo:
        cls = todo.pop()
        if cls not in found:
            found.add(cls)
            todo += cls.__subclasses__()
    return {cls.__name__ for cls in found}
