"""`python -m cifar_onnx`: classify pictures with a model.onnx, judge it, and look at or verify the file itself."""

import argparse
import csv
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import onnxruntime

from cifar_onnx import Classifier, Prediction, __version__, benchmark, contract, images, site
from cifar_onnx.errors import InputError
from cifar_onnx.session import usable_cpus

_TOGETHER = 16  # pictures that run together; as many more are being decoded

Answer = tuple[str, Prediction | str]  # path, and an error where there is no prediction


def main(args: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 a picture or a check failed, 2 a mistake in what was given."""
    options = _parser().parse_args(args)
    try:
        code: int = options.run(options)
        return code
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cifar_onnx", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"cifar-onnx {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    classify = commands.add_parser("classify", help="classify files, folders and globs", allow_abbrev=False)
    classify.add_argument("paths", nargs="+", metavar="PATH", help="a picture, a folder of pictures, or a glob")
    classify.add_argument("--model", default="model.onnx", help="the model file (default: %(default)s)")
    classify.add_argument("--top-k", type=_positive, default=1, metavar="K", help="how many classes (default: 1)")
    form = classify.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument("--csv", action="store_true", help="comma-separated values")
    classify.set_defaults(run=_classify)

    info = commands.add_parser("info", help="what a model says of itself", allow_abbrev=False)
    info.add_argument("model", nargs="?", default="model.onnx", help="the model file (default: %(default)s)")
    info.add_argument("--json", action="store_true", help="the whole contract as JSON")
    info.add_argument("--samples", type=Path, metavar="DIR", help="also write the golden samples to DIR as PNG files")
    info.set_defaults(run=_info)

    verify = commands.add_parser("verify", help="replay a model's golden samples on this machine", allow_abbrev=False)
    verify.add_argument("model", nargs="?", default="model.onnx", help="the model file (default: %(default)s)")
    verify.set_defaults(run=_verify)

    speed = commands.add_parser("benchmark", help="how fast a model is on this machine", allow_abbrev=False)
    speed.add_argument("model", nargs="?", default="model.onnx", help="the model file (default: %(default)s)")
    speed.add_argument("--photos", nargs="+", default=[], metavar="PATH", help="pictures instead of the golden samples")
    speed.add_argument("--seconds", type=_within(0, 60), default=0.5, help="for each setting (default: %(default)s)")
    speed.add_argument("--json", action="store_true", help="JSON instead of a table")
    speed.add_argument("--provider", action="append", metavar="NAME", help="execution provider (default: cpu)")
    speed.set_defaults(run=_benchmark)

    evaluate = commands.add_parser(
        "evaluate", help="judge a model by labelled pictures, with a report", allow_abbrev=False
    )
    evaluate.add_argument("model", help="the model file")
    evaluate.add_argument("folder", metavar="DIR", help="pictures as DIR/<class>/*")
    evaluate.add_argument("--output", default="report", metavar="DIR", help="where files go (default: %(default)s)")
    evaluate.add_argument("--groups", metavar="CSV", help="groups of pictures: the column path, and one for each kind")
    evaluate.add_argument("--corruptions", action="store_true", help="also with noise, blur, fog and the like")
    evaluate.add_argument("--others", metavar="DIR", help="pictures of none of its classes: how many does it refuse?")
    evaluate.set_defaults(run=_evaluation("evaluate"))

    compare = commands.add_parser("compare", help="hold two models against each other", allow_abbrev=False)
    compare.add_argument("a", metavar="A", help="the model file that is in use")
    compare.add_argument("b", metavar="B", help="the one that may take its place")
    compare.add_argument("folder", metavar="DIR", help="pictures as DIR/<class>/*")
    compare.add_argument(
        "--max-drop", type=_within(0, 100), metavar="POINTS", help="exit with 1 if B's accuracy is so much lower"
    )
    compare.add_argument(
        "--no-class-below", type=_within(0, 1), metavar="RECALL", help="exit with 1 if a class of B's is"
    )
    compare.add_argument("--output", default="comparison", metavar="DIR", help="where files go (default: %(default)s)")
    compare.set_defaults(run=_evaluation("compare"))

    for command in (evaluate, compare):
        command.add_argument(
            "--resamples", type=_positive, default=1000, metavar="N", help="of the bootstrap (default: %(default)s)"
        )
        foreign = command.add_argument_group("an ONNX file without a contract")
        foreign.add_argument("--classes", help="a,b,c in the order of the outputs, or a file with one name a line")
        foreign.add_argument("--mean", type=_three, metavar="R,G,B", help="of pixels from 0 to 1 (default: 0,0,0)")
        foreign.add_argument("--std", type=_three, metavar="R,G,B", help="likewise (default: 1,1,1)")
        foreign.add_argument("--size", type=_positive, metavar="S", help="side of the pictures in pixels")
        foreign.add_argument("--resize", choices=get_args(images.ResizeMode), help="how pictures become squares")

    serve = commands.add_parser("serve", help="answer over HTTP, with a page for people", allow_abbrev=False)
    serve.add_argument("model", nargs="?", type=Path, default="model.onnx", help="the file (default: %(default)s)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s, this machine)")
    serve.add_argument("--port", type=_port, default=8000, help="0 takes a free one (default: %(default)s)")
    serve.add_argument("--threads", type=_positive, metavar="N", help="threads of the net (default: all CPUs)")
    serve.add_argument(
        "--max-batch", type=_positive, default=32, metavar="N", help="pictures that run together (default: %(default)s)"
    )
    serve.add_argument(
        "--max-wait", type=_within(0, 1000), default=0, metavar="MS", help="wait for others (default: %(default)s)"
    )
    serve.add_argument(
        "--max-waiting", type=_positive, default=256, metavar="N", help="requests at a time (default: %(default)s)"
    )
    serve.add_argument(
        "--max-body", type=_within(0.001, 1000), default=20, metavar="MB", help="of a request (default: %(default)s)"
    )
    serve.add_argument(
        "--max-pixels", type=_within(0.001, 100), default=25, metavar="MP", help="of a picture (default: %(default)s)"
    )
    serve.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name that the server goes by, too"
    )
    serve.add_argument("--runtime", metavar="DIR", help="the folder dist of onnxruntime-web (default: that of npm)")
    serve.add_argument("--access-log", action="store_true", help="a line for each request")
    serve.set_defaults(run=_serve)

    web = commands.add_parser("web", help="a static site that runs a model in the browser", allow_abbrev=False)
    web.add_argument("model", nargs="?", default="model.onnx", help="the model file (default: %(default)s)")
    web.add_argument("--output", type=Path, default="site", metavar="DIR", help="where files go (default: %(default)s)")
    web.add_argument("--runtime", metavar="DIR", help="the folder dist of onnxruntime-web (default: that of npm)")
    web.set_defaults(run=_web)

    for command in (classify, verify):
        command.add_argument(
            "--untrusted", action="store_true", help="try the file first in a process with little memory and time"
        )
    for command in (classify, verify, evaluate, compare):
        command.add_argument(
            "--provider", action="append", metavar="NAME", help="execution provider, such as cpu or cuda (default: cpu)"
        )
        command.add_argument("--threads", type=_positive, metavar="N", help="threads of the net (default: all CPUs)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 65535")
    return int(text)


def _within(low: float, high: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return value

    return number


def _three(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, text.split(",")))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers with commas between them")
    return numbers


def _evaluation(name: str) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        try:
            from cifar_onnx.evaluation import commands
        except ModuleNotFoundError as error:
            raise InputError(f'{name} needs {error.name}: pip install "cifar-onnx[evaluate]"') from None
        code: int = getattr(commands, name)(options)
        return code

    return run


def _serve(options: argparse.Namespace) -> int:
    try:
        from cifar_onnx.serving import command
    except ModuleNotFoundError as error:
        raise InputError(f'serve needs {error.name}: pip install "cifar-onnx[serve]"') from None
    return command.run(options)


def _classifier(options: argparse.Namespace) -> Classifier:
    return Classifier(
        options.model,
        providers=options.provider or ("cpu",),
        threads=options.threads,
        untrusted=options.untrusted,
    )


def _classify(options: argparse.Namespace) -> int:
    classifier = _classifier(options)
    names: list[tuple[str, str]] = []  # path, and why there is nothing to open
    for pattern in options.paths:
        try:
            names += [(str(path), "") for path in images.find(pattern)]
        except InputError as error:
            names.append((pattern, str(error)))
    answers = _answers(classifier, names)
    if options.json:
        return _json_lines(answers, options.top_k)
    if options.csv:
        return _csv_lines(answers, options.top_k)
    return _table(answers, options.top_k, width=max(len(name) for name, _ in names))


def _answers(classifier: Classifier, names: Sequence[tuple[str, str]]) -> Iterator[Answer]:
    answers = classifier.stream((name for name, error in names if not error), _TOGETHER)
    for name, error in names:
        answer = error or next(answers)
        yield name, answer if isinstance(answer, Prediction) else str(answer).removeprefix(f"{name}: ")


def _table(answers: Iterator[Answer], top_k: int, width: int) -> int:
    code = 0
    for name, answer in answers:
        if isinstance(answer, str):
            code, words = 1, f"error: {answer}"
        else:
            words = "  ".join(f"{label} {probability:6.1%}" for label, probability in answer.top(top_k))
            if answer.unknown:
                words += "  unknown: unlike the pictures it was trained with"
            elif answer.labels != (answer.label,):
                words += f"  not sure: {' or '.join(answer.labels)}" if answer.labels else "  not sure: no class fits"
        print(f"{name:<{width}}  {words}", flush=True)
    return code


def _json_lines(answers: Iterator[Answer], top_k: int) -> int:
    code = 0
    for name, answer in answers:
        if isinstance(answer, str):
            code, line = 1, {"path": name, "error": answer}
        else:
            line = {"path": name, **answer.as_dict(top_k)}
        print(json.dumps(line), flush=True)
    return code


def _csv_lines(answers: Iterator[Answer], top_k: int) -> int:
    code = 0
    ranks = ["", *(f"_{rank}" for rank in range(2, top_k + 1))]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    columns = [f"{name}{rank}" for rank in ranks for name in ("label", "probability")]
    writer.writerow(["path", *columns, "labels", "unknown", "error"])
    for name, answer in answers:
        if isinstance(answer, str):
            code = 1
            writer.writerow([name, *[""] * (len(columns) + 2), answer])
            continue
        cells = [cell for label, probability in answer.top(top_k) for cell in (label, f"{probability:.6f}")]
        padding = [""] * (len(columns) - len(cells))
        writer.writerow([name, *cells, *padding, "|".join(answer.labels), str(answer.unknown).lower(), ""])
    return code


def _info(options: argparse.Namespace) -> int:
    data, about = contract.read(options.model)
    if options.samples:
        options.samples.mkdir(parents=True, exist_ok=True)
        for number, golden in enumerate(about.golden, 1):
            kind = "jpg" if golden.encoded.startswith(b"\xff\xd8") else "png"
            (options.samples / f"{number}-{golden.name}.{kind}").write_bytes(golden.encoded)
    if options.json:
        print(json.dumps(about.info))
        return 0
    print(f"file      {options.model}, {len(data) / 1e6:.2f} MB, sha256 digest {about.digest[:16]}...")
    print(f"classes   {len(about.classes)}: {', '.join(about.classes)}")
    print(f"input     any picture, made {about.size} x {about.size} pixels inside the graph ({about.resize})")
    sets, unknown = about.sets, about.unknown
    print(f"doubts    temperature {about.temperature:g}; unknown where {unknown.score} is below {unknown.threshold:g}")
    print(f"          sets hold the right label of {1 - sets.alpha:.0%} of pictures ({sets.method})")
    if cost := about.info.get("cost"):
        print(
            f"net       {cost['parameters']:,} parameters, {cost['flops'] / 1e6:,.1f} million operations a picture, "
            f"{about.info.get('precision', 'fp32')}"
        )
    for name, value in about.info.get("metrics", {}).items():
        print(f"metric    {name} {value:.4f}")
    for name, value in about.info.get("provenance", {}).items():
        words = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"from      {name} {words}")
    print(f"golden    {len(about.golden)} samples to replay: python -m cifar_onnx verify {options.model}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    classifier = _classifier(options)
    replays = classifier.verify()
    width = max((len(replay.golden.name) for replay in replays), default=0)
    for replay in replays:
        expected = replay.golden.label
        verdict = "ok" if replay.ok else f"WRONG, expected {expected}: the stage that differs is {replay.stage}"
        print(f"{replay.golden.name:<{width}}  {replay.label}, probabilities within {replay.difference:.1e}: {verdict}")
    passed = sum(replay.ok for replay in replays)
    made = classifier.contract.info.get("provenance", {}).get("versions", {}).get("onnxruntime", "another version")
    print(f"digest {classifier.contract.digest[:16]}... is that of the file's bytes")
    print(
        f"{passed} of {len(replays)} golden samples give the answer they must, by onnxruntime "
        f"{onnxruntime.__version__} (exported with {made}) on {', '.join(classifier.providers)}"
    )
    return 0 if replays and passed == len(replays) else 1


def _benchmark(options: argparse.Namespace) -> int:
    pictures = benchmark.encoded(options.model, options.photos)
    timings = []
    for timing in benchmark.benchmark(options.model, pictures, options.seconds, options.provider or ("cpu",)):
        timings.append(timing)
        if sys.stderr.isatty():
            print(f"\r{len(timings)} settings timed", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r" + " " * 30 + "\r", end="", file=sys.stderr)
    top, advice = benchmark.ceiling(), benchmark.advise(timings)
    if options.json:
        rows = [asdict(timing) for timing in timings]
        print(json.dumps({"timings": rows, "ceiling_gflops": top, "advice": asdict(advice)}))
        return 0
    print(benchmark.table(timings, top))
    print(f"ceiling: {top:,.0f} GFLOP/s in a float32 matrix product on {usable_cpus()} CPUs")
    print(f"for one picture at a time: Classifier(model, threads={advice.threads_for_one})")
    many = f"Classifier(model, threads={advice.threads_for_many})(pictures, batch_size={advice.batch})"
    print(f"for many: {many}")
    return 0


def _web(options: argparse.Namespace) -> int:
    site.write(options.model, options.output, options.runtime)
    print(f"{options.output}: put these files on any static host; to see them here:")
    print(f"python -m http.server --bind 127.0.0.1 --directory {options.output}")
    return 0


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
