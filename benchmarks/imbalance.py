"""Classes of few pictures: what each remedy is worth.

python benchmarks/imbalance.py [--data DIR] [--seeds 3]: CIFAR-10 with a long tail, after Cui et al. 2019
(https://arxiv.org/abs/1901.05555): 4,500 airplanes, and of each further class 0.6 times as many, down to 45 trucks.
`configs/imbalance.yaml` with one remedy, with none, or with two; recall on all test pictures.
"""

import argparse
import csv
import os
import tempfile
from pathlib import Path

import numpy as np
from bench import DATA, ROOT, fit, show, spread, tested, there

MOST, FEWEST, HELD = 4500, 45, 500  # pictures of a class to learn from, and for validation
RAREST = 3
REMEDIES = {  # loss, class weights, sampling
    "none": ("CrossEntropy", "null", "once"),
    "class_weights: inverse": ("CrossEntropy", "inverse", "once"),
    "class_weights: effective": ("CrossEntropy", "effective", "once"),
    "sampling: balanced": ("CrossEntropy", "null", "balanced"),
    "Focal": ("Focal", "null", "once"),
    "Focal, class_weights: inverse": ("Focal", "inverse", "once"),
}


def listing(data: Path) -> Path:
    """A file of labels, with a long tail among the pictures to learn from."""
    path = Path("tail.csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        folders = sorted((data / "train").iterdir())
        for place, folder in enumerate(folders):
            count = round(MOST * (FEWEST / MOST) ** (place / (len(folders) - 1)))
            found = sorted(folder.iterdir())
            for split, part in (("train", found[:count]), ("val", found[-HELD:])):
                writer.writerows([picture.relative_to(data), folder.name, split] for picture in part)
            writer.writerows(
                [p.relative_to(data), folder.name, "test"] for p in sorted((data / "test" / folder.name).iterdir())
            )
    return path


def recalls(run: Path) -> list[float]:
    """Of each class, in per cent; the rarest is the last."""
    with (run / "report" / "per_class.csv").open(newline="") as file:
        return [100 * float(row["recall"]) for row in csv.DictReader(file)]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=there, default=str(DATA))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    data = options.data
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        source = ("--data", "ImageFolder", "--data.root", str(data), "--data.labels", str(listing(data)))
        for name, (loss, weights, sampling) in REMEDIES.items():
            words = ("--model.loss", loss, "--model.loss.class_weights", weights, "--data.sampling", sampling)
            accuracies, found = [], []
            for seed in range(options.seeds):
                config = ("--config", str(ROOT / "configs" / "imbalance.yaml"), "--seed_everything", str(seed))
                run = fit(f"{len(rows)}-{seed}", *config, *source, *words)
                accuracies.append(tested(run, "best.ckpt"))
                found.append(recalls(run))
            of_class = np.mean(found, axis=0)
            parts = (of_class[:-RAREST].mean(), of_class[-RAREST:].mean(), of_class.min())
            rows.append([name, spread(accuracies), *(f"{part:.1f} %" for part in parts)])
    show([f"100:1, {options.seeds} seeds", "recall", "of the 7 frequent", "of the 3 rarest", "of the worst"], rows)


if __name__ == "__main__":
    main()
