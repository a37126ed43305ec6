"""What `python -m cifar_onnx evaluate` and `compare` do, and what `python -m cifar_lightning test` ends with."""

import argparse
from pathlib import Path

from cifar_onnx.errors import InputError
from cifar_onnx.evaluation import report, tables
from cifar_onnx.evaluation.answers import answer, familiarity
from cifar_onnx.evaluation.bootstrap import Bootstrap, draw
from cifar_onnx.evaluation.compare import Comparison, bounds, latency, same_classes
from cifar_onnx.evaluation.evaluation import Evaluation
from cifar_onnx.evaluation.metrics import SCALES, words
from cifar_onnx.evaluation.reliability import reliability
from cifar_onnx.evaluation.report import Maps
from cifar_onnx.evaluation.robustness import under_corruptions
from cifar_onnx.evaluation.slices import Groups, slicings
from cifar_onnx.evaluation.subject import subjects
from cifar_onnx.folders import labelled
from cifar_onnx.shell import say

_SHOWN = ("accuracy", "f1_macro", "negative_log_likelihood", "expected_calibration_error")
_LINES = 20  # for classes, and for bounds, so that the verdict stays on the screen


def evaluate(options: argparse.Namespace) -> int:
    """Judge a model by labelled pictures."""
    (subject,), photos, output = subjects([options.model], options), Path(options.photos), Path(options.output)
    place = tables.check_folder(output)
    groups = Groups(Path(options.groups)) if options.groups else None
    files = labelled(photos, subject.classes)  # a mistake shows before the work
    folder = photos if photos.is_dir() else photos.parent
    if groups:
        groups.check([str(path) for path, _ in files], folder)
    known, others = subject.contract, None
    if options.others:
        if known is None:
            raise InputError(f"--others needs a model with a contract: {subject.path} has none")
        others = familiarity(Path(options.others), subject)
    (outcome,) = answer(photos, subject, keep=place)
    bootstrap = Bootstrap(outcome, draw(len(outcome.labels), options.resamples))
    slices = slicings(outcome, groups.of(outcome.names, folder) if groups else None)
    harder = [under_corruptions(outcome, subject.run)] if options.corruptions else []
    doubts = reliability(outcome, known.temperature, known.sets, known.unknown, subject.run, others) if known else None
    facts = {**subject.facts, "pictures": str(photos)}
    evaluation = Evaluation(subject.path.name, facts, bootstrap, slices, harder, doubts)
    publish(evaluation, output, subject.explain, subject.by_occlusion)
    return 0


def compare(options: argparse.Namespace) -> int:
    """Hold two models against each other; 1 where a bound is broken."""
    models, output = subjects([options.a, options.b], options), Path(options.output)
    tables.check_folder(output, tables.COMPARISON)
    same_classes(*(each.classes for each in models))
    a, b = answer(Path(options.photos), *models)
    comparison = Comparison(a, b)
    milliseconds = latency([(each.run, each.size) for each in models])
    sizes = [each.megabytes for each in models]
    broken = bounds(comparison, options.max_drop, options.no_class_below)
    tables.write_comparison(comparison, [str(each.path) for each in models], sizes, milliseconds, broken, output)

    points = [f"{100 * value:+.2f}" for value in vars(comparison.change).values()]
    print(f"{'':<10} {'A':>12} {'B':>12}")
    print(f"{'accuracy':<10} {a.correct.mean():>12.2%} {b.correct.mean():>12.2%}")
    print(f"{'size':<10} {sizes[0]:>9.2f} MB {sizes[1]:>9.2f} MB")
    print(f"{'latency':<10} {milliseconds[0]:>9.2f} ms {milliseconds[1]:>9.2f} ms, one picture at a time")
    print("accuracy changes by {} points ({} to {})".format(*points) + f": {comparison.verdict}")
    print(f"{len(comparison.newly_right):,} pictures newly right, {len(comparison.newly_wrong):,} newly wrong")
    changed = sorted(comparison.classes, key=lambda each: -abs(each.change.value))
    for each in sorted(changed[:_LINES], key=lambda each: each.change.value):
        say(f"  {each.name:<20} recall {each.before:.1%} to {each.after:.1%} ({100 * each.change.value:+.1f} points)")
    if rest := changed[_LINES:]:
        print(f"  and {len(rest):,} more classes, whose recall changed no more: see {output / 'comparison.json'}")
    if a.unreadable:
        say(f"files that could not be read: {len(a.unreadable)}, {a.unreadable[0].name} is the first")
    print(f"wrote {output / 'comparison.json'} and newly_wrong.csv")
    for sentence in broken[:_LINES]:
        say(f"broken: {sentence}")
    if hidden := broken[_LINES:]:
        print(f"broken: and {len(hidden):,} more classes: see {output / 'comparison.json'}")
    return 1 if broken else 0


def publish(evaluation: Evaluation, folder: Path, explain: Maps, by_occlusion: bool = True) -> None:
    """Write all files of an evaluation into a folder, and print the figures that people ask for first.

    Args:
        evaluation: what is known.
        folder: where the files go.
        explain: what in a picture supports a class, for the mistakes in the report.
        by_occlusion: whether it does so by occlusion, which takes many runs of the net: then of the first few only.
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
            few = f" of {harder.images:,} pictures, evenly spread" if harder.images else ""
            print(f"{harder.title:<27} mean accuracy {harder.mean:.1%}{few}")
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
    if absent := evaluation.outcome.absent:
        say(f"there were no pictures of {absent}")
    if unreadable := len(evaluation.outcome.unreadable):
        print(f"files that could not be read: {unreadable}, see {folder / 'predictions.csv'}")
    print(f"wrote {folder / 'report.html'}, metrics.json, per_class.csv, confusion.csv and predictions.csv")
