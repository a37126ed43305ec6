"""A trained model, rebuilt from its checkpoint."""

from argparse import ArgumentError

import torch
from lightning.pytorch.cli import instantiate_module

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning.cli.parser import explain
from cifar_lightning.module import Classifier
from cifar_lightning.trusted_classes import check_classes
from cifar_onnx import InputError
from cifar_onnx.errors import some

NO_OTHER = "Distillation and Pruned take no nets of your own; --model.init_from does, with --allow_custom_classes"


def load(
    path: str,
    classes: list[str] | None = None,
    *,
    allow_custom_classes: bool = False,
    advice: str = "if you trust that code, give allow_custom_classes=True",
) -> Classifier:
    """The model of a checkpoint, on the CPU and in evaluation mode; no random generator is moved.

    Args:
        path: the checkpoint.
        classes: those that it must know, in their order; None is any.
        allow_custom_classes: take classes of others than this project and its libraries; their code is run.
        advice: what is said where it has such classes and may not.

    Raises:
        InputError: there is no such checkpoint, it is damaged, of another net, or knows other classes.
    """
    kept = checkpoints.load(path)
    check_classes(kept, path, allow_custom_classes, advice)
    known = kept["hyper_parameters"]
    if classes is not None and known["classes"] != classes:
        raise InputError(f"{path} knows the classes {some(known['classes'])}; the data has {some(classes)}")
    try:
        with torch.random.fork_rng([]):
            model = instantiate_module(Classifier, {name: known.get(name) for name in ("classes", "net", "loss")})
    except ArgumentError as error:
        raise InputError(f"{path}: {explain(str(error), ())}") from None
    model.load_state_dict(kept["state_dict"])
    model.begin(resumed=True)  # if it is trained further, with the weights that it has
    model.origin, model.input_rule = checkpoints.origin(kept), kept["run"].get("input", {})
    return model.eval()
