"""An argument parser that answers a mistake with one sentence and the nearest valid name."""

import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import lightning.pytorch as L
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cifar_lightning.augment import Augmentation
from cifar_lightning.cli.choices import DEFAULTS
from cifar_lightning.data import ImageData
from cifar_lightning.mix import Mixing
from cifar_lightning.suggestion import hint, nearest

_RECEIVING = ("classify", "evaluate", "compare", "benchmark", "serve", "web", "info")  # commands of cifar_onnx
_ELSEWHERE = {  # what options are called in other programs
    **dict.fromkeys(("seed", "random_state"), "seed_everything"),
    **dict.fromkeys(("learning_rate", "lr0"), "model.optimizer.lr"),
    **dict.fromkeys(("imgsz", "img_size", "input_size"), "data.image_size"),
    **dict.fromkeys(("batch", "train_batch_size"), "data.batch_size"),
    **dict.fromkeys(("device", "gpu"), "trainer.accelerator"),
    **dict.fromkeys(("gpus", "num_gpus"), "trainer.devices"),
    **dict.fromkeys(("name", "project"), "experiment"),
    **dict.fromkeys(("data_dir", "dataset"), "data.root"),
    **dict.fromkeys(("output_dir", "save_dir"), "trainer.default_root_dir"),
    **dict.fromkeys(("checkpoint", "resume"), "ckpt_path"),
}
_COMMANDS = ("fit", "validate", "test", "predict", "export", "verify")
_BASES = (nn.Module, Optimizer, LRScheduler, L.Callback, Logger, ImageData, Augmentation, Mixing)


class Parser(LightningArgumentParser):
    """LightningCLI's parser with errors for people, exit code 2; switches of a command need no `true`."""

    bases: ClassVar[Sequence[type]] = _BASES  # of the classes that can be named without their module
    typed: ClassVar[Sequence[str]] = ()  # the command line: parsers of classes know only the ends of its options
    usual: ClassVar[Mapping[str, Any]] = {  # classes by their keys, for hints where others are chosen
        key: value for key, value in DEFAULTS.items() if isinstance(value, dict)
    }

    def parse_args(self, args: Any = None, *others: Any, **settings: Any) -> Any:
        Parser.typed = list(map(str, args or ()))
        return super().parse_args(args, *others, **settings)

    def add_method_arguments(self, *args: Any, **kwargs: Any) -> Any:
        added = super().add_method_arguments(*args, **kwargs)
        for action in self._actions:
            if isinstance(action.default, bool) and action.nargs is None:
                action.nargs, action.const = "?", True
        return added

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        defaults = {action.dest: action.default for action in parser._actions if not action.dest.endswith("help")}
        # The parser of a class does not know that its options may be given as init_args.
        keys = [*defaults, *(f"init_args.{key}" for key in defaults if "." not in key)]
        chosen = {key: default for key, default in defaults.items() if isinstance(default, dict | Namespace)}
        known = {**self.usual, **chosen}.items()
        classes = {key: class_of(default["class_path"]) for key, default in known if "class_path" in default}
        for key, cls in {**classes, **_typed_classes(self.bases, self.typed)}.items():
            keys += [f"{key}.{name}" for name in _names(cls)]
        sys.stderr.write(f"error: {explain(message, keys, self.bases, self.typed)}\n")
        raise SystemExit(2)


