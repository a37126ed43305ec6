"""Structured pruning: a net begins as the strongest channels of a wider one."""

import warnings
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from cifar_lightning import trained
from cifar_lightning.error_source import named
from cifar_onnx import InputError


class Pruned(L.Callback):
    """Fills the net, before its first step, with the strongest channels of a wider one of the same class.

    Args:
        checkpoint: that of the wider net; it knows the same classes.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit" or pl_module.resumed:  # a run that goes on brings its own weights
            return
        model: Any = pl_module
        model.begin()  # else it would come later, with other weights and their normalisation
        whole = trained.load(self.checkpoint, model.classes, advice=trained.NO_OTHER)
        wide, net = whole.net, model.net
        if type(wide) is not type(net):
            raise InputError(
                f"{self.checkpoint} holds a {type(wide).__name__}, and model.net is a {type(net).__name__}: it takes "
                "the weights of its own class only"
            )
        size = trainer.datamodule.image_size  # type: ignore[attr-defined]
        try:
            prune(wide, net, torch.zeros(1, 3, size, size))
        except ModuleNotFoundError as error:
            raise InputError(f'Pruned needs {error.name}: pip install "cifar-lightning[prune]"') from None
        model.pixels.load_state_dict(whole.pixels.state_dict())
        model.normalised = True


def prune(wide: nn.Module, net: nn.Module, images: Tensor) -> None:
    """Take the weakest channels out of a net, and load what is left into a narrower one.

    A channel is weak where others can stand in for it: by its weights it lies in their midst (He et al. 2019,
    https://arxiv.org/abs/1811.00250). The weights that make it and those that use it count, in every layer that must
    lose it together (Fang et al. 2023, https://arxiv.org/abs/2301.12900).

    Args:
        wide: the net, which is changed.
        net: the narrower one.
        images: `(1, 3, S, S)` for a look at how the layers of `wide` hang together.

    Raises:
        InputError: `net` has other layers, or one that is wider than in `wide`, or it cannot be pruned to its widths.
        ModuleNotFoundError: torch_pruning is not installed.
    """
    import torch_pruning

    others = wide.state_dict().keys() ^ net.state_dict().keys()
    if others:
        raise InputError(
            f"model.net and the wide net differ in more than channels ({len(others)} tensors, such as {min(others)}): "
            "it takes the same net with other widths"
        )
    with named("Pruned"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unwrapped parameters detected")  # of layers that keep their width
        graph = torch_pruning.DependencyGraph().build_dependency(wide, images)
    # cpu_best.yaml's net, pruned to prune.yaml's and its batch statistics renewed, had 59 % of 2,000 validation images
    # right; by the L2 norm 44 %, at random 53 % (4 draws): its normalisation makes the norm of a filter meaningless.
    importance = torch_pruning.importance.FPGMImportance()
    wanted = dict(net.named_modules())
    for name, layer in wide.named_modules():
        other = wanted.get(name)
        if not isinstance(layer, nn.Conv2d | nn.Linear) or not isinstance(other, nn.Conv2d | nn.Linear):
            continue
        has, asked = len(layer.weight), len(other.weight)
        if asked > has:
            raise InputError(f"model.net is not narrower: its layer {name} has {asked} channels, the wide net's {has}")
        if asked < has:  # and has not been narrowed together with a layer before it
            remove = graph.get_pruner_of_module(layer).prune_out_channels
            with named(f"Pruned, its layer {name}"):
                strength = importance(graph.get_pruning_group(layer, remove, list(range(has))))
                graph.get_pruning_group(layer, remove, strength.argsort()[: has - asked].tolist()).prune()
    left = wide.state_dict()
    for name, value in net.state_dict().items():
        if left[name].shape != value.shape:
            raise InputError(
                f"model.net cannot be filled: {name} is {tuple(value.shape)}, what is left of the wide net's "
                f"{tuple(left[name].shape)}"
            )
    net.load_state_dict(left)
