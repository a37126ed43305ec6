"""What is printed: streams that take it, lines for terminals, and commands, quoted so that they can be pasted."""

import errno
import io
import os
import shlex
import subprocess
import sys
from pathlib import PurePath
from typing import TextIO

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}


def open_streams() -> None:
    """Let standard output and error take all letters, and be there even where they were closed from the beginning."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    chosen = "PYTHONIOENCODING" in os.environ
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names need not be text, and on Windows a pipe or a file has few letters.
            stream.reconfigure(encoding=None if chosen or stream.isatty() else "utf-8", errors="backslashreplace")


def say(line: str, file: TextIO | None = None) -> None:
    """Print a line; names in it, from a file of anybody's, do not steer the terminal."""
    print(line.translate(_CONTROLS), file=file, flush=True)


def pipe_closed(error: OSError) -> bool:
    """Whether who reads what is printed has gone, as `head` does: on Windows that is an invalid argument."""
    of_windows = sys.platform == "win32" and error.errno == errno.EINVAL and error.filename is None
    return isinstance(error, BrokenPipeError) or of_windows


def discard_output() -> None:
    """Discard what Python would still write to standard output at its end, where nothing can be written any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def duration(seconds: float) -> str:
    """Seconds in two units at most, such as 2 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def line(*words: object) -> str:
    """Words of a command, quoted where they need it: for POSIX shells or, on Windows, for cmd.exe and PowerShell.

    Paths have slashes there, too, which all programs take, and shells of both kinds leave alone.
    """
    texts = [word.as_posix() if isinstance(word, PurePath) else str(word) for word in words]
    return subprocess.list2cmdline(texts) if sys.platform == "win32" else shlex.join(texts)
