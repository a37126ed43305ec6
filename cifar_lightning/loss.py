"""Losses, as modules of logits `(B, K)` and labels: class numbers `(B,)`, or shares of the classes `(B, K)`."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, nll_loss

from cifar_onnx.errors import InputError

_BETA = 0.9999  # of the effective number of samples: what Cui et al. take for long-tailed CIFAR
Rule = Literal["inverse", "effective"]


class CrossEntropy(nn.CrossEntropyLoss):
    """torch's cross-entropy, with class weights that a YAML file can hold, or that the training set decides.

    An image counts as much as its class weighs, and the mean is over these weights. So does torch without
    `label_smoothing`; with it, torch weighs the share smoothed onto each class by that class's weight: where weights
    differ a hundredfold, only the smoothing is learnt.

    Args:
        label_smoothing: share of the target spread over all classes, 0 to 1.
        class_weights: one for each class, in the order of the class names; or a rule, which gives weights of mean 1:
            `inverse` to the number of its images, or to their `effective` number `(1 - b^n) / (1 - b)` with
            `b = 0.9999` (Cui et al. 2019, https://arxiv.org/abs/1901.05555). They count in training only: validation
            has pictures in the order of their classes, and in a batch of one class weights cancel out.
    """

    weight: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, class_weights: list[float] | Rule | None = None) -> None:
        super().__init__(label_smoothing=label_smoothing)
        self.rule = class_weights if isinstance(class_weights, str) else None
        self.counted = False  # the images of each class, which the rule decides by
        if isinstance(class_weights, list):
            if not all(weight >= 0 for weight in class_weights) or not any(class_weights):
                raise InputError(f"class_weights are {class_weights}: none may be below 0, and not all may be 0")
            # A setting, not something learnt: a checkpoint must not overrule what was asked for.
            self.register_buffer("weight", torch.tensor(class_weights), persistent=False)

    def reserve(self, classes: int) -> None:
        """Make room for the weights of the rule, if there is one: a copy of the loss, as in an average, has it, too."""
        if not self.counted:
            self.set_counts(torch.ones(classes))
            self.counted = False

    def set_counts(self, counts: Tensor) -> None:
        """Let the rule, if there is one, decide by the numbers of training images of each class, `(K,)`."""
        if self.rule is None:
            return
        self.counted = True
        number = counts.cpu().clamp(min=1).double()  # which not every device knows (MPS)
        weights = 1 / number if self.rule == "inverse" else (1 - _BETA) / (1 - _BETA**number)
        self.register_buffer("weight", (weights / weights.mean()).float().to(counts.device), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss."""
        weights = self._weights(labels)
        if weights is None:
            return cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        losses = cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction="none")
        return _mean(losses, weights)

    def _weights(self, labels: Tensor) -> Tensor | None:
        """Of images, `(B,)`, where they differ."""
        if self.weight is None or not self.training:
            return None
        if labels.is_floating_point():
            return labels @ self.weight.to(labels.dtype)
        return self.weight[labels]


class Focal(CrossEntropy):
    """Cross-entropy in which images that are told already count little: times `(1 - p)^gamma`.

    Lin et al. 2017, https://arxiv.org/abs/1708.02002, with softmax in the place of their sigmoids.

    Args:
        gamma: 0 is cross-entropy.
        class_weights: as of `CrossEntropy`.
    """

    def __init__(self, gamma: float = 2.0, class_weights: list[float] | Rule | None = None) -> None:
        super().__init__(0.0, class_weights)
        if gamma < 0:
            raise InputError(f"model.loss.gamma is {gamma:g}: it must not be below 0")
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss."""
        logs = logits.log_softmax(1)
        missed = (1 - logs.exp()).clamp(min=torch.finfo(logs.dtype).tiny)  # at 0, a root has an infinite slope
        focal = missed**self.gamma * logs  # (B, K)
        soft = labels.is_floating_point()
        losses = -(labels * focal).sum(1) if soft else nll_loss(focal, labels, reduction="none")
        weights = self._weights(labels)
        return losses.mean() if weights is None else _mean(losses, weights)


def _mean(losses: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean; 0 of images that count nothing."""
    return (losses * weights).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
