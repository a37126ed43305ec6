"""One process at a time prepares data; the others wait for what it makes."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cifar_onnx import InputError


@contextmanager
def alone(path: Path, what: str, option: str) -> Iterator[None]:
    """Hold the lock file `path`, which is released when its holder ends, however it ends.

    In a folder that cannot be written nothing is held: nothing will be made there either.

    Args:
        path: the lock file; it stays, empty.
        what: what is being prepared, for those who wait.
        option: by which its folder is named.

    Raises:
        InputError: the folder's disk has no locks.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            print(f"waiting for another process that prepares {what}", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP):
            raise InputError(
                f"{path.parent}: no file can be locked there ({error.strerror}), so that processes would write over "
                f"each other's files: name a folder on another disk with --{option}"
            ) from None
    try:
        yield
    finally:
        lock.release()
