"""Classify pictures with a model.onnx; check, measure and serve it."""

import argparse
import importlib
import math
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from cifar_onnx import __version__, commands, resizing, shell
from cifar_onnx.errors import InputError

_TRAINING = ("fit", "validate", "test", "predict", "export", "runs", "reproduce", "sweep")
_LABELLED = "a folder with pictures as <class>/*, or a CSV file with the columns path and label"


def main(args: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 a picture or a check failed, 2 a mistake in what was given."""
    words = sys.argv[1:] if args is None else args
    if words and words[0] in _TRAINING:
        print(f"error: {words[0]} is a command of the package that trains: python -m cifar_lightning", file=sys.stderr)
        return 2
    options = _parser().parse_args(args)
    try:
        return int(options.run(options))
    except InputError as error:
        shell.say(f"error: {error}", sys.stderr)
    except MemoryError as error:
        advice = "take fewer or smaller pictures" + (", or a smaller --resamples" if "resamples" in options else "")
        shell.say(f"error: not enough memory ({str(error) or 'MemoryError'}): {advice}", sys.stderr)
    except OSError as error:
        if shell.pipe_closed(error):
            raise
        name = error.filename or "what was to be written"
        shell.say(f"error: {name}: {error.strerror or error}", sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cifar_onnx", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"cifar-onnx {__version__}")
    add = partial(parser.add_subparsers(required=True, metavar="COMMAND").add_parser, allow_abbrev=False)

    classify = add("classify", help="classify files, folders and globs")
    classify.add_argument("paths", nargs="+", metavar="PATH", help="a picture, a folder of pictures, or a glob")
    classify.add_argument("--model", default="model.onnx", help="the model file (default: %(default)s)")
    classify.add_argument("--top-k", type=_whole(1), default=1, metavar="K", help="how many classes (default: 1)")
    form = classify.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument("--csv", action="store_true", help="comma-separated values")
    classify.set_defaults(run=commands.classify)

    info = add("info", help="show what is in a model file: classes, input, calibration, origin")
    info.add_argument("--json", action="store_true", help="the whole contract as JSON")
    info.add_argument("--samples", type=Path, metavar="DIR", help="also write the file's samples to DIR as pictures")
    info.set_defaults(run=commands.info)

    verify = add("verify", help="check that a model answers here as it did when it was exported")
    verify.set_defaults(run=commands.verify)

    speed = add("benchmark", help="measure how fast a model is here, and how many threads and what batch size to use")
    speed.add_argument(
        "--photos", nargs="+", default=[], metavar="PATH", help="pictures to time it with (default: those in the file)"
    )
    speed.add_argument(
        "--seconds",
        type=_within(0, 60),
        default=0.5,
        help="for each setting (default: %(default)s); batches that take more than 2, or too much memory, are left out",
    )
    speed.add_argument("--json", action="store_true", help="JSON instead of a table")
    speed.add_argument("--provider", action="append", metavar="NAME", help="execution provider (default: cpu)")
    speed.set_defaults(run=commands.benchmark)

    evaluate = add("evaluate", help="judge a model by labelled pictures, with a report (needs the extra [evaluate])")
    evaluate.add_argument("model", help="the model file")
    evaluate.add_argument("photos", metavar="PHOTOS", help=_LABELLED)
    evaluate.add_argument("--output", default="report", metavar="DIR", help="where files go (default: %(default)s)")
    evaluate.add_argument("--groups", metavar="CSV", help="groups of pictures: the column path, and one for each kind")
    evaluate.add_argument(
        "--corruptions",
        action="store_true",
        help="also with noise, blur, fog and the like, of 10,000 pictures at most, evenly spread",
    )
    evaluate.add_argument(
        "--others", metavar="DIR", help="pictures of none of its classes: how many are called unknown?"
    )
    evaluate.add_argument(
        "--resamples",
        type=_whole(1, 100_000),
        default=1000,
        metavar="N",
        help="bootstrap resamples (default: %(default)s)",
    )
    evaluate.set_defaults(run=_extra("cifar_onnx.evaluation.commands", "evaluate", "evaluate"))

    compare = add("compare", help="compare two models on the same pictures (needs [evaluate])")
    compare.add_argument("a", metavar="A", help="the model file that is in use")
    compare.add_argument("b", metavar="B", help="the one that may take its place")
    compare.add_argument("photos", metavar="PHOTOS", help=f"{_LABELLED}; unreadable ones break the bounds below")
    compare.add_argument(
        "--max-drop", type=_within(0, 100), metavar="POINTS", help="exit code 1 if B's accuracy is lower by more"
    )
    compare.add_argument(
        "--no-class-below", type=_within(0, 1), metavar="RECALL", help="exit code 1 if B's recall of any class is lower"
    )
    compare.add_argument("--output", default="comparison", metavar="DIR", help="where files go (default: %(default)s)")
    compare.set_defaults(run=_extra("cifar_onnx.evaluation.commands", "compare", "evaluate"))

    for command in (evaluate, compare):
        foreign = command.add_argument_group("an ONNX file without a contract")
        foreign.add_argument("--classes", help="a,b,c in the order of the outputs, or a file with one name a line")
        foreign.add_argument("--mean", type=_three, metavar="R,G,B", help="of pixels from 0 to 1 (default: 0,0,0)")
        foreign.add_argument("--std", type=_three, metavar="R,G,B", help="likewise (default: 1,1,1)")
        foreign.add_argument("--size", type=_whole(1, resizing.MAX_SIZE), metavar="S", help="pictures' side in pixels")
        foreign.add_argument("--resize", choices=get_args(resizing.ResizeMode), help="how pictures become squares")

    serve = add("serve", help="answer over HTTP, with a page for people (needs [serve])")
    serve.add_argument("model", nargs="?", type=Path, default="model.onnx", help="the file (default: %(default)s)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)")
    serve.add_argument("--port", type=_whole(0, 65535), default=8000, help="0 takes a free one (default: %(default)s)")
    serve.add_argument(
        "--max-batch", type=_whole(1), default=32, metavar="N", help="pictures that run together (default: %(default)s)"
    )
    serve.add_argument(
        "--max-requests", type=_whole(1), default=256, metavar="N", help="at a time; more: 503 (default: %(default)s)"
    )
    serve.add_argument(
        "--max-body", type=_within(0.001, 1000), default=20, metavar="MB", help="per request (default: %(default)s)"
    )
    serve.add_argument(
        "--max-pixels", type=_within(0.001, 100), default=25, metavar="MP", help="per picture (default: %(default)s)"
    )
    serve.add_argument(
        "--allow-host",
        action="append",
        type=_host,
        default=[],
        metavar="NAME",
        help="another host name to answer to",
    )
    serve.add_argument("--runtime", metavar="DIR", help="onnxruntime-web's dist folder (default: npm's)")
    serve.add_argument("--access-log", action="store_true", help="a line for each request")
    serve.set_defaults(run=_extra("cifar_onnx.serving.command", "serve", "serve"))

    web = add("web", help="a static site that runs a model in the browser")
    web.add_argument("--output", type=Path, default="site", metavar="DIR", help="where files go (default: %(default)s)")
    web.add_argument("--runtime", metavar="DIR", help="onnxruntime-web's dist folder (default: npm's)")
    web.set_defaults(run=commands.web)

    for command in (info, verify, speed, web):
        command.add_argument("model", nargs="?", default="model.onnx", help="the model file (default: %(default)s)")
    for command in (classify, verify):
        command.add_argument(
            "--untrusted", action="store_true", help="try the file first in a process with little memory and time"
        )
    for command in (classify, verify, evaluate, compare, serve):
        command.add_argument(
            "--provider", action="append", metavar="NAME", help="execution provider, such as cpu or cuda (default: cpu)"
        )
        command.add_argument("--threads", type=_whole(1), metavar="N", help="threads of the net (default: all CPUs)")
    return parser


def _whole(low: int, high: float = math.inf) -> Callable[[str], int]:
    span = f"from {low} up" if high == math.inf else f"from {low} to {high}"

    def number(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {span}")
        return int(text)

    return number


def _host(text: str) -> str:
    """The name of a host as requests have it."""
    try:
        name = text.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not re.fullmatch(r"[\w.-]+", name):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a host: give it without scheme and port")
    return name


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


def _extra(module: str, command: str, extra: str) -> Callable[[argparse.Namespace], int]:
    """A command of a module that needs an extra: imported when it is run."""

    def run(options: argparse.Namespace) -> int:
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise InputError(f'{command} needs {error.name}: pip install "cifar-onnx[{extra}]"') from None
        code: int = getattr(found, command)(options)
        return code

    return run


if __name__ == "__main__":
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of much that `images` has sentences for, or that is harmless
    shell.open_streams()
    code = 0
    try:
        try:
            code = main()
        finally:  # also of --help, which ends by SystemExit
            sys.stdout.flush()
    except OSError as error:
        shell.discard_output()
        if shell.pipe_closed(error):
            code = 0  # the reader, `head` for one, has seen enough
        elif code < 2:  # else it has been said
            shell.say(f"error: standard output cannot be written: {error.strerror}", sys.stderr)
            code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
