"""What a sweep is asked to do: its YAML file and what was typed, checked before the first trial."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from cifar_lightning import runs
from cifar_lightning.cli import command
from cifar_lightning.cli.config_file import mapping
from cifar_lightning.cli.parser import Parser
from cifar_lightning.cli.settings import asked_callbacks, check_callbacks
from cifar_lightning.leaderboard.differences import flat, short
from cifar_lightning.module import Classifier
from cifar_lightning.sweep import space as spaces
from cifar_lightning.sweep.configs import OPTIONS, at_edges, check, check_comparable, parsed
from cifar_lightning.sweep.space import Choice, Range, Space
from cifar_onnx import InputError

_PLACES = ("trainer.devices", "trainer.accelerator")  # where trials run, which each process may choose


@dataclass(frozen=True)
class Plan:
    """A sweep.

    Attributes:
        folder: of its trials.
        trials: their number in total, over all processes.
        monitor: what is measured on the validation set.
        mode: which of its values is the best.
        space: what is searched.
        first: the experiment's own values, which the first trial takes; empty where they do not lie in the space.
        sampler: class and settings.
        pruner: likewise.
        storage: a file or the address of a database; by default a file in the folder.
        words: the command line of each trial, but for the values that are searched.
        digest: of what the config files hold that it names.
        given: all of it that must not change while the sweep goes on, the experiment's settings by their keys.
    """

    folder: Path
    trials: int
    monitor: str
    mode: Literal["min", "max"]
    space: Space
    first: dict[str, Any]
    sampler: Namespace
    pruner: Namespace
    storage: str | None
    words: list[str]
    digest: str
    given: dict[str, Any]

    @property
    def names(self) -> dict[str, str]:
        """The keys that vary, and for each of them the shortest end that is the end of no other."""
        keys = [key for key, part in self.space.items() if len(part.edges) > 1]
        return {key: short(key, keys) for key in keys}

    def best(self, values: Iterable[float]) -> float | None:
        """The best of some values; None if there is none."""
        return (max if self.mode == "max" else min)(values, default=None)

    def measured(self, trial: FrozenTrial) -> float | None:
        """The value of a trial, or the best so far of one that was pruned; None if there is none."""
        return trial.value if trial.state == TrialState.COMPLETE else self.best(trial.intermediate_values.values())


class _Settings(Parser):
    """A parser of the sweep's own options."""

    bases: ClassVar[Sequence[type]] = (BaseSampler, BasePruner)
    usual: ClassVar[Mapping[str, Any]] = {}


def read(words: Sequence[str]) -> Plan:
    """Read what was typed, and the files that it names, and try every edge of the space.

    Raises:
        InputError: it cannot be.
        SystemExit: likewise; the parser has said why.
    """
    if words and not words[0].startswith("-"):
        raise InputError(f"there is no option {words[0]!r}: did you mean '--config {words[0]}'?")
    own, rest = _parted(words)
    settings, configs, file = _settings(own)
    if command.beginning(rest, {path: mapping(Path(path)) for path in configs}).get("ckpt_path") == "last":
        raise InputError("ckpt_path is last: leave it out, since the same command resumes a sweep")
    space = spaces.read(settings.space)
    if settings.trials < 1:
        raise InputError(f"trials is {settings.trials}: it must be at least 1")
    name = settings.experiment or (f"sweep-{file.stem}" if file else "sweep")
    runs.check_name(name)
    common = ["fit", *(word for path in configs for word in ("--config", path)), *rest, "--experiment", name]
    [base], tried = parsed(common, [[]]), parsed(common, at_edges(space))
    for config in (base, *tried):
        check(config, space)
    monitor, mode = _monitored(base, settings)
    check_comparable(tried, monitor)
    given = {
        **{key: value for key, value in flat(base.as_dict()).items() if key not in (*OPTIONS, *_PLACES)},
        "seed_everything": base.seed_everything,
        "ckpt_path": base.ckpt_path,
        **{key: value for key, value in settings.as_dict().items() if key in ("space", "sampler", "pruner")},
        "monitor": monitor,
        "mode": mode,
    }
    space = {key: _as_parsed(key, part, tried) for key, part in space.items()}
    set_once = {key: part.edges[0] for key, part in space.items() if len(part.edges) == 1}
    labels = {key: part.label(set_once.get(key, spaces.value(base, key))) for key, part in space.items()}
    return Plan(
        folder=runs.root(base.trainer.default_root_dir) / name,
        trials=settings.trials,
        monitor=monitor,
        mode=mode,
        space=space,
        first={} if None in labels.values() else labels,
        sampler=settings.sampler,
        pruner=settings.pruner,
        storage=settings.storage,
        words=[*common, f"--checkpoint.monitor={monitor}", f"--checkpoint.mode={mode}"],
        digest=command.read(common).digest,
        given=json.loads(json.dumps(given, default=str)),
    )


