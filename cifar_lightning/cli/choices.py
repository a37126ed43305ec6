"""Classes that are chosen by their names, by default, typed or in config files."""

import re
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

# The tutorial's experiment, and what keeps its best epoch.
DEFAULTS: dict[str, Any] = {
    "model.net": {"class_path": "cifar_lightning.nets.CNN"},
    "model.optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}},
    "model.loss": {"class_path": "cifar_lightning.loss.CrossEntropy"},
    "data": {"class_path": "cifar_lightning.data.CIFAR10"},
    "checkpoint.filename": "best",
    "checkpoint.monitor": "val/accuracy",
    "checkpoint.mode": "max",
    "checkpoint.enable_version_counter": False,
}

_CLASSES = ("data", "data.mix", "model.net", "model.optimizer", "model.scheduler", "model.loss")
_LISTS = ("data.augment", "trainer.callbacks", "trainer.logger")


def _setting(config: Any, key: str) -> Any:
    """What a config file says at a key, whose parts may be joined by dots there, and without `init_args` here."""
    if not isinstance(config, dict):
        return None
    found = _setting(config.get("init_args"), key)
    for name, value in config.items():
        start = str(name).replace(".init_args", "")
        if start == key:
            return value
        if key.startswith(f"{start}."):
            found = _setting(value, key.removeprefix(f"{start}.")) if found is None else found
        elif start.startswith(f"{key}."):
            found = {start.removeprefix(f"{key}."): value} if found is None else found
    return found


def names_class(option: str, words: Sequence[str], configs: Iterable[Any]) -> bool:
    """Whether a class is named for an option, typed or in what a config file says."""
    return _naming(option, words) is not None or any(_class(config, option) is not None for config in configs)


def _class(config: Any, option: str) -> Any:
    """The class that a config file names for an option, or its list of classes."""
    found = _setting(config, option)
    return _setting(config, f"{option}.class_path") if found is None or isinstance(found, dict) else found


def in_order(words: Sequence[str]) -> list[str]:
    """The words, with each option that names a class before those of the class: the parser reads them in order."""
    words = [*words]
    for option in _CLASSES:
        at = _naming(option, words) or 0
        own = next((at for at, word in enumerate(words) if word.startswith(f"--{option}.")), len(words))
        if own < at:
            end = at + (1 if "=" in words[at] else 2)
            words = [*words[:own], *words[at:end], *words[own:at], *words[end:]]
    return words


def _naming(option: str, words: Sequence[str]) -> int | None:
    """The place of the word that names the class of an option, or its list of classes."""
    names = (f"--{option}", f"--{option}.class_path")
    return next((at for at, word in enumerate(words) if word.partition("=")[0] in names), None)


def without_others(words: Sequence[str], checkpoint: Any, configs: Sequence[Any]) -> list[str]:
    """The words, with `--option=null` before a class that takes another one's place, or before a list given whole.

    The parser would hand the settings of the other class on, as far as the new one has settings of these names. And a
    class that is typed stands before the config files too, where these have settings for it and name none.

    Args:
        words: the command line; its config files come before all other options.
        checkpoint: what the checkpoint says.
        configs: what its config files say.
    """
    more = []
    for option in (*_CLASSES, *_LISTS):
        given = [(2 * file + 1, _class(config, option)) for file, config in enumerate(configs)]
        if (at := _naming(option, words)) is not None:
            typed = words[at].partition("=")[2] or "".join(words[at + 1 : at + 2])
            unnamed = all(chosen is None for _, chosen in given) and any(_setting(each, option) for each in configs)
            if unnamed and option != "data.mix":  # which is a setting of a class itself
                more.append((1, f"--{option}={typed}"))
                given.append((1, typed))
            given.append((at, typed))
        before = _class(checkpoint, option)
        for at, chosen in given:
            if chosen is None or option == "data":  # what sources of photos have in common is meant for all of them
                continue
            whole = isinstance(chosen, list) or str(chosen).startswith("[")
            if before is not None and (whole or _name(before) != _name(chosen)):
                none = "torch.nn.Identity" if option == "model.net" else "null"  # a net there must be
                more.append((at, f"--{option}={none}"))
            before = chosen
    words = [*words]
    for at, word in sorted(more, key=itemgetter(0), reverse=True):
        words.insert(at, word)
    return words


def _name(chosen: Any) -> str:
    """The name of a class without its module, of one that may be given with its settings."""
    named = re.search(r"class_path\W+([\w.]+)", str(chosen))
    return (named[1] if named else str(chosen)).rpartition(".")[2]
