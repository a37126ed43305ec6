"""Where an error comes from: a setting, a line of the user's own code, the machine, or a mistake that torch noticed."""

import errno
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb

from cifar_onnx import InputError, errors

# What torch and the libraries of CUDA say where there is not enough memory.
_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "Invalid buffer size", "STATUS_ALLOC_FAILED")

# What torch and Lightning raise as RuntimeError or ValueError although the user can mend it: weights that do not fit
# the net that was asked for, a metric that is not there, numbers that cannot be.
_MISTAKES = (
    "Error(s) in loading state_dict",
    "loaded state dict",  # of an optimizer with other groups
    "Early stopping conditioned on metric",
    "val_check_interval",
    "is not in bounds",  # a seed
    "No working C++ compiler",  # for model.compile
    "Failed to find C compiler",  # likewise, on a GPU
    "Compiler: ",  # likewise, on Windows
)

# What the machine refuses, and no code can mend: a trial of a sweep is then no failure of its values.
REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


@contextmanager
def named(key: str) -> Iterator[None]:
    """Let an error say of which setting it is, and of which line.

    Raises:
        InputError: whatever is raised within, but where there is not enough memory: no setting alone is to blame.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or out_of_memory(error):
            raise
        raise InputError(f"{key}: {said(error)}") from error


def out_of_memory(error: BaseException) -> bool:
    """Whether there was not enough memory, of a GPU or of the machine."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _MEMORY)


def mistake(error: Exception) -> bool:
    """Whether torch or Lightning say with this error that the user can mend it."""
    return any(words in str(error) for words in _MISTAKES)


def said(error: BaseException) -> str:
    """What an error says, on one line, with its kind where that says more, and the line of the user's own code."""
    kind = "" if isinstance(error, TypeError | ValueError | ImportError) else f"{type(error).__name__}: "
    return f"{kind}{errors.one_line(error)}{line(error)}"


def innermost(error: BaseException) -> BaseException:
    """The first exception of a chain, or our own one if there is one."""
    while not isinstance(error, InputError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def line(error: BaseException) -> str:
    """The last line that is neither Python's, a library's nor this project's, in brackets; nothing where there is none.

    Args:
        error: one that was raised.
    """
    libraries = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    known = libraries | {Path(file).parent for file in (__file__, errors.__file__)}
    files = [each for each in extract_tb(error.__traceback__) if not each.filename.startswith("<")]
    frames = [each for each in files if known.isdisjoint(Path(each.filename).parents)]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
