"""Augmentation of whole batches, on the device they are on: small objects that hold a setting and draw per batch.

Notation: `B` batch, `H W` size. Every augmentation maps uint8 `(B, 3, H, W)` to the same shape and type,
and is a function of these and of the draw that it is given, so that a batch can be drawn again.
"""

import math
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample

from cifar_onnx.errors import InputError


@dataclass(frozen=True)
class Draw:
    """The source of randomness for one batch.

    Attributes:
        generator: on the device of the images.
        indices: int64 `(B,)`, the images' places in the training set.
        epoch: counted from 0.
        times: how often each class of augmentations, by its name, has drawn within `seeded`.
    """

    generator: Generator
    indices: Tensor
    epoch: int
    times: Counter[str] = field(default_factory=Counter)


@contextmanager
def seeded(draw: Draw, what: object) -> Iterator[None]:
    """Within it torch's generator on the CPU, which torchvision draws from, is seeded by the batch and the class.

    Differently each time; a draw from the generator instead would have to wait for a GPU.
    """
    name = type(what).__name__
    purpose = zlib.crc32(name.encode()) + draw.times[name]
    draw.times[name] += 1
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed((draw.generator.initial_seed() ^ purpose) % 2**63)
        yield


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

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise InputError(f"Mirror.probability is {self.probability:g}: it must lie between 0 and 1")

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
        bit = (draw.indices * 2654435761) & (1 << 31)
        return torch.where((bit != draw.epoch % 2 << 31).view(-1, 1, 1, 1), images.flip(3), images)


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
        most, device = self.pixels, images.device
        shifts = torch.randint(-most, most + 1, (2, count, 1), device=device, generator=draw.generator)

        def inside(shift: Tensor, length: int) -> Tensor:
            places = shift + torch.arange(length, device=device)  # (..., B, length), some outside
            return (length - 1) - ((length - 1) - places.abs()).abs()

        if height == width:
            rows, columns = inside(shifts, height)  # both at once: on a GPU, launching them takes longer than they do
        else:
            rows, columns = inside(shifts[0], height), inside(shifts[1], width)
        batch = torch.arange(count, device=device)[:, None, None]
        # The last axis of the gathered (B, H, W, 3) goes back to channels: memory stays channels_last.
        return images.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@dataclass(frozen=True)
class RandomResizedCrop(Augmentation):
    """Cut out a part of random size, shape and place, and enlarge it to the size of the image.

    As in Szegedy et al. 2014 (https://arxiv.org/abs/1409.4842), for photos whose subject is near or far, here or there.

    Args:
        scale: smallest and largest share of the area that is cut out.
        ratio: smallest and largest width of the part, divided by its height; nearer to 1 where the part would not fit.
    """

    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        for name, most, example in (("scale", 1.0, [0.35, 1]), ("ratio", math.inf, [0.75, 1.33])):
            low, high = getattr(self, name)
            if not 0 < low <= high <= most:
                raise InputError(f"RandomResizedCrop.{name} is [{low:g}, {high:g}]: give a range, such as {example}")

    def __call__(self, images: Tensor, draw: Draw) -> Tensor:
        chance = torch.rand(4, len(images), device=images.device, generator=draw.generator)
        area = self.scale[0] + (self.scale[1] - self.scale[0]) * chance[0]
        low, high = (area.clamp(min=each).minimum(1 / area) for each in self.ratio)  # no side beyond the image's
        ratio = low * (high / low) ** chance[1]
        sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1)  # (B, 2), of the image's
        centres = (2 * chance[2:].T - 1) * (1 - sides)  # (B, 2), from -1 to 1
        maps = torch.cat([torch.diag_embed(sides), centres[:, :, None]], 2)  # (B, 2, 3)
        grid = affine_grid(maps, list(images.shape), align_corners=False)
        parts = grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
        return parts.round().to(images.dtype).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Cutout(Augmentation):
    """Grey out a square at a random place (DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552).

    Args:
        size: side of the square in pixels; it may stick out of the image.
        value: what its pixels become, 0 to 255.
    """

    size: int = 8
    value: int = 128

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"Cutout.size is {self.size}: it must be at least 1")
        if not 0 <= self.value <= 255:
            raise InputError(f"Cutout.value is {self.value}: it must lie between 0 and 255")

    def __call__(self, images: Tensor, draw: Draw) -> Tensor:
        count, _, height, width = images.shape

        def inside(length: int) -> Tensor:
            centre = torch.randint(0, length, (count, 1), device=images.device, generator=draw.generator)
            distance = torch.arange(length, device=images.device) - centre + self.size // 2
            return (distance >= 0) & (distance < self.size)  # (B, length)

        hole = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
        return torch.where(hole, self.value, images)  # memory stays channels_last, which masked_fill does not leave it


class _Policy(Augmentation):
    """One of torchvision's policies, drawn anew for each of several parts of a batch."""

    groups: int

    def __post_init__(self) -> None:
        if self.groups < 1:
            raise InputError(f"{type(self).__name__}.groups is {self.groups}: it must be at least 1")

    @abstractmethod
    def transform(self) -> Callable[[Tensor], Tensor]:
        """What torchvision does with some images `(b, 3, H, W)`, differently each time."""

    def __call__(self, images: Tensor, draw: Draw) -> Tensor:
        transform = self.transform()
        with seeded(draw, self):
            changed = torch.cat([transform(part) for part in images.chunk(self.groups)])
        return changed.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class TrivialAugment(_Policy):
    """One change of colours or geometry, of any strength (Mueller and Hutter 2021, https://arxiv.org/abs/2103.10158).

    Args:
        groups: parts of a batch, each with a change of its own, for which a GPU waits; as many as images is slow.
    """

    groups: int = 16

    def transform(self) -> Callable[[Tensor], Tensor]:
        from torchvision.transforms import v2

        policy: Callable[[Tensor], Tensor] = v2.TrivialAugmentWide()
        return policy


@dataclass(frozen=True)
class RandAugment(_Policy):
    """Some changes of colours or geometry, all of one strength (Cubuk et al. 2019, https://arxiv.org/abs/1909.13719).

    Args:
        changes: how many, one after the other.
        magnitude: of each, 0 to 30.
        groups: parts of a batch, each with changes of its own, for which a GPU waits; as many as images is slow.
    """

    changes: int = 2
    magnitude: int = 9
    groups: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.changes < 1:
            raise InputError(f"RandAugment.changes is {self.changes}: it must be at least 1")
        if not 0 <= self.magnitude <= 30:
            raise InputError(f"RandAugment.magnitude is {self.magnitude}: it must lie between 0 and 30")

    def transform(self) -> Callable[[Tensor], Tensor]:
        from torchvision.transforms import v2

        policy: Callable[[Tensor], Tensor] = v2.RandAugment(self.changes, self.magnitude)
        return policy