def explain(message: str, keys: Iterable[str], bases: Sequence[type] = _BASES, typed: Sequence[str] = ()) -> str:
    """One sentence for a message of jsonargparse.

    Args:
        message: what jsonargparse says.
        keys: the options of the parser that said it.
        bases: of the classes that can be named without their module.
        typed: the command line.
    """
    key = _whole(".".join(re.findall(r'Parser key "([^"]+)"', message)), typed)
    where = f"{key}: " if key else ""
    value = re.search(r"(?:Given|Got) value: (.*)", message)
    if value and re.fullmatch(r"[\[{][^\]}]*", value[1]):  # the shell has parted it
        return f'{where}{value[1]!r} is a part: put the whole of it in quotes, as in "[1, 2]"'
    match = re.search(r"Option '(\w+)\.|value: \[*{'(\w+)':", message)
    if match and (name := match[1] or match[2]) in _classes(bases):
        return f"{where}{name} is a class: write {{class_path: {name}, init_args: {{...}}}}"
    if value and value[1].startswith(("{", "[{")) and re.search("is abstract|Not a valid subclass", message):
        return f"{where}no class is named there: give class_path, and its settings below init_args"
    not_known = r"unrecognized arguments: -*([^\s=]+)|option '([^']+)'$|Option '([^']+)' is not accepted"
    if match := re.search(not_known, message):
        name = next(group for group in match.groups() if group)
        owner = re.findall(r"class_path[ =]'([^']+)'", message)
        known = _names(class_of(owner[-1])) if owner else list(keys)
        group = _whole(name, typed).rpartition(".")[0]
        of_data = issubclass(class_of(owner[-1]), ImageData) if owner else group in ("", "data")
        near = of_data and _source(name, known, bases)
        near = near or (hint(name, known) if owner else _hint_key(name, known))
        return f"{where}there is no option {name!r}{near}"
    if "unexpected keyword argument 'linked_targets'" in message:
        return (
            f"{where}that is a function, not a class: nets of torchvision and timm go by --model.net Torchvision or "
            "Timm, and --model.net.name, such as resnet18"
        )
    if match := re.search(r"Expected a path but (\S+\.py) ", message):
        return f"{where}{match[1]} is a file: name a class in it, such as {Path(match[1]).stem}.Net"
    if match := re.search(r"Unable to load config '([^']+)'", message):
        group = key.partition(".")[0]
        own = " or, for a LightningModule, your own Trainer (docs/experiments.md, In Python)" if "." in match[1] else ""
        near = f": did you mean --model.net {match[1]}{own}?" if group == "model" else ""
        return f"{group}: there is no file {match[1]!r} with settings{near}"
    if match := re.search(r"dot import path string: (\S+)", message):
        return f"{where}{_no_class(match[1], key, bases)}"
    if match := re.search(r"Multiple subclasses with name (\w+)\..*: (\S+), ", message):
        return f"{where}several classes are called {match[1]!r}: name one with its module, such as {match[2]}"
    if match := re.search(r"does not correspond to a subclass of (\w+)|to be a subclass of <class '(\w+)'>", message):
        name = "".join(re.findall(r"Import path (\S+) does not|Expected '(\S+)' to be|Given value: (\S+)", message)[0])
        return f"{where}{name} is not a subclass of {match[1] or match[2]}: name one"
    if match := re.search(r"module '([^']+)' has no attribute '([^']+)'", message):
        return f"{where}{match[1]} has no {match[2]!r}{hint(match[2], dir(importlib.import_module(match[1])))}"
    if match := re.search(r"No module named '([^']+)'", message):
        public = (name for name in sys.modules if not name.startswith("_"))
        return f"{where}there is no module {match[1]!r}{hint(match[1], public)}"
    if match := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
        if match[1] in _RECEIVING:
            return f"{match[1]} is a command of the other package: python -m cifar_onnx {match[1]}"
        return f"there is no command {match[1]!r}{hint(match[1], re.findall(r'[a-z]+', match[2]))}"
    if match := re.search(r"the following arguments are required: ([\w.]+)", message):
        place = _owner(match[1], bases, typed)
        return f"{place}{match[1]} is missing: give it as --{place}{match[1]}"
    types = re.findall(r"Expected an? <class '([^']+)'>", message)
    if (match := re.search(r"Expected a typing.Literal\[([^\]]*)\]", message)) and value:
        choices = re.findall(r"'([^']+)'", match[1])
        expected = " or ".join(dict.fromkeys([*choices, *types])).replace("NoneType", "null")
        return f"{where}expected {expected}, got {value[1]!r}{hint(value[1], choices)}"
    if types and value:
        list_of = f": write [{value[1]}]" if {"list", "tuple"} & {*types} and not value[1].startswith("[") else ""
        expected = " or ".join(dict.fromkeys(types)).replace("NoneType", "null")
        return f"{where}expected {expected}, got {value[1]!r}{list_of}"
    return re.sub(r"\s*\n\s*(?:- )?", " ", message.replace("Parser key ", "").strip())


def _no_class(name: str, key: str, bases: Sequence[type]) -> str:
    """Why a name is not that of a class that its key takes."""
    if key == "data" and Path(name).is_dir():
        return f"{name!r} is a folder: --data ImageFolder --data.root {name}"
    known = _classes(bases)
    if cls := known.get(name):
        kind = next(base for base in bases if issubclass(cls, base))
        return f"{name} is a class of another kind, {kind.__name__}"
    own = [file.stem for file in sorted(Path().glob("*.py")) if f"class {name}(" in file.read_text("utf-8", "replace")]
    return f"no class is called {name!r}" + (f": did you mean '{own[0]}.{name}'?" if own else hint(name, known))


