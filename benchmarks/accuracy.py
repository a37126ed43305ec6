"""The same accuracy: seconds until Keras has the tutorial's best, and until a config of this project has more.

python benchmarks/accuracy.py [--config configs/fast_cpu.yaml] [--data DIR] [--seeds 5] [--full], and options of `fit`:
a table from one run. `fit` counts whole, but for imports and for reading the images; Keras counts its epochs only.
Without --full it is timed by a quarter of the images, and multiplied by the number of epochs that it needed when that
was last measured.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench import DATA, PEERS, ROOT, answers, fit, machine, pictures, show, tested, there

from cifar_lightning.data import ImageFolder
from cifar_lightning.data.images import Images, Part

TARGET = 0.733  # the lower of two peaks of the tutorial on CIFAR-10 (JPEG)
NEEDED = 11  # epochs of Keras until it is passed: --full on 2026-11-22
MOST = 25


def ours(words: list[str], seed: int) -> tuple[float, float]:
    """Train and test by one seed: seconds of `fit`, without those of reading images, and test accuracy."""
    reading, load = [0.0], ImageFolder.load

    def timed(self: ImageFolder, part: Part) -> Images:
        start = time.perf_counter()
        found = load(self, part)
        reading[0] += time.perf_counter() - start
        return found

    ImageFolder.load = timed  # type: ignore[method-assign]
    start = time.perf_counter()
    run = fit(f"seed-{seed}", *words, "--seed_everything", str(seed))
    seconds = time.perf_counter() - start - reading[0]
    ImageFolder.load = load  # type: ignore[method-assign]
    return seconds, tested(run, "best.ckpt") / 100


def keras(data: Path, full: bool) -> tuple[str, float, float]:
    """What it did, its seconds until the target is passed, and the accuracy that it had then."""
    found = pictures(data)
    if not full:
        found |= {key: found[key][::4] for key in ("images", "labels")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.npz")
        np.savez(path, **found)  # type: ignore[arg-type]
        accuracies, seconds = answers([PEERS, "benchmarks/peers/keras_cnn.py", "train", path, MOST if full else 3])
    if not full:
        return f"Keras, {NEEDED} epochs (a quarter of one timed)", NEEDED * 4 * min(seconds), TARGET
    for number, accuracy in enumerate(accuracies, 1):
        if accuracy > TARGET:
            return f"Keras, {number} epochs", sum(seconds[:number]), accuracy
    sys.exit(f"Keras has not passed {TARGET} in {MOST} epochs")


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=there, default="configs/fast_cpu.yaml")
    parser.add_argument("--data", type=there, default=str(DATA))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--full", action="store_true")
    options, words = parser.parse_known_args()
    source = ["--config", str(options.config), "--data", "ImageFolder", "--data.root", str(options.data), *words]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        seconds, accuracies = zip(*(ours(source, seed) for seed in range(options.seeds)), strict=True)
        os.chdir(ROOT)
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    mean = statistics.mean(seconds)
    name = f"{' '.join([options.config.name, *words])}, {options.seeds} seeds"
    rows = [[name, f"{mean:.1f}", f"{statistics.mean(accuracies):.2%} +- {spread:.2%}", "1"]]
    if PEERS.exists():
        name, took, accuracy = keras(options.data, options.full)
        rows.append([name, f"{took:.1f}", f"{accuracy:.2%}", f"{took / mean:.1f}"])
    print(machine())
    show(["test accuracy", "s", "accuracy", "times as long"], rows)


if __name__ == "__main__":
    main()
