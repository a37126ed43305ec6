"""A trained model, rebuilt from its checkpoint."""

from argparse import ArgumentError

import torch
from lightning.pytorch.cli import instantiate_module

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning.cli.parser import explain
from cifar_lightning.cli.trusted_classes import check_classes
from cifar_lightning.module import Classifier
from cifar_onnx import InputError


def load(path: str, classes: list[str] | None = None) -> Classifier:
    """The model of a checkpoint, on the CPU and in evaluation mode; no random generator is moved.

    Args:
        path: the checkpoint; its net is one of this project or its libraries.
        classes: those that it must know, in their order; None is any.

    Raises:
        InputError: there is no such checkpoint, it is damaged, of another net, or knows other classes.
    """
    kept = checkpoints.load(path)
    check_classes(kept, path, advice="no other can be learnt from")
    known = kept["hyper_parameters"]
    if classes is not None and known["classes"] != classes:
        raise InputError(f"{path} knows the classes {', '.join(known['classes'])}; the data has {', '.join(classes)}")
    try:
        with torch.random.fork_rng([]):
            model = instantiate_module(Classifier, {name: known.get(name) for name in ("classes", "net", "loss")})
    except ArgumentError as error:
        raise InputError(f"{path}: {explain(str(error), ())}") from None
    model.load_state_dict(kept["state_dict"])
    return model.eval()
