"""Adversarial attacks within a radius, FGSM and PGD: changes so small that a person would not see them.

Notation: `B` batch, `K` classes, `S` side of the images; radii are of the maximum norm, in grey levels from 0 to 255.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cifar_onnx.evaluation.outcome import Outcome, parts
from cifar_onnx.evaluation.robustness import Robustness
from cifar_onnx.progress import track

_STEPS = 20  # of PGD, each of 2.5 / 20 of the radius
_SPREAD = 40  # of logits, e^-40 being far above the smallest number of float32

Net = Callable[[Tensor], Tensor]  # pixels 0..255, float (B, 3, S, S), to logits (B, K)


def fgsm(net: Net, images: Tensor, labels: Tensor, radius: float) -> Tensor:
    """One step of the whole radius up the loss (Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572).

    Args:
        net: what is attacked.
        images: float `(B, 3, S, S)`, 0..255.
        labels: int64 `(B,)`.
        radius: in grey levels.

    Returns:
        Images of the same shape within the radius.
    """
    return (images + radius * _ascent(net, images, labels)).clamp(0, 255)


def pgd(net: Net, images: Tensor, labels: Tensor, radius: float, start: Tensor | None = None) -> Tensor:
    """Many small steps up the loss, each brought back within the radius.

    Madry et al. 2018, https://arxiv.org/abs/1706.06083

    Args:
        net: what is attacked.
        images: float `(B, 3, S, S)`, 0..255.
        labels: int64 `(B,)`.
        radius: in grey levels.
        start: where it begins; by default at the images.

    Returns:
        Images of the same shape within the radius.
    """
    changed = images if start is None else start
    for _ in range(_STEPS):
        changed = changed + 2.5 * radius / _STEPS * _ascent(net, changed, labels)
        changed = changed.clamp(images - radius, images + radius).clamp(0, 255)
    return changed


def _ascent(net: Net, images: Tensor, labels: Tensor) -> Tensor:
    """Sign of the gradient of the loss, image by image.

    Of a net that is surer than any picture warrants, logits are brought closer: the gradient would be rounded to zero.
    In float16 that of a less sure one would be, too: there it is that of the same net in float32.
    """
    images, kind = images.detach().requires_grad_(), images.device.type
    half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    with torch.autocast(kind, enabled=False) if half else nullcontext():
        logits = net(images)
        spread = (logits.amax(1, keepdim=True) - logits.amin(1, keepdim=True)).detach()
        loss = cross_entropy(logits / (spread / _SPREAD).clamp(min=1), labels, reduction="sum")
        return torch.autograd.grad(loss, images)[0].sign()


def under_attacks(outcome: Outcome, net: nn.Module, radii: Sequence[float], device: torch.device) -> Robustness:
    """Accuracy under FGSM, and under PGD that starts where FGSM has ended.

    Args:
        outcome: the pictures.
        net: from pixels 0..255 `(B, 3, S, S)` to logits, in evaluation mode, on the device.
        radii: in grey levels.
        device: where the net is.
    """
    count = len(outcome.labels)
    hits = {name: np.zeros(len(radii)) for name in ("FGSM", f"PGD, {_STEPS} steps")}
    work = list(product(range(len(radii)), parts(outcome.pixels)))
    for place, part in track(work, "attacking", len(work)):
        images = torch.from_numpy(outcome.pixels[part]).to(device).permute(0, 3, 1, 2).float()
        labels = torch.from_numpy(outcome.labels[part]).to(device)
        after_one = fgsm(net, images, labels, radii[place])
        after_many = pgd(net, images, labels, radii[place], after_one)
        for right, changed in zip(hits.values(), (after_one, after_many), strict=True):
            with torch.inference_mode():
                right[place] += int((net(changed).argmax(1) == labels).sum())
    rows = {name: (right / count).tolist() for name, right in hits.items()}
    return Robustness("adversarial attacks", tuple(f"{radius:g}/255" for radius in radii), rows)
