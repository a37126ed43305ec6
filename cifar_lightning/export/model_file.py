"""model.onnx: the graph with its contract, proven on real pictures before it is written.

Notation: `B` batch, `H W` size of the pictures, `S` side of the square that the net sees, `K` classes.
"""

import base64
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from PIL import ExifTags, Image
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cifar_lightning.calibration import Calibration
from cifar_lightning.data.images import Images, Sample
from cifar_lightning.export import graph, quantize
from cifar_lightning.export.parity import Report, compare
from cifar_lightning.export.quantize import Run
from cifar_lightning.familiarity import Scored, outputs_of
from cifar_lightning.files import write_whole
from cifar_onnx import InputError, contract, images, resizing, session
from cifar_onnx.contract import Precision
from cifar_onnx.evaluation.compare import latency

GOLDEN_SIDE = 64  # pixels: larger pictures are shrunk to this before they become golden samples


def write_model(
    model: nn.Module,
    samples: Sequence[Sample],
    output: Path,
    *,
    classes: Sequence[str],
    size: int,
    resize: resizing.ResizeMode,
    facts: Mapping[str, Any],
    calibration: Calibration,
    precision: Precision = "fp32",
    training: images.Pixels | None = None,
    known: Images | None = None,
) -> tuple[Calibration, Report]:
    """Write the contract, after the file has answered as its net does on every sample.

    The file appears whole or not at all; an older one at `output` stays until then.

    Args:
        model: pixels 0..255 `(B, 3, S, S)` to logits `(B, K)`: normalisation and net.
        samples: what the gate compares on.
        output: path of the file.
        classes: `K` names.
        size: `S`.
        resize: how a picture becomes a square.
        facts: further entries of the contract.
        calibration: what the model's logits have shown on the validation set.
        precision: of the net in the file.
        training: for another precision than fp32, uint8 `(N, S, S, 3)` to find ranges by.
        known: likewise, the validation images that calibrate, which decide whether the variant holds.

    Returns:
        The calibration in the file, which for another precision than fp32 is that of the smaller net; and the report.

    Raises:
        ParityError: a stage of the file differs from the net, or the smaller variant is not as good.
        InputError: torch cannot export the net, onnxruntime cannot run it, its answers are not finite, or the file
            cannot be written.
    """
    scored = Scored(model, calibration.score).eval()
    run: Run = partial(outputs_of, scored)
    variant = ""
    net_alone = whole = graph.core(scored, size, type([*model.children()][-1]).__name__)
    if precision != "fp32":
        assert training is not None
        assert known is not None
        net_alone, variant = quantize.smaller(whole, precision, training, known.pixels, known.labels, classes)
        run = quantize.runner(net_alone)
        calibration = calibration.again(run, known, classes)
    answers = run(np.stack([sample.pixels for sample in samples]))
    onnx_model = graph.complete(net_alone, size, resize, calibration.temperature)
    info = {
        "format": contract.FORMAT,
        "digest": contract.BLANK,
        "classes": list(classes),
        "input": {
            "size": size,
            "resize": resize,
            "interpolation": "bilinear, antialiased",
            "color": "RGB",
            "exif": "applied",
            "transparency": "over white",
            "pad": resizing.PAD_VALUE,
        },
        **calibration.entries(),
        "cost": _cost(model, size),
        "precision": precision,
        **facts,
        "golden": [
            _golden(run, name, encoded, classes, size, resize, calibration.temperature)
            for name, encoded in _pictures(samples)
        ],
    }
    try:
        text = json.dumps(info, ensure_ascii=True, allow_nan=False)
    except ValueError:
        advice = "let it mask classes by numbers such as -1e4" if precision == "fp32" else "export it in fp32"
        raise InputError(f"the net's answer to a golden sample or a validation image is not finite: {advice}") from None
    onnx.helper.set_model_props(onnx_model, {contract.KEY: text})
    onnx.checker.check_model(onnx_model, full_check=True)
    data = contract.seal(onnx_model.SerializeToString(deterministic=True))
    report = compare(data, samples, answers, classes)
    if variant:
        fp32 = graph.complete(whole, size, resize, calibration.temperature)
        fp32.metadata_props.extend(onnx_model.metadata_props)
        report = replace(report, variant=f"{variant}\n{_beside(data, fp32.SerializeToString(), size)}\n")
    write_whole(output, data)
    return calibration, report


