"""Golden samples run again: whether a model gives on this machine the answers that it must, and where it does not."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cifar_onnx import images
from cifar_onnx.contract import Contract, Golden
from cifar_onnx.errors import ImageError
from cifar_onnx.images import Pixels
from cifar_onnx.prediction import Scores

_TOLERANCE = 1e-3  # of probabilities
_MOST = 1_000_000  # pixels of a sample: those of export have 4,096, and the graph takes 27 bytes for each

Run = Callable[[Pixels], tuple[Scores, Scores, Scores]]


@dataclass(frozen=True)
class Replay:
    """A golden sample run again on this machine.

    Attributes:
        golden: the sample.
        label: what it gets here.
        difference: the largest of its probabilities from those in the file.
        stage: where this machine differs: decode, resize, net or probabilities; empty where it does not.
    """

    golden: Golden
    label: str
    difference: float
    stage: str

    @property
    def ok(self) -> bool:
        """Whether the label is the same and the probabilities are within 1e-3, which half precision on a GPU needs."""
        return not self.stage


def replay(contract: Contract, run: Run, golden: Golden) -> Replay:
    """Run a golden sample, from its encoded bytes, and compare.

    Args:
        contract: of the model.
        run: the model, as `Classifier.run`.
        golden: the sample.
    """
    try:
        pixels = images.decode(golden.encoded, _MOST)
    except ImageError:
        return Replay(golden, "", 1, "decode")
    logits, probabilities, _ = run(pixels[None])
    label = contract.classes[int(probabilities[0].argmax())]
    difference = float(np.abs(probabilities[0] - golden.probabilities).max())
    if label == golden.label and difference <= _TOLERANCE:
        return Replay(golden, label, difference, "")
    if images.fingerprint(pixels) != golden.fingerprint:
        return Replay(golden, label, difference, "decode")
    square = images.resize(pixels, contract.size, contract.resize)
    if float(np.abs(run(square[None])[1][0] - golden.probabilities).max()) <= _TOLERANCE:
        return Replay(golden, label, difference, "resize")
    # Logits of a good net may be of any size: how far they are off is felt in the probabilities.
    scale = max(1.0, float(np.abs(golden.logits).max()))
    same = float(np.abs(logits[0] - golden.logits).max()) <= _TOLERANCE * scale
    return Replay(golden, label, difference, "probabilities" if same else "net")
