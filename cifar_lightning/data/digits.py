"""Handwritten digits that come with scikit-learn: real images that need no network."""

import numpy as np

from cifar_lightning.data.base import ImageData
from cifar_lightning.data.images import Images, Part
from cifar_onnx.resizing import resize


class Digits(ImageData):
    """1,797 scans of 8x8 grey pixels, drawn as 32x32 RGB.

    Test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998,
    https://doi.org/10.24432/C50P49), as bundled with scikit-learn.
    """

    @property
    def classes(self) -> list[str]:
        return [str(digit) for digit in range(10)]

    @property
    def given(self) -> frozenset[Part]:
        return frozenset({"train"})

    def load(self, part: Part) -> Images:
        from sklearn.datasets import load_digits  # which takes time to import

        scans, labels = load_digits(return_X_y=True)  # grey levels 0..16
        grey = np.rint(scans.reshape(-1, 3, 8, 8) * (255 / 16)).astype(np.uint8)
        threes = np.stack([resize(three, 32) for three in np.moveaxis(grey, 1, -1)])  # each a channel of one picture
        pixels = np.repeat(np.moveaxis(threes, -1, 1).reshape(-1, 32, 32, 1), 3, axis=3)
        names = [str(index) for index in range(len(pixels))]
        return Images(pixels, labels.astype(np.int64), names)
