"""The commands that need no extra, and what they print; each returns its exit code."""

import argparse
import csv
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import onnxruntime

from cifar_onnx import Classifier, ImageError, Prediction, contract, shell, site
from cifar_onnx import benchmark as speed
from cifar_onnx.cpus import usable_cpus
from cifar_onnx.errors import InputError
from cifar_onnx.folders import find, others
from cifar_onnx.shell import say

_NAMED = 4  # classes of a prediction set, as on the page
_BATCH = 16  # pictures that run together; as many more are being decoded

Answer = tuple[str, Prediction | str]  # path, and an error where there is no prediction


def _classifier(options: argparse.Namespace) -> Classifier:
    return Classifier(options.model, providers=options.provider, threads=options.threads, untrusted=options.untrusted)


def classify(options: argparse.Namespace) -> int:
    """Classify files, folders and globs."""
    for path in options.paths:
        if path.lower().endswith(".onnx") and not os.path.isdir(path):  # which other commands take first
            raise InputError(f"{path} is a model, not a picture: name it by --model")
    classifier = _classifier(options)
    names: list[tuple[str, str]] = []  # path, and why there is nothing to open
    for pattern in options.paths:
        try:
            names += [(str(path), "") for path in find(pattern)]
        except InputError as error:
            names.append((pattern, str(error).removeprefix(f"{pattern}: ")))
            continue
        if os.path.isdir(pattern) and (left := others(Path(pattern))):
            words = f"skipped {len(left):,} files whose names do not end like a picture's, such as {left[0]}"
            say(f"{pattern}: {words}", sys.stderr)
    code, top_k, width = 0, min(options.top_k, len(classifier.classes)), max(len(name) for name, _ in names)
    if options.csv:
        ranks = ["", *(f"_{rank}" for rank in range(2, top_k + 1))]
        columns = [f"{name}{rank}" for rank in ranks for name in ("label", "probability")]
        sheet = csv.writer(sys.stdout, lineterminator="\n")
        sheet.writerow(["path", *columns, "labels", "unknown", "error"])
    for name, answer in _answers(classifier, names):
        code |= isinstance(answer, str)
        if options.json:
            facts = {"error": answer} if isinstance(answer, str) else answer.as_dict(top_k)
            print(json.dumps({"path": name, **facts}), flush=True)
        elif options.csv:
            sheet.writerow([name, *_cells(answer, top_k)])
        else:
            say(f"{name:<{width}}  {_words(answer, top_k)}")
    return code


def _answers(classifier: Classifier, names: Sequence[tuple[str, str]]) -> Iterator[Answer]:
    answers = classifier.stream((name for name, error in names if not error), _BATCH)
    for name, error in names:
        answer = error or next(answers)
        yield name, answer.reason if isinstance(answer, ImageError) else answer


def _words(answer: Prediction | str, top_k: int) -> str:
    if isinstance(answer, str):
        return f"error: {answer}"
    words = "  ".join(f"{label} {probability:6.1%}" for label, probability in answer.top(top_k))
    if answer.unknown:
        return f"{words}  unknown: unlike the pictures it was trained on"
    if len(answer.labels) == 1:
        return words
    more = [f"{len(answer.labels) - _NAMED} more"] if len(answer.labels) > _NAMED else []
    return f"{words}  not sure: {' or '.join([*answer.labels[:_NAMED], *more])}"


def _cells(answer: Prediction | str, top_k: int) -> list[str]:
    if isinstance(answer, str):
        return [*[""] * (2 * top_k + 2), answer]
    ranks = [cell for label, probability in answer.top(top_k) for cell in (label, f"{probability:.6f}")]
    return [*ranks, "|".join(answer.labels), str(answer.unknown).lower(), ""]


