"""The search space: for each key of a config a range of numbers or a list of values."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from jsonargparse import Namespace
from optuna import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from cifar_lightning.suggestion import hint
from cifar_onnx import InputError


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where all that is given is whole.

    Attributes:
        step: between neighbours; None for every number.
        log: whether to draw evenly on a logarithmic scale.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def edges(self) -> tuple[float, float]:
        return self.low, self.high

    @property
    def count(self) -> float:
        """How many numbers there are."""
        return round((self.high - self.low) / (self.step or 1)) + 1 if self._whole or self.step else math.inf

    @property
    def distribution(self) -> BaseDistribution:
        if self._whole:
            return IntDistribution(int(self.low), int(self.high), self.log, int(self.step or 1))
        return FloatDistribution(self.low, self.high, self.log, self.step)

    @property
    def _whole(self) -> bool:
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    def suggest(self, trial: Trial, key: str) -> float:
        if self._whole:
            return trial.suggest_int(key, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        value = trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log)
        return float(f"{value:.12g}") if self.step else value  # 0.3, not 0.30000000000000004

    def label(self, value: Any) -> Any:
        """What stands for a value in the study; None where it is not in the range."""
        if not isinstance(value, int if self._whole else int | float) or isinstance(value, bool):
            return None
        steps = (value - self.low) / self.step if self.step else 0
        return value if self.low <= value <= self.high and abs(steps - round(steps)) < 1e-8 else None


@dataclass(frozen=True)
class Choice:
    """A list of values of any kind."""

    values: tuple[Any, ...]

    @property
    def edges(self) -> tuple[Any, ...]:
        return self.values

    @property
    def count(self) -> float:
        """How many values there are."""
        return len(self.values)

    @property
    def labels(self) -> list[Any]:
        """What stands for the values in the study."""
        return [*map(_label, self.values)]

    @property
    def distribution(self) -> BaseDistribution:
        return CategoricalDistribution(self.labels)

    def suggest(self, trial: Trial, key: str) -> Any:
        return self.values[self.labels.index(trial.suggest_categorical(key, self.labels))]

    def label(self, value: Any) -> Any:
        """What stands for a value in the study; None where it is not in the list.

        A class in a config, with its module and settings, is in a list that names it, with its module or without; of
        several that do, it is the one with the most settings.
        """
        found = [each for each in self.values if _alike(value, each)]
        return _label(max(found, key=_settings)) if found else None


Space = dict[str, Range | Choice]

# What a trial has to set itself.
_OWN = ("config", "experiment", "ckpt_path", "checkpoint.monitor", "checkpoint.mode", "trainer.default_root_dir")


def _alike(value: Any, typed: Any) -> bool:
    """Whether what stands in a config is what a list has, in which modules and settings of classes may be left out."""
    if isinstance(value, Namespace):
        value = value.as_dict()
    if isinstance(value, dict) and "class_path" in value:
        path, settings = str(value["class_path"]), value.get("init_args") or {}
        named = typed if isinstance(typed, dict) else {"class_path": typed}
        same = named.get("class_path") in (path, path.rpartition(".")[2])
        return same and all(_alike(settings.get(key), each) for key, each in (named.get("init_args") or {}).items())
    if isinstance(value, list | tuple) and isinstance(typed, list):
        return len(value) == len(typed) and all(map(_alike, value, typed))
    return bool(value == typed)


def _settings(typed: Any) -> int:
    """How many settings of classes are given."""
    if isinstance(typed, dict):
        own = typed.get("init_args") or {}
        return len(own) + _settings([*own.values()])
    return sum(map(_settings, typed)) if isinstance(typed, list) else 0


def _label(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)


def read(space: Mapping[str, Any] | None) -> Space:
    """Read a space.

    Raises:
        InputError: it is empty or cannot be; names the key.
    """
    if not space:
        raise InputError("space is empty: give keys of the config, each with {low: ..., high: ...} or a list of values")
    for key in space:
        if key in _OWN:
            raise InputError(f"space: {key} cannot be searched: it is set by the sweep")
    return {key: _part(f"space: {key}", value) for key, value in space.items()}


def _part(key: str, value: Any) -> Range | Choice:
    if isinstance(value, list):
        labels = [*map(_label, value)]
        if not labels:
            raise InputError(f"{key} is an empty list: give at least one value")
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise InputError(f"{key} has {twice[0]!r} twice")
        return Choice(tuple(value))
    if not isinstance(value, dict):
        raise InputError(f"{key} is {value!r}: give {{low: ..., high: ...}} or a list of values")
    names = [field.name for field in fields(Range)]
    for name in value:
        if name not in names:
            raise InputError(f"{key}: there is no {name!r} in a range{hint(str(name), names)}")
    for name in ("low", "high"):
        if value.get(name) is None:
            raise InputError(f"{key} has no {name}: a range has low and high")
    for name in ("low", "high", "step"):
        number = value.get(name)
        if isinstance(number, bool) or not isinstance(number, int | float | None):
            raise InputError(f"{key}: {name} is {number!r}, which is not a number")
    if not isinstance(value.get("log", False), bool):
        raise InputError(f"{key}: log is {value['log']!r}: it must be true or false")
    found = Range(**value)
    _check(key, found)
    return found


def _check(key: str, span: Range) -> None:
    if not span.low < span.high:
        raise InputError(f"{key}: low is {span.low}, and high is {span.high}: it must be above low")
    if span.log and span.step is not None:
        raise InputError(f"{key} has both log and step: leave one out")
    if span.log and span.low <= 0:
        raise InputError(f"{key}: low is {span.low}: with log it must be above 0")
    if span.step is not None and span.step <= 0:
        raise InputError(f"{key}: step is {span.step}: it must be above 0")
    low, high, step = (Decimal(str(number)) for number in (span.low, span.high, span.step or 1))
    if span.step and (high - low) % step:
        raise InputError(f"{key}: steps of {step} from low, {low}, do not reach high, {high}")


def value(config: Any, key: str) -> Any:
    """What stands in a config at a key, in which `init_args` may be left out; None if nothing does."""
    for name in key.split("."):
        if isinstance(config, Namespace) and name not in config and "init_args" in config:
            config = config.init_args
        config = config.get(name) if isinstance(config, Namespace) else None
    return config


def words(values: Mapping[str, Any]) -> list[str]:
    """Values as they are typed; the key of a class stands before those of its settings."""
    return [f"--{key}={typed(values[key])}" for key in sorted(values)]


def typed(value: Any) -> str:
    """A value of a YAML file as it is typed behind an option."""
    return value if isinstance(value, str) else json.dumps(value)
