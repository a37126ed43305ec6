"""Augmentation of whole batches, on the device they are on: small objects that hold a setting and draw per batch.

Notation: `B` batch, `H W` size. Every augmentation maps uint8 `(B, 3, H, W)` to the same shape and type, and is a
function of these and of the draw that it is given, so that a batch can be drawn again.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from cifar_onnx.errors import InputError


@dataclass(frozen=True)
class Draw:
    """What the chance in a batch comes from.

    Attributes:
        generator: on the device of the images.
        indices: int64 `(B,)`, the images' places in the training set.
        epoch: counted from 0.
    """

    generator: Generator
    indices: Tensor
    epoch: int


class Augmentation(ABC):
    """A random change of a batch of images that leaves their labels as they are."""

    @abstractmethod
    def __call__(self, images: Tensor, draw: Draw) -> Tensor:
        """Change `images` `(B, 3, H, W)`."""


@dataclass(frozen=True)
class Mirror(Augmentation):
    """Flip left and right.

    Args:
        probability: of each image being flipped.
    """

    probability: float = 0.5

    def __call__(self, images: Tensor, draw: Draw) -> Tensor:
        chosen = torch.rand(len(images), 1, 1, 1, device=images.device, generator=draw.generator) < self.probability
        return torch.where(chosen, images.flip(3), images)


@dataclass(frozen=True)
class AlternatingMirror(Augmentation):
    """Flip half of the images left and right in even epochs, and the others in odd ones.

    In two epochs each image is seen both ways, where `Mirror` shows every second one twice the same way (Jordan 2024,
    https://arxiv.org/abs/2404.00498, section 3.6).
    """

    def __call__(self, images: Tensor, draw: Draw) -> Tensor:
        # A bit of each place that stays, half of them set among any neighbours (Knuth, TAOCP 3, section 6.4).
        bit = (draw.indices * 2654435761 >> 31) + draw.epoch & 1
        return torch.where(bit.view(-1, 1, 1, 1) == 1, images.flip(3), images)


@dataclass(frozen=True)
class ShiftedCrop(Augmentation):
    """Pad by reflection and cut a window of the old size at a random place.

    Args:
        pixels: largest shift in each direction.
    """

    pixels: int = 4

    def __call__(self, images: Tensor, draw: Draw) -> Tensor:
        count, _, height, width = images.shape
        if not 0 <= self.pixels < min(height, width):
            raise InputError(f"ShiftedCrop cannot shift images of {height} x {width} by {self.pixels} pixels")
        padded = pad(images.float(), (self.pixels,) * 4, mode="reflect").to(images.dtype)
        top, left = torch.randint(0, 2 * self.pixels + 1, (2, count, 1), device=images.device, generator=draw.generator)
        rows = top + torch.arange(height, device=images.device)  # (B, H)
        columns = left + torch.arange(width, device=images.device)  # (B, W)
        batch = torch.arange(count, device=images.device)
        # The last axis of the gathered (B, H, W, 3) goes back to channels: memory stays channels_last.
        return padded.permute(0, 2, 3, 1)[batch[:, None, None], rows[:, :, None], columns[:, None, :]].permute(
            0, 3, 1, 2
        )


@dataclass(frozen=True)
class Cutout(Augmentation):
    """Grey out a square at a random place (DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552).

    Args:
        size: side of the square in pixels; it may stick out of the image.
        value: what its pixels become, 0 to 255.
    """

    size: int = 8
    value: int = 128

    def __call__(self, images: Tensor, draw: Draw) -> Tensor:
        count, _, height, width = images.shape

        def inside(length: int) -> Tensor:
            centre = torch.randint(0, length, (count, 1), device=images.device, generator=draw.generator)
            distance = torch.arange(length, device=images.device) - centre + self.size // 2
            return (distance >= 0) & (distance < self.size)  # (B, length)

        hole = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
        return images.masked_fill(hole, self.value)
