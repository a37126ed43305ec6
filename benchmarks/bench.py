"""What the benchmarks share: the images, the machine's ceiling, processes of their own, tables."""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifar_lightning.data import ImageFolder
from cifar_lightning.main import main as command
from cifar_onnx.benchmark import ceiling
from cifar_onnx.cpus import usable_cpus

ROOT = Path(__file__).parent.parent
DATA = ROOT / "data" / "cifar10-jpeg"
PEERS = ROOT / ".venv-peers" / "bin" / "python"
TUTORIAL_FLOPS = 3 * 21_170_688 - 1_769_472  # the tutorial's CNN, one picture, forward and back to the first layer


def pictures(folder: Path) -> dict[str, np.ndarray]:
    """Training and test images in `folder`."""
    data = ImageFolder(str(folder))
    train, val, test = (data.images(part) for part in ("train", "val", "test"))
    return {
        "images": np.concatenate([train.pixels[:], val.pixels[:]]),
        "labels": np.concatenate([train.labels, val.labels]),
        "test": test.pixels[:],
        "answers": test.labels,
    }


def noise(count: int = 50_000) -> dict[str, np.ndarray]:
    """So many training images, and a fifth as many test images, of noise: speed does not depend on what they show."""
    generator, made = np.random.default_rng(0), dict[str, np.ndarray]()
    for (images, labels), number in {("images", "labels"): count, ("test", "answers"): count // 5}.items():
        made[images] = generator.integers(256, size=(number, 32, 32, 3), dtype=np.uint8)
        made[labels] = generator.integers(10, size=number)
    return made


def there(text: str) -> Path:
    """The type of an argument that names what a benchmark cannot do without, wherever it runs its programs."""
    if not (path := Path(text).resolve()).exists():
        raise argparse.ArgumentTypeError(f"there is no {text}")
    return path


def source(folder: Path) -> list[str]:
    """Words by which `fit` takes its images from `folder`; none where there is no such folder, for CIFAR-10 itself."""
    return ["--data", "ImageFolder", "--data.root", str(folder)] if folder.is_dir() else []


def answers(command: Sequence[object]) -> list[Any]:
    """What a program prints: a JSON value on each line; anything else is passed over."""
    words = list(map(str, command))
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)  # noqa: S603
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines() if line[:1] in ("{", "[")]


def lines(command: list[str], folder: Path, deadline: float) -> Iterator[str]:
    """What a program says, until it ends, its reader has enough, or so many seconds are over."""
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        end = threading.Timer(deadline, process.kill)
        end.start()
        try:
            for line in process.stdout:
                print(line, end="", file=sys.stderr)  # what was measured is not lost with this process
                yield line
        finally:
            end.cancel()
            process.kill()


def fit(experiment: str, *words: str) -> Path:
    """Train as `fit` does with these words, in the current folder; the run's folder."""
    if code := command(["fit", "--experiment", experiment, *words]):
        sys.exit(code)
    return Path("runs", experiment, "version_0")


def tested(run: Path, checkpoint: str) -> float:
    """Test accuracy of a run's checkpoint in per cent; its report lies beside it afterwards."""
    if code := command(["test", "--ckpt_path", str(run / "checkpoints" / checkpoint), "--resamples", "10"]):
        sys.exit(code)
    return 100 * float(json.loads((run / "report" / "metrics.json").read_text())["metrics"]["accuracy"]["value"])


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds of what is in per cent."""
    return f"{statistics.mean(values):.1f} %" + (f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def now() -> float:
    """Seconds, once the GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def machine() -> str:
    """One line that every table starts with."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    line = f"{usable_cpus()} CPUs ({model}), ceiling {ceiling():,.0f} GFLOP/s in a float32 matrix product"
    if torch.cuda.is_available():
        line += f"; {torch.cuda.get_device_name()}, ceiling {gpu_ceiling():,.0f} TFLOP/s in a bfloat16 one"
    return f"{line}; PyTorch {torch.__version__}"


def gpu_ceiling(side: int = 8192, laps: int = 20) -> float:
    """What the GPU can do: 1e12 operations a second in a bfloat16 matrix product."""
    a = torch.randn(side, side, dtype=torch.bfloat16, device="cuda")  # ones would need less power, and run faster
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    a @ a
    start.record()
    for _ in range(laps):
        a @ a
    end.record()
    torch.cuda.synchronize()
    return float(laps * 2 * side**3 / start.elapsed_time(end) / 1e9)


def show(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table: the first column is text."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        print("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]))
