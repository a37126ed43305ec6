"""Running the tutorial's CNN: latency by several programs, and pictures a second from encoded files.

python benchmarks/inference.py: a table from one run, medians in milliseconds. The net is not trained: speed does not
depend on its weights. Files are decoded and resized by one thread where that is measured alone. Keras needs .venv-peers
(make bench installs it).
"""

import io
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
import openvino
import torch
from bench import PEERS, answers, machine, noise, show
from PIL import Image
from torch import nn

from cifar_lightning.calibration import calibrate
from cifar_lightning.data.images import Images, Sample
from cifar_lightning.export.model_file import write_model
from cifar_lightning.nets import CNN, Normalize
from cifar_onnx import Classifier, images
from cifar_onnx.benchmark import laps
from cifar_onnx.cpus import usable_cpus

BATCHES = (1, 32, 256)
OWN, WATCHED = "cifar_onnx, from uint8, unknown by {}", "contrasts"
ROUNDS = 5  # programs take turns, so that a slow minute of the machine is a slow minute for all


def lap(call: Callable[[], object], seconds: float = 0.4) -> float:
    """Median milliseconds of a call."""
    return 1000 * float(np.median(list(laps(call, seconds))))


def exported(path: Path, net: CNN, pixels: Normalize, watched: bool) -> Path:
    """The net as this project exports it.

    Args:
        path: the file.
        net: the net.
        pixels: its normalisation.
        watched: by more pictures than a score of logits needs, so that what the convolutions see is looked at, too.
    """
    generator, samples = np.random.default_rng(0), []
    for number in range(16):
        picture = generator.integers(256, size=(32, 32, 3), dtype=np.uint8)
        samples.append(Sample(str(number), images.encode_png(picture), images.fingerprint(picture), picture))
    classes, count = list("0123456789"), 64 if watched else 16
    known = Images(np.stack([each.pixels for each in (samples * 4)[:count]]), np.arange(count) % 10, [""] * count)
    model = nn.Sequential(pixels, net)
    calibration = calibrate(model, known, classes)
    write_model(model, samples, path, classes=classes, size=32, resize="stretch", facts={}, calibration=calibration)
    return path


def programs(folder: Path) -> dict[str, Callable[[int], Callable[[], object]]]:
    """For each program and batch a call that classifies a batch."""
    torch.set_num_threads(usable_cpus())
    pixels, net = Normalize(), CNN().eval().to(memory_format=torch.channels_last)
    uint8 = np.random.default_rng(0).integers(256, size=(max(BATCHES), 32, 32, 3), dtype=np.uint8)
    floats = torch.from_numpy(uint8).permute(0, 3, 1, 2).float() / 255  # channels last
    arrays = np.ascontiguousarray(floats.numpy())
    bare = folder / "bare.onnx"
    torch.onnx.export(net, (floats[:2],), bare, dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
                      input_names=["x"], verbose=False)  # fmt: skip
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = usable_cpus()
    session = ort.InferenceSession(bare, settings, providers=["CPUExecutionProvider"])
    classifiers = {
        each: Classifier(exported(folder / f"{each}.onnx", net, pixels, each == WATCHED))
        for each in ("logits", WATCHED)
    }
    compiled = torch.compile(net, dynamic=False)  # for each batch anew: one for all is slower
    vino = openvino.compile_model(openvino.convert_model(bare), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def by_torch(model: Callable[[torch.Tensor], torch.Tensor], batch: int) -> Callable[[], object]:
        def call() -> torch.Tensor:
            with torch.inference_mode():
                return model(floats[:batch])

        return call

    def by_receiver(classifier: Classifier, batch: int) -> Callable[[], object]:
        return lambda: classifier.run(uint8[:batch])

    return {
        "torch eager, channels last": lambda batch: by_torch(net, batch),
        "torch.compile": lambda batch: by_torch(compiled, batch),
        "OpenVINO": lambda batch: lambda: vino(arrays[:batch]),
        "onnxruntime, bare float graph": lambda batch: lambda: session.run(None, {"x": arrays[:batch]}),
        **{OWN.format(each): partial(by_receiver, classifier) for each, classifier in classifiers.items()},
    }


def from_files(classifier: Classifier) -> list[list[object]]:
    """Pictures a second from encoded JPEGs, whole, of its two stages alone, and of the first by Pillow alone."""
    generator, rows = np.random.default_rng(0), list[list[object]]()
    for side, count in ((32, 512), (256, 512), (1024, 32)):
        encoded = []
        for _ in range(count):
            buffer = io.BytesIO()
            small = generator.integers(256, size=(side // 4, side // 4, 3), dtype=np.uint8)
            Image.fromarray(small).resize((side, side)).save(buffer, "JPEG")
            encoded.append(buffer.getvalue())
        squares = np.stack([classifier.square(each) for each in encoded])

        def decode(encoded: list[bytes] = encoded) -> None:
            for each in encoded:
                classifier.square(each)

        def pillow(encoded: list[bytes] = encoded) -> None:
            for each in encoded:
                np.asarray(Image.open(io.BytesIO(each)).resize((32, 32), Image.Resampling.BILINEAR))

        def net(squares: images.Pixels = squares) -> None:
            for start in range(0, len(squares), 32):
                classifier.run(squares[start : start + 32])

        together = lap(lambda encoded=encoded: classifier(encoded), 2)  # type: ignore[misc]
        rates = [1000 * count / each for each in (lap(pillow, 2), lap(decode, 2), lap(net, 2), together)]
        rows.append([f"{side} x {side} JPEG", *(f"{rate:,.0f}" for rate in rates), f"{rates[3] / min(rates[1:3]):.2f}"])
    return rows


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calls = programs(folder)
        times: dict[str, dict[int, list[float]]] = {program: {} for program in calls}
        for _ in range(ROUNDS):
            for program, prepare in calls.items():
                for batch in BATCHES:
                    times[program].setdefault(batch, []).append(lap(prepare(batch)))
        found = {program: {b: float(np.median(t)) for b, t in each.items()} for program, each in times.items()}
        if PEERS.exists():
            path = folder / "images.npz"
            np.savez(path, **noise(2000))  # type: ignore[arg-type]
            keras = answers([PEERS, "benchmarks/peers/keras_cnn.py", "predict", path])[-1]
            found = {"Keras predict": {int(batch): each for batch, each in keras.items()}, **found}
        rows = from_files(Classifier(folder / f"{WATCHED}.onnx"))
    print(machine())
    own = found[OWN.format(WATCHED)]
    show(
        ["milliseconds a batch", *(f"of {batch}" for batch in BATCHES), *(f"ours of it, {b}" for b in BATCHES)],
        [
            [program, *(f"{each[b]:.2f}" for b in BATCHES), *(f"{own[b] / each[b]:.3f}" for b in BATCHES)]
            for program, each in found.items()
        ],
    )
    print()
    show(["pictures a second", "to squares: Pillow", "this project", "net", "both", "of the slower stage"], rows)


if __name__ == "__main__":
    main()
