"""The tutorial's net: three convolutional blocks, a dense layer and dropout, as Keras tutorials on CIFAR-10 have it."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from cifar_onnx.errors import InputError

_SIDE = 4  # of the map that the dense layer sees: 32x32 pixels after three halvings


class CNN(nn.Module):
    """Blocks of convolution 3x3 'same', ReLU and 2x2 max pooling, then a dense layer with dropout and the logits.

    With the defaults, 356,810 parameters. Weights start he-uniform (He et al. 2015,
    https://arxiv.org/abs/1502.01852), the last layer glorot-uniform as in Keras, biases at zero. Pictures of another
    size than 32x32 are averaged to the same 4x4 map before the dense layer.

    Args:
        num_classes: `K`.
        widths: channels of each block.
        hidden: units of the dense layer.
        dropout: probability of dropping each of them in training.
    """

    def __init__(
        self,
        num_classes: int = 10,
        widths: tuple[int, ...] = (32, 64, 128),
        hidden: int = 128,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        channels = (3, *widths)
        self.blocks = nn.Sequential(
            *(
                # Pooling before ReLU is the same function, since ReLU is monotone, on a quarter of the values.
                nn.Sequential(nn.Conv2d(i, o, 3, padding="same"), nn.MaxPool2d(2), nn.ReLU())
                for i, o in pairwise(channels)
            )
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels[-1] * _SIDE * _SIDE, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's global generator."""
        layers = [module for module in self.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        for layer in layers:
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        nn.init.xavier_uniform_(layers[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pixels `(B, 3, S, S)` to logits `(B, K)`."""
        if min(x.shape[2:]) < 2 ** len(self.blocks):
            raise InputError(
                f"CNN with {len(self.blocks)} blocks needs pictures of at least {2 ** len(self.blocks)} pixels, "
                f"not {min(x.shape[2:])}"
            )
        x = self.blocks(x)  # (B, widths[-1], S / 2 ** len(widths), the same)
        if x.shape[2:] != (_SIDE, _SIDE):
            x = adaptive_avg_pool2d(x, _SIDE)
        logits: Tensor = self.head(x)
        return logits