def _beside(small: bytes, large: bytes, size: int) -> str:
    """Sizes and latencies of two model files, in words."""

    def timed(file: bytes) -> tuple[Callable[[images.Pixels], object], int]:
        made = session.session(file, "the file", square=size)  # as Classifier runs it
        return lambda pictures: session.run(made, "the file", ["probabilities"], {"image": pictures}), size

    ours, theirs = latency([timed(small), timed(large)])
    word = "slower" if ours > 1.02 * theirs else "faster" if ours < 0.98 * theirs else "as fast"
    return (
        f"{len(small) / 1e6:.2f} MB, fp32 {len(large) / 1e6:.2f} MB; {ours:.2f} ms a picture, fp32 {theirs:.2f} ms: "
        f"{word} on this machine"
    )


def _cost(model: nn.Module, size: int) -> dict[str, int]:
    """Parameters of a net, and its floating-point operations for a picture: two for each product that is added.

    Auxiliary heads, which only training asks, and other parameters that the logits do not depend on do not count.
    """
    parameters = [each for each in model.parameters() if each.requires_grad]
    fixed = sum(each.numel() for each in model.parameters() if not each.requires_grad)
    # As if for training, by plain products: else attention may be one operation, of which the counter knows nothing.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = model(image := torch.zeros(1, 3, size, size, requires_grad=True))
        flops = counter.get_total_flops()
    found: Sequence[torch.Tensor | None] = parameters
    if logits.requires_grad:
        found = torch.autograd.grad(logits.sum(), [*parameters, image], allow_unused=True)[:-1]
    used = sum(each.numel() for each, slope in zip(parameters, found, strict=True) if slope is not None)
    return {"parameters": fixed + used, "flops": flops}


def _golden(
    run: Run,
    name: str,
    encoded: bytes,
    classes: Sequence[str],
    size: int,
    resize: resizing.ResizeMode,
    temperature: float,
) -> dict[str, Any]:
    """A picture with what the net makes of it."""
    pixels = images.decode(encoded)
    logits, familiarity = (each[0] for each in run(resizing.resize(pixels, size, resize)[None]))
    probabilities = torch.from_numpy(logits / np.float32(temperature)).softmax(0)
    return {
        "name": name,
        "file": base64.b64encode(encoded).decode(),
        "fingerprint": images.fingerprint(pixels),
        "label": classes[int(probabilities.argmax())],
        "logits": [round(float(x), 6) for x in logits],
        "probabilities": [round(float(p), 7) for p in probabilities],
        "familiarity": round(float(familiarity), 6),
    }


def _pictures(samples: Sequence[Sample]) -> Iterator[tuple[str, bytes]]:
    """Small files of every kind that decoders and resizing get wrong, from pictures spread over the samples."""
    chosen = cycle(samples[:: max(1, len(samples) // 8)])

    def next_picture() -> Image.Image:
        picture = Image.fromarray(images.decode(next(chosen).encoded))
        picture.thumbnail((GOLDEN_SIDE, GOLDEN_SIDE))
        return picture

    def encoded(picture: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **settings)
        return buffer.getvalue()

    yield "plain", encoded(next_picture())
    yield "wide", encoded(next_picture().resize((GOLDEN_SIDE, 20)))
    yield "tall", encoded(next_picture().resize((7, 45)))
    yield "grey", encoded(next_picture().convert("L"))
    yield "16-bit grey", encoded(Image.fromarray(np.asarray(next_picture().convert("L")).astype(np.uint16) * 257))
    see_through = next_picture()
    see_through.putalpha(Image.linear_gradient("L").resize(see_through.size))
    yield "transparent", encoded(see_through)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    yield "rotated", encoded(next_picture().resize((40, 30)), exif=turned)
    yield "JPEG", encoded(next_picture(), "JPEG", quality=90)
