"""From a trained net to model.onnx: the graph with its contract, proven on real pictures before it is written.

Notation: `B` batch, `H W` size of the pictures, `S` side of the square that the net sees, `K` classes.
"""

import base64
import io
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cifar_lightning import graph, quantize
from cifar_lightning.familiarity import Scored
from cifar_lightning.nets.pixels import Pixels
from cifar_lightning.quantize import Precision, Run, Scores
from cifar_onnx import Classifier, InputError, contract, images

if TYPE_CHECKING:  # it takes seconds to import what they need, which training does not
    from cifar_lightning.calibration import Calibration
    from cifar_lightning.data.images import Images

GOLDEN_SIDE = 64  # pixels: larger pictures are shrunk to this before they become golden samples
TOLERANCE = 1e-4  # of logits and probabilities from the same pixels
_ORIENTATION = 0x0112  # EXIF tag
TIES = 1e-3  # share of resized pixels that may be one grey level off


class ParityError(Exception):
    """The exported file does not answer as the checkpoint does; the message names the stage that differs."""


@dataclass(frozen=True)
class Sample:
    """A picture as its file holds it and as training saw it.

    Attributes:
        name: what to call it in a message.
        encoded: bytes of its file.
        fingerprint: `images.fingerprint` of what training decoded the file to.
        pixels: uint8 `(S, S, 3)`, what training resized that to.
    """

    name: str
    encoded: bytes
    fingerprint: str
    pixels: images.Pixels


@dataclass(frozen=True)
class Report:
    """What the gate measured, over `count` pictures: largest differences between the file and torch.

    That of a smaller variant is beside the variant's net alone, and says what was lost and won.
    """

    count: int
    ties: float
    logits: float
    probabilities: float
    labels: int
    variant: str = ""

    def __str__(self) -> str:
        resized = f"one grey level off on {self.ties:.4%}" if self.ties else "equal"
        return self.variant + (
            f"parity with torch on {self.count} pictures, from their encoded bytes: decoded pixels equal, "
            f"resized pixels {resized}, logits within {self.logits:.1e}, "
            f"probabilities within {self.probabilities:.1e}, labels {self.labels} of {self.count}"
        )


def export(
    pixels: Pixels,
    net: nn.Module,
    samples: Sequence[Sample],
    output: Path,
    *,
    classes: Sequence[str],
    size: int,
    resize: images.ResizeMode,
    facts: Mapping[str, Any],
    calibration: "Calibration",
    precision: Precision = "fp32",
    training: images.Pixels | None = None,
    known: "Images | None" = None,
) -> Report:
    """Write the contract, after the file has answered as torch does on every sample.

    The file appears whole or not at all; an older one at `output` stays until then.

    Args:
        pixels: the normalisation that the net was trained with.
        net: normalised pixels `(B, 3, S, S)` to logits `(B, K)`.
        samples: what the gate compares on.
        output: path of the file.
        classes: `K` names.
        size: `S`.
        resize: how a picture becomes a square.
        facts: further entries of the contract.
        calibration: what the net's logits have shown on the validation set.
        precision: of the net in the file.
        training: for another precision than fp32, uint8 `(N, S, S, 3)` to find ranges by.
        known: likewise, the validation set, which decides whether the variant holds.

    Raises:
        ParityError: a stage of the file differs from torch, or the smaller variant is not as good.
        InputError: the file cannot be written.
    """
    model = nn.Sequential(pixels, net).cpu().eval()
    scored = Scored(model, calibration.score.cpu()).eval()
    run, variant = _torch(scored), ""
    net_alone = whole = graph.core(scored, size)
    if precision != "fp32":
        assert training is not None
        assert known is not None
        try:
            net_alone, variant = quantize.smaller(whole, precision, training, known.pixels, known.labels, classes)
        except ValueError as error:
            raise ParityError(str(error)) from None
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
            "pad": images.PAD_VALUE,
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
    onnx.helper.set_model_props(onnx_model, {contract.KEY: json.dumps(info, ensure_ascii=True)})
    onnx.checker.check_model(onnx_model, full_check=True)
    data = contract.seal(onnx_model.SerializeToString(deterministic=True))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as temporary:
            candidate = Path(temporary) / output.name
            candidate.write_bytes(data)
            report = compare(candidate, samples, answers, classes)
            if variant:
                other = Path(temporary) / "fp32.onnx"
                onnx.save(graph.complete(whole, size, resize, calibration.temperature), other)
                report = replace(report, variant=f"{variant}\n{quantize.beside(candidate, other, size)}\n")
            candidate.replace(output)
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error}): name another file with --output") from None
    return report


def against(
    path: Path, net: nn.Module, calibration: "Calibration", samples: Sequence[Sample], classes: Sequence[str]
) -> Report:
    """Compare a model file with a net of pixels 0..255 and its calibration; as `compare`."""
    answers = _torch(Scored(net, calibration.score.cpu()).eval())(np.stack([sample.pixels for sample in samples]))
    return compare(path, samples, answers, classes)