def _parted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The sweep's own options, and those of `fit`."""
    own, rest = list[str](), list[str]()
    part = rest
    for word in ("--config" if word == "-c" else word for word in words):
        if word.startswith("--"):
            part = own if word[2:].partition("=")[0].partition(".")[0] in OPTIONS else rest
        part.append(word)
    return own, rest


def _settings(own: list[str]) -> tuple[Namespace, list[str], Path | None]:
    """The sweep's settings, the config files of its experiment, and its own file."""
    files, own = command.taken(own, "--config")
    if len(files) > 1:
        raise InputError(
            f"a sweep has one file, not {' and '.join(files)}: name the experiment's configs in its key config"
        )
    file = Path(files[0]) if files else None
    known = mapping(file) if file else {}
    given = known.pop("config", [])
    configs = given if isinstance(given, list) else [given]
    if not all(isinstance(path, str) for path in configs):
        raise InputError(f"{file}: config is {given!r}: it must name a file, or be a list of such names")
    parser = _Settings(prog="python -m cifar_lightning sweep", allow_abbrev=False)
    parser.add_argument("--experiment", type=str | None)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--monitor", type=str | None)
    parser.add_argument("--mode", type=Literal["min", "max"] | None)
    parser.add_argument("--space", type=dict[str, Any] | None)
    parser.add_argument("--sampler", type=BaseSampler, default={"class_path": "TPESampler"})
    chosen = "pruner" in known or {"--pruner", "--pruner.class_path"} & {word.partition("=")[0] for word in own}
    warmup = {} if chosen else {"n_startup_trials": 5, "n_warmup_steps": 2}  # which another one would be given, too
    parser.add_argument("--pruner", type=BasePruner, default={"class_path": "MedianPruner", "init_args": warmup})
    parser.add_argument("--storage", type=str | None)
    settings = parser.parse_args([*(f"--{key}={spaces.typed(value)}" for key, value in known.items()), *own])
    beside = file.parent if file else Path()
    return settings, [os.path.normpath(beside / path) for path in configs], file


def _monitored(base: Namespace, settings: Namespace) -> tuple[str, Literal["min", "max"]]:
    """What is measured, by default what the checkpoint keeps the best by, and which of its values is the best."""
    kept = base.checkpoint
    monitor, mode = settings.monitor or kept.monitor, settings.mode or kept.mode
    if not str(monitor).startswith("val/"):
        raise InputError(f"monitor is {monitor}: a sweep looks at validation only, at val/loss or val/accuracy say")
    if settings.mode is None and monitor != kept.monitor:
        raise InputError(f"say which mode of {monitor} is best: min or max")
    if all(each.class_path.startswith(("lightning.", "cifar_lightning.")) for each in asked_callbacks(base)):
        check_callbacks([ModelCheckpoint(monitor=monitor, mode=mode)], Classifier(["a", "b"], nn.Identity()))
    return monitor, mode


def _as_parsed(key: str, part: Range | Choice, configs: Sequence[Namespace]) -> Range | Choice:
    """A range given in whole numbers becomes one of floats where the parser takes the key for a float."""
    if isinstance(part, Range) and any(isinstance(spaces.value(config, key), float) for config in configs):
        return Range(float(part.low), float(part.high), part.step and float(part.step), part.log)
    return part