def info(options: argparse.Namespace) -> int:
    """Say what a model says of itself."""
    data, about = contract.read(options.model)
    if options.samples:
        options.samples.mkdir(parents=True, exist_ok=True)
        for number, golden in enumerate(about.golden, 1):
            kind = "jpg" if golden.encoded.startswith(b"\xff\xd8") else "png"
            name = re.sub(r"[^\w -]+", "-", golden.name)  # which may come from anybody
            (options.samples / f"{number}-{name}.{kind}").write_bytes(golden.encoded)
    if options.json:
        print(json.dumps(about.info))
        return 0
    say(f"file      {options.model}, {len(data) / 1e6:.2f} MB, sha256 digest {about.digest[:16]}...")
    say(f"classes   {len(about.classes)}: {', '.join(about.classes)}")
    made = f"resized to {about.size} x {about.size} in the graph ({about.resize})"
    say(f"input     image: uint8 [batch, height, width, 3], RGB of any size, {made}")
    sets, unknown = about.sets, about.unknown
    say(f"doubt     temperature {about.temperature:g}; unknown where {unknown.score} is below {unknown.threshold:g}")
    share = f"{100 * (1 - sets.alpha):.4g}% of pictures ({sets.method})"
    say(f"          sets are made to hold the right label for at least {share}")
    cost = about.info.get("cost", {})
    if all(isinstance(cost.get(key), int | float) for key in ("parameters", "flops")):
        say(
            f"net       {cost['parameters']:,} parameters, {cost['flops'] / 1e6:,.1f} million operations a picture, "
            f"{about.info.get('precision', 'fp32')}"
        )
    for name, value in about.info.get("metrics", {}).items():
        say(f"metric    {name} {value:.4f}" if isinstance(value, float) else f"metric    {name} {value}")
    for name, value in about.info.get("provenance", {}).items():
        words = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        say(f"from      {name} {words}")
    again = shell.line("python", "-m", "cifar_onnx", "verify", options.model)
    say(f"golden    {len(about.golden)} samples to replay: {again}")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Replay a model's golden samples."""
    classifier = _classifier(options)
    replays = classifier.verify()
    width = max((len(replay.golden.name) for replay in replays), default=0)
    for replay in replays:
        expected = "" if replay.label == replay.golden.label else f", expected {replay.golden.label}"
        verdict = "ok" if replay.ok else f"WRONG{expected}: the stage that differs is {replay.stage}"
        say(f"{replay.golden.name:<{width}}  {replay.label}, probabilities within {replay.difference:.1e}: {verdict}")
    passed = sum(replay.ok for replay in replays)
    versions = classifier.contract.info.get("provenance", {}).get("versions")
    made = versions.get("onnxruntime", "another version") if isinstance(versions, dict) else "another version"
    say(f"digest {classifier.contract.digest[:16]}... is that of the file's bytes")
    say(
        f"{passed} of {len(replays)} golden samples give the expected answer, by onnxruntime "
        f"{onnxruntime.__version__} (exported with {made}) on {', '.join(classifier.providers)}"
    )
    return 0 if replays and passed == len(replays) else 1


def benchmark(options: argparse.Namespace) -> int:
    """Time a model, and say which settings to take."""
    pictures = speed.encoded(options.model, options.photos)
    timings, top = [], speed.ceiling()
    for timing in speed.benchmark(options.model, pictures, options.seconds, options.provider):
        timings.append(timing)
        if sys.stderr.isatty():
            print(f"\r{len(timings)} settings timed", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r" + " " * 30 + "\r", end="", file=sys.stderr)
    top, advice = max(top, speed.ceiling()), speed.advise(timings)  # other work may have begun or ended
    if options.json:
        rows = [asdict(timing) for timing in timings]
        print(json.dumps({"timings": rows, "ceiling_gflops": top, "advice": asdict(advice)}))
        return 0
    print(speed.table(timings, top))
    print(f"ceiling: {top:,.0f} GFLOP/s in a float32 matrix product on {usable_cpus()} CPUs")
    print(f"for one picture at a time: Classifier(model, threads={advice.threads_for_one})")
    many = f"Classifier(model, threads={advice.threads_for_many})(pictures, batch_size={advice.batch})"
    print(f"for many: {many}")
    return 0


def web(options: argparse.Namespace) -> int:
    """Write a static site."""
    site.write(options.model, options.output, options.runtime)
    print(f"{options.output}: put these files on any static host; to see them here:")
    print(shell.line("python", "-m", "http.server", "--bind", "127.0.0.1", "--directory", options.output))
    return 0
