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
from cifar_lightning.export.capture import capture
from cifar_onnx import InputError, contract, resizing

OPSET, IR = 18, 8  # old enough for every onnxruntime since 1.18, which cifar-onnx asks for


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
    program = capture(model, size, OPSET, name)
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
    """
    front = onnx.parser.parse_model(f"""
        <ir_version: {IR}, opset_import: ["" : {OPSET}]>
        resize (uint8[batch, height, width, 3] image) => (float[batch, 3, {size}, {size}] pixels)
        <float zero = {{0.0}}, float half = {{0.5}}, float one = {{1.0}}, float two = {{2.0}},
         float side = {{{size}.0}},
         float triangle_steps = {{{resizing.TRIANGLE_STEPS}.0}}, float weight_steps = {{{resizing.WEIGHT_STEPS}.0}},
         int64 height_index = {{1}}, int64 width_index = {{2}}, int64[1] second = {{1}}>
        {{
            shape = Shape(image)
            lengths = Cast <to = {TensorProto.FLOAT}> (shape)
            height_length = Gather(lengths, height_index)
            width_length = Gather(lengths, width_index)
            short = Min(height_length, width_length)
            long = Max(height_length, width_length)
            steps = Range(zero, side, one)
            evens = Mul(two, steps)
            odds = Add(evens, one)
            {_axis("height", mode)}
            {_axis("width", mode)}
            floats = Cast <to = {TensorProto.FLOAT}> (image)
            planes = Transpose <perm = [0, 3, 1, 2]> (floats)
            columns = Transpose <perm = [1, 0]> (width_weights)
            wide = MatMul(planes, columns)
            wide_up = Add(wide, half)
            wide_whole = Floor(wide_up)
            tall = MatMul(height_weights, wide_whole)
            tall_up = Add(tall, half)
            tall_whole = Floor(tall_up)
            white = Constant <value_float = {resizing.WHITE}.0> ()
            {"picture" if mode == "pad" else "pixels"} = Min(tall_whole, white)
            {_PADDED if mode == "pad" else ""}
        }}
    """)
    front = onnx.compose.add_prefix(front, "resize/", rename_inputs=False, rename_outputs=False)
    net.ir_version = IR
    model = onnx.compose.merge_models(
        front,
        net,
        io_map=[("pixels", "net_pixels")],
        name="classifier",
        producer_name="cifar-lightning",
        producer_version=version("cifar-lightning"),
    )
    del model.opset_import[1:]  # it lists the opset of each half
    return model


def _axis(axis: str, mode: resizing.ResizeMode) -> str:
    """Weights `(S, length)` of one axis: those of `cifar_onnx.resizing`, line by line."""
    box = "short" if mode == "crop" else f"{axis}_length"
    extent, kept = "side", "#_kept"
    lines = ""
    if mode == "pad":
        extent, kept = "#_extent", "#_all"
        lines = """
            #_product = Mul(#_length, side)
            #_share = Div(#_product, long)
            #_share_half = Add(#_share, half)
            #_share_whole = Floor(#_share_half)
            #_extent = Max(one, #_share_whole)
        """
    lines += f"""
            #_free = Sub(side, {extent})
            #_free_half = Div(#_free, two)
            #_margin = Floor(#_free_half)
            #_margins = Mul(two, #_margin)
            #_at_row = Sub(odds, #_margins)
            #_at = Unsqueeze(#_at_row, second)
            #_ats = Mul(#_at, {box})
            #_steps = Range(zero, #_length, one)
            #_evens = Mul(two, #_steps)
            #_odds = Add(#_evens, one)
            #_outside = Sub(#_length, {box})
            #_place = Sub(#_odds, #_outside)
            #_places = Mul(#_place, {extent})
            #_difference = Sub(#_places, #_ats)
            #_distance = Abs(#_difference)
            #_reach = Max({box}, {extent})
            #_reaches = Mul(two, #_reach)
            #_relative = Div(#_distance, #_reaches)
            #_triangle = Sub(one, #_relative)
            #_clipped = Relu(#_triangle)
            #_stretched = Mul(#_clipped, triangle_steps)
            #_stretched_up = Add(#_stretched, half)
            {kept} = Floor(#_stretched_up)
    """
    if mode == "pad":
        lines += f"""
            #_after = Greater(#_at, zero)
            #_extents = Mul(two, {extent})
            #_before = Less(#_at, #_extents)
            #_both = And(#_after, #_before)
            #_insides = Cast <to = {TensorProto.FLOAT}> (#_both)
            #_kept = Mul(#_all, #_insides)
            #_sum = ReduceSum <keepdims = 1> (#_kept, second)
            #_total = Max(#_sum, one)
        """
    else:
        lines += """
            #_total = ReduceSum <keepdims = 1> (#_kept, second)
        """
    # A quotient to the nearest whole number, by its remainder: some runtimes multiply by the inverse and may be off.
    lines += f"""
            #_product_steps = Mul(#_kept, weight_steps)
            #_quotient = Div(#_product_steps, #_total)
            #_below = Floor(#_quotient)
            #_back = Mul(#_below, #_total)
            #_rest = Sub(#_product_steps, #_back)
            #_rests = Mul(two, #_rest)
            #_too_low = GreaterOrEqual(#_rests, #_total)
            #_one_more = Cast <to = {TensorProto.FLOAT}> (#_too_low)
            #_whole = Add(#_below, #_one_more)
            #_weights = Div(#_whole, weight_steps)
    """
    return lines.replace("#", axis)


_PADDED = f"""
            width_row = Transpose <perm = [1, 0]> (width_insides)
            insides = Mul(height_insides, width_row)
            no_picture = Sub(one, insides)
            grey = Constant <value_float = {resizing.PAD_VALUE}.0> ()
            padding = Mul(no_picture, grey)
            pixels = Add(picture, padding)
"""


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
