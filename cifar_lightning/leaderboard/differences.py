"""Differences between the configs of several runs."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

# Classes of these are known by their own names: a config need not say where they are from.
_KNOWN = re.compile(r"^(cifar_lightning|torch|torchvision|lightning)\.([\w.]+\.)?(?=\w+$)")
_LONGEST = 80  # characters of a value that are shown
# Where things lie, what is shown meanwhile, and what has a column of its own.
_SILENT = {
    *("ckpt_path", "experiment", "seed_everything", "allow_custom_classes"),
    *("data.cache_dir", "data.memory", "data.url", "trainer.default_root_dir"),
    *("trainer.logger", "trainer.log_every_n_steps"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.num_sanity_val_steps"),
}
_BATCH = "data.batch_size"
_LIMITS = ("trainer.limit_val_batches", "trainer.overfit_batches")
_NO_LIMIT = {"null", "1.0", "0.0"}
# What decides which images are validated on; where there is a limit, the size of the batches does, too.
_IMAGES = (
    *("data", "data.root", "data.labels", "data.val_fraction", "data.test_fraction", "data.split_seed"),
    *_LIMITS,
)

_TRAINING = {"class_weights", "teacher", "temperature", "weight"}  # settings of losses that count in training only
_CROSS_ENTROPY = {"CrossEntropy", "Distillation"}  # which are the same in evaluation


@dataclass(frozen=True)
class Differences:
    """What the runs of a table differ in.

    A key that a run does not have, such as a setting of another class, is none that it differs in.

    Args:
        settings: the config of each run, from `flat`.
    """

    settings: Sequence[Mapping[str, str]]

    @cached_property
    def keys(self) -> dict[str, str]:
        """Keys in which runs differ, with the shortest names that no other key could be meant by."""
        every = dict.fromkeys(key for each in self.settings for key in each)
        return {key: short(key, every) for key in every if len(set(self._values(key))) > 1}

    @cached_property
    def common(self) -> dict[str, str]:
        """Of these, the values that more than half of the runs have."""
        most = {key: Counter(self._values(key)).most_common(1)[0] for key in self.keys}
        return {key: value for key, (value, count) in most.items() if 2 * count > len(list(self._values(key)))}

    def own(self, settings: Mapping[str, str]) -> str:
        """What a run has that is not common, as `key=value`."""
        return self._words({key: value for key, value in settings.items() if self.common.get(key) != value})

    def otherwise(self) -> str:
        """What is common, likewise."""
        return self._words(self.common)

    def images(self) -> str:
        """Keys for which the runs were not validated on the same images, empty where there are none."""
        found = [self.keys[key] for key in _IMAGES if key in self.keys]
        limits = [each for each in _LIMITS if each not in self.keys and {*self._values(each)} - _NO_LIMIT]
        if _BATCH in self.keys:
            found += [f"{self.keys[_BATCH]} with {limit}" for limit in limits]
        return ", ".join(found)

    def losses(self) -> str:
        """Keys for which val/loss does not measure the same, likewise."""
        found = [key for key in self.keys if key.startswith("model.loss.") and key.rpartition(".")[2] not in _TRAINING]
        if {*self._values("model.loss")} - _CROSS_ENTROPY and "model.loss" in self.keys:
            found.append("model.loss")
        return ", ".join(self.keys[key] for key in found)

    def _values(self, key: str) -> Iterator[str]:
        return (each[key] for each in self.settings if key in each)

    def _words(self, settings: Mapping[str, str]) -> str:
        return " ".join(f"{self.keys[key]}={_cut(value)}" for key, value in settings.items() if key in self.keys)


def flat(config: Mapping[str, Any]) -> dict[str, str]:
    """A config as one mapping from dotted keys to values; the name of a class is that of the key it is given for."""
    return {key: _text(value) for key, value in _leaves(config, "") if key not in _SILENT}


def _leaves(node: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        key = prefix if name in ("class_path", "init_args", "dict_kwargs") else f"{prefix}.{name}".lstrip(".")
        if isinstance(value, Mapping):
            yield from _leaves(value, key)
        elif name == "class_path":
            yield key, _Class(value)
        elif name not in ("init_args", "dict_kwargs"):  # which may be null
            yield key, value


class _Class(str):
    """The name of a class, with its module."""


def _text(value: Any) -> str:
    """A value in as few letters as it can be told by."""
    if isinstance(value, Mapping) and "class_path" in value:
        inner = ",".join(f"{key}={_text(each)}" for key, each in _leaves(value, "") if key)
        return _text(_Class(value["class_path"])) + (f"({inner})" if inner else "")
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, _Class):
        return _KNOWN.sub("", value)
    if isinstance(value, str) and re.fullmatch(r"\S+", value) and value.isprintable():
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _cut(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 1]}…"


def short(key: str, every: Iterable[str]) -> str:
    """The shortest end of a dotted key that no other key has."""
    parts = key.split(".")
    for count in range(1, len(parts)):
        end = ".".join(parts[-count:])
        if sum(f".{other}".endswith(f".{end}") for other in every) == 1:
            return end
    return key
