"""94 % of CIFAR-10 in seconds on a GPU: configs of this project beside the fastest programs known, on the same images.

python benchmarks/speedrun.py --peers airbench94_muon.py cifar10_speedrun.py [--data DIR] [--seeds 25]: a table from one
run on one card. The peers are run as they are, from where they lie: github.com/KellerJordan/cifar10-airbench and
github.com/hiverge/cifar10-speedrun. Their clock and this one go from the first step, whitening included, to the test
accuracy; what is compiled is warmed up before. The last column is what people wait for: from the shell to the first
accuracy, everything included: here from two commands that write checkpoints and a report, of the peers from their first
run. This project's configs hold 2 % of the images back for validation. Where DIR is no folder of pictures, all fetch
CIFAR-10 itself. --configs names others than both speedruns (they run on a CPU, too), or none; --deadline ends a process
after so many seconds, and what it has done by then counts.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from bench import DATA, ROOT, lines, machine, now, pictures, show, source, spread
from torch import Tensor

from cifar_lightning.cli.run import run
from cifar_lightning.data import ImageData
from cifar_lightning.module import Classifier

CONFIGS = ("configs/speedrun.yaml", "configs/speedrun_compiled.yaml")
TOGETHER = 2000  # test images, as the peers take them
TAXED = 5  # seeds whose steps are done again in a bare loop


@dataclass(frozen=True)
class Result:
    """Seconds and accuracy of one run after the other; None where a program does not tell.

    Attributes:
        seconds: from the first step to the test accuracy.
        accuracies: on all test images.
        shell: seconds from the shell to the first of them.
        tax: what `fit` adds to a bare loop of the same steps, with its schedule and metrics.
    """

    seconds: Sequence[float]
    accuracies: Sequence[float]
    shell: float
    tax: float | None = None

    def cells(self, first: "Result") -> list[str]:
        """A row of the table, with ratios to the first."""
        mean, of = statistics.mean(self.seconds), statistics.mean(first.seconds)
        return [
            *(f"{len(self.seconds)}", f"{mean:.2f}", f"{mean / of:.2f}"),
            spread([100 * each for each in self.accuracies]),
            *(f"{self.shell:.1f}", f"{self.shell / first.shell:.2f}"),
            "" if self.tax is None else f"{self.tax:+.1%}",
        ]


class Clock(L.Callback):
    """Times a training from its first step to the test accuracy, and then the same steps in a bare loop.

    Args:
        taxed: whether there is that loop.
    """

    tax: float | None = None

    def __init__(self, taxed: bool) -> None:
        self.taxed = taxed

    def on_train_start(self, trainer: L.Trainer, module: Classifier) -> None:  # type: ignore[override]
        """Before the module computes its whitening."""
        Path(str(trainer.log_dir), "batch.svg").touch()  # or it would be drawn in the first step
        data = trainer.datamodule  # type: ignore[attr-defined]
        test = data.images("test")  # the peers' clock goes on until they have judged these, too
        self.images = torch.from_numpy(test.pixels[:]).to(module.device).permute(0, 3, 1, 2)
        self.labels = torch.from_numpy(test.labels).to(module.device)
        state = deepcopy(module.state_dict())
        for batch, _ in zip(data.train_dataloader(), range(3), strict=False):  # what is compiled or tuned is so now
            module.zero_grad()  # gradients may lie in memory of a CUDA graph
            loss_of(trainer, module.train(), data, batch).backward()
            self.judge(trainer, module)
        module.train().zero_grad()
        module.load_state_dict(state)
        self.start = now()

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.current_epoch == 0:
            self.first_step = now()

    def on_train_epoch_end(self, trainer: L.Trainer, module: Classifier) -> None:  # type: ignore[override]
        """Judge the net by the test images, before its checkpoints are written: the peers write none."""
        if trainer.current_epoch == trainer.max_epochs - 1:  # type: ignore[operator]
            self.last_step = now()
            self.accuracy = self.judge(trainer, module)
            self.seconds = now() - self.start

    def on_train_end(self, trainer: L.Trainer, module: Classifier) -> None:  # type: ignore[override]
        if self.taxed:
            self.tax = (self.last_step - self.first_step) / bare(trainer, module) - 1

    def judge(self, trainer: L.Trainer, module: Classifier) -> float:
        """Share of the test images that are recognised."""
        module.eval()
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            found = torch.cat([module(images).argmax(1) for images in self.images.split(TOGETHER)])
            return (found == self.labels).float().mean().item()


def loss_of(trainer: L.Trainer, module: Classifier, data: ImageData, batch: object) -> Tensor:
    """What a step of training computes."""
    images, labels, *_ = data.augmented(batch)  # type: ignore[arg-type]
    with trainer.precision_plugin.train_step_context():
        return module.loss_of(module(images), labels, images)


def bare(trainer: L.Trainer, module: Classifier) -> float:
    """Seconds of as many steps with the same net, batches, loss and optimizer, without a Trainer."""
    module.train()
    (optimizer,), data, steps = trainer.optimizers, trainer.datamodule, 0  # type: ignore[attr-defined]
    start = now()
    while steps < trainer.global_step:
        for batch in data.train_dataloader():
            optimizer.zero_grad()
            loss_of(trainer, module, data, batch).backward()
            optimizer.step()
            steps += 1
            if steps == trainer.global_step:
                break
    return now() - start


def seeds(config: str, words: list[str], count: int) -> None:
    """Train with one seed after the other in this process; print seconds, accuracy and tax of each."""
    for seed in range(count):
        clock = Clock(taxed=seed <= TAXED)
        with tempfile.TemporaryDirectory() as folder:
            place = ["--trainer.default_root_dir", folder, "--seed_everything", str(seed)]
            quick = ["--trainer.limit_val_batches", "0", "--last.every_n_epochs", "1000"]  # as nobody else does
            run(["fit", "--config", config, *words, *place, *quick], callbacks=[clock])
        print("\n" + json.dumps([clock.seconds, clock.accuracy, clock.tax]))


def ours(config: str, words: list[str], count: int, deadline: float) -> Result:
    """One config: its seeds in one process, and once as people type it."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # nothing is compiled yet
        place = ["--trainer.default_root_dir", folder]
        start = time.perf_counter()
        command = [sys.executable, "-m", "cifar_lightning"]
        list(lines([*command, "fit", "--config", config, *words, *place], ROOT, deadline))
        (best,) = Path(folder).rglob("best.ckpt")
        list(lines([*command, "test", "--ckpt_path", str(best), "--resamples", "10"], ROOT, deadline))
        shell = time.perf_counter() - start
        worker = ["-u", __file__, "--worker", config, "--seeds", str(count + 1), "--words", json.dumps(words)]
        said = lines([sys.executable, *worker], ROOT, deadline)
        rows = [json.loads(line) for line in said if line.startswith("[")]
    seconds, accuracies, taxes = zip(*measured(rows, config), strict=True)
    return Result(seconds, accuracies, shell, statistics.median(each for each in taxes if each is not None))


