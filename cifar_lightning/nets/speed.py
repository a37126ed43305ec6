"""Nets that learn in few steps: whitened, narrow at first, normalised by batch without gains.

Notation: `B` batch, `C` channels, `S` side of the images in pixels, `K` classes.
"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

from cifar_lightning.nets.whitening import Whitening
from cifar_onnx.errors import InputError


class SpeedNet(nn.Module):
    """The net of airbench (Jordan 2024, https://arxiv.org/abs/2404.00498), widths as arguments.

    A whitening layer, then for each width a group of two convolutions 3x3 'same' with batch normalisation and
    activation, the first of them halved by max pooling, then the maximum of each channel, and the logits. With the
    defaults, 1,971,352 parameters are trained. Convolutions start as the identity on their first channels.
    Deeper groups, as in airbench96, have a residual connection past all convolutions but the first.

    Args:
        num_classes: `K`.
        widths: channels of each group; multiples of 8 run fastest.
        kernel_size: side of the whitening layer's patches.
        stride: of the whitening layer.
        whitening_bias: train a bias of the whitening layer.
        activation: between the layers.
        views: whose logits are averaged outside training: 1, the picture; 2, and its mirror image; 6, and both shifted
            by a pixel up and left, and down and right, each of which counts half. Exported files do so, too, and take
            as many times as long.
        components: how many principal components of the patches that layer takes, and their negatives; None is all.
            Grey pictures have but `kernel_size^2`: the others would be rounding, made large.
        depth: convolutions in each group, at least 2.
    """

    def __init__(
        self,
        num_classes: int = 10,
        widths: tuple[int, ...] = (64, 256, 256),
        kernel_size: int = 2,
        stride: int = 1,
        whitening_bias: bool = True,
        activation: nn.Module | None = None,
        views: Literal[1, 2, 6] = 1,
        components: int | None = None,
        depth: int = 2,
    ) -> None:
        super().__init__()
        if depth < 2:
            raise InputError(f"depth is {depth}: a group of SpeedNet has at least 2 convolutions")
        activation = activation or nn.GELU()
        self.views = views
        self.smallest = 2 ** len(widths)  # side of the first map that leaves one value to the last
        self.whitening = Whitening(kernel_size, stride, whitening_bias, components=components)
        self.groups = nn.Sequential(
            activation,
            *(_group(i, o, depth, activation) for i, o in pairwise((self.whitening.filters, *widths))),
        )
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        nn.init.normal_(self.head.weight, std=1 / widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pixels `(B, 3, S, S)` to logits `(B, K)`, of all views in evaluation mode."""
        if self.training or self.views == 1:
            return self._logits(x)
        if self.views == 2:
            return self._mirrored(x)
        size = x.shape[-1]
        padded = pad(x, (1, 1, 1, 1), mode="reflect")
        shifted = [self._mirrored(padded[:, :, at : at + size, at : at + size]) for at in (0, 2)]
        return self._mirrored(x) / 2 + (shifted[0] + shifted[1]) / 4

    def _mirrored(self, x: Tensor) -> Tensor:
        one, other = self._logits(x), self._logits(x.flip(3))
        kind = torch.promote_types(one.dtype, torch.float32)  # in bfloat16 classes would tie
        return (one.to(kind) + other.to(kind)) / 2

    def _logits(self, x: Tensor) -> Tensor:
        x = self.whitening(x)  # (B, F, S', the same)
        if min(x.shape[2:]) < self.smallest:
            raise InputError(
                f"SpeedNet with {len(self.groups) - 1} groups and stride {self.whitening.stride} needs pictures of "
                f"at least {self.whitening.stride * (self.smallest - 1) + self.whitening.kernel_size} pixels"
            )
        x = self.groups(x)  # (B, widths[-1], S' / 2 ** len(widths), the same)
        x = max_pool2d(x, x.shape[2:]).flatten(1)  # (B, widths[-1])
        logits: Tensor = self.head(x)
        return logits


def _group(i: int, o: int, depth: int, activation: nn.Module) -> nn.Sequential:
    """Pixels `(B, i, S, S)` to `(B, o, S / 2, S / 2)`."""
    first = (_Convolution(i, o), nn.MaxPool2d(2), _Normalisation(o), activation)
    between = [layer for _ in range(depth - 2) for layer in (_Convolution(o, o), _Normalisation(o), activation)]
    last = (*between, _Convolution(o, o), _Normalisation(o))
    return nn.Sequential(*first, *((_Residual(*last),) if between else last), activation)


class _Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return x + y


class _Convolution(nn.Conv2d):
    def __init__(self, i: int, o: int) -> None:
        super().__init__(i, o, 3, padding="same", bias=False)
        nn.init.dirac_(self.weight[: min(i, o)])


class _Normalisation(nn.BatchNorm2d):
    """Without gains, and with quick running statistics, since there are few steps."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-12, momentum=0.4)
        self.weight.requires_grad = False
