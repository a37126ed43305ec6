"""Latency and throughput of a model on this machine, by batch and threads, beside the machine's ceiling.

Notation: `B` batch, `S` side in pixels of the square that the net sees.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice

import numpy as np

from cifar_onnx import contract
from cifar_onnx.classifier import BATCH, Classifier
from cifar_onnx.cpus import usable_cpus
from cifar_onnx.errors import InputError
from cifar_onnx.folders import find
from cifar_onnx.images import decode
from cifar_onnx.session import Providers

BATCHES = (1, 8, 32, 256)
PICTURES = 32  # different ones at most; larger batches hold them several times
PATIENCE = 10.0  # seconds for a setting at most: of photos from a camera a large batch would take minutes
_WARM, _LAPS = 2, 3  # calls that do not count, and after them at least
ENOUGH = 0.95  # of the best throughput: what a larger batch adds beyond it is not worth its latency


@dataclass(frozen=True)
class Timing:
    """What one setting costs.

    Attributes:
        work: `pixels`, uint8 arrays of the net's size; or `files`, from encoded bytes to predictions.
        threads: of the net.
        batch: `B`.
        p50: median latency of a batch in milliseconds; p90 and p99 likewise.
        images_per_second: over all batches.
        gflops: floating-point operations of the net alone, in 1e9 a second; None where the file does not tell.
    """

    work: str
    threads: int
    batch: int
    p50: float
    p90: float
    p99: float
    images_per_second: float
    gflops: float | None


@dataclass(frozen=True)
class Advice:
    """The settings of `Classifier` that are best: threads for one picture, and threads and batch for many."""

    threads_for_one: int
    threads_for_many: int
    batch: int


@np.errstate(all="ignore")  # as for `resizing.resize`
def ceiling(seconds: float = 0.5) -> float:
    """What this machine can do with all its CPUs: 1e9 operations a second in a float32 matrix product (numpy's)."""
    a = np.ones((1024, 1024), np.float32)
    times = list(laps(lambda: a @ a, seconds))
    return float(2 * 1024**3 / min(times) / 1e9)


def encoded(path: str, paths: Sequence[str]) -> list[bytes]:
    """Pictures as files hold them: some from all over `paths`, files or folders, or else the model's golden samples."""
    if not paths:
        golden = [each.encoded for each in contract.read(path)[1].golden]
        if not golden:
            raise InputError(f"{path} holds no golden samples: name pictures with --photos")
        return golden
    files = [file for each in paths for file in find(each)]
    count = min(len(files), PICTURES)
    files = [files[place * len(files) // count] for place in range(count)]
    for file in files:
        decode(file)  # an error names it
    return [file.read_bytes() for file in files]


def benchmark(path: str, pictures: Sequence[bytes], seconds: float, providers: Providers = None) -> Iterator[Timing]:
    """Time every setting, one after the other, but for batches that would take too long, or more memory than there is.

    Args:
        path: the model file.
        pictures: encoded.
        seconds: for each setting; at least three batches are run.
        providers: as of `Classifier`.
    """
    for threads in _threads():
        classifier = Classifier(path, providers=providers, threads=threads)
        flops = classifier.contract.info.get("cost", {}).get("flops")
        pace = {"pixels": 0.0, "files": 0.0}  # seconds for each picture, as far as it is known
        for batch in BATCHES:
            for work in pace:
                if (_WARM + _LAPS) * batch * pace[work] > PATIENCE:
                    continue
                try:
                    times = np.array(list(laps(_call(work, classifier, pictures, batch), seconds)))
                except (InputError, MemoryError):  # the former is what Classifier makes of onnxruntime's
                    if batch == 1:
                        raise
                    pace[work] = math.inf
                    continue
                p50, p90, p99 = 1000 * np.percentile(times, (50, 90, 99))
                rate = batch * len(times) / times.sum()
                pace[work] = 1 / rate
                gflops = rate * flops / 1e9 if isinstance(flops, int | float) else None
                yield Timing(work, threads, batch, p50, p90, p99, rate, gflops)


def _call(work: str, classifier: Classifier, pictures: Sequence[bytes], batch: int) -> Callable[[], object]:
    if work == "files":
        return partial(_classified, classifier, cycle(pictures), batch_size=batch)
    shape = (batch, classifier.contract.size, classifier.contract.size, 3)
    return partial(classifier.run, np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8))


def _classified(classifier: Classifier, pictures: Iterator[bytes], batch_size: int) -> None:
    """Classify the next pictures, a single one without the threads that decode many."""
    if batch_size == 1:
        classifier(next(pictures))
    else:
        classifier(islice(pictures, batch_size), batch_size)


def advise(timings: Sequence[Timing]) -> Advice:
    """The fastest settings; of those that are about as good, the one that `Classifier` has of itself."""
    default = usable_cpus()
    of_pixels = [each for each in timings if each.work == "pixels"]
    single = [each for each in of_pixels if each.batch == 1]
    quickest = min(each.p50 for each in single)
    one = [each.threads for each in single if each.p50 * ENOUGH <= quickest]
    best = max(each.images_per_second for each in of_pixels)
    many = [each for each in of_pixels if each.images_per_second >= ENOUGH * best]
    own = [each for each in many if (each.threads, each.batch) == (default, BATCH)]
    chosen = own[0] if own else min(many, key=lambda each: (each.batch, each.threads))
    return Advice(default if default in one else min(one), chosen.threads, chosen.batch)


def table(timings: Sequence[Timing], top: float) -> str:
    """The timings as lines of text; `top` is the machine's ceiling in GFLOP/s."""
    lines = [f"{'from':<8}{'threads':>8}{'batch':>7}{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'images/s':>11}"]
    known = all(each.gflops for each in timings)
    lines[0] += f"{'GFLOP/s':>10}{'of ceiling':>12}" if known else ""
    for each in timings:
        line = f"{each.work:<8}{each.threads:>8}{each.batch:>7}{each.p50:>10.2f}{each.p90:>10.2f}{each.p99:>10.2f}"
        line += f"{each.images_per_second:>11,.{1 if each.images_per_second < 10 else 0}f}"
        lines.append(line + (f"{each.gflops:>10.1f}{each.gflops / top:>12.0%}" if known and each.gflops else ""))
    return "\n".join(lines)


def _threads() -> list[int]:
    """1, 2, 4 and so on, and all CPUs."""
    cpus = usable_cpus()
    return sorted({cpus, *(2**power for power in range(cpus.bit_length()) if 2**power <= cpus)})


def laps(call: Callable[[], object], seconds: float) -> Iterator[float]:
    """Seconds of each call, three at least, after two that do not count."""
    for _ in range(_WARM):
        call()
    end, done = time.perf_counter() + seconds, 0
    while done < _LAPS or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        yield time.perf_counter() - start
        done += 1
