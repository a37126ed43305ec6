"""The one resize rule that training, export and inference share: antialiased, exact, the same pixels everywhere.

Notation: `H W` height and width of the picture, `S` side of the square that the net sees.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cifar_onnx.images import Pixels

Weights = NDArray[np.float32]
ResizeMode = Literal["stretch", "crop", "pad"]

MAX_SIZE = 2048  # of S: larger squares would take minutes, and gigabytes
PAD_VALUE = 128  # mid-grey, where mode `pad` has no picture
WHITE = 255
# Weights are whole numbers of steps. So float32 adds them, and pixels times weights, without rounding (sums stay below
# 2^24 where S is 8 or more): whatever computes in it sees the same pixels on every machine, in whatever order it adds.
TRIANGLE_STEPS = 2048
WEIGHT_STEPS = 8192
_BAND = 8  # output pixels that are computed together, from the part of the input that they look at
_PART = 60_000  # input pixels that are computed together: little enough for numpy's BLAS to use no threads of its own

_Band = tuple[slice, slice, Weights]  # output pixels, the input pixels that they look at, and the weights of these


@np.errstate(all="ignore")  # on some ARM machines numpy tells of divisions by 0 in products, where there are none
def resize(pixels: Pixels, size: int, mode: ResizeMode = "stretch") -> Pixels:
    """Antialiased bilinear resize to a square, as two matrix products with triangle weights.

    The same formula is in the exported graph, which gives the same pixels on every machine, and within one grey level
    of Pillow's `BILINEAR` (two where a side is a thousand times as long as `S`): both passes round to whole grey
    levels, columns first. It takes about as long as Pillow's.

    Args:
        pixels: uint8 `(H, W, 3)`.
        size: `S`.
        mode: `stretch` both sides to `S`; `crop` the central square; `pad` to a square with mid-grey.

    Returns:
        uint8 `(S, S, 3)`; `pixels` itself where it has this size.
    """
    height, width = pixels.shape[:2]
    if height == width == size:
        return pixels
    rows, columns, padding = _passes(height, width, size, mode)
    half = np.float32(0.5)

    top, bottom = rows[0][1].start, rows[-1][1].stop
    pixels = pixels[top:bottom]  # what the rows look at
    lines = min(len(pixels), max(1, _PART // width))
    planes, wide = np.empty((3, lines, width), np.float32), np.empty((3, len(pixels), size), np.float32)
    for start in range(0, len(pixels), lines):
        part = slice(start, min(start + lines, len(pixels)))
        x = planes[:, : part.stop - start]
        x[:] = pixels[part].transpose(2, 0, 1)
        for band, seen, weights in columns:
            np.matmul(x[..., seen], weights.T, out=wide[:, part, band])
    np.floor(np.add(wide, half, out=wide), out=wide)
    x = np.empty((3, size, size), np.float32)
    for band, seen, weights in rows:
        np.matmul(weights, wide[:, seen.start - top : seen.stop - top], out=x[:, band])
    np.floor(np.add(x, half, out=x), out=x)
    np.minimum(x, WHITE, out=x)  # rounded weights add up to a little more than 1 where a picture is very long
    x[:, padding] = PAD_VALUE
    return x.transpose(1, 2, 0).astype(np.uint8, order="C")


@lru_cache(maxsize=16)  # photos of one camera have few sizes
def _passes(height: int, width: int, size: int, mode: ResizeMode) -> tuple[list[_Band], list[_Band], NDArray[np.bool_]]:
    """Bands of rows and of columns, and which output pixels `(S, S)` are padding."""
    (rows, tall), (columns, wide) = _axis(height, width, size, mode), _axis(width, height, size, mode)
    return rows, columns, ~np.outer(tall, wide)


def resize_weights(height: int, width: int, size: int, mode: ResizeMode) -> tuple[Weights, Weights]:
    """Weights of the two passes: rows `(S, H)` and columns `(S, W)`, float32; a row of zeros is padding."""

    def whole(length: int, bands: list[_Band]) -> Weights:
        weights = np.zeros((size, length), np.float32)
        for band, seen, some in bands:
            weights[band, seen] = some
        return weights

    rows, columns, _ = _passes(height, width, size, mode)
    return whole(height, rows), whole(width, columns)


def _axis(length: int, other: int, size: int, mode: ResizeMode) -> tuple[list[_Band], NDArray[np.bool_]]:
    """Bands of one axis, and which of its output pixels are no padding.

    Output pixel `i` looks at the input around `c = begin + (i + 1/2 - margin) * box / extent` with
    `w[i, j] = max(0, 1 - |j + 1/2 - c| / max(box / extent, 1))`, normalised, where `box` input pixels, from `begin`,
    are drawn on `extent` output pixels, from `margin`. Places are computed in units of `1 / (2 extent)` input pixels,
    in which they are whole numbers, and weights are rounded before and after they are normalised.
    """
    one, two = np.float32(1), np.float32(2)
    box = np.float32(min(length, other) if mode == "crop" else length)
    extent = np.float32(size)
    if mode == "pad":
        extent = max(one, np.floor(np.float32(length * size) / np.float32(max(length, other)) + np.float32(0.5)))
    margin = np.floor((np.float32(size) - extent) / two)
    at = two * np.arange(size, dtype=np.float32) + one - two * margin  # (S,)
    inside = (at > 0) & (at < two * extent)
    outside, reach = np.float32(length) - box, two * max(box, extent)

    bands = []
    for few in np.array_split(np.arange(size), -(-size // _BAND)):
        band = slice(int(few[0]), int(few[-1]) + 1)
        low, high = (at[few[0]] * box - reach) / extent, (at[few[-1]] * box + reach) / extent
        begin = min(max(0, int((low + outside - 1) // 2)), length - 1)
        seen = slice(begin, max(begin + 1, min(length, int((high + outside - 1) // 2) + 2)))
        place = two * np.arange(seen.start, seen.stop, dtype=np.float32) + one - outside  # (seen,)
        distance = np.abs(place * extent - at[band, None] * box)  # (band, seen)
        triangle = np.maximum(np.float32(0), one - distance / reach)
        steps = np.floor(triangle * TRIANGLE_STEPS + np.float32(0.5)).astype(np.int64) * inside[band, None]
        total = np.maximum(steps.sum(axis=1, keepdims=True), 1)
        weights = ((2 * WEIGHT_STEPS * steps + total) // (2 * total)).astype(np.float32)
        bands.append((band, seen, weights / np.float32(WEIGHT_STEPS)))
    return bands, inside
