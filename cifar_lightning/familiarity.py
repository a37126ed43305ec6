"""Out-of-distribution scores: how familiar a picture is to a net, low for those unlike its training images.

Notation: `B` batch, `N` pictures, `K` classes, `D` channels that are looked at, `S` side of the pictures.
"""

from abc import ABC, abstractmethod
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cifar_onnx.evaluation.outcome import in_parts
from cifar_onnx.images import Pictures, Pixels
from cifar_onnx.prediction import Scores

LAYERS, CHANNELS = 8, 64  # of a net are looked at, at most: convolutions, and channels of each
_PARTS = 32  # principal directions of the features
_FLOOR = 0.01  # of a channel's usual contrast: what is less, in a plain picture, counts as this
_VARIANCE = 0.01  # at least, of the directions that are not told apart; that of a channel is about 1
_SILENT = 1e-3  # of the usual contrast of all channels: what has less, shows but rounding
_LEAST = 0.05  # of that contrast, and of its logarithm: how far such a channel must come to count
_STEADY = 0.01  # of the logarithm: a channel that varies less from picture to picture would show rounding, too
_FEWEST = 19  # pictures that a distribution of features can be learnt from: as many as its threshold needs


class Familiarity(nn.Module, ABC):
    """A score, by its name."""

    name: str

    @abstractmethod
    def forward(self, logits: Tensor, contrasts: Tensor) -> Tensor:
        """That `(B,)` of logits `(B, K)` and the contrasts `(B, D)` that `Watched` sees."""


class Energy(Familiarity):
    """Logarithm of the sum of exponentials (Liu et al. 2020, https://arxiv.org/abs/2010.03759)."""

    name = "energy"

    def forward(self, logits: Tensor, contrasts: Tensor) -> Tensor:
        return logits.logsumexp(1)


class MaxLogit(Familiarity):
    """The largest logit (Hendrycks et al. 2022, https://arxiv.org/abs/1911.11132)."""

    name = "max_logit"

    def forward(self, logits: Tensor, contrasts: Tensor) -> Tensor:
        return logits.amax(1)


class Contrasts(Familiarity):
    """Log-likelihood of how much each channel varies over the picture, but for constants.

    The logarithms of the standard deviations are taken for Gaussian, in `_PARTS` principal directions and, alike in
    all others, the rest (Tipping and Bishop 1999): a Mahalanobis distance over many layers, after Lee et al. 2018,
    https://arxiv.org/abs/1807.03888. It looks at how much channels vary, not at their means: by that, noise and plain
    colours stand out at once.

    Args:
        contrasts: `(N, D)`, those of pictures like the ones that were learnt from.
    """

    name = "contrasts"
    floor: Tensor
    mean: Tensor
    scale: Tensor
    directions: Tensor
    weights: Tensor
    rest: Tensor

    def __init__(self, contrasts: Scores) -> None:
        super().__init__()
        x = contrasts.astype(np.float64)
        # Grey pictures leave colours silent, and so does a unit that is dead.
        silent = x.mean(axis=0) < _SILENT * x.mean()
        floor = np.where(silent, _LEAST * x.mean(), _FLOOR * x.mean(axis=0)) + 1e-6
        x = np.log(x + floor)
        mean, scale = x.mean(axis=0), np.where(silent, _LEAST, np.maximum(x.std(axis=0), _STEADY)) + 1e-3
        x = (x - mean) / scale
        variances, directions = np.linalg.eigh(x.T @ x / len(x))  # the smallest first
        first = x.shape[1] - min(_PARTS, x.shape[1] // 2, len(x) // 4)
        rest = max(variances[:first].sum() / first, _VARIANCE)
        weights = 1 / np.maximum(variances[first:], rest) - 1 / rest  # beside that of the rest
        found = {
            "floor": floor,
            "mean": mean,
            "scale": scale,
            "directions": directions[:, first:],
            "weights": weights / x.shape[1],
            "rest": 1 / rest / x.shape[1],
        }
        for name, value in found.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32))

    def forward(self, logits: Tensor, contrasts: Tensor) -> Tensor:
        x = (torch.log(contrasts + self.floor) - self.mean) / self.scale
        parts = x @ self.directions
        return -(parts * parts * self.weights).sum(1) - (x * x).sum(1) * self.rest


