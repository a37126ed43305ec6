"""The ONNX graph of a classifier: resize, normalisation, net, softmax and, where the net allows it, activation maps.

Notation: `B` batch, `H W` size of the pictures, `S` side of the square that the net sees, `K` classes.
"""

from copy import deepcopy
from importlib.metadata import version

import onnx
from onnx import ModelProto, TensorProto, helper
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import nn

from cifar_lightning.export.cam import with_cam
from cifar_lightning.export.capture import OPSET, capture
from cifar_lightning.export.nodes import Nodes, Value
from cifar_onnx import InputError, contract, resizing

_IR = 8  # as old as the opset


def complete(net: ModelProto, size: int, mode: resizing.ResizeMode, temperature: float) -> ModelProto:
    """The whole graph, from uint8 pictures `(B, H, W, 3)`.

    Its outputs are `logits` and `probabilities` `(B, K)`, `familiarity` `(B,)` and maybe `cam`.

    Args:
        net: what `core` gives, or a smaller variant of it.
        size: `S`.
        mode: how a picture becomes a square.
        temperature: what logits are divided by before softmax.
    """
    return with_cam(with_softmax(with_resize(net, size, mode), temperature))


def core(model: nn.Module, size: int, name: str = "the net") -> ModelProto:
    """The net as torch exports it, without source paths.

    Args:
        model: pixels 0..255 `(B, 3, S, S)` to logits `(B, K)` and familiarity `(B,)`, in evaluation mode.
        size: `S`.
        name: of the net, for messages.

    Raises:
        InputError: torch cannot export it, or only with what `OPSET` does not have, or it is too large.
    """
    weights = 4 * sum(each.numel() for each in model.parameters())
    if weights > (most := contract.MAX_BYTES):
        raise InputError(
            f"model.net ({name}) has {weights / 1e9:.1f} GB of weights, and one ONNX file holds {most / 1e9:.1f} GB: "
            "use a smaller net"
        )
    program = capture(model, size, name)
    ClearMetadataAndDocStringPass()(program.model)
    net = program.model_proto
    try:
        onnx.checker.check_model(net, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        # The exporter leaves what it has no older form of, and types that an operation cannot have.
        reason = str(error).strip().partition("\n")[0]
        autocast = "leave torch.autocast to --trainer.precision"
        advice = autocast if "bfloat16" in reason else f"use operations of opset {OPSET}"
        raise InputError(f"model.net ({name}) cannot be exported: onnx says: {reason}: {advice}") from error
    return net


def with_resize(net: ModelProto, size: int, mode: resizing.ResizeMode) -> ModelProto:
    """Put before the net what `cifar_onnx.resizing.resize` does, from uint8 `(B, H, W, 3)`.

    ONNX `Resize` with antialiasing is ignored by OpenVINO and refused on WebGPU; two matrix products run everywhere.
    What skips them for pictures of the net's size does not: with an `If` or a `Loop` OpenVINO 2026.4 answers garbage.
    Where a runtime knows height and width before it runs, all but the products becomes constant (`cifar_onnx.session`).
    """
    op = Nodes("resize")
    x = op.Transpose(op.Cast("image", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])  # (B, 3, H, W)
    height, width = _length(op, x, 2), _length(op, x, 3)
    rows, tall = _axis(op, height, width, size, mode)
    columns, wide = _axis(op, width, height, size, mode)
    x = op.Floor(op.Add(op.MatMul(x, op.Transpose(columns, perm=[1, 0])), 0.5))  # (B, 3, H, S)
    x = op.Floor(op.Add(op.MatMul(rows, x), 0.5))  # (B, 3, S, S)
    x = op.Min(x, float(resizing.WHITE))
    if mode == "pad":
        padding = op.Sub(1.0, op.Mul(tall, op.Transpose(wide, perm=[1, 0])))
        op.Add(x, op.Mul(padding, float(resizing.PAD_VALUE)))
    op.nodes[-1].output[0] = "pixels"
    graph = helper.make_graph(
        [*op.nodes, *net.graph.node],
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])],
        net.graph.output,
        [*op.constants.values(), *net.graph.initializer],
        value_info=[*net.graph.input, *net.graph.value_info],
    )
    return helper.make_model(
        graph,
        ir_version=_IR,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="cifar-lightning",
        producer_version=version("cifar-lightning"),
    )


