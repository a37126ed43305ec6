"""`python -m cifar_lightning`: answers help and version itself, and loads PyTorch only for a command that needs it."""

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from cifar_lightning import __version__
from cifar_lightning.cli import usage


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: see `cifar_lightning.main.main`."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  # they may be closed from the beginning
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    chosen = "PYTHONIOENCODING" in os.environ
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Names of folders need not be text, and on Windows a pipe or a file has few letters.
            stream.reconfigure(encoding=None if chosen or stream.isatty() else "utf-8", errors="backslashreplace")
    words = sys.argv[1:] if args is None else args
    text = _help(words)
    code = _run(words) if text is None else 0 if words else 2
    try:
        print(text or "", end="", flush=True)
    except OSError as error:  # the disk is full, for one
        from cifar_onnx.shell import discard_output, pipe_closed

        discard_output()
        if code < 2 and not pipe_closed(error):  # else it has been said, or the reader has seen enough
            print(f"error: standard output cannot be written: {error.strerror}", file=sys.stderr)
            code = 2
    return code


def _help(words: Sequence[str]) -> str | None:
    """The text that is asked for, if any."""
    if not words or words[0] in ("-h", "--help"):
        return usage.COMMANDS
    asking = {"-h", "--help", *(["--help_all"] if words[0] in ("sweep", "reproduce") else [])}
    if words[0] in usage.OPTIONS and not asking.isdisjoint(words[1:]):
        return usage.OPTIONS[words[0]]
    return f"cifar-lightning {__version__}\n" if words[0] == "--version" else None


def _run(words: Sequence[str]) -> int:
    try:
        if words[0] == "runs":
            from cifar_lightning.leaderboard.command import main as runs

            return runs(words[1:])
        from cifar_lightning.main import main as run

        return run(["--help" if word == "--help_all" else word for word in words])
    except KeyboardInterrupt:  # before anything was begun
        return 130


if __name__ == "__main__":
    sys.exit(main())
