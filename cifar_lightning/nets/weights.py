"""Pretrained weights: read from files, and taken over as far as they fit."""

import hashlib
import io
import os
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import takewhile
from pathlib import Path

import torch
from torch import Tensor, nn

from cifar_onnx.errors import InputError

_INSIDE = ("state_dict", "model_state_dict", "model")  # where training scripts keep weights among other things
_DEEPEST = 4  # of these, one in another
_COUNTER = "num_batches_tracked"  # of a batch normalisation; files from before PyTorch 0.4.1 have none
_SHOWN = 6  # names in a message


def read(path: str, sha256: str | None) -> dict[str, Tensor]:
    """Weights of a file, safetensors or torch.save's; nothing in it is run.

    Args:
        path: of the file.
        sha256: its digest in hexadecimal digits, so that no other file is taken for it.

    Raises:
        InputError: there is no such file, it has another digest, or it holds something else than weights, or those
            of several nets.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"weights {path}: cannot be read ({error.strerror}): name a file of weights with model.net.weights"
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if found != (sha256 or "").lower():
        said = f"not {sha256}" if sha256 else "which --model.net.sha256 must say, so that no other is taken for it"
        raise InputError(f"weights {path}: the file has the sha256 {found}, {said}")
    if path.endswith(".safetensors"):
        try:
            from safetensors.torch import load
        except ModuleNotFoundError:
            raise InputError(f"weights {path}: needs safetensors: pip install safetensors") from None
        try:
            return load(data)
        except Exception as error:  # of a kind of its own
            raise InputError(f"weights {path}: not a safetensors file ({error})") from None
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        raise InputError(f"weights {path}: not a file of weights alone ({type(error).__name__})") from None
    for _ in range(_DEEPEST):
        if isinstance(state, dict) and not _is_state_dict(state):
            usual = [state[key] for key in _INSIDE if isinstance(state.get(key), dict)]
            others = [each for each in state.values() if _is_state_dict(each)]
            state = usual[0] if usual else others[0] if len(others) == 1 else None
    if not _is_state_dict(state):
        raise InputError(f"weights {path}: neither a state_dict (names with tensors) nor a dict with a single one")
    return {str(name).removeprefix("module."): each for name, each in state.items()}  # as DataParallel names them


def _is_state_dict(state: object) -> bool:
    return isinstance(state, dict) and bool(state) and all(isinstance(each, Tensor) for each in state.values())


def unwrapped(weights: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Weights without what training scripts put before their names, such as `module.` or `model.backbone.`.

    Where none is a name of the net, the first part that most names share is cut, and those without it, such as a loss's
    weights, are left out. If less than half of the net's names come of that, all stay as they are.

    Args:
        weights: by name.
        net: the net.
    """
    own, found = net.state_dict().keys(), weights
    while own.isdisjoint(found):
        first = Counter(f"{name.partition('.')[0]}." for name in found).most_common(1)[0][0]
        inside = {name.removeprefix(first): each for name, each in found.items() if name.startswith(first)}
        if len(inside) <= len(found) / 2:
            return weights
        found = inside
    return found if len(own & found.keys()) >= len(own) / 2 else weights


@torch.no_grad()
def take(net: nn.Module, weights: Mapping[str, Tensor], source: str, skip: Collection[str] = ()) -> None:
    """Copy weights into a net, but for layers that do not fit or are not finite, and print which these are.

    Where no name fits, they may be those of another implementation of the net: they are taken in their order if all
    shapes but those of the last layer agree.

    Args:
        net: the net.
        weights: by name.
        source: what to call them.
        skip: names of layers that are left as they are.

    Raises:
        InputError: they are those of another net.
    """
    own = net.state_dict()
    if not any(name.endswith(_COUNTER) for name in weights):
        own = {name: each for name, each in own.items() if not name.endswith(_COUNTER)}
    # What lies beside layers, such as a transformer's class token and its positions, stands for itself.
    whole = {path for path, module in net.named_modules() if not [*module.children()]}
    layer = {name: path if (path := name.rpartition(".")[0]) in whole else name for name in own}
    if weights.keys().isdisjoint(own) and len(weights) == len(own):
        renamed = dict(zip(own, weights.values(), strict=True))
        body = [name for name in own if layer[name] != layer[[*own][-1]]]
        if all(renamed[name].shape == own[name].shape for name in body):
            weights = renamed

    def fits(name: str) -> bool:
        given = weights.get(name)
        if given is None or given.shape != own[name].shape:
            return False
        return bool((given.isfinite() | ~own[name].isfinite()).all())  # but for what never is, such as a mask

    # A layer is taken whole or not at all: a bias, or the flag `fitted`, is wrong without its weights.
    unfit = {layer[name] for name in own if not fits(name)}
    skipped = {name for path in skip for name in net.get_submodule(path).state_dict(prefix=path and f"{path}.")}
    left = [name for name in own if layer[name] in unfit or name in skipped]
    taken = own.keys() - set(left)
    if len(taken) < len(own) / 2:
        raise InputError(
            f"{source} matches only {len(taken)} of the net's {len(own)} tensors: it belongs to another net"
        )
    for name in taken:
        own[name].copy_(weights[name])
    if os.environ.get("LOCAL_RANK", "0") == "0":
        more = [f"{len(left) - _SHOWN} more"] if len(left) > _SHOWN else []
        words = f"; newly initialised: {', '.join([*left[:_SHOWN], *more])}" if left else ""
        print(f"{source}: {len(taken)} of {len(own)} tensors loaded{words}", file=sys.stderr)


def heads(net: nn.Module, outputs: int) -> list[str]:
    """The names of the layers that give the logits: the last linear one or convolution with as many outputs.

    And those right before it with as many of both: DeiT, LeViT and other nets of two heads answer by their mean.
    """
    layers = [(name, each) for name, each in net.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)]
    while layers and len(layers[-1][1].weight) != outputs:
        layers.pop()
    alike = takewhile(lambda each: each[1].weight.shape == layers[-1][1].weight.shape, reversed(layers))
    return [name for name, _ in alike]
