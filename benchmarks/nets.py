"""The nets beside each other: what each has learnt after the same time on this CPU, and what it costs whoever runs it.

python benchmarks/nets.py [--data DIR] [--minutes 2]: from random weights, by AdamW at 0.001 with mirrored and shifted
pictures in batches of 128, until the time is up; then the test accuracy, and the exported file's size and latency.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import DATA, fit, machine, show, tested, there

from cifar_lightning.main import main as command
from cifar_onnx import Classifier
from cifar_onnx.evaluation.compare import latency

ADAM = ("--model.optimizer", "AdamW", "--model.optimizer.lr", "0.001")
NETS: dict[str, tuple[str, ...]] = {
    "the tutorial's CNN": ("CNN", *ADAM),
    "SpeedNet of cpu_best.yaml": ("SpeedNet", "--model.net.widths", "[64, 128, 128]", *ADAM),
    **{
        f"{name}{', small stem' * small}": (
            *("Torchvision", "--model.net.name", name, "--model.net.small_stem", str(small).lower(), *ADAM),
        )
        for name, small in (
            ("resnet18", True),
            ("resnet18", False),
            ("mobilenet_v3_small", True),
            ("efficientnet_b0", True),
            ("vgg11_bn", False),
        )
    },
}


def measured(name: str, words: Sequence[str], data: Path, minutes: float) -> list[str]:
    """A row of the table."""
    source = ("--data", "ImageFolder", "--data.root", str(data), "--data.batch_size", "128")
    varied = ("--data.augment", '[{"class_path": "Mirror"}, {"class_path": "ShiftedCrop"}]')
    seconds = round(60 * minutes)
    until = ("--trainer.max_epochs", "1000", "--trainer.max_time", f"00:00:{seconds // 60:02d}:{seconds % 60:02d}")
    run = fit("".join(filter(str.isalnum, name)), "--model.net", *words, *source, *varied, *until)
    accuracy, last, model = tested(run, "last.ckpt"), str(run / "checkpoints" / "last.ckpt"), run / "model.onnx"
    if code := command(["export", "--ckpt_path", last, "--output", str(model)]):
        sys.exit(code)
    classifier = Classifier(model)
    (milliseconds,) = latency([(classifier.run, 32)])
    parameters = classifier.contract.info["cost"]["parameters"]
    size = model.stat().st_size / 1e6
    return [name, f"{accuracy:.1f} %", f"{parameters:,}", f"{size:.2f}", f"{milliseconds:.2f}"]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=there, default=str(DATA))
    parser.add_argument("--minutes", type=float, default=2)
    options = parser.parse_args()
    data = options.data
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        rows = [measured(name, words, data, options.minutes) for name, words in NETS.items()]
    print(machine())
    show([f"{options.minutes:g} minutes each", "test accuracy", "parameters", "MB", "ms a picture"], rows)


if __name__ == "__main__":
    main()
