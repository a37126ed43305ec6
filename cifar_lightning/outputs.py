"""What a net must answer with in evaluation mode: logits alone, by nothing but the picture."""

import torch
from torch import Tensor, nn

from cifar_lightning.error_source import named
from cifar_onnx import InputError

_ALIKE = 0.05  # of the largest logit: what a picture's may differ by, with others beside it, before anything is learnt


@torch.no_grad()
def check(net: nn.Module, images: Tensor, classes: int) -> None:
    """Refuse a net whose outputs in evaluation mode are no logits alone, or depend on the rest of the batch.

    Args:
        net: pixels 0..255 `(B, 3, S, S)` to what should be logits `(B, K)`, in evaluation mode.
        images: uint8 `(B, 3, S, S)`.
        classes: `K`.

    Raises:
        InputError: they are, or it cannot take such images.
    """
    answers = []
    for given in (images, images[:1]):
        with named(f"model.net, in evaluation mode, on a batch of {len(given)}"):
            outputs = net(given)
        if shape(outputs) != str(expected := (len(given), classes)):
            raise InputError(
                f"model.net, in evaluation mode, gives {shape(outputs)} for a batch of {len(given)}: then it must "
                f"give logits {expected} alone"
            )
        if outputs.dtype == torch.float64:  # as no other part of the way to an exported file is
            raise InputError("model.net gives logits in float64: let it end with .float()")
        answers.append(outputs[0])
    beside, alone = answers
    if beside.isfinite().all() and not (beside - alone).abs().max() <= _ALIKE * beside.abs().max():
        raise InputError(
            "model.net, in evaluation mode, answers a picture differently alone than in a batch: nothing in it may "
            "then be random or depend on the batch (self.training says when)"
        )


def shape(outputs: object) -> str:
    """What a net has given, for a sentence: the shape of a tensor, or the kind of something else."""
    return str(tuple(outputs.shape)) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
