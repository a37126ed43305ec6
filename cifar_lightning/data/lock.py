"""One process at a time prepares data; the others wait for what it makes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`, which is released when its holder ends, however it ends.

    In a folder that cannot be written nothing is held: nothing will be made there either.

    Args:
        path: the lock file; it stays, empty.
        what: what is being prepared, for those who wait.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            print(f"waiting for another process that prepares {what}", file=sys.stderr)
            lock.acquire()
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()
