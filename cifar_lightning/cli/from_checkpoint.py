"""What a checkpoint means to a command: defaults for its options, and whether `fit` may resume with the settings."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from jsonargparse import Namespace

from cifar_lightning.checkpoint import PARTS, position
from cifar_lightning.cli.command import say
from cifar_onnx import InputError


def parser_defaults(checkpoint: dict[str, Any], dropped: Iterable[str] = ()) -> dict[str, Any]:
    """What a checkpoint says of its experiment, seed, net and data, as defaults of the parser.

    Args:
        checkpoint: what `load` has read.
        dropped: lists without a default, of which a line says so: they are appended to, and what is typed again must
            not be there twice.
    """
    model, data = (dict(checkpoint[key]) for key in ("hyper_parameters", "datamodule_hyper_parameters"))
    source = data.pop("_class_path")
    net = dict(model["net"])
    # The classes decide their number, and there are nets that do not ask for it.
    net["init_args"] = {key: value for key, value in net.get("init_args", {}).items() if key != "num_classes"}
    # Where to download from, what to write and how much fits are the matter of who runs the command.
    images = {key: data[key] for key in data.keys() - {"_instantiator", "url", "cache_dir", "memory"}}
    for key in dropped:
        group, _, name = key.replace(".init_args", "").rpartition(".")
        if group == "data" and isinstance(known := images.pop(name, None), list) and known:
            items = (str(each["class_path"] if isinstance(each, dict) else each) for each in known)
            names = ", ".join(each.rpartition(".")[2] for each in items)
            say(f"--{key}+ begins a new list: that of the checkpoint ({names}) is left out")
    return {
        "experiment": checkpoint["run"]["experiment"],
        "seed_everything": checkpoint["run"]["seed"],
        **{f"model.{key}": model.get(key) for key in (*PARTS, "lr_factors")},
        "model.net": net,
        "data": {"class_path": source, "init_args": images},
    }


def choose_photos(checkpoint: dict[str, Any], data: Namespace, command: str, asked: Iterable[str]) -> None:
    """Give photos the checkpoint's classes, where their settings leave these open.

    Where `predict` is given another folder, the checkpoint's list is left out: it names no photos in there.

    Args:
        checkpoint: what `load` has read.
        data: the settings of the photos.
        command: its name. What `predict` is given need not be in folders for classes.
        asked: keys that were typed.
    """
    known = checkpoint["datamodule_hyper_parameters"]
    data.classes = data.classes or (checkpoint["hyper_parameters"] if command == "predict" else known).get("classes")
    elsewhere = {"data.root", "data.labels"}.intersection(asked) == {"data.root"}
    if command == "predict" and elsewhere and data.get("labels") and data.labels == known.get("labels"):
        data.labels = None  # it names no photos in this folder


def check_resumable(checkpoint: dict[str, Any], config: Namespace, longer: bool) -> None:
    """Refuse to go on from a checkpoint with settings that it cannot go on with.

    Args:
        checkpoint: what `load` has read.
        config: of `fit`.
        longer: whether there must be something left to train. A run that goes on may have died after its last step.

    Raises:
        InputError: it holds weights only, or another optimizer, schedule, seed or grouping of weights was asked for, or
            nothing is left.
    """
    if not checkpoint.get("optimizer_states"):
        raise InputError(f"{config.ckpt_path} holds weights only: fit cannot resume from it")
    for part in ("optimizer", "scheduler"):
        before, now = checkpoint["hyper_parameters"].get(part), config.model[part]
        if now and (before or {}).get("class_path") != now.class_path:
            was = before["class_path"] if before else f"no {part}"
            raise InputError(f"{config.ckpt_path} was trained with {was}: it cannot be resumed with {now.class_path}")
        if config.model.scheduler and before and now:  # which has the rates in its hands, and these are restored
            for name, value in now.as_dict().get("init_args", {}).items():
                if json.dumps(value) != json.dumps(before.get("init_args", {}).get(name, value)):
                    raise InputError(
                        f"{config.ckpt_path} has a schedule that began with model.{part}.{name} "
                        f"{before['init_args'][name]}: it cannot be resumed with {value}"
                    )
    factors, asked = checkpoint["hyper_parameters"].get("lr_factors") or {}, config.model.lr_factors or {}
    if _grouping(factors) != _grouping(asked) or (config.model.scheduler and factors != asked):
        raise InputError(
            f"{config.ckpt_path} was trained with model.lr_factors {factors}: it cannot be resumed with {asked}"
        )
    place, seed = position(checkpoint), checkpoint["run"]["seed"]
    if place["batch"] and config.seed_everything != seed:
        raise InputError(f"{config.ckpt_path} was saved within an epoch: it can be resumed with seed {seed} only")
    for unit, done in (("epochs", place["epoch"]), ("steps", checkpoint["global_step"])):
        if longer and 0 < (most := config.trainer[f"max_{unit}"] or 0) <= done:  # Lightning would end in silence
            raise InputError(
                f"{config.ckpt_path} has been trained for {done} of {most} {unit}: "
                f"give a higher trainer.max_{unit} to train for longer"
            )


def _grouping(factors: Mapping[str, float]) -> list[tuple[str, int]]:
    """Which parts share a group of the optimizer: what it keeps of the weights is restored group by group."""
    values = [1.0, *(factors[part] for part in sorted(factors))]  # 1 is that of all else
    return [(part, values.index(factors[part])) for part in sorted(factors)]
