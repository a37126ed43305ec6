"""Work that threads do ahead of who asks for it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

READ_TOGETHER = 16  # pictures that a thread decodes at once

A = TypeVar("A")
T = TypeVar("T")


def ahead(
    function: Callable[[A], T], arguments: Iterable[A], threads: int, waiting: int, together: int = 1
) -> Iterator[T]:
    """Yield what a function makes of each argument, in their order.

    Args:
        function: lets other threads run while it works, as decoders and copies of arrays do.
        arguments: of the calls.
        threads: how many calls there are at once.
        waiting: how many are begun before the first result is taken, which bounds the memory that results take.
        together: how many arguments a thread takes at once. Handing over takes a quick call as long as its work.
    """
    remaining = iter(arguments)
    pending: deque[Future[list[T]]] = deque()

    def several(some: list[A]) -> list[T]:
        return [function(argument) for argument in some]

    with ThreadPoolExecutor(threads) as pool:
        try:
            while some := list(islice(remaining, together)):
                pending.append(pool.submit(several, some))
                if together * len(pending) > waiting:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