def _whole(key: str, typed: Sequence[str]) -> str:
    """A key as it was typed, of which a parser of a class says only the end."""
    options = {word[2:].partition("=")[0].rstrip("+") for word in typed if word.startswith("--")}
    found = [option for option in options if option.endswith(f".{key}")]
    return found[0] if key and len(found) == 1 else key


def _owner(option: str, bases: Sequence[type], typed: Sequence[str]) -> str:
    """The key of a class that was typed and has an option, with a point behind it; empty where there is none."""
    found = _typed_classes(bases, typed).items()
    return next((f"{key}." for key, cls in found if option in _options(cls)), "")


def _typed_classes(bases: Sequence[type], typed: Sequence[str]) -> dict[str, type]:
    """The classes that were typed, by their keys."""
    classes = _classes(bases)
    words = [part for word in typed for part in (word.split("=", 1) if word.startswith("--") else [word])]
    names = {key[2:].rstrip("+"): value.rpartition(".")[2] for key, value in pairwise(words) if key.startswith("--")}
    return {key: classes[name] for key, name in names.items() if name in classes}


def _source(name: str, keys: Iterable[str], bases: Sequence[type]) -> str:
    """As `hint` for an option that the source of photos has not, and others of this project have."""
    option = _ELSEWHERE.get(name, name).rpartition(".")[2]
    if any(key.rpartition(".")[2] == option for key in keys):
        return ""
    sources = (cls for cls in _classes(bases).values() if issubclass(cls, ImageData) and option in _options(cls))
    ours = sorted(cls.__name__ for cls in sources if cls.__module__.startswith("cifar_lightning."))
    return f": {' and '.join(ours)} {'have' if ours[1:] else 'has'} data.{option}" if ours else ""


def _hint_key(name: str, keys: Sequence[str]) -> str:
    """As `hint` for dotted keys, of which the parser may know only the first parts."""
    parts = name.split(".")
    if parts[0] in _COMMANDS:
        return f": leave {parts[0]!r} out, options of a command stand at the top of its file"
    if name.endswith((".yaml", ".yml")):
        return f": did you mean '--config {name}'?"
    if name in _ELSEWHERE:
        return f": did you mean {_ELSEWHERE[name]!r}?"
    # Other programs have their options at the top, and call what is max_epochs here epochs.
    leaves = (parts[-1], f"max_{parts[-1]}")
    inside = sorted((key for key in keys if key.split(".")[-1] in leaves), key=len)
    if len(parts) > 1 and (below := [key for key in inside if key.startswith(f"{parts[0]}.")]):
        return f": did you mean {below[0]!r}?"
    for count in range(len(parts), 0, -1):
        near = nearest(".".join(parts[:count]), (key for key in keys if key.count(".") == count - 1))
        if near:
            return f": did you mean {'.'.join([near, *parts[count:]])!r}?"
    return f": did you mean {inside[0]!r}?" if inside else ""


def _names(cls: type) -> list[str]:
    """What may stand below the key of a class: its options, with and without `init_args`."""
    options = sorted(_options(cls))
    return ["class_path", *options, *(f"init_args.{option}" for option in options)]


def class_of(class_path: str) -> type:
    """The class of a name with its module."""
    module, _, name = class_path.rpartition(".")
    cls: type = getattr(importlib.import_module(module), name)
    return cls


def _options(cls: type) -> set[str]:
    """Names of the constructor's parameters, those of its base classes too."""
    inits = [vars(base)["__init__"] for base in inspect.getmro(cls) if "__init__" in vars(base)]
    return {name for init in inits for name in inspect.signature(init).parameters} - {"self", "args", "kwargs"}


def _classes(bases: Sequence[type]) -> dict[str, type]:
    """Every class that a config may name without its module, by its name.

    Others may have classes of the same names, as torchvision has a CutMix: this project's are meant.
    """
    found: set[type] = set()
    todo: list[type] = list(bases)
    while todo:
        cls = todo.pop()
        if cls not in found:
            found.add(cls)
            todo += cls.__subclasses__()
    ours_last = sorted(found, key=lambda cls: cls.__module__.startswith("cifar_lightning."))
    return {cls.__name__: cls for cls in ours_last}