def peer(script: Path, folder: Path, count: int, deadline: float) -> Result:
    """A program that trains again and again in `folder`, until it has done so often enough.

    It finds the images in `cifar10/train.pt` and `test.pt`, and prints a table: a row whose epoch is `eval` ends a run,
    with test accuracy and seconds in its last columns. The first run warms it up, and is what people would wait for.
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / script.stem)  # nothing is compiled yet
    start, shell = time.perf_counter(), 0.0
    rows: list[list[float]] = []
    for line in lines([sys.executable, "-u", str(script.resolve())], folder, deadline):
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) > 2 and cells[1] == "eval":
            rows.append([float(cells[-1]), float(cells[-2])])
            shell = shell or time.perf_counter() - start
        if len(rows) > count:
            break
    seconds, accuracies = zip(*measured(rows, script.name), strict=True)
    return Result(seconds, accuracies, shell)


def measured(rows: list[Any], program: str) -> list[Any]:
    """All but the first, which warms a program up."""
    if len(rows) < 2:
        sys.exit(f"{program} ended after {len(rows)} runs: one is to warm up, and one at least to be measured")
    return rows[1:]


def store(data: Path, folder: Path) -> None:
    """The images as the peers read them: in random order, as CIFAR-10 is, since they whiten by the first ones."""
    found = pictures(data)
    folder.mkdir()
    for name, images, labels in (("train", "images", "labels"), ("test", "test", "answers")):
        order = np.random.default_rng(0).permutation(len(found[labels]))
        kept = {"images": torch.from_numpy(found[images][order]), "labels": torch.from_numpy(found[labels][order])}
        torch.save(kept | {"classes": list("0123456789")}, folder / f"{name}.pt")


def main() -> None:
    """Run everything and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, nargs="*", default=[])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seeds", type=int, default=25)
    parser.add_argument("--configs", nargs="*", default=CONFIGS)
    parser.add_argument("--deadline", type=float, default=600)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--words", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        seeds(options.worker, options.words, options.seeds)
        return
    data = options.data.resolve()
    if not torch.cuda.is_available() and options.configs is CONFIGS:
        sys.exit("no GPU: the speedruns need one; configs for CPUs can be named with --configs")
    rows: list[list[str]] = []
    first: Result | None = None
    with tempfile.TemporaryDirectory() as name:
        if options.peers and data.is_dir():
            store(data, Path(name, "cifar10"))
        programs = {each: partial(ours, str(Path(each).resolve()), source(data)) for each in options.configs}
        programs |= {script.name: partial(peer, script, Path(name)) for script in options.peers}
        for program, measure in programs.items():
            try:
                result = measure(options.seeds, options.deadline)
            except (SystemExit, ValueError) as stop:  # the others are measured all the same
                print(f"{program}: {stop}", file=sys.stderr)
                continue
            first = first or result
            rows.append([program, *result.cells(first)])
            print(*rows[-1], sep=" | ", flush=True)
    print(machine())
    of = f"of {rows[0][0]}" if rows else ""
    show(["", "seeds", "s to accuracy", of, "test accuracy", "s from shell", of, "fit adds"], rows)
    if len(rows) < len(programs):
        sys.exit(1)


if __name__ == "__main__":
    main()
