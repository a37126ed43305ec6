"""Config files: YAML that says what a command is to do."""

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from cifar_onnx import InputError
from cifar_onnx.errors import one_line

_load = get_loader("yaml")
_OF_CLASSES = {"class_path", "init_args", "dict_kwargs"}  # keys of what names a class


def mapping(path: Path) -> dict[str, Any]:
    """What a config file says.

    Raises:
        InputError: it cannot be read, is no mapping of options, or has settings beside a class_path.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = load_yaml(text)
        found = yaml.safe_load(text) if found is text else found  # which takes keys without values for text
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): name a config file") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a YAML file ({one_line(error)})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a mapping of options, such as 'trainer: {{max_epochs: 3}}'")
    _check_classes(path, found)
    return found


def _check_classes(path: Path, config: dict[str, Any]) -> None:
    """Refuse settings beside a class_path: the parser would take all of these for settings of a nameless class."""
    todo, seen = list[tuple[str, Any]]([("", config)]), set[int]()
    while todo:
        key, value = todo.pop()
        if id(value) in seen:  # by another alias of YAML, which may stand in itself
            continue
        seen.add(id(value))
        if isinstance(value, list):
            todo += [(key, each) for each in value]
        elif isinstance(value, dict):
            beside = [str(name) for name in value if str(name).partition(".")[0] not in _OF_CLASSES]
            if beside and "class_path" in value:
                raise InputError(f"{path}: {key} has {', '.join(beside)} beside class_path: put that below init_args")
            todo += [(f"{key}.{name}".removeprefix("."), each) for name, each in value.items()]


def given_names(words: Iterable[str], configs: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Texts by which a command and its config files name the classes of a model and its data, or set these.

    Names of files are left out, by which modules may be called: model.onnx would be a class in model.py.
    """
    found = [each for config in configs for each in _naming(config)]
    option = ""
    for word in words:
        value = word
        if word.startswith("-"):
            option, _, value = word.partition("=")
        with suppress(ValueError, RecursionError, yaml.YAMLError):  # it is no YAML: the parser refuses it
            config = load_yaml(value)
            for key in reversed(option[2:].removesuffix("+").split(".")):
                config = {key: config}
            found += _naming(config)
    return frozenset(text for text in _texts(found) if not os.path.isfile(text))


def _naming(config: Mapping[str, Any]) -> list[Any]:
    """What of a config may name classes."""
    found, model, data = list[Any](), config.get("model"), config.get("data")
    if isinstance(model, dict):
        found += [value for key, value in model.items() if key != "init_from"]
    if isinstance(data, dict):
        settings = data.get("init_args")
        for given in (data, settings if isinstance(settings, dict) else {}):
            found += [given.get(key) for key in ("class_path", "augment", "mix")]
    else:
        found.append(data)
    return found


def _texts(value: Any) -> set[str]:
    """Every text in it, but for keys."""
    todo, seen, found = [value], set[int](), set[str]()
    while todo:
        each = todo.pop()
        if isinstance(each, str):
            found.add(each)
        elif id(each) not in seen:  # by another alias of YAML
            seen.add(id(each))
            todo += each.values() if isinstance(each, dict) else each if isinstance(each, list) else []
    return found


def load_yaml(text: str) -> Any:
    """As jsonargparse does, but a key that is given twice is an error."""
    _refuse_duplicates(text)
    try:
        return _load(text)
    except (AttributeError, KeyError):  # PyYAML's own, of !!timestamp x and !!bool x
        raise yaml.YAMLError("a value does not fit the tag in front of it") from None


def _refuse_duplicates(text: str) -> None:
    """Raise a YAMLError where a mapping has a key twice: YAML forbids it, PyYAML takes the last."""
    todo, seen = [yaml.compose(text, Loader=yaml.SafeLoader)], set()
    while todo:
        node = todo.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
            continue
        names = set()
        for key, value in node.value:
            todo.append(value)
            if key.value != "<<" and str(key.value) in names:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
            names.add(str(key.value))


class _Dumper(yaml.SafeDumper):
    """Puts what `load_yaml` would take for a number in quotes, and takes strings of all kinds."""


# A default may be an enum of words, as Timer's interval is; PyYAML knows no kinds of str.
_Dumper.add_multi_representer(str, yaml.SafeDumper.represent_str)
# As jsonargparse's loader has it, to which 1e-3 and 1.5e3 are numbers; to PyYAML they are not.
_NUMBER = re.compile(r"[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+$")
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789"))


def dump_yaml(settings: dict[str, Any]) -> str:
    """What `load_yaml` reads."""
    return str(yaml.dump(settings, Dumper=_Dumper, sort_keys=False, allow_unicode=True))