class Watched(nn.Module):
    """A net that is watched: logits `(B, K)` and contrasts `(B, D)` of what its convolutions are given.

    What they give is as telling, but larger where pooling follows: looking at it would take the tutorial's net as long
    again. A convolution that is not given a map for each picture, but one for each of its parts, is not looked at.

    Args:
        model: pixels 0..255 `(B, 3, S, S)` to logits `(B, K)`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        places = np.unique(np.linspace(0, len(layers) - 1, min(LAYERS, len(layers))).round().astype(int))
        self.layers = [layers[place] for place in places]
        self._seen: dict[int, Tensor] = {}
        self._lasting = False

    def keep_watching(self) -> None:
        """Watch from now on, as torch.export asks for, which refuses to begin and end within a run of the net."""
        self._watch()
        self._lasting = True

    def _watch(self) -> list[RemovableHandle]:
        return [
            layer.register_forward_pre_hook(partial(self._look, place), with_kwargs=True)
            for place, layer in enumerate(self.layers)
        ]

    def _look(self, place: int, _: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        given = (*inputs, *named.values())[0]
        if place not in self._seen and given.ndim == 4:  # a net of several views looks again
            self._seen[place] = given[:, :CHANNELS].std((2, 3), correction=0)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        self._seen.clear()
        hooks = [] if self._lasting else self._watch()
        try:
            logits: Tensor = self.model(pixels)
        finally:
            for hook in hooks:
                hook.remove()
        seen = [each for _, each in sorted(self._seen.items()) if each.shape[0] == logits.shape[0]]
        self._seen.clear()
        return logits, torch.cat([logits[:, :0], *seen], 1)


class Scored(nn.Module):
    """Logits `(B, K)` and familiarity `(B,)` of pixels 0..255 `(B, 3, S, S)`.

    Args:
        model: pixels to logits.
        score: the familiarity.
    """

    def __init__(self, model: nn.Module, score: Familiarity) -> None:
        super().__init__()
        self.model = Watched(model) if isinstance(score, Contrasts) else model
        self.score = score

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        found = self.model(pixels)
        logits, contrasts = found if isinstance(found, tuple) else (found, found[:, :0])
        return logits, self.score(logits, contrasts)


def outputs_of(net: nn.Module, pictures: Pictures, title: str | None = None) -> tuple[Scores, Scores]:
    """Both outputs of a net for pictures, run in parts on the device where it lies.

    Args:
        net: `Watched` or `Scored`, in evaluation mode.
        pictures: uint8 `(N, S, S, 3)`.
        title: shows progress under it.

    Returns:
        float32 logits `(N, K)`, and contrasts `(N, D)` or familiarity `(N,)`.
    """
    device = next(net.parameters()).device

    @torch.inference_mode()
    def run(part: Pixels) -> list[Scores]:
        batch = torch.from_numpy(np.ascontiguousarray(part)).to(device).permute(0, 3, 1, 2)
        return [each.float().cpu().numpy() for each in net(batch)]

    logits, others = in_parts(run, pictures, title)
    return logits, others


def candidates(contrasts: Scores) -> list[Familiarity]:
    """The scores that a net can have, with the contrasts `(N, D)` of pictures that it knows."""
    known = len(contrasts) >= _FEWEST and contrasts.shape[1] > 1
    return [Energy(), MaxLogit(), *([Contrasts(contrasts)] if known else [])]


def values(score: Familiarity, logits: Scores, contrasts: Scores) -> Scores:
    """Familiarities `(N,)` of logits `(N, K)` and contrasts `(N, D)`."""
    # In half precision, strange pictures would be beyond the largest number.
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        found: Scores = score(torch.from_numpy(logits), torch.from_numpy(contrasts)).numpy()
    return found


def held_out(score: Familiarity, logits: Scores, contrasts: Scores) -> Scores:
    """`values` of the pictures that the score was learnt from: each fifth by a score learnt from the others."""
    if not isinstance(score, Contrasts):
        return values(score, logits, contrasts)
    folds = np.arange(len(contrasts)) % 5
    found = np.empty(len(contrasts), np.float32)
    for fold in range(5):
        own = folds == fold
        found[own] = values(Contrasts(contrasts[~own]), logits[own], contrasts[own])
    return found
