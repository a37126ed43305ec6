"""Losses, as modules of logits `(B, K)` and labels `(B,)`."""

import torch
from torch import nn


class CrossEntropy(nn.CrossEntropyLoss):
    """torch's cross-entropy, with class weights that a YAML file can hold.

    Args:
        label_smoothing: share of the target spread over all classes, 0 to 1.
        class_weights: one for each class, in the order of the class names.
    """

    def __init__(self, label_smoothing: float = 0.0, class_weights: list[float] | None = None) -> None:
        super().__init__(label_smoothing=label_smoothing)
        if class_weights is not None:
            # A setting, not something learnt: a checkpoint must not overrule what was asked for.
            self.register_buffer("weight", torch.tensor(class_weights), persistent=False)
