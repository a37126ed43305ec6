"""Quantisation: a net in half precision or in 8-bit integers, taken only if it answers about as well.

Notation: `N` pictures, `K` classes, `S` side of the square that the net sees.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx_ir import from_proto, to_proto
from onnx_ir.passes.common import RemoveUnusedOpsetsPass, TopologicalSortPass
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from cifar_lightning.export.errors import ParityError
from cifar_lightning.export.silence import silent
from cifar_lightning.export.zero_points import uniform
from cifar_onnx import InputError, session
from cifar_onnx.contract import Precision
from cifar_onnx.evaluation.outcome import in_parts
from cifar_onnx.images import Pictures, Pixels
from cifar_onnx.prediction import Scores
from cifar_onnx.progress import track

DROP, CLASS_DROP = 0.003, 0.01  # of accuracy, and of the recall of any class
_QUANTIZED = ["Conv", "Gemm", "MatMul"]
# 8 bits of activations by 8 of weights overflow 16-bit sums on CPUs without VNNI: weights get 7, or no sign.
_CHANNEL, _LAYER = {"per_channel": True}, {"per_channel": False}
_SEVEN, _UNSIGNED = {"reduce_range": True}, {"weight_type": quantization.QuantType.QUInt8}
_ALONE = {"nodes_to_exclude": ["first"]}
_CLIPPED = {  # with the option, else it keeps every map of every picture until the last
    "calibrate_method": quantization.CalibrationMethod.Percentile,
    "extra_options": {"CalibStridedMinMax": 1},
}
_AT_ONCE = 10  # pictures whose maps are kept
_GRID: dict[str, dict[str, Any]] = {
    "per channel, 7-bit weights": {**_CHANNEL, **_SEVEN},
    "per channel, 7-bit weights, first layer left alone": {**_CHANNEL, **_SEVEN, **_ALONE},
    "per channel, unsigned, first layer left alone": {**_CHANNEL, **_UNSIGNED, **_ALONE},
    "per channel, 7-bit weights, outliers clipped": {**_CHANNEL, **_SEVEN, **_CLIPPED},
    "per layer, 7-bit weights": {**_LAYER, **_SEVEN},
    "per layer, unsigned": {**_LAYER, **_UNSIGNED},
}


class Run(Protocol):
    """A net that gives logits `(N, K)` and familiarity `(N,)` of uint8 `(N, S, S, 3)`; a title shows its progress."""

    def __call__(self, pictures: Pictures, title: str | None = None) -> tuple[Scores, Scores]: ...


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Hands pictures over in batches, each from all over them, since the first one says how fine a histogram is.

    They are of one size, as onnxruntime 1.18 needs them, which has not the option of `_CLIPPED`: a rest is left out.
    """

    def __init__(self, pixels: Pixels) -> None:
        self.pixels, self.size = pixels, min(len(pixels), _AT_ONCE)
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return len(self.pixels) // self.size

    def set_range(self, start_index: int, end_index: int) -> None:
        starts = range(start_index, end_index)
        self.batches = (_planes(self.pixels[start :: len(self)][: self.size]) for start in starts)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(({"pixels": batch} for batch in self.batches), None)


def variants(net: ModelProto, precision: Precision, pictures: Pixels) -> Iterator[tuple[str, ModelProto]]:
    """The ways to make a net smaller, each with its name.

    Args:
        net: pixels float `(N, 3, S, S)` to logits and familiarity.
        precision: `fp16` or `int8`.
        pictures: uint8 `(N, S, S, 3)` of training, by which the ranges of 8-bit numbers are found.
    """
    if precision == "fp16":
        yield "", _half(net)
        return
    with tempfile.TemporaryDirectory() as folder:
        plain, ready, small = (Path(folder, f"{name}.onnx") for name in ("plain", "ready", "small"))
        expected = runner(net)(pictures)[0]
        onnx.save(net, plain)
        with silent():
            quant_pre_process(plain, ready, skip_symbolic_shape=True)
        optimised = onnx.load(ready)
        layers = _layers(optimised)
        if not layers:
            raise InputError(f"this net has none of the operations that {precision} quantizes: {', '.join(_QUANTIZED)}")
        order = {node.name: place for place, node in enumerate(net.graph.node)}  # which onnxruntime does not keep
        min(layers, key=lambda node: order.get(node.name, len(order))).name = "first"
        others = {node.name for node in optimised.graph.node} - {node.name for node in layers}
        onnx.save(optimised, ready)
        for name, settings in _GRID.items():
            left = [*others, *settings.get("nodes_to_exclude", [])]
            with silent():
                quantization.quantize_static(
                    *(ready, small, _Reader(pictures)),
                    quant_format=quantization.QuantFormat.QDQ,
                    op_types_to_quantize=_QUANTIZED,
                    activation_type=quantization.QuantType.QUInt8,
                    **{"weight_type": quantization.QuantType.QInt8, **settings, "nodes_to_exclude": left},
                )
            model = from_proto(uniform(onnx.load(small)))
            RemoveUnusedOpsetsPass()(model)
            yield name, _corrected(to_proto(model), expected, pictures)


def _half(net: ModelProto) -> ModelProto:
    """The net in half precision, but for what familiarity alone depends on, whose squares would overflow."""
    net = onnx.shape_inference.infer_shapes(net)
    graph, known = net.graph, {each.name: each for each in net.graph.value_info}
    names, nodes, outputs = _leading_to("logits", net), list(graph.node), list(graph.output)
    rest = [node for node in nodes if node.name not in names]
    given = {name for node in rest for name in node.input} - {"logits"}
    del graph.node[:], graph.output[:]
    graph.node.extend(node for node in nodes if node.name in names)
    graph.output.extend(each for each in outputs if each.name == "logits")
    graph.output.extend(known[name] for node in graph.node for name in node.output if name in given)
    half = from_proto(convert_float_to_float16(net, keep_io_types=True))  # which gives the outputs in float32
    TopologicalSortPass()(half)
    model: ModelProto = to_proto(half)
    graph = model.graph
    del graph.value_info[:], graph.output[:]
    graph.node.extend(rest)
    graph.output.extend(outputs)
    return model


