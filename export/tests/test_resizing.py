"""The resize to a square; that the graph makes the same pixels, tests of the training project say."""

import tracemalloc
from typing import get_args

import numpy as np
import pytest

from cifar_onnx import resizing
from cifar_onnx.images import Pixels


def whole(picture: Pixels, size: int, mode: resizing.ResizeMode) -> Pixels:
    """The two matrix products of a picture, as they are written down."""
    rows, columns = resizing.resize_weights(*picture.shape[:2], size, mode)
    wide = np.floor(np.einsum("hwc,sw->hsc", picture, columns, dtype=np.float64) + 0.5)
    square = np.floor(np.einsum("hsc,rh->rsc", wide, rows, dtype=np.float64) + 0.5)
    if mode == "pad":
        square[~np.outer(rows.any(axis=1), columns.any(axis=1))] = resizing.PAD_VALUE
    return np.minimum(square, 255).astype(np.uint8)


@pytest.mark.parametrize("mode", get_args(resizing.ResizeMode))
@pytest.mark.parametrize("size", [1, 8, 30, 65])
def test_bands_and_parts_are_the_whole_matrix_product(
    mode: resizing.ResizeMode, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    monkeypatch.setattr(resizing, "_PART", 1000)
    for height, width in ((1, 1), (7, 300), (300, 7), (64, 65), (201, 402), (3, 1001)):
        picture = generator.integers(256, size=(height, width, 3), dtype=np.uint8)
        assert np.array_equal(resizing.resize(picture, size, mode), whole(picture, size, mode)), (height, width)


@pytest.mark.parametrize("mode", get_args(resizing.ResizeMode))
def test_each_pixel_looks_at_those_that_its_triangle_covers(mode: resizing.ResizeMode) -> None:
    """By real numbers, within what rounding to steps may change."""
    for height, width, size in ((100, 230, 32), (20, 13, 33), (7, 3000, 16)):
        for weights, length in zip(resizing.resize_weights(height, width, size, mode), (height, width), strict=True):
            box = min(height, width) if mode == "crop" else length
            extent = max(1, int(length * size / max(height, width) + 0.5)) if mode == "pad" else size
            margin = (size - extent) // 2
            centre = (length - box) / 2 + (np.arange(size)[:, None] + 0.5 - margin) * box / extent
            exact = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - centre) / max(box / extent, 1))
            exact *= (np.arange(size)[:, None] >= margin) & (np.arange(size)[:, None] < margin + extent)
            exact /= np.maximum(exact.sum(axis=1, keepdims=True), 1e-9)
            assert np.abs(weights - exact).max() < 1e-3
            assert np.array_equal(weights.any(axis=1), exact.any(axis=1))


@pytest.mark.parametrize("shape", [(16, 60_000), (60_000, 16)])
def test_a_very_long_white_picture_stays_white(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 255, np.uint8)
    assert max(each.sum(axis=1).max() for each in resizing.resize_weights(*shape, 32, "stretch")) > 1 + 1 / 512
    assert resizing.resize(picture, 32).min() >= 253


def test_nothing_is_said_of_divisions_that_there_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """As numpy does on some ARM machines: https://github.com/numpy/numpy/issues/28687."""
    product = np.matmul

    def divided(*arrays: np.ndarray, out: np.ndarray) -> None:
        product(*arrays, out=out)
        np.divide(np.ones(2), np.zeros(2))

    monkeypatch.setattr(np, "matmul", divided)
    resizing.resize(np.zeros((8, 9, 3), np.uint8), 32)


def test_a_large_picture_takes_little_memory() -> None:
    picture = np.zeros((3000, 4000, 3), np.uint8)
    resizing._passes.cache_clear()
    tracemalloc.start()
    try:
        resizing.resize(picture, 224)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 15_000_000
    assert kept < 1_000_000


@pytest.mark.parametrize("shape", [(1, 100), (100, 1)])
def test_of_a_strip_one_line_is_left_in_the_grey(shape: tuple[int, int]) -> None:
    square = resizing.resize(np.zeros((*shape, 3), np.uint8), 8, "pad")
    assert (square == 0).sum() == 8 * 3
    assert (square == resizing.PAD_VALUE).sum() == 7 * 8 * 3
