"""Train a run again, from its own config, and say whether the weights are the same."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning import runs
from cifar_lightning.cli.command import commands
from cifar_lightning.leaderboard.differences import flat
from cifar_lightning.trusted_classes import custom_classes
from cifar_onnx import InputError

USAGE = "reproduce takes the folder of a run: python -m cifar_lightning reproduce runs/<experiment>/version_N"


def reproduce(words: Sequence[str], fit: Callable[[Sequence[str]], runs.Run | None]) -> int:
    """Train again.

    Args:
        words: behind the command.
        fit: runs the command `fit` with these words and returns its run; None in all processes of it but one.

    Returns:
        The exit code: 0 where the weights are the same, 1 where they are not.

    Raises:
        InputError: there is no such run, or it has not come to its end.
    """
    if len(words) != 1 or words[0].startswith("-"):
        raise InputError(USAGE)
    folder = Path(words[0])
    config, last = folder / "config.yaml", folder / runs.LAST
    for path in (config, last):
        if not path.exists():
            raise InputError(f"{path} is not there: {USAGE}")
    facts = runs.facts(folder)
    if not facts.get("finished"):
        raise InputError(f"{folder} has not finished: resume it first, with fit --ckpt_path last")
    before = checkpoints.load(last)
    start = []
    if started_from := facts.get("started_from"):
        there = Path(facts.get("begun_in", ""), started_from)
        start = ["--ckpt_path", str(there if there.exists() else started_from)]  # the latter where all was moved
    run = fit(["--config", str(config), *start])
    if run is None:
        return 0
    again = run.folder
    after = checkpoints.load(run.last)
    old, new = (digest(checkpoint["state_dict"]) for checkpoint in (before, after))
    print(f"weights of {folder}: sha256 {old}\nweights of {again}: sha256 {new}")
    if old == new:
        print("the same, bit for bit")
        return 0
    differing = _differences(facts, runs.facts(again))
    was, now = map(_settings, (before, after))  # which differ where the config was edited
    differing += [f"{key} was {value} and is {now[key]}" for key, value in was.items() if now.get(key, value) != value]
    if (steps := before["global_step"]) != (steps_now := after["global_step"]):
        differing.append(f"it had {steps:,} steps, and has {steps_now:,}")
    if len(commands(config)) > 1:
        differing += [f"it was made by several commands, and is repeated by what {config} says in the end"]
    why = f": {', '.join(differing)}"
    if not differing:
        own = custom_classes([after["hyper_parameters"], after["datamodule_hyper_parameters"]])
        code = f"; the code of {' or '.join(sorted(own))} may have changed" if own else ""
        why = f", although seed, threads, images, versions and the settings of model and data are{code}"
    print(f"not the same{why}")
    return 1


def digest(state: dict[str, Any]) -> str:
    """sha256 over names, types, shapes and bytes of the tensors in a state_dict, in hexadecimal."""
    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _settings(checkpoint: dict[str, Any]) -> dict[str, str]:
    """What a checkpoint says of its model and data, but for what does not decide the bits."""
    found = flat({"model": checkpoint["hyper_parameters"], "data": checkpoint["datamodule_hyper_parameters"]})
    found.pop("data.root", None)  # of images, which are compared themselves
    return found


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs of what decides the bits, in words."""
    pairs = [(key, before[key], after.get(key)) for key in ("seed", "threads", "devices") if key in before]
    versions = before.get("versions", {}), after.get("versions", {})
    pairs += [(name, versions[0].get(name), versions[1].get(name)) for name in versions[1]]
    found = [f"{name} was {old} and is {new}" for name, old, new in pairs if old != new]
    for key, what in (("images", "training"), ("validation", "validation")):
        if key in before and before[key] != after.get(key):  # earlier runs note none
            found.append(f"the {what} images differ")
    return found