def _layers(net: ModelProto) -> list[NodeProto]:
    """Convolutions and linear layers that the logits depend on, in the order in which they run; each gets a name.

    Not products of what is computed, as in attention, of which a file holds nothing; nor that in the familiarity, whose
    values have no common scale.
    """
    for number, node in enumerate(net.graph.node):
        node.name = node.name or f"node {number}"
    constants, names = {each.name for each in net.graph.initializer}, _leading_to("logits", net)
    found = [node for node in net.graph.node if node.op_type in _QUANTIZED and node.input[1] in constants]
    return [node for node in found if node.name in names]


def _leading_to(output: str, net: ModelProto) -> set[str]:
    """Names of the nodes that an output depends on."""
    needed, names = {output}, set()
    for node in reversed(net.graph.node):  # which stand in the order in which they run
        if not needed.isdisjoint(node.output):
            needed.update(node.input)
            names.add(node.name)
    return names


def _corrected(net: ModelProto, expected: Scores, pictures: Pixels) -> ModelProto:
    """Take off what rounding adds to the logits on average (Nagel et al. 2019, https://arxiv.org/abs/1906.04721)."""
    correction = (expected - runner(net)(pictures)[0]).mean(axis=0)
    nodes = net.graph.node
    place = next(place for place, node in enumerate(nodes) if "logits" in node.output)
    nodes[place].output[list(nodes[place].output).index("logits")] = "logits/rounded"
    net.graph.initializer.append(numpy_helper.from_array(correction, "logits/correction"))
    # Before whatever takes the logits, as familiarity may.
    nodes.insert(place + 1, helper.make_node("Add", ["logits/rounded", "logits/correction"], ["logits"]))
    return net


def runner(net: ModelProto) -> Run:
    """What a net of `variants` makes of pictures, by onnxruntime.

    Raises:
        InputError: it cannot load the net; the run raises it too, where it cannot run it.
    """
    loaded = session.session(net.SerializeToString(), "the net")

    def run(pictures: Pictures, title: str | None = None) -> tuple[Scores, Scores]:
        names = ["logits", "familiarity"]
        logits, familiarity = in_parts(
            lambda part: session.run(loaded, "the net", names, {"pixels": _planes(part)}), pictures, title
        )
        return logits, familiarity

    return run


def smaller(
    net: ModelProto,
    precision: Precision,
    pictures: Pixels,
    known: Pictures,
    labels: NDArray[np.int64],
    classes: Sequence[str],
) -> tuple[ModelProto, str]:
    """The variant that is right most often on the validation images, and what it is.

    Args:
        net: as `variants`'.
        precision: likewise.
        pictures: likewise.
        known: the validation images that calibrate, uint8 `(N, S, S, 3)`.
        labels: `(N,)`.
        classes: their names.

    Raises:
        ParityError: it is less accurate than may be, misses too many pictures of a class, or overflows.
    """
    before = runner(net)(known, "trying fp32")[0].argmax(1) == labels
    tried, count = variants(net, precision, pictures), len(_GRID) if precision == "int8" else 1
    found = []
    for name, variant in track(tried, f"trying {precision}", count):
        logits = runner(variant)(known)[0]
        after, bad = logits.argmax(1) == labels, int((~np.isfinite(logits)).any(axis=1).sum())
        loss = f"its answers to {bad:,} of {len(logits):,} validation images are not finite" if bad else None
        found.append((float(after.mean()), name, variant, loss or _loss(before, after, labels, classes)))
    accuracy, name, variant, loss = max(found, key=lambda each: (each[3] is None, each[0]))
    what = f"{precision}{f' ({name})' if name else ''}"
    if loss:
        raise ParityError(f"{what}: {loss}")
    return variant, f"{what}: validation accuracy {before.mean():.2%} before, {accuracy:.2%} after"


def _loss(
    before: NDArray[np.bool_], after: NDArray[np.bool_], labels: NDArray[np.int64], classes: Sequence[str]
) -> str | None:
    """What is lost of the pictures that were right before, `(N,)`, where it is more than may be."""
    figures = f"validation accuracy goes from {before.mean():.2%} to {after.mean():.2%}"
    if (fall := before.mean() - after.mean()) > DROP + 1e-9:
        return f"{figures}, a fall of {100 * fall:.4g} points, more than {100 * DROP:g}"
    counts, changed = (np.bincount(each, minlength=len(classes)) for each in (labels, labels[before != after]))  # (K,)
    lost = np.bincount(labels, before.astype(float) - after, len(classes))
    # Where a single answer is more than may be lost, chance is left out (McNemar 1947, 5 %).
    chance = (counts * CLASS_DROP < 1) & (lost <= 1.96 * np.sqrt(changed))
    falls = np.where(chance, 0, lost / np.maximum(counts, 1))
    worst = int(falls.argmax())
    if falls[worst] > CLASS_DROP + 1e-9:
        named = f"recall of {classes[worst]} falls by {100 * falls[worst]:.4g} points"
        return f"{figures}, but {named}, more than {100 * CLASS_DROP:g}"
    return None


def _planes(pixels: Pixels) -> NDArray[np.float32]:
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
