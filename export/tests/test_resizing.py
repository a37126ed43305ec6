"""The resize to a square; that the graph makes the same pixels, tests of the training project say."""

from typing import get_args

import numpy as np
import pytest

from cifar_onnx import resizing


@pytest.mark.parametrize("mode", get_args(resizing.ResizeMode))
@pytest.mark.parametrize("size", [1, 8, 30, 64])
def test_bands_and_parts_are_the_whole_matrix_product(
    mode: resizing.ResizeMode, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    monkeypatch.setattr(resizing, "_PART", 1000)
    for height, width in ((1, 1), (7, 300), (300, 7), (64, 65), (201, 402), (3, 1001)):
        picture = generator.integers(256, size=(height, width, 3), dtype=np.uint8)
        rows, columns = resizing.resize_weights(height, width, size, mode)
        wide = np.floor(np.einsum("hwc,sw->hsc", picture, columns, dtype=np.float64) + 0.5)
        square = np.floor(np.einsum("hsc,rh->rsc", wide, rows, dtype=np.float64) + 0.5)
        square[~np.outer(rows.any(axis=1), columns.any(axis=1))] = resizing.PAD_VALUE
        assert np.array_equal(resizing.resize(picture, size, mode), square), (height, width)


@pytest.mark.parametrize("shape", [(1, 100), (100, 1)])
def test_of_a_strip_one_line_is_left_in_the_grey(shape: tuple[int, int]) -> None:
    square = resizing.resize(np.zeros((*shape, 3), np.uint8), 8, "pad")
    assert (square == 0).sum() == 8 * 3
    assert (square == resizing.PAD_VALUE).sum() == 7 * 8 * 3
