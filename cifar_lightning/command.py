"""The words of a command line, before they are parsed: its config files, and the checkpoint that it starts from."""

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_only

from cifar_lightning import runs
from cifar_lightning.parser import refuse_duplicates
from cifar_onnx import InputError

_KEYWORDS = ("best", "last", "hpc")  # what Lightning takes for a checkpoint of the run that is going on


@dataclass(frozen=True)
class Command:
    """A command line with its config files in front, so that what was typed beats them wherever it stands.

    Attributes:
        words: the command line.
        ckpt_path: the checkpoint that it starts from, if any.
        going_on: the folder of the run that `fit` goes on with, if any.
        allow_custom: whether the checkpoint may name any class.
        appended: lists that are appended to.
    """

    words: list[str]
    ckpt_path: str | None = None
    going_on: Path | None = None
    allow_custom: bool = False
    appended: Sequence[str] = ()


def read(words: Sequence[str]) -> Command:
    """Find the config files and the checkpoint in a command line.

    Raises:
        InputError: a config file cannot be read, or is no mapping of options.
    """
    splitter = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    splitter.add_argument("-c", "--config", action="append", default=[])
    for option in ("--ckpt_path", "--experiment", "--trainer.default_root_dir"):
        splitter.add_argument(option, nargs="?")
    splitter.add_argument("--allow_custom_classes", action="store_true")
    typed, _ = splitter.parse_known_args(words)
    splitter = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    splitter.add_argument("-c", "--config", action="append", default=[])
    splitter.add_argument("--ckpt_path", nargs="?")
    _, rest = splitter.parse_known_args(words)
    settings: dict[str, Any] = {"experiment": "cnn"}
    for path in typed.config:
        mapping = _mapping(path)
        trainer = mapping.pop("trainer", None)
        if isinstance(trainer, dict):
            settings |= {f"trainer.{key}": value for key, value in trainer.items()}
        settings |= mapping
    settings |= {key: value for key, value in vars(typed).items() if value}
    configs, found, going_on = typed.config, settings.get("ckpt_path"), None
    appended = [match[1] for word in rest if (match := re.match(r"--([\w.]+)\+(=|$)", word))]
    if rest[:1] == ["fit"] and found == "last":
        root, experiment = runs.folder(settings.get("trainer.default_root_dir")), str(settings["experiment"])
        runs.check_name(experiment)
        going_on = runs.unfinished(root, experiment, process())
        if going_on:
            kept = _mapping(str(going_on / "config.yaml"))
            configs = [json.dumps(without(kept, appended)), *configs]
            found = str(going_on / "checkpoints" / "last.ckpt")
        _say(f"going on with {going_on}" if going_on else f"nothing to go on with in {root / experiment}: a new run")
    named = str(found) if found and found not in _KEYWORDS else None
    chosen = ["--ckpt_path", named or "null"] if found else []
    return Command(
        [*rest[:1], *(word for path in configs for word in ("--config", path)), *rest[1:], *chosen],
        named,
        going_on,
        bool(settings.get("allow_custom_classes")),
        appended,
    )


def process() -> int:
    """Number of this process among those of one run."""
    return int(getattr(rank_zero_only, "rank", 0))


def without(config: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """A config without lists that the command line appends to: what is typed again is not there twice."""
    for key in keys:
        *parents, name = key.split(".")
        node: Any = config
        for parent in parents:
            node = node.get(parent) or {}
        for place in (node, node.get("init_args", {})):
            place.pop(name, None)
    return config


def _mapping(path: str) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
        refuse_duplicates(text)
        mapping = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): name a config file") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(mapping, dict):
        raise InputError(f"{path}: not a mapping of options, such as 'trainer: {{max_epochs: 3}}'")
    return mapping


@rank_zero_only
def _say(line: str) -> None:
    print(line)
