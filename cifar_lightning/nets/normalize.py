"""Normalisation of uint8 pixels, as a layer: checkpoints and ONNX files carry it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Normalise by the channel means and standard deviations of the training images.

    `x -> (x / 255 - mean) / std`, computed as `(x - 255 mean) / (255 std)`.

    Until `set_statistics` is called the mean is 0 and the standard deviation 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("std", torch.ones(3))

    def set_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take channel means and standard deviations of pixels scaled to 0..1, in RGB order."""
        self.mean.copy_(torch.tensor(mean))
        # A channel that never changes carries nothing: one grey level keeps it finite.
        self.std.copy_(torch.tensor(std).clamp(min=1 / 255))

    def forward(self, x: Tensor) -> Tensor:
        """Pixels 0..255, uint8 or float `(B, 3, H, W)`, to normalised ones of the same shape in the net's precision."""
        mean, std = (255 * statistic.view(1, 3, 1, 1) for statistic in (self.mean, self.std))
        return (x.to(mean.dtype) - mean) / std
