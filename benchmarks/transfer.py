"""Few pictures: what it is worth to begin with a run that knows other classes.

python benchmarks/transfer.py [--data DIR] [--seeds 5]: `configs/fast_cpu.yaml` learns five classes of CIFAR-10 in six
epochs; `configs/transfer.yaml` then learns the other five from 50 pictures each, from that run and from nothing. The
latter also by the optimizer of fast_cpu.yaml, which suits it better. Test accuracies on all test pictures of the five.
"""

import argparse
import csv
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.bench import ROOT, show
from cifar_lightning.main import main as command

FIRST = ("airplane", "automobile", "bird", "deer", "dog")
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


def fit(name: str, *words: str) -> str:
    """Train; the last checkpoint."""
    assert command(["fit", "--experiment", name, *words]) == 0
    return f"runs/{name}/version_0/checkpoints/last.ckpt"


def accuracies(name: str, seeds: int, words: Sequence[str]) -> list[float]:
    """Test accuracies in per cent, one for each seed."""
    found = []
    for seed in range(seeds):
        last = fit(f"{name}{seed}", *words, "--seed_everything", str(seed))
        assert command(["test", "--ckpt_path", last, "--resamples", "10"]) == 0
        report = Path(last).parent.parent / "report" / "metrics.json"
        found.append(100 * json.loads(report.read_text())["metrics"]["accuracy"]["value"])
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "cifar10-jpeg")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    data = options.data.resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        source = ("--data", "ImageFolder", "--data.root", str(data))
        speed = ("--config", str(ROOT / "configs" / "fast_cpu.yaml"))
        known = fit("known", *speed, *source, "--data.labels", listing(data, known=True), "--trainer.max_epochs", "6")
        labels = ("--data.labels", listing(data, known=False))
        few = ("--config", str(ROOT / "configs" / "transfer.yaml"), *source, *labels)
        rows = []
        for name, words in {
            "from the run that knows other classes": (*few, "--model.init_from", known),
            "from nothing": (*few, "--model.init_from", "null"),
            "from nothing, by MuonSGD": (*few, "--model.init_from", "null", "--model.optimizer", *SPEED),
        }.items():
            found = accuracies(name.replace(" ", "-").replace(",", ""), options.seeds, words)
            rows.append([name, f"{statistics.mean(found):.1f} %", f"{statistics.stdev(found):.1f}"])
    show([f"5 new classes, {FEW} pictures each, {options.seeds} seeds", "test accuracy", "+-"], rows)


if __name__ == "__main__":
    main()
