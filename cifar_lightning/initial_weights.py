"""Initial weights of a net: pretrained ones, or those of another run."""

from torch import nn

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning.nets import weights
from cifar_lightning.nets.normalize import Normalize
from cifar_lightning.nets.zoo import Named
from cifar_onnx.errors import InputError, some


def take_over(net: nn.Module, pixels: Normalize, classes: list[str], init_from: str | None) -> bool:
    """Take weights over, and with them the normalisation that they were trained with.

    Args:
        net: the net; one of `nets.zoo` knows which weights it was asked for.
        pixels: the normalisation.
        classes: those that the net is to tell apart.
        init_from: the checkpoint of another run, which comes after the former; its head is taken only where it knows
            the same classes.

    Returns:
        Whether the normalisation has come with them.

    Raises:
        InputError: weights cannot be had, are of another net, or tell other classes apart where no head can begin anew.
    """
    normalised = False
    if isinstance(net, Named):
        net.load_pretrained()
        if net.statistics is not None:
            pixels.set_statistics(*net.statistics)
            normalised = True
    if init_from is not None:
        try:
            kept = checkpoints.load(init_from)
        except InputError as error:
            raise InputError(f"model.init_from: {error}") from None
        saved, known = kept["state_dict"], kept["hyper_parameters"]["classes"]
        heads = [] if known == classes else weights.heads(net, len(classes))
        if known != classes and len(known) == len(classes) and not heads:  # of other numbers, shapes tell them apart
            raise InputError(
                f"model.init_from: {init_from} knows other classes ({some(known)}), and the net has no last linear "
                "layer that could begin anew: give it one, or name a checkpoint of the same classes"
            )
        state = {name.removeprefix("net."): value for name, value in saved.items() if name.startswith("net.")}
        try:
            weights.take(net, state, init_from, skip=heads)
        except InputError as error:
            own = kept["hyper_parameters"].get("net")
            name = own.get("class_path") if isinstance(own, dict) else None  # of one that was made in Python
            remedy = f": choose that, {name}, with the same settings" if name else ""
            raise InputError(f"model.init_from: {error}{remedy}") from None
        pixels.load_state_dict({name: saved[f"pixels.{name}"] for name in pixels.state_dict()})
        normalised = True
    return normalised
