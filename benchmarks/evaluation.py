"""What judging costs beside running the net, and beside a bootstrap that asks scikit-learn about every resample.

python benchmarks/evaluation.py model.onnx DIR: a table from one run, the medians of five rounds.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
from sklearn import metrics

from cifar_onnx.evaluation import report, tables
from cifar_onnx.evaluation.answers import answer
from cifar_onnx.evaluation.bootstrap import Bootstrap, draw
from cifar_onnx.evaluation.evaluation import Evaluation
from cifar_onnx.evaluation.metrics import TOP
from cifar_onnx.evaluation.outcome import Outcome
from cifar_onnx.evaluation.slices import slicings
from cifar_onnx.evaluation.subject import exported

ROUNDS, RESAMPLES = 5, 1000
PEER = "peer: scikit-learn, each resample"


T = TypeVar("T")


def timed(rows: dict[str, list[float]], name: str, work: Callable[[], T]) -> T:
    """Do some work and keep how many seconds it took."""
    start = time.perf_counter()
    result = work()
    rows.setdefault(name, []).append(time.perf_counter() - start)
    return result


def peer(outcome: Outcome) -> None:
    """All metrics by scikit-learn alone."""
    labels, predictions, probabilities = outcome.labels, outcome.predictions, outcome.probabilities
    classes = np.arange(len(outcome.classes))
    for score in (metrics.accuracy_score, metrics.matthews_corrcoef, metrics.cohen_kappa_score):
        score(labels, predictions)
    for average in ("macro", "micro", "weighted"):
        metrics.precision_recall_fscore_support(labels, predictions, average=average, zero_division=0)
    for score in (metrics.roc_auc_score, metrics.average_precision_score):
        for k in np.unique(labels):
            score(labels == k, probabilities[:, k])
    if len(classes) > TOP:
        metrics.top_k_accuracy_score(labels, probabilities, k=TOP, labels=classes)
    metrics.log_loss(labels, probabilities, labels=classes)
    metrics.brier_score_loss(labels, probabilities, labels=classes)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    model = exported(options.model)
    rows: dict[str, list[float]] = {}

    def run() -> Outcome:
        (found,) = answer(options.folder, model, keep=Path(name))
        return found

    def judge(place: Path) -> Evaluation:
        bootstrap = Bootstrap(outcome, draw(len(outcome.labels), RESAMPLES))
        evaluation = Evaluation("model", {}, bootstrap, slicings(outcome))
        tables.write(evaluation, place)
        return evaluation

    def page(evaluation: Evaluation, place: Path) -> None:
        report.write(evaluation, place, model.explain, model.by_occlusion)

    with tempfile.TemporaryDirectory() as name:
        for _ in range(ROUNDS):
            outcome = timed(rows, "decode and run the net", run)
            evaluation = timed(rows, "figures, intervals, groups, tables", lambda: judge(Path(name)))
            timed(rows, "page", lambda: page(evaluation, Path(name, "report.html")))  # noqa: B023  called at once
    chosen = np.random.default_rng(0).integers(len(outcome.labels), size=len(outcome.labels))
    again = Outcome(
        outcome.classes, outcome.names, outcome.labels[chosen], outcome.logits[chosen], outcome.pixels[chosen]
    )
    for _ in range(ROUNDS):
        timed(rows, PEER, lambda: peer(again))
    rows[PEER] = [RESAMPLES * each for each in rows[PEER]]
    print(f"{len(outcome.labels):,} pictures of {len(outcome.classes)} classes, {RESAMPLES:,} resamples")
    whole = median(rows["decode and run the net"])
    for name, values in rows.items():
        print(f"{name:<36} {median(values):>8.2f} s {median(values) / whole:>8.2f}")


if __name__ == "__main__":
    main()
