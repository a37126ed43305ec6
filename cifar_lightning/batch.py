"""A batch: what data hands to the model in each step.

Notation: `B` images, `H W` size, `K` classes.
"""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """What one step sees.

    Attributes:
        images: uint8 `(B, 3, H, W)`, channels last in memory.
        labels: int64 `(B,)`; in training maybe shares of the classes `(B, K)`.
        indices: int64 `(B,)`, the images' places in their set.
        seed: what the augmentation of this batch is drawn from, and, one higher, its dropout.
        weight: what its mean loss counts for, when the gradients of all processes are averaged.
        epoch: in which it is seen, counted from 0.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    seed: int
    weight: float = 1.0
    epoch: int = 0


class GivesBatches:
    """Marks `ImageData` for the LightningModule, which asks it for such batches, and does not import it."""
