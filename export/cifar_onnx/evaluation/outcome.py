"""The outcome of running a classifier on labelled pictures: its answers beside the labels.

Notation: `N` pictures, `K` classes, `S` side in pixels of the square that the net sees.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar_onnx.errors import InputError, some
from cifar_onnx.images import Pictures, Pixels
from cifar_onnx.progress import track

# A net runs 256 pictures of 128 x 128 pixels at once, and of larger ones as many as have no more pixels together.
_BATCH, _SIDE = 256, 128
_CELLS = 1 << 18  # of a table that are copied at once

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
# Of uint8 (B, S, S, 3): logits (B, K), divided by the temperature, and familiarity (B,) of a model that has it.
Answers = Callable[[Pixels], tuple[NDArray[np.float32], NDArray[np.float32] | None]]


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
        bad = ~(self.logits < np.inf)  # also NaN; -inf rules a class out
        if bad.any():
            place, k = divmod(int(bad.argmax()), bad.shape[1])
            wrong = f"{self.logits[place, k]} for {self.classes[k]}"
            raise InputError(f"the model's answer to {self.names[place]} is not finite: {wrong}")

    @property
    def absent(self) -> str:
        """The classes of which there is no picture, in words; empty where there are pictures of all."""
        present = set(self.labels.tolist())
        return some([name for place, name in enumerate(self.classes) if place not in present])

    @cached_property
    def probabilities(self) -> Floats:
        """`(N, K)`; each row sums to 1."""
        return softmax(self.logits)

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
        best = (np.partition(self.probabilities[band], -2, axis=1)[:, -2:] for band in bands(self.probabilities))
        return np.concatenate([np.diff(each)[:, 0] for each in best])

    @cached_property
    def ranked(self) -> Integers:
        """`(N,)`: places of the pictures, the most confident answer first."""
        order: Integers = np.argsort(-self.confidences, kind="stable")
        return order

    @cached_property
    def correct(self) -> Booleans:
        """`(N,)`."""
        hits: Booleans = self.predictions == self.labels
        return hits


def softmax(logits: NDArray[np.float32]) -> Floats:
    """Probabilities `(N, K)` of logits `(N, K)`, in place of their only copy: there may be gigabytes."""
    powers = logits.astype(np.float64)
    powers -= powers.max(axis=1, keepdims=True)
    np.exp(powers, out=powers)
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def bands(table: NDArray[np.floating]) -> list[slice]:
    """Rows of a table `(N, K)` in parts so small that copies of one take no memory beside the table."""
    step = max(1, _CELLS // table.shape[1])
    return [slice(start, start + step) for start in range(0, len(table), step)]


def at_once(size: int) -> int:
    """How many pictures `(size, size)` one run of a net takes."""
    return max(1, min(_BATCH, _BATCH * _SIDE**2 // size**2))


def parts(pictures: Pictures) -> list[slice]:
    """Pictures `(N, S, S, 3)` in parts that one run of a net takes."""
    step = at_once(pictures.shape[1])
    return [slice(start, start + step) for start in range(0, len(pictures), step)]


def in_parts(
    run: Callable[[Pixels], Sequence[Any]], pictures: Pictures, title: str | None = None
) -> list[NDArray[np.float32]]:
    """What a net gives, run on one part of the pictures after the other; a title shows progress under it."""
    work = parts(pictures)
    found = [run(pictures[part]) for part in (track(work, title, len(work)) if title else work)]
    return [np.concatenate(each) for each in zip(*found, strict=True)]
