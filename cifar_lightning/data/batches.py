"""Batches as slices of a permuted tensor, or read from disk ahead of time: no Python per image.

Notation: `N` images, `B` batch, `H W` size.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from cifar_lightning.batch import Batch
from cifar_lightning.data.images import Rows
from cifar_onnx.ahead import ahead

_THREADS, _WAITING = 2, 4  # batches that are read from disk at once, and that are kept ready


class Batches:
    """Batches of a set that lies in memory, on the device where it lies, or of one on disk, as the same batches.

    The order depends on (seed, epoch) alone, and the seed of a batch on these, its number and the rank. Each process
    has a share of every batch, disjoint from the others': together they are the batch that one process alone would
    have, with as many images, but for where the last one begins.

    Args:
        images: uint8 `(N, H, W, 3)`.
        labels: int64 `(N,)`, on the device where batches are to be.
        batch_size: `B` of each process; the last batch may be smaller. Where it would have fewer than two images for
            each process (unless `shuffled`, than one), it joins the batch before.
        seed: of order and augmentation.
        place: asked at the start of each pass for the epoch and its first batch; None is (0, 0).
        rank: number of this process.
        processes: how many there are.
        shuffled: order the images anew in each epoch, not as they are.
        balanced: where they are, draw from the classes evenly, with replacement.
        fixed: let the order be that of the first epoch in all of them.
    """

    def __init__(
        self,
        images: Tensor | Rows,
        labels: Tensor,
        batch_size: int,
        seed: int = 0,
        place: Callable[[], tuple[int, int]] | None = None,
        rank: int = 0,
        processes: int = 1,
        shuffled: bool = False,
        balanced: bool = False,
        fixed: bool = False,
    ) -> None:
        self.images = images
        self.labels = labels
        self.seed = seed
        self.place = place
        self.rank = rank
        self.shuffled = shuffled
        self.balanced = balanced
        self.fixed = fixed
        count, size = len(images), batch_size * processes
        # Batch normalisation cannot train on one image.
        least = processes * (2 if shuffled else 1)
        number = max(count // size + (count % size >= least), 1)
        spans = [*pairwise([*range(0, size * number, size), count])]  # of all processes together
        self._ends: list[int] = [end for _, end in spans]
        self._shares = [
            slice(start + (end - start) * rank // processes, start + (end - start) * (rank + 1) // processes)
            for start, end in spans
        ]
        self._weights = [
            (share.stop - share.start) * processes / (end - start)
            for share, (start, end) in zip(self._shares, spans, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._shares)

    def images_in(self, batches: int) -> int:
        """How many images the first batches, one at least, hold: those of all processes together."""
        return self._ends[batches - 1]

    def state_dict(self) -> dict[str, int]:
        """Nothing: the data module knows the place. Lightning warns of loaders that cannot be resumed."""
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        pass

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = self.place() if self.place else (0, 0)
        if self.shuffled:
            # Drawn on the CPU, so that every device sees the same order.
            generator = torch.Generator().manual_seed(_seed(self.seed, 0 if self.fixed else epoch))
            order = self._drawn(generator) if self.balanced else torch.randperm(len(self.images), generator=generator)
        else:
            order = torch.arange(len(self.images))
        shares = self._shares[first:]
        if isinstance(self.images, Tensor):
            batches = self._slices(self.images, order, shares)
        else:
            batches = self._read(self.images, order, shares)
        for number, (batch, weight) in enumerate(zip(batches, self._weights[first:], strict=True), first + 1):
            yield Batch(*batch, _seed(self.seed, epoch, number, self.rank), weight, epoch)

    def _slices(self, images: Tensor, order: Tensor, shares: list[slice]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Images, labels and indices of each share of a set in memory."""
        labels = self.labels
        if not shares:
            return
        order = torch.cat([order[share] for share in shares]).to(labels.device)
        if self.shuffled or len(order) < len(images):
            images, labels = images[order], labels[order]
        images = images.permute(0, 3, 1, 2)  # (N, 3, H, W)
        start = 0
        for share in shares:
            part = slice(start, start := start + share.stop - share.start)
            yield images[part], labels[part], order[part]

    def _read(self, rows: Rows, order: Tensor, shares: list[slice]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The same of a set on disk."""
        device = self.labels.device
        # MPS would read memory that is freed by then: https://github.com/pytorch/pytorch/issues/189690
        pinned = device.type == "cuda"
        places = order.to(device)

        def read(share: slice) -> Tensor:
            images = torch.from_numpy(rows[order[share].numpy()])
            return images.pin_memory() if pinned else images

        for share, images in zip(shares, ahead(read, shares, _THREADS, _WAITING), strict=True):
            indices = places[share]
            yield images.to(device, non_blocking=pinned).permute(0, 3, 1, 2), self.labels[indices], indices

    def _drawn(self, generator: torch.Generator) -> Tensor:
        """As many places as there are images, of each class as many but for one."""
        labels = self.labels.cpu()
        every = [(labels == label).nonzero().flatten() for label in range(int(labels.max()) + 1)]
        members = [each for each in every if len(each)]
        shares = torch.arange(len(labels)).tensor_split(len(members))
        drawn = [
            each[torch.randint(len(each), (len(share),), generator=generator)]
            for each, share in zip(members, shares, strict=True)
        ]
        return torch.cat(drawn)[torch.randperm(len(labels), generator=generator)]


def _seed(*words: int) -> int:
    """A 63-bit seed from small integers, such that neighbours give unrelated streams."""
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))
