"""Commands to print, quoted so that people can paste them into their shell."""

import shlex
import subprocess
import sys
from pathlib import PurePath


def line(*words: object) -> str:
    """Words of a command, quoted where they need it: for POSIX shells or, on Windows, for cmd.exe and PowerShell.

    Paths have slashes there, too, which all programs take, and shells of both kinds leave alone.
    """
    texts = [word.as_posix() if isinstance(word, PurePath) else str(word) for word in words]
    return subprocess.list2cmdline(texts) if sys.platform == "win32" else shlex.join(texts)
