"""Batches as slices of a permuted tensor: no worker processes, no Python per image.

Notation: `N` images, `B` batch, `H W` size.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Batch(NamedTuple):
    """What one step sees.

    Attributes:
        images: uint8 `(B, 3, H, W)`, channels last in memory.
        labels: int64 `(B,)`.
        indices: int64 `(B,)`, the images' places in their set.
        seed: what the augmentation of this batch is drawn from.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    seed: int


class Batches:
    """Batches of a set that lies in memory, on the device where it lies.

    Order and seeds are functions of (seed, epoch) alone.

    Args:
        images: uint8 `(N, H, W, 3)`.
        labels: int64 `(N,)`.
        batch_size: `B`; the last batch may be smaller.
        seed: of order and augmentation.
        epoch: asked at the start of each pass; None keeps the images in their order.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, batch_size: int, seed: int = 0, epoch: Callable[[], int] | None = None
    ) -> None:
        self.images = images
        self.labels = labels
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        images, labels, epoch = self.images, self.labels, 0
        order = torch.arange(len(images), device=images.device)
        if self.epoch is not None:
            epoch = self.epoch()
            # Drawn on the CPU, so that every device sees the same order.
            generator = torch.Generator().manual_seed(_mix(self.seed, epoch))
            order = torch.randperm(len(images), generator=generator).to(images.device)
            images, labels = images[order], labels[order]
        images = images.permute(0, 3, 1, 2)  # (N, 3, H, W)
        for number, start in enumerate(range(0, len(images), self.batch_size)):
            part = slice(start, start + self.batch_size)
            yield Batch(images[part], labels[part], order[part], _mix(self.seed, epoch, number + 1))


def _mix(*words: int) -> int:
    """A 63-bit seed from small integers, such that neighbours give unrelated streams."""
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))
