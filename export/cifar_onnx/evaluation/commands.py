"""What `python -m cifar_onnx evaluate` and `compare` do, and what `python -m cifar_lightning test` ends with."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cifar_onnx import Classifier
from cifar_onnx.commands import say
from cifar_onnx.contract import Contract
from cifar_onnx.errors import InputError, NoContractError
from cifar_onnx.evaluation import report, tables
from cifar_onnx.evaluation.bootstrap import Bootstrap, draw
from cifar_onnx.evaluation.compare import Comparison, bounds, latency, same_classes
from cifar_onnx.evaluation.evaluation import Evaluation
from cifar_onnx.evaluation.foreign import ForeignClassifier
from cifar_onnx.evaluation.metrics import SCALES, words
from cifar_onnx.evaluation.outcome import Answers, Logits, answer, squares
from cifar_onnx.evaluation.reliability import reliability
from cifar_onnx.evaluation.report import Maps
from cifar_onnx.evaluation.robustness import under_corruptions
from cifar_onnx.evaluation.slices import Groups, slicings
from cifar_onnx.explain import occlusion
from cifar_onnx.images import Pixels, ResizeMode

_SHOWN = ("accuracy", "f1_macro", "negative_log_likelihood", "expected_calibration_error")


class Subject:
    """A model to be judged, with a contract or without.

    Args:
        path: its file.
        options: of the command line; classes, mean, std, size and resize are those of a file without a contract.
    """

    def __init__(self, path: str, options: argparse.Namespace) -> None:
        self.path = Path(path)
        self.contract: Contract | None = None
        self.run: Answers
        self.logits: Logits
        self.explain: Maps
        self.mode: ResizeMode
        providers, threads = options.provider or ("cpu",), options.threads
        try:
            classifier = Classifier(path, providers=providers, threads=threads)
        except NoContractError:
            if not options.classes:
                raise InputError(
                    f"{path} holds no contract: say what it answers and takes with --classes, --mean, --std and --size"
                ) from None
            foreign = ForeignClassifier(
                *(path, _names(options.classes), options.mean, options.std, options.size),
                providers=providers,
                threads=threads,
            )
            self.foreign, digest = True, ""
            self.classes, self.size, self.mode = foreign.classes, foreign.size, options.resize or "stretch"
            self.run, self.logits = lambda batch: (foreign.logits(batch), None), foreign.logits
            self.explain, self.by_occlusion = partial(occlusion, foreign.logits), True
        else:
            self.contract = contract = classifier.contract
            self.foreign, digest = False, contract.digest
            self.classes, self.size, self.mode = contract.classes, contract.size, contract.resize
            temperature = np.float32(contract.temperature)

            def run(batch: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
                logits, _, familiarity = classifier.run(batch)
                return logits / temperature, familiarity

            self.run, self.logits = run, lambda batch: run(batch)[0]
            self.explain = lambda pixels, k: classifier.explain(pixels, contract.classes[k])
            self.by_occlusion = not classifier.has_maps
        self.facts = {
            "file": str(self.path),
            "size": f"{self.path.stat().st_size / 1e6:.2f} MB",
            **({"digest": digest} if digest else {}),
            "input": f"{self.size} x {self.size} pixels ({self.mode})",
            "maps by": "occlusion" if self.by_occlusion else "class activation",
            "run by": f"onnxruntime {onnxruntime.__version__} on {providers[0]}",
        }


def _subjects(paths: Sequence[str], options: argparse.Namespace) -> list[Subject]:
    subjects = [Subject(path, options) for path in paths]
    given = [f"--{name}" for name in ("classes", "mean", "std", "size", "resize") if getattr(options, name)]
    if given and not any(subject.foreign for subject in subjects):
        raise InputError(f"{given[0]} is for files without a contract: {' and '.join(paths)} came with one")
    return subjects


def _names(text: str) -> list[str]:
    """Class names: the lines of a file, or words with commas between them."""
    if "," in text:
        lines = text.split(",")
    elif not Path(text).is_file():
        raise InputError(f"--classes {text}: no such file, and no names with commas between them")
    else:
        try:
            lines = Path(text).read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{text} is not text in UTF-8: {error}") from None
    return [line.strip() for line in lines if line.strip()]


def evaluate(options: argparse.Namespace) -> int:
    """Judge a model by the pictures in a folder."""
    (subject,), folder, output = _subjects([options.model], options), Path(options.folder), Path(options.output)
    tables.prepare(output)
    groups = Groups(Path(options.groups)) if options.groups else None
    known, others = subject.contract, None
    if options.others:
        if known is None:
            raise InputError(f"--others needs a model with a contract: {subject.path} has none")
        others = squares(Path(options.others), subject.size, subject.mode)
    outcome = answer(folder, subject.classes, subject.size, subject.mode, subject.run)
    bootstrap = Bootstrap(outcome, draw(len(outcome.labels), options.resamples))
    evaluation = Evaluation(
        subject.path.name,
        {**subject.facts, "pictures": str(folder)},
        bootstrap,
        slicings(bootstrap, groups.of(outcome.names, folder) if groups else None),
        [under_corruptions(outcome, subject.logits)] if options.corruptions else [],
        reliability(outcome, known.temperature, known.sets, known.unknown, subject.run, others) if known else None,
    )
    publish(evaluation, output, subject.explain, subject.by_occlusion)
    return 0


def compare(options: argparse.Namespace) -> int:
    """Hold two models against each other; 1 where a bound is broken."""
    subjects, folder, output = _subjects([options.a, options.b], options), Path(options.folder), Path(options.output)
    tables.prepare(output)
    same_classes(*(each.classes for each in subjects))
    outcomes = [answer(folder, each.classes, each.size, each.mode, each.run, keep=False) for each in subjects]
    a, b = outcomes
    comparison = Comparison(a, b, draw(len(a.labels), options.resamples))
    milliseconds = latency([(each.logits, each.size) for each in subjects])
    sizes = [each.path.stat().st_size / 1e6 for each in subjects]
    broken = bounds(comparison, options.max_drop, options.no_class_below)
    tables.write_comparison(comparison, [str(each.path) for each in subjects], sizes, milliseconds, broken, output)

    points = [f"{100 * value:+.2f}" for value in vars(comparison.change).values()]
    print(f"{'':<10} {'A':>12} {'B':>12}")
    print(f"{'accuracy':<10} {a.correct.mean():>12.2%} {b.correct.mean():>12.2%}")
    print(f"{'size':<10} {sizes[0]:>9.2f} MB {sizes[1]:>9.2f} MB")
    print(f"{'latency':<10} {milliseconds[0]:>9.2f} ms {milliseconds[1]:>9.2f} ms, one picture at a time")
    print("accuracy changes by {} points ({} to {})".format(*points) + f": {comparison.verdict}")
    print(
        f"{len(comparison.newly_right):,} pictures newly right, {len(comparison.newly_wrong):,} newly wrong "
        f"(McNemar's test: p = {comparison.p_value:.2g})"
    )
    for each in sorted(comparison.classes, key=lambda each: each.change.value):
        say(f"  {each.name:<20} recall {each.before:.1%} to {each.after:.1%} ({100 * each.change.value:+.1f} points)")
    if a.unreadable:
        say(f"files that could not be read: {len(a.unreadable)}, {a.unreadable[0].name} is the first")
    print(f"wrote {output / 'comparison.json'} and newly_wrong.csv")
    for sentence in broken:
        say(f"broken: {sentence}")
    return 1 if broken else 0


def publish(evaluation: Evaluation, folder: Path, explain: Maps, by_occlusion: bool = True) -> None:
    """Write all files of an evaluation into a folder, and print the figures that people ask for first.

    Args:
        evaluation: what is known.
        folder: where the files go.
        explain: what in a picture spoke for a class, for the mistakes in the report.
        by_occlusion: how it does that.
    """
    tables.write(evaluation, folder)
    report.write(evaluation, folder / "report.html", explain, by_occlusion)
    for name in _SHOWN:
        each = evaluation.estimates[name]
        form = "{:.3f}" if name in SCALES else "{:.1%}"
        value, low, high = map(form.format, (each.value, each.low, each.high))
        print(f"{words(name):<27} {value} ({low} to {high})")
    for harder in evaluation.robustness:
        if harder.mean is not None:
            print(f"{harder.title:<27} mean accuracy {harder.mean:.1%}")
            continue
        lowest = [min(values) for values in zip(*harder.rows.values(), strict=True)]
        steps = ", ".join(f"{value:.1%} at {step}" for step, value in zip(harder.columns, lowest, strict=True))
        print(f"{harder.title:<27} accuracy {steps}")
    for rejection in evaluation.reliability.rejections if evaluation.reliability else ():
        if rejection.kind == "others":
            print(
                f"{'others':<27} {rejection.rejected:.1%} of {rejection.count:,} called unknown "
                f"(AUROC {rejection.auroc:.3f})"
            )
    if unreadable := len(evaluation.outcome.unreadable):
        print(f"files that could not be read: {unreadable}, see {folder / 'predictions.csv'}")
    print(f"wrote {folder / 'report.html'}, metrics.json, per_class.csv, confusion.csv and predictions.csv")
