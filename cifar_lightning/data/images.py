"""Labelled images, in memory or on disk: how they are split into parts, and their statistics."""

import hashlib
import math
import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifar_onnx.errors import InputError
from cifar_onnx.evaluation.outcome import Integers, Unreadable
from cifar_onnx.folders import composed
from cifar_onnx.images import Pictures, Pixels

Part = Literal["train", "val", "test", "predict"]
Sampling = Literal["once", "balanced"]
Fingerprints = NDArray[np.bytes_]
_ENOUGH, _FEWEST = 50_000 * 32**2, 5_000  # pixels for statistics, and images if these are large


class Rows:
    """Pictures `(N, S, S, 3)`, uint8, that are copied out of an array, which may lie on disk, when they are asked for.

    Args:
        pixels: the array.
        places: `(N,)`, where in it they are.
        mapped: the file that it is a map of.
    """

    def __init__(self, pixels: Pixels, places: Integers, mapped: mmap.mmap | None = None) -> None:
        self._pixels = pixels
        self._places = places
        self._mapped = mapped

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self._places), *self._pixels.shape[1:]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Pixels:
        """One picture, or those of a slice or an array of places."""
        places = self._places[index]
        if self._mapped is not None and os.name == "posix":
            # All are asked for before the first is waited for: from a disk this is two to three times as fast.
            size = math.prod(self.shape[1:])
            for start in (np.atleast_1d(places) * size).tolist():
                page = start - start % mmap.PAGESIZE
                self._mapped.madvise(mmap.MADV_WILLNEED, page, start + size - page)
        found: Pixels = np.take(self._pixels, places, axis=0)
        return found

    def take(self, indices: Integers) -> "Rows":
        """Those at `indices`, not yet copied."""
        return Rows(self._pixels, self._places[indices], self._mapped)


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
        pixels: uint8 `(N, S, S, 3)`, in memory or on disk.
        labels: int64 `(N,)`, -1 where unknown.
        names: path or index of each.
        areas: `(N,)`, pixels of each before it was resized; None where that is not known.
        fingerprints: `(N,)`, `cifar_onnx.images.fingerprint` of each before it was resized; None likewise.
        unreadable: files that are no pictures, and are in none of the above.
    """

    pixels: Pixels | Rows
    labels: Integers
    names: Sequence[str]
    areas: Integers | None = None
    fingerprints: Fingerprints | None = None
    unreadable: tuple[Unreadable, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """Of labels, and of fingerprints or else of pixels, in hexadecimal: another one means other images."""
        found = hashlib.blake2b(self.labels.tobytes(), digest_size=16)
        if self.fingerprints is None:
            for start in range(0, len(self), 256):
                found.update(hashlib.sha256(self.pixels[start : start + 256].tobytes()).digest())  # twice as fast
        else:
            found.update(self.fingerprints.tobytes())
        return found.hexdigest()

    def take(self, indices: Integers) -> "Images":
        """Those at `indices`, in that order."""
        areas = None if self.areas is None else self.areas[indices]
        fingerprints = None if self.fingerprints is None else self.fingerprints[indices]
        pixels = self.pixels.take(indices) if isinstance(self.pixels, Rows) else self.pixels[indices]
        return Images(pixels, self.labels[indices], [self.names[i] for i in indices], areas, fingerprints)


def check_images(images: object, source: str, part: Part, size: int, classes: int) -> Images:
    """What a source has read, as it is, if it is as `Images` are; no pixel is looked at.

    Args:
        images: what it has read.
        source: its name.
        part: which part that is.
        size: side of the images that it promises.
        classes: how many it promises.

    Raises:
        InputError: it is something else; says what it must be.
    """
    source, least = f"{source}.load({part!r})", -1 if part == "predict" else 0
    if not isinstance(images, Images):
        raise InputError(f"{source} gives {_kind(images)}: it must be cifar_lightning.data.Images")
    pixels, labels, count = images.pixels, images.labels, len(images.pixels)
    asked, found = (count, size, size, 3), pixels.shape if isinstance(pixels, Rows) else _kind(pixels)
    if found not in (asked, f"uint8 {asked}"):
        wanted = f"uint8 (N, {size}, {size}, 3), by image_size"
        raise InputError(f"{source} gives pixels {found}: they must be {wanted}")
    if _kind(labels) != f"int64 ({count},)":
        raise InputError(f"{source} gives labels {_kind(labels)}: they must be int64 ({count},), one for each picture")
    if len(images.names) != count:
        raise InputError(f"{source} gives {len(images.names)} names for {count} pictures: it must give one for each")
    if not count:
        raise InputError(f"{source} gives no pictures: it must give one at least")
    if not least <= labels.min() <= labels.max() < classes:
        span = f"{labels.min()} to {labels.max()}"
        raise InputError(f"{source} gives labels {span}: for {classes} classes they must be {least} to {classes - 1}")
    return images


def _kind(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


@dataclass(frozen=True)
class Sample:
    """A picture as its file holds it and as training saw it.

    Attributes:
        name: what to call it in a message.
        encoded: its file, or the bytes of one.
        fingerprint: `cifar_onnx.images.fingerprint` of what training decoded the file to.
        pixels: uint8 `(S, S, 3)`, what training resized that to.
    """

    name: str
    encoded: Path | bytes
    fingerprint: str
    pixels: Pixels


def slices(whole: Images, fractions: Mapping[Part, float], seed: int) -> dict[Part, Images]:
    """Slice parts off labelled images, as `stratify` chooses them; `train` is the rest.

    Raises:
        InputError: no image is left for one of them.
    """
    chosen = stratify(whole.labels, whole.names, fractions, seed, whole.fingerprints)
    parts = {part: whole.take(indices) for part, indices in chosen.items()}
    # Files that cannot be read are in no part: the test, where they are looked for, gets them.
    if "test" in parts:
        parts["test"] = replace(parts["test"], unreadable=whole.unreadable)
    for part, images in parts.items():
        if not len(images):
            count, prints = len(np.unique(whole.labels)), whole.fingerprints
            one = "" if prints is None or len(np.unique(prints)) == len(whole) else " (copies of an image count as one)"
            raise InputError(f"no image is left for {part}: {len(whole)} images of {count} classes are too few{one}")
    return parts


def stratify(
    labels: Integers,
    names: Sequence[str],
    fractions: Mapping[Part, float],
    seed: int,
    fingerprints: Fingerprints | None = None,
) -> dict[Part, Integers]:
    """Split indices by class, in an order that each image's file name decides.

    A photo that is added or taken away leaves most others where they were, and so does another place of the folder.
    Copies stay together: a net is not asked about what it has learnt.

    Args:
        labels: `(N,)`.
        names: path or index of each image.
        fractions: of each class, rounded, for each part; a class of three images or more has one in each part at
            least, and one stays in train in any case.
        seed: the same gives the same split.
        fingerprints: `(N,)`, equal for copies; None where there are none.

    Returns:
        Sorted, disjoint indices of each part and of `train`; together they are all.
    """
    copies = range(len(names)) if fingerprints is None else fingerprints.tolist()
    first: dict[int | bytes, tuple[str, int]] = {}
    for index, (name, copy) in enumerate(zip(names, copies, strict=True)):
        own = composed(os.path.basename(name)), index
        first[copy] = min(own, first.get(copy, own))  # the least hash of many would be small, and all be held out

    def rank(name: str, index: int) -> tuple[bytes, int]:
        return hashlib.blake2b(f"{seed} {name}".encode(errors="replace")).digest(), index

    ranks = [rank(*first[copy]) for copy in copies]
    chosen: dict[Part, list[Integers]] = {part: [] for part in (*fractions, "train")}
    for label in np.unique(labels):
        members = np.array(sorted(np.flatnonzero(labels == label), key=lambda index: ranks[index]), np.int64)
        total = len(members)
        for part, fraction in fractions.items():
            count = min(max(round(fraction * total), int(total >= 3)), len(members) - 1)
            while 0 < count < len(members) and ranks[members[count]] == ranks[members[count - 1]]:
                count += 1
            count %= len(members)  # where all that is left are copies, they are trained on
            chosen[part].append(members[:count])
            members = members[count:]
        chosen["train"].append(members)
    return {part: np.sort(np.concatenate(lists)) for part, lists in chosen.items()}


def spread(count: int, most: int) -> Integers:
    """Places of at most so many of `count` images, as far apart as can be."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def channel_statistics(pixels: Pictures) -> tuple[list[float], list[float]]:
    """Channel means and standard deviations over uint8 `(N, H, W, 3)`, scaled to 0..1; exact, in integers.

    Of more pixels than 50,000 images of 32 x 32 have, and more than 5,000 images, over so many that are spread among
    them.
    """
    chosen = spread(len(pixels), max(_FEWEST, _ENOUGH // math.prod(pixels.shape[1:3])))
    counts = np.zeros((3, 256), np.int64)  # of each value
    for start in range(0, len(chosen), 256):
        rows = pixels[chosen[start : start + 256]].reshape(-1, pixels.shape[2], 3)
        counts += np.reshape(Image.fromarray(rows).histogram(), (3, 256))
    values = np.arange(256)
    count = counts[0].sum()
    mean = counts @ values / count
    std = np.sqrt(counts @ values**2 / count - mean**2)
    return list(map(float, mean / 255)), list(map(float, std / 255))
