"""`python -m cifar_lightning runs`: every run in a folder, the best first."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from cifar_lightning.files import target, write_whole
from cifar_lightning.leaderboard import table
from cifar_lightning.leaderboard.board import NAMES, Board, ranked
from cifar_lightning.leaderboard.entry import find, read
from cifar_lightning.suggestion import nearest
from cifar_onnx import InputError
from cifar_onnx.shell import discard_output, pipe_closed


def main(words: Sequence[str]) -> int:
    """Show the runs in a folder.

    Args:
        words: behind the command.

    Returns:
        The exit code: 0, or 2 where there is nothing to show.
    """
    try:
        print(_shown(_parser().parse_args(words)), end="", flush=True)
    except SystemExit as stop:
        return int(stop.code or 0)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        discard_output()
        if pipe_closed(error):
            return 0
        print(f"error: {error.filename or 'the table cannot be written'}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def _shown(options: argparse.Namespace) -> str:
    place = Path(options.folder)
    if not place.is_dir():
        raise InputError(f"{place} is not a folder: name one that holds runs, such as runs or runs/cnn")
    entries = [read(folder, place) for folder in find(place)]
    if not entries:
        raise InputError(f"{place} holds no run: python -m cifar_lightning fit leaves one in runs")
    for path in (path for each in entries for path in each.damaged):
        print(f"{path} cannot be read to its end", file=sys.stderr)
    board = Board(ranked(entries, options.sort))
    if options.csv:
        return table.comma_separated(board)
    if options.html is not None:
        from cifar_lightning.leaderboard.page import page  # jinja2 is for nobody else

        file = target(options.html, Path("runs.html"))
        write_whole(file, page(board, str(place)).encode(errors="backslashreplace"))
        return f"wrote {file}\n"
    return table.text(board, Console(highlight=False))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cifar_lightning runs",
        description="Every run in a folder, the best first: metrics with 95% intervals, cost, and how its config "
        "differs from the others'.",
        epilog="The validation figures are those of the epoch that best.ckpt keeps; the test accuracy is there once "
        "`test` has judged best.ckpt. Runs are chosen by validation: a test set used to choose can no longer judge.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "folder", nargs="?", default="runs", metavar="DIR", help="where runs are (default: %(default)s)"
    )
    parser.add_argument(
        "--sort",
        type=_column,
        default="val_accuracy",
        metavar="KEY",
        help=f"one of {', '.join(NAMES)} (default: %(default)s)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--csv", action="store_true", help="comma-separated values, with a column for each key that differs"
    )
    form.add_argument("--html", metavar="FILE", help="write a page with drawings instead")
    return parser


def _column(name: str) -> str:
    if name not in NAMES:
        near = nearest(name, NAMES)
        advice = f"did you mean {near!r}?" if near else f"take one of {', '.join(NAMES)}"
        raise argparse.ArgumentTypeError(f"there is no column {name!r}: {advice}")
    return name