def _length(op: Nodes, x: str, axis: int) -> str:
    """Length of axis 2 or 3, of a line summed over the batch: onnxruntime takes no shape for known that has a `B`."""
    line = op.ReduceSum(op.Gather(x, 0, axis=5 - axis), [0], keepdims=0)  # (3, length)
    return op.Gather(op.Shape(line), 1)


def _axis(op: Nodes, count: str, across: str, size: int, mode: resizing.ResizeMode) -> tuple[str, Value]:
    """Weights `(S, count)` of one axis, and which output pixels are no padding: `_axis` of `cifar_onnx.resizing`."""
    length, other = op.Cast(count, to=TensorProto.FLOAT), op.Cast(across, to=TensorProto.FLOAT)
    box = op.Min(length, other) if mode == "crop" else length
    side = float(size)
    extent: Value = side
    if mode == "pad":
        extent = op.Max(1.0, op.Floor(op.Add(op.Div(op.Mul(length, side), op.Max(length, other)), 0.5)))
    margin = op.Floor(op.Div(op.Sub(side, extent), 2.0))
    at = op.Sub(op.Add(op.Mul(2.0, op.Range(0.0, side, 1.0)), 1.0), op.Mul(2.0, margin))
    at = op.Unsqueeze(at, [1])  # (S, 1)
    outside, reach = op.Sub(length, box), op.Mul(2.0, op.Max(box, extent))

    counted = op.Cast(op.Range(0, count, 1), to=TensorProto.FLOAT)  # (count,), as onnx knows lengths
    place = op.Sub(op.Add(op.Mul(2.0, counted), 1.0), outside)
    distance = op.Abs(op.Sub(op.Mul(place, extent), op.Mul(at, box)))  # (S, count)
    triangle = op.Relu(op.Sub(1.0, op.Div(distance, reach)))
    steps = op.Floor(op.Add(op.Mul(triangle, float(resizing.TRIANGLE_STEPS)), 0.5))
    inside: Value = 1.0
    if mode == "pad":
        inside = op.And(op.Greater(at, 0.0), op.Less(at, op.Mul(2.0, extent)))
        inside = op.Cast(inside, to=TensorProto.FLOAT)  # (S, 1)
        steps = op.Mul(steps, inside)
    total = op.Max(op.ReduceSum(steps, [1], keepdims=1), 1.0)
    # A quotient to the nearest whole number, by its remainder: some runtimes multiply by the inverse and may be off.
    product = op.Mul(steps, float(resizing.WEIGHT_STEPS))
    below = op.Floor(op.Div(product, total))
    rest = op.Sub(product, op.Mul(below, total))
    one_more = op.Cast(op.GreaterOrEqual(op.Mul(2.0, rest), total), to=TensorProto.FLOAT)
    return op.Div(op.Add(below, one_more), float(resizing.WEIGHT_STEPS)), inside


def with_softmax(model: ModelProto, temperature: float) -> ModelProto:
    """Put `probabilities = softmax(logits / temperature)` behind the net."""
    graph = model.graph
    graph.initializer.append(helper.make_tensor("temperature", TensorProto.FLOAT, [], [temperature]))
    graph.node.append(helper.make_node("Div", ["logits", "temperature"], ["calibrated"]))
    graph.node.append(helper.make_node("Softmax", ["calibrated"], ["probabilities"], axis=1))
    probabilities = deepcopy(graph.output[0])  # of logits, which familiarity follows
    probabilities.name = "probabilities"
    graph.output.insert(1, probabilities)
    return model


def showing_pixels(model: ModelProto) -> bytes:
    """A built model with one more output: the resized pixels, float32 `(B, 3, S, S)`."""
    model.graph.output.append(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, None))
    data: bytes = model.SerializeToString()
    return data
