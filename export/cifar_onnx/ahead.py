"""Work that threads do ahead of who asks for it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")


def ahead(function: Callable[[A], T], arguments: Iterable[A], threads: int, waiting: int) -> Iterator[T]:
    """Yield what a function makes of each argument, in their order.

    Args:
        function: lets other threads run while it works, as decoders and copies of arrays do.
        arguments: of the calls.
        threads: how many calls there are at once.
        waiting: how many are begun before the first result is taken, which bounds the memory that results take.
    """
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for argument in arguments:
                pending.append(pool.submit(function, argument))
                if len(pending) > waiting:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
