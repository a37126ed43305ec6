"""The outcome of running a classifier on labelled pictures: its answers beside the labels.

Notation: `N` pictures, `K` classes, `S` side in pixels of the square that the net sees.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cifar_onnx.ahead import ahead, chunk_size
from cifar_onnx.errors import ImageError, InputError, some
from cifar_onnx.folders import find, labelled
from cifar_onnx.images import Pictures, Pixels, decode
from cifar_onnx.progress import track
from cifar_onnx.resizing import ResizeMode, resize
from cifar_onnx.session import usable_cpus
from cifar_onnx.shell import say

_BATCH, _SIDE = 256, 128  # pictures in one run of a net, and of how many pixels a side so many fit into memory

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Answers = Callable[[Pixels], tuple[NDArray[np.float32], NDArray[np.float32] | None]]  # logits and familiarity (B,)
Logits = Callable[[Pixels], NDArray[np.float32]]  # of uint8 (B, S, S, 3), divided by the temperature: (B, K)


@dataclass(frozen=True)
class Unreadable:
    """A file that is no picture: its path, its label and the reason."""

    name: str
    label: int
    reason: str


@dataclass(frozen=True)
class Outcome:
    """Labelled pictures and the answers to them.

    Attributes:
        classes: names, in the order of the logits.
        names: path or number of each picture.
        labels: `(N,)`.
        logits: `(N, K)`, divided by the temperature.
        pixels: uint8 `(N, S, S, 3)`, as the net saw them, or none where nobody will ask for them.
        areas: `(N,)`, pixels of each picture before it was resized; None where that is not known.
        unreadable: what could not be decoded, and is in none of the above.
        familiarity: `(N,)`, how like they are to what was learnt from; None of a model that does not say so.
    """

    classes: tuple[str, ...]
    names: Sequence[str]
    labels: Integers
    logits: NDArray[np.float32]
    pixels: Pictures
    areas: Integers | None = None
    unreadable: tuple[Unreadable, ...] = ()
    familiarity: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if np.isnan(self.logits).any() or np.isposinf(self.logits).any():
            bad = int(np.flatnonzero(~(self.logits < np.inf).all(axis=1))[0])
            raise InputError(f"the model's answer to {self.names[bad]} is not finite: {self.logits[bad]}")

    @property
    def absent(self) -> str:
        """The classes of which there is no picture, in words; empty where there are pictures of all."""
        present = set(self.labels.tolist())
        return some([name for place, name in enumerate(self.classes) if place not in present])

    @cached_property
    def probabilities(self) -> Floats:
        """`(N, K)`; each row sums to 1."""
        logits = self.logits.astype(np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Floats = powers / powers.sum(axis=1, keepdims=True)
        return probabilities

    @cached_property
    def predictions(self) -> Integers:
        """`(N,)`: the most probable class."""
        best: Integers = self.probabilities.argmax(axis=1)
        return best

    @cached_property
    def confidences(self) -> Floats:
        """`(N,)`: its probability."""
        highest: Floats = self.probabilities.max(axis=1)
        return highest

    @cached_property
    def margins(self) -> Floats:
        """`(N,)`: how far it is above the second."""
        ranked = np.sort(self.probabilities, axis=1)
        margins: Floats = ranked[:, -1] - ranked[:, -2]
        return margins

    @cached_property
    def correct(self) -> Booleans:
        """`(N,)`."""
        hits: Booleans = self.predictions == self.labels
        return hits


def at_once(size: int) -> int:
    """How many pictures `(size, size)` one run of a net takes."""
    return max(1, min(_BATCH, _BATCH * _SIDE**2 // size**2))


def parts(pictures: Pictures) -> list[slice]:
    """Pictures `(N, S, S, 3)` in parts that one run of a net takes."""
    step = at_once(pictures.shape[1])
    return [slice(start, start + step) for start in range(0, len(pictures), step)]


def in_parts(run: Callable[[Pixels], Sequence[NDArray[np.float32]]], pictures: Pictures) -> list[NDArray[np.float32]]:
    """What a net gives, run on one part of the pictures after the other."""
    found = [run(pictures[part]) for part in parts(pictures)]
    return [np.concatenate(each) for each in zip(*found, strict=True)]


def familiarities(run: Answers, pixels: Pixels) -> NDArray[np.float32]:
    """How familiar pictures `(N, S, S, 3)` are, `(N,)`, to a model that says so."""
    found = [run(pixels[part])[1] for part in parts(pixels)]
    return np.concatenate([each for each in found if each is not None])


def squares(folder: Path, size: int, mode: ResizeMode) -> Pixels:
    """Every picture below a folder that can be read, as the net sees it: `(N, S, S, 3)`; says how many cannot.

    Raises:
        InputError: there is none, or no folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name one with pictures")
    pictures, paths, errors = [], find(folder), []
    for path in track(paths, f"reading {folder}", len(paths)):
        try:
            pictures.append(resize(decode(path), size, mode))
        except ImageError as error:
            errors.append(str(error))
    if not pictures:
        raise InputError(f"{folder}: none of the {len(paths)} files can be read as a picture")
    if errors:
        say(f"skipped {len(errors):,} of the {len(paths):,} files of {folder}, such as {errors[0]}", sys.stderr)
    return np.stack(pictures)


