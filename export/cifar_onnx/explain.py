"""Maps of what in a picture supports a class, by occlusion or class activation: without gradients.

Notation: `B` batch, `K` classes, `S` side in pixels of the square that the net sees, `h w` size of a map of features.
"""

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cifar_onnx.errors import InputError, some
from cifar_onnx.images import Pixels
from cifar_onnx.resizing import resize_weights

_BATCH = 16  # covered pictures in one run of the net

Heat = NDArray[np.float32]

if TYPE_CHECKING:
    from cifar_onnx.classifier import Classifier


def explained(classifier: "Classifier", pixels: Pixels, label: str | None) -> Heat:
    """What `Classifier.explain` gives, of pixels `(S, S, 3)`."""
    label = classifier(pixels).label if label is None else label
    if label not in classifier.classes:
        raise InputError(f"unknown class {label!r}: the model knows {some(classifier.classes)}")
    k = classifier.classes.index(label)
    if classifier.has_maps:
        return cam(classifier.maps(pixels)[k], classifier.contract.size)
    return occlusion(lambda batch: classifier.run(batch)[0], pixels, k)


@np.errstate(all="ignore")  # as for `resize`
def cam(maps: NDArray[np.float32], size: int) -> Heat:
    """A class activation map, drawn over the picture (Zhou et al. 2016, https://arxiv.org/abs/1512.04150).

    What speaks against the class, below 0, counts as nothing.

    Args:
        maps: `(h, w)`, of one class: the output `cam` of a file holds one for each.
        size: `S`.

    Returns:
        `(S, S)`, from 0 to 1 at its highest, or 0 everywhere.
    """
    height, width = maps.shape
    rows, columns = resize_weights(height, width, size, "stretch")
    return scaled(rows @ np.maximum(maps, 0) @ columns.T)


def occlusion_runs(size: int) -> int:
    """How many pictures `(size, size)` the net sees for one map by occlusion."""
    return len(_spans(size)) ** 2 + 1


def _spans(size: int) -> list[slice]:
    square, step = max(1, size // 4), max(1, size // 8)
    return [slice(max(0, start), start + square) for start in range(step - square, size, step)]


def occlusion(logits: Callable[[Pixels], NDArray[np.float32]], pixels: Pixels, k: int) -> Heat:
    """How much less a net believes in a class where the picture is covered.

    A square of a quarter of the side is laid on the picture in steps of an eighth, also over its edges, so that these
    are covered as often as the rest. Each pixel gets the mean fall of the class's log-odds over the squares that cover
    it (after Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901).

    Args:
        logits: the net, uint8 `(B, S, S, 3)` to `(B, K)`.
        pixels: uint8 `(S, S, 3)`.
        k: the class.

    Returns:
        `(S, S)`, from 0 to 1 at its highest, or 0 everywhere.
    """
    windows = list(product(_spans(len(pixels)), repeat=2))
    # The mean colour, because mid-grey on a dark or bright picture is a thing to be seen.
    cover = pixels.mean(axis=(0, 1)).round()
    covered = np.repeat(pixels[None], len(windows), axis=0)
    for picture, window in zip(covered, windows, strict=True):
        picture[window] = cover
    answers = [logits(covered[start : start + _BATCH]) for start in range(0, len(covered), _BATCH)]
    falls = _log_odds(logits(pixels[None]), k) - _log_odds(np.concatenate(answers), k)  # one for each window
    total, count = np.zeros((2, *pixels.shape[:2]))
    for window, fall in zip(windows, falls, strict=True):
        total[window] += fall
        count[window] += 1
    return scaled(total / count)


def _log_odds(logits: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    """`log p / (1 - p)` of class `k`, `(B,)`, which still moves where `p` has come to 1."""
    scores = logits.astype(np.float64)
    odds: NDArray[np.float64] = scores[:, k] - np.logaddexp.reduce(np.delete(scores, k, axis=1), axis=1)
    return odds


def scaled(heat: NDArray[np.floating]) -> Heat:
    """A map divided by its highest value; what is below 0 or not finite is 0."""
    heat = np.where(np.isfinite(heat), np.maximum(heat, 0), 0)
    return (heat / (heat.max() or 1)).astype(np.float32)