def compare(path: Path, samples: Sequence[Sample], answers: tuple[Scores, Scores], classes: Sequence[str]) -> Report:
    """Run a model file on pictures from their encoded bytes and compare it, stage by stage, with training.

    Args:
        path: the model file.
        samples: `B` pictures.
        answers: torch's logits `(B, K)` and familiarities `(B,)`, from the pixels that training saw.
        classes: `K` names.

    Raises:
        ParityError: naming the first stage that differs: decode, resize, logits, probabilities, familiarity, cam or
            labels.
    """
    classifier = Classifier(path)
    session = ort.InferenceSession(graph.showing_pixels(onnx.load(path)), providers=["CPUExecutionProvider"])
    labels, resized, logits_of_pictures = [], [], []
    for sample in samples:  # one by one: a photo may take 300 MB once decoded
        picture = images.decode(sample.encoded)
        if images.fingerprint(picture) != sample.fingerprint:
            raise ParityError(f"decode: {sample.name} decodes to other pixels than it did for training")
        resized.append(session.run(["pixels"], {"image": picture[None]})[0])
        logits_of_pictures.append(classifier.run(picture[None])[0])
        labels.append(classifier(sample.encoded).label)
    trained = np.stack([sample.pixels for sample in samples])
    off = np.abs(np.concatenate(resized) - trained.transpose(0, 3, 1, 2))  # (B, 3, S, S)
    ties = float((off > 0).mean())
    if off.max() > 1 or ties > TIES:
        worst = samples[int(off.max(axis=(1, 2, 3)).argmax())].name
        raise ParityError(
            f"resize: pixels differ from training's on {ties:.2%} of them, by up to {off.max():g} grey levels ({worst})"
        )

    logits, familiarity = answers
    got_logits, got_probabilities, got_familiarity = classifier.run(trained)
    logits_off = float(np.abs(got_logits - logits).max())
    if not logits_off <= TOLERANCE:
        raise ParityError(f"logits: differ from torch's by up to {logits_off:.3g}, more than {TOLERANCE:g}")
    expected = torch.from_numpy(logits / classifier.contract.temperature).softmax(1).numpy()
    probabilities_off = float(np.abs(got_probabilities - expected).max())
    if not probabilities_off <= TOLERANCE:
        raise ParityError(
            f"probabilities: differ from torch's by up to {probabilities_off:.3g}, more than {TOLERANCE:g}"
        )
    familiarity_off = float((np.abs(got_familiarity - familiarity) / np.maximum(np.abs(familiarity), 1)).max())
    if not familiarity_off <= 10 * TOLERANCE:
        raise ParityError(f"familiarity: differs from torch's by up to {familiarity_off:.2%}")
    if "cam" in (output.name for output in session.get_outputs()):
        # What the mean of a map (B, K, h, w) leaves of the logits is the bias: the same for every picture.
        left = logits - session.run(["cam"], {"image": trained})[0].mean(axis=(2, 3), dtype=float)  # (B, K)
        cam_off = float(np.abs(left - left.mean(axis=0)).max())
        if not cam_off <= TOLERANCE:
            raise ParityError(
                f"cam: means of the maps miss torch's logits by up to {cam_off:.3g}, more than {TOLERANCE:g}"
            )

    # A rounding tie in the resize moves the logits a little; only a label within that noise may change.
    noise = float(np.abs(np.concatenate(logits_of_pictures) - got_logits).max()) + TOLERANCE
    margins = np.diff(np.sort(logits, axis=1)[:, -2:]).ravel()
    agree = [label == classes[best] for label, best in zip(labels, logits.argmax(1), strict=True)]
    for sample, same, margin in zip(samples, agree, margins, strict=True):
        if not same and margin > 2 * noise:
            raise ParityError(f"labels: {sample.name} gets another label than from torch")
    return Report(len(samples), ties, logits_off, probabilities_off, sum(agree))


def _cost(model: nn.Module, size: int) -> dict[str, int]:
    """Parameters of a net, and its floating-point operations for a picture: two for each product that is added."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, size, size))
    return {"parameters": sum(each.numel() for each in model.parameters()), "flops": counter.get_total_flops()}


def _torch(model: nn.Module) -> Run:
    """What a model of pixels `(B, 3, S, S)` makes of uint8 `(B, S, S, 3)`."""

    @torch.inference_mode()
    def run(pixels: images.Pixels) -> tuple[Scores, Scores]:
        logits, familiarity = (
            each.numpy() for each in model(torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2))
        )
        return logits, familiarity

    return run


def _golden(
    run: Run,
    name: str,
    encoded: bytes,
    classes: Sequence[str],
    size: int,
    resize: images.ResizeMode,
    temperature: float,
) -> dict[str, Any]:
    """A picture with what the net makes of it."""
    pixels = images.decode(encoded)
    logits = run(images.resize(pixels, size, resize)[None])[0][0]
    probabilities = torch.from_numpy(logits / np.float32(temperature)).softmax(0)
    return {
        "name": name,
        "file": base64.b64encode(encoded).decode(),
        "fingerprint": images.fingerprint(pixels),
        "label": classes[int(probabilities.argmax())],
        "logits": [round(float(x), 6) for x in logits],
        "probabilities": [round(float(p), 7) for p in probabilities],
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
    turned[_ORIENTATION] = 6
    yield "rotated", encoded(next_picture().resize((40, 30)), exif=turned)
    yield "JPEG", encoded(next_picture(), "JPEG", quality=90)
