"""Golden samples run again: whether a model gives on this machine the answers that it must, and where it does not."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cifar_onnx import images, resizing
from cifar_onnx.contract import Contract, Golden
from cifar_onnx.errors import ImageError
from cifar_onnx.images import Pixels
from cifar_onnx.prediction import Scores

_TOLERANCE = 1e-3  # of probabilities, and of the familiarity as a share of it: half precision on a GPU needs it
_COARSE = {"fp16": 1e-2, "int8": 2e-2}  # in files of lower precision, whose sums each runtime rounds in its own way
_MOST = 1_000_000  # pixels of a sample: those of export have 4,096, and the graph takes 27 bytes for each

Outputs = tuple[Scores, Scores, Scores]
Run = Callable[[Pixels], Outputs]


@dataclass(frozen=True)
class Replay:
    """A golden sample run again on this machine.

    Attributes:
        golden: the sample.
        label: what it gets here.
        difference: the largest difference between its probabilities and those in the file.
        stage: where this machine differs: decode, resize, net, probabilities or familiarity; empty where it does not.
    """

    golden: Golden
    label: str
    difference: float
    stage: str

    @property
    def ok(self) -> bool:
        """Whether probabilities, label and familiarity are those in the file, as nearly as its precision allows."""
        return not self.stage


def replay(contract: Contract, run: Run, golden: Golden) -> Replay:
    """Run a golden sample, from its encoded bytes, resized by the graph and by this package, and compare.

    Args:
        contract: of the model.
        run: the model, as `Classifier.run`.
        golden: the sample.
    """
    try:
        pixels = images.decode(golden.encoded, _MOST)
    except ImageError:
        return Replay(golden, "", 1, "decode")
    square = resizing.resize(pixels, contract.size, contract.resize)
    by_graph, by_package = run(pixels[None]), run(square[None])
    stage, own = (_stage(contract, golden, outputs) for outputs in (by_graph, by_package))
    if (stage or own) and images.fingerprint(pixels) != golden.fingerprint:
        stage = "decode"
    elif bool(stage) != bool(own):
        stage = "resize"
    difference = max(float(np.abs(outputs[1][0] - golden.probabilities).max()) for outputs in (by_graph, by_package))
    return Replay(golden, contract.classes[int(by_package[1][0].argmax())], difference, stage)


def _stage(contract: Contract, golden: Golden, outputs: Outputs) -> str:
    """Which of the outputs, of a batch of one, differs from that in the file: net (the logits) or one behind it."""
    logits, probabilities, familiarity = (each[0] for each in outputs)
    tolerance = _COARSE.get(str(contract.info.get("precision")), _TOLERANCE)
    stored = dict(zip(contract.classes, golden.probabilities, strict=True))
    label = contract.classes[int(probabilities.argmax())]
    # Of two labels that are as probable as that, either will do.
    right = abs(stored[label] - stored.get(golden.label, math.inf)) <= tolerance
    if not (right and float(np.abs(probabilities - golden.probabilities).max()) <= tolerance):
        # Logits of a good net may be of any size: how far they are off is felt in the probabilities.
        scale = max(1.0, float(np.abs(golden.logits).max()))
        same = float(np.abs(logits - golden.logits).max()) <= tolerance * scale
        return "probabilities" if same else "net"
    known = golden.familiarity
    if known is None or abs(float(familiarity) - known) <= tolerance * max(1.0, abs(known)):
        return ""
    return "familiarity"
