"""The same accuracy: seconds until Keras has the tutorial's best, and until a config of this project has more.

python benchmarks/accuracy.py [--config configs/fast_cpu.yaml] [--data DIR] [--seeds 5] [--full], and options of `fit`:
a table from one run. `fit` counts whole, but for imports and for reading the images; Keras counts its epochs only.
Without --full its second epoch is timed and multiplied by the number that it needed when that was last measured.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.bench import PEERS, answers, machine, pictures, show, there

TARGET = 0.733  # the lower of two peaks of the tutorial on CIFAR-10 (JPEG)
NEEDED = 11  # epochs of Keras until it is passed: --full on 2026-11-22
MOST = 25


def fit(config: str, data: str, seed: int, words: list[str]) -> None:
    """Train, with further options, and test in this process; print seconds and test accuracy."""
    from cifar_lightning.data import ImageFolder
    from cifar_lightning.main import main

    reading, load = [0.0], ImageFolder.load

    def timed(self: ImageFolder, part: str) -> object:
        start = time.perf_counter()
        found = load(self, part)  # type: ignore[arg-type]
        reading[0] += time.perf_counter() - start
        return found

    ImageFolder.load = timed  # type: ignore[assignment,method-assign]
    source = ["--data", "ImageFolder", "--data.root", data]
    with tempfile.TemporaryDirectory() as folder:
        place = ["--trainer.default_root_dir", folder, "--seed_everything", str(seed)]
        start = time.perf_counter()
        assert main(["fit", "--config", config, *source, *place, *words]) == 0
        seconds = time.perf_counter() - start - reading[0]
        (best,) = Path(folder).rglob("best.ckpt")
        assert main(["test", "--ckpt_path", str(best), "--resamples", "1"]) == 0
        (metrics,) = Path(folder).rglob("metrics.json")
        accuracy = json.loads(metrics.read_text())["metrics"]["accuracy"]["value"]
    print(json.dumps({"seconds": seconds, "accuracy": accuracy}))


def keras(data: Path, full: bool) -> tuple[str, float, float]:
    """What it did, its seconds until the target is passed, and the accuracy that it had then."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.npz")
        np.savez(path, **pictures(data))  # type: ignore[arg-type]
        accuracies, seconds = answers([PEERS, "benchmarks/peers/keras_cnn.py", "train", path, MOST if full else 2])
    if not full:
        return f"Keras, {NEEDED} epochs (one timed)", NEEDED * seconds[1], TARGET
    for number, accuracy in enumerate(accuracies, 1):
        if accuracy > TARGET:
            return f"Keras, {number} epochs", sum(seconds[:number]), accuracy
    sys.exit(f"Keras has not passed {TARGET} in {MOST} epochs")


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/fast_cpu.yaml")
    parser.add_argument("--data", type=there, default="data/cifar10-jpeg")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options, words = parser.parse_known_args()
    if options.seed is not None:
        fit(options.config, str(options.data), options.seed, words)
        return
    command = [sys.executable, __file__, "--config", options.config, "--data", options.data, *words]
    runs = [answers([*command, "--seed", seed])[-1] for seed in range(options.seeds)]
    seconds, accuracies = ([run[key] for run in runs] for key in ("seconds", "accuracy"))
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    mean = statistics.mean(seconds)
    rows = [[f"{' '.join([options.config, *words])}, {options.seeds} seeds", f"{mean:.1f}",
             f"{statistics.mean(accuracies):.2%} +- {spread:.2%}", "1"]]  # fmt: skip
    if PEERS.exists():
        name, took, accuracy = keras(options.data, options.full)
        rows.append([name, f"{took:.1f}", f"{accuracy:.2%}", f"{took / mean:.1f}"])
    print(machine())
    show(["test accuracy", "s", "accuracy", "times as long"], rows)


if __name__ == "__main__":
    main()
