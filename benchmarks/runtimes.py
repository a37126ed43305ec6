"""The same answers everywhere: one model, the same photos, several runtimes.

python benchmarks/runtimes.py model.onnx: 500 photos of many sizes, cut out of the two that come with scikit-learn, by
onnxruntime in Python, OpenVINO, onnxruntime-web under Node (after `make web`) and onnx's reference evaluator (fewer of
them). All are given the same decoded pixels; labels and the largest difference of probabilities.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import openvino
from bench import ROOT, answers, show, there
from onnx.reference import ReferenceEvaluator
from PIL import Image
from sklearn.datasets import load_sample_images

from cifar_onnx import Classifier, site
from cifar_onnx.images import Pixels

COUNT, FEW = 500, 25
NODE = ROOT / "benchmarks" / "peers" / "runtime.mjs"


def photos() -> list[Pixels]:
    """Parts of two photos, of 8 to 400 pixels a side, some of them shrunk or enlarged."""
    generator, found = np.random.default_rng(0), []
    whole = load_sample_images().images
    for number in range(COUNT):
        photo = whole[number % len(whole)]
        height, width = (int(x) for x in generator.integers(8, 400, 2))
        top, left = (int(generator.integers(0, photo.shape[axis] - side)) for axis, side in enumerate((height, width)))
        part = Image.fromarray(photo[top : top + height, left : left + width])
        if number % 3 == 0:
            part = part.resize((int(generator.integers(5, 600)), int(generator.integers(5, 600))))
        found.append(np.array(part))
    return found


def in_node(model: Path, pictures: list[Pixels]) -> np.ndarray:
    """By onnxruntime-web."""
    with tempfile.TemporaryDirectory() as folder:
        pixels, shapes = Path(folder, "pixels"), Path(folder, "shapes.json")
        pixels.write_bytes(b"".join(picture.tobytes() for picture in pictures))
        shapes.write_text(json.dumps([picture.shape[:2] for picture in pictures]))
        return np.array(answers(["node", NODE, model, pixels, shapes])[-1])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=there)
    model = parser.parse_args().model
    pictures, classifier = photos(), Classifier(model)
    expected = np.concatenate([classifier.run(picture[None])[1] for picture in pictures])
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def by_reference(some: list[Pixels]) -> np.ndarray:
        evaluator = ReferenceEvaluator(onnx.load(model))
        return each(lambda batch: evaluator.run(["probabilities"], {"image": batch})[0])(some)  # type: ignore[index]

    def each(run: Callable[[Pixels], np.ndarray]) -> Callable[[list[Pixels]], np.ndarray]:
        return lambda some: np.concatenate([run(picture[None]) for picture in some])

    runtimes: dict[str, tuple[Callable[[list[Pixels]], np.ndarray], int]] = {
        "OpenVINO": (each(lambda batch: compiled([batch])["probabilities"]), COUNT),
        "onnx's reference evaluator": (by_reference, FEW),
    }
    if shutil.which("node") and (site.JS / "node_modules").exists():
        runtimes["onnxruntime-web under Node"] = (lambda some: in_node(model, some), COUNT)
    rows = []
    for name, (run, count) in runtimes.items():
        try:
            found, known = run(pictures[:count]), expected[:count]
        except RuntimeError as error:  # onnx's has not every version of an operator
            rows.append([name, "cannot run it", str(error).partition(",")[0]])
            continue
        same = int((found.argmax(axis=1) == known.argmax(axis=1)).sum())
        rows.append([name, f"{same} of {count}", f"{np.abs(found - known).max():.1e}"])
    show(["beside onnxruntime in Python", "labels equal", "probabilities within"], rows)


if __name__ == "__main__":
    main()
