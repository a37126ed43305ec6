"""Mixup and CutMix: blends of the images of a batch and of their labels, on the device they are on.

Notation: `B` batch, `H W` size, `K` classes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from cifar_lightning.augment import Draw, seeded
from cifar_onnx.errors import InputError


@dataclass(frozen=True)
class Mixing(ABC):
    """A random blend of the images of a batch, and of their labels likewise.

    Attributes:
        alpha: of the Beta distribution that shares are drawn from.
    """

    alpha: float

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise InputError(f"data.mix.alpha is {self.alpha:g}: it must be above 0")

    @abstractmethod
    def __call__(self, images: Tensor, labels: Tensor, classes: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """Change `images` `(B, 3, H, W)` and class numbers `(B,)` to images and shares of the classes `(B, K)`."""


@dataclass(frozen=True)
class MixUp(Mixing):
    """Each image laid over another one (Zhang et al. 2017, https://arxiv.org/abs/1710.09412).

    Args:
        alpha: of the Beta distribution that the share of the one is drawn from, once for a batch.
    """

    alpha: float = 0.2

    def __call__(self, images: Tensor, labels: Tensor, classes: int, draw: Draw) -> tuple[Tensor, Tensor]:
        from torchvision.transforms import v2

        with seeded(draw, self):
            mixed, shares = v2.MixUp(alpha=self.alpha, num_classes=classes)(images.float(), labels)
        # As batches are; on a GPU torchvision's would not be.
        return mixed.round().to(images.dtype).contiguous(memory_format=torch.channels_last), shares


@dataclass(frozen=True)
class CutMix(Mixing):
    """A rectangle of each image cut out of another one (Yun et al. 2019, https://arxiv.org/abs/1905.04899).

    Args:
        alpha: of the Beta distribution that the rectangle's area is drawn from, once for a batch.
    """

    alpha: float = 1.0

    def __call__(self, images: Tensor, labels: Tensor, classes: int, draw: Draw) -> tuple[Tensor, Tensor]:
        from torchvision.transforms import v2

        with seeded(draw, self):
            mixed, shares = v2.CutMix(alpha=self.alpha, num_classes=classes)(images, labels)
        return mixed, shares
