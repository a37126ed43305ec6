"""A net captured by torch.onnx, or one sentence that says why it cannot be.

Notation: `B` batch, `K` classes, `S` side of the square that the net sees.
"""

from copy import deepcopy

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.onnx import ONNXProgram
from torch.onnx.errors import OnnxExporterError

from cifar_lightning import error_source
from cifar_lightning.export.silence import silent
from cifar_lightning.familiarity import Watched
from cifar_onnx import InputError

OPSET = 18  # old enough for every onnxruntime since 1.18, which cifar-onnx asks for
_ADVICE = {  # by what torch says
    "data-dependent": "no step may depend on values: use torch.where, not if, and tensors, not numbers",
    "static shape": "it must take any number of pictures: x.shape[0] instead of a number or of a loop over them",
    "No ONNX function": "ONNX has no such operation: take others",
}
_OTHERS = "its forward must consist of operations of torch alone"


def capture(model: nn.Module, size: int, name: str) -> ONNXProgram:
    """The net as a graph from `pixels` to `logits` and `familiarity`.

    Args:
        model: pixels 0..255 `(B, 3, S, S)` to logits `(B, K)` and familiarity `(B,)`, in evaluation mode.
        size: `S`.
        name: of the net, for messages.

    Raises:
        InputError: torch cannot write it down.
    """
    # Nets are trained channels last, and the graph would spell out how values lie in memory.
    model = deepcopy(model).to(memory_format=torch.contiguous_format)
    for part in model.modules():
        if isinstance(part, Watched):
            part.keep_watching()
    try:
        # Other attention kernels lay their output out unlike what the exporter puts in their place.
        with sdpa_kernel(SDPBackend.MATH), silent():
            program = torch.onnx.export(
                model,
                # Two images, because torch takes a batch of one for a constant.
                (torch.zeros(2, 3, size, size),),
                dynamo=True,
                opset_version=OPSET,
                input_names=["pixels"],
                output_names=["logits", "familiarity"],
                dynamic_shapes=({0: "batch"},),
                verbose=False,
            )
    except OnnxExporterError as error:
        raise InputError(f"model.net ({name}) cannot be exported: {_reason(error)}") from error
    assert program is not None
    return program


def _reason(error: BaseException) -> str:
    """The first telling line of what torch says, the user's own line that it is of, and what would be right."""
    error = error_source.innermost(error)
    said = str(error)
    first, *rest = [line.strip() for line in said.splitlines() if line.strip()] or [type(error).__name__]
    if first.endswith(":") and rest:
        first += f" {rest[0].removeprefix('- ')}"
    advice = next((words for sign, words in _ADVICE.items() if sign in said), _OTHERS)
    return f"torch says: {first.rstrip('.')}{error_source.line(error)}: {advice}"