def answer(
    folder: Path, classes: Sequence[str], size: int, mode: ResizeMode, run: Answers, keep: bool = True
) -> Outcome:
    """Decode and classify the pictures in `folder/<class>/*`.

    They are resized here, once, by the formula that the graph has too, so that the whole batch runs together and what
    the net saw can be shown.

    Args:
        folder: holds a folder for each class; classes may be missing.
        classes: names, in the order of the logits.
        size: `S`.
        mode: how a picture becomes a square.
        run: the net.
        keep: the pixels, in the outcome; else there are none in it.

    Raises:
        InputError: the folder holds no pictures, or one of a class that the model does not know.
    """
    files, threads = labelled(folder, classes), usable_cpus()
    chunk, batch = chunk_size(len(files), threads), at_once(size)

    def read(path: Path) -> tuple[Pixels, int] | str:
        try:
            picture = decode(path)
        except ImageError as error:
            return str(error).removeprefix(f"{path}: ")
        return resize(picture, size, mode), picture.shape[0] * picture.shape[1]

    kept: list[tuple[Path, int]] = []
    pixels = np.empty((len(files) if keep else batch, size, size, 3), np.uint8)
    answers, areas, unreadable = [], [], []
    begin = end = 0  # of those in `pixels` that wait for the net
    waiting = 2 * max(batch, threads * chunk)
    results = ahead(read, (path for path, _ in files), threads, waiting, chunk)
    for (path, label), result in zip(files, track(results, f"classifying {folder}", len(files)), strict=True):
        if isinstance(result, str):
            unreadable.append(Unreadable(str(path), label, result))
            continue
        pixels[end], area = result
        end += 1
        kept.append((path, label))
        areas.append(area)
        if end - begin == batch:
            answers.append(run(pixels[begin:end]))
            begin = end = end if keep else 0
    if begin < end:
        answers.append(run(pixels[begin:end]))
    if not kept:
        raise InputError(f"{folder}: none of the {len(files)} files can be read as a picture")
    logits, familiar = zip(*answers, strict=True)
    return Outcome(
        classes=tuple(classes),
        names=[str(path) for path, _ in kept],
        labels=np.array([label for _, label in kept], np.int64),
        logits=np.concatenate(logits),
        pixels=pixels[: len(kept) if keep else 0],
        areas=np.array(areas, np.int64),
        unreadable=tuple(unreadable),
        familiarity=None if any(each is None for each in familiar) else np.concatenate(familiar),
    )
