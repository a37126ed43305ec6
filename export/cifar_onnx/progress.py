"""Progress of work that is not training: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import track as bar

T = TypeVar("T")


def track(steps: Iterable[T], description: str, total: int, every: float = 10.0) -> Iterator[T]:
    """Yield from `steps` and show on stderr how far it is.

    Args:
        steps: the work.
        description: what is being done.
        total: number of steps.
        every: seconds between plain lines.
    """
    console = Console(stderr=True, file=sys.stderr)  # which steps may redirect meanwhile
    if console.is_terminal:
        yield from bar(steps, escape(description), total=total, console=console)
        return
    console.print(f"{description} ({total:,})", highlight=False, markup=False)
    shown = time.monotonic()
    for done, step in enumerate(steps):
        if time.monotonic() - shown >= every:
            shown = time.monotonic()
            console.print(f"{description}: {done:,} of {total:,}", highlight=False, markup=False)
        yield step
