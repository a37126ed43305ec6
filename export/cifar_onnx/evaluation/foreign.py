"""An ONNX classifier that carries no contract: what its pictures must look like is said by the user.

Notation: `B` batch, `K` classes, `S` side of the square that the net sees.
"""

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar_onnx.errors import InputError
from cifar_onnx.images import Pixels
from cifar_onnx.prediction import Scores
from cifar_onnx.session import Providers, run, session

_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_TRIED = 4  # pictures of noise


class ForeignClassifier:
    """A classifier from an ONNX file with one image input, float or uint8, channels first or last.

    `guard` is not asked: it would refuse honest files, as PyTorch writes them, with their weights in another file.
    The first output must be `(B, K)`, or just one of the others.
    Floating-point inputs are given `(x / 255 - mean) / std`, uint8 the pixels. Where all outputs are probabilities
    their logarithm is taken for the logits, which is the same to softmax.

    Args:
        model: path of the file.
        classes: names, in the order of the outputs.
        mean: of each channel, R, G, B, pixels scaled to 0..1; by default 0.
        std: likewise; by default 1.
        size: `S`; by default what the file says.
        providers: as Classifier's.
        threads: as Classifier's.

    Attributes:
        providers: as Classifier's.

    Raises:
        InputError: the file is no such classifier, or does not fit what was said of it.
    """

    def __init__(
        self,
        model: str | PathLike[str],
        classes: Sequence[str],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | None = None,
        *,
        providers: Providers = None,
        threads: int | None = None,
    ) -> None:
        self.name = str(model)
        self.classes = tuple(classes)
        if len(self.classes) < 2:
            raise InputError(f"--classes names {len(self.classes)}: a classifier has at least two")
        given = mean or std
        mean, std = mean or (0.0, 0.0, 0.0), std or (1.0, 1.0, 1.0)
        if len(mean) != 3 or len(std) != 3 or not np.isfinite([*mean, *std]).all() or min(std) <= 0:
            raise InputError("--mean and --std are three numbers each, of R, G and B, those of --std above 0")
        if len(set(self.classes)) < len(self.classes):
            raise InputError(f"--classes names one class twice: {', '.join(self.classes)}")
        self._mean, self._std = (255 * np.array(numbers, np.float32) for numbers in (mean, std))
        self._session = session(model, str(model), providers, threads)
        self.providers: list[str] = self._session.get_providers()
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            takes = "; ".join(f"{each.name} {each.shape}" for each in inputs)
            raise InputError(f"{model} takes {takes}: a classifier takes one batch of pictures of three channels")
        self._input = inputs[0]
        if self._input.type not in _TYPES:
            raise InputError(f"{model} takes {self._input.type}: a classifier takes one of {', '.join(_TYPES)}")
        self._type = _TYPES[self._input.type]
        if given and self._type == np.uint8:
            raise InputError(
                f"{model} takes pixels as they are (uint8): --mean and --std are for floating-point inputs"
            )
        self._first = shape[1] == 3
        sides = shape[2:] if self._first else shape[1:3]
        known = sides[0] if isinstance(sides[0], int) and sides[0] == sides[1] else None
        if known is None and all(isinstance(side, int) for side in sides):
            raise InputError(f"{model} takes pictures of {sides[1]} x {sides[0]} pixels: only squares can be evaluated")
        if size is None and known is None:
            raise InputError(f"{model} does not say how large its pictures are: give --size")
        if size and known and size != known:
            raise InputError(f"{model} takes pictures of {known} x {known} pixels: --size {size} does not fit")
        self.size = int(size or known or 0)
        self._at_once = shape[0] if isinstance(shape[0], int) else None
        noise = np.random.default_rng(0).integers(256, size=(_TRIED, self.size, self.size, 3), dtype=np.uint8)
        scores = self._scores(noise)  # what does not fit shows before the work
        # Decided once: rounded probabilities may miss a sum of 1, and the logits of one picture may hit it.
        self._probable = bool((scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=0.02))

    def logits(self, batch: Pixels) -> Scores:
        """Logits `(B, K)` of uint8 `(B, S, S, 3)`."""
        scores = self._scores(batch)
        return np.log(np.maximum(scores, np.finfo(np.float32).tiny)) if self._probable else scores

    def _scores(self, batch: Pixels) -> Scores:
        """What the file gives."""
        x: NDArray[Any] = batch
        if self._type != np.uint8:
            x = ((batch - self._mean) / self._std).astype(self._type)
        if self._first:
            x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        step = self._at_once or len(x)
        rows = [self._run(x[start : start + step], step) for start in range(0, len(x), step)]
        return np.concatenate(rows)[: len(x)]

    def _run(self, x: NDArray[Any], count: int) -> Scores:
        if len(x) < count:  # a file made for a fixed batch
            x = np.concatenate([x, np.repeat(x[:1], count - len(x), axis=0)])
        outputs = run(self._session, self.name, None, {self._input.name: x})
        shapes = [each.shape if isinstance(each, np.ndarray) else "no tensor" for each in outputs]
        wanted = (len(x), len(self.classes))
        if shapes[0] != wanted and shapes.count(wanted) != 1:
            given = zip(self._session.get_outputs(), shapes, strict=True)
            raise InputError(
                f"{self.name} gives {', '.join(f'{output.name} {shape}' for output, shape in given)} for {len(x)} "
                f"pictures: --classes names {len(self.classes)}, so the first, or just one, must be of shape {wanted}"
            )
        return np.asarray(outputs[shapes.index(wanted)], np.float32)
