"""Prefetching: threads work ahead of the consumer."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Event
from typing import TypeVar

_CHUNK = 16  # quick calls that a thread does at once: handing each over takes a quarter of decoding a small picture

A = TypeVar("A")
T = TypeVar("T")


def chunk_size(calls: int, threads: int) -> int:
    """How many of so many calls a thread should do at once, so that all threads have work until the end."""
    return min(_CHUNK, max(1, calls // (4 * threads)))


def ahead(
    function: Callable[[A], T], arguments: Iterable[A], threads: int, waiting: int, chunk: int = 1
) -> Iterator[T]:
    """Yield what a function returns for each argument, in their order.

    Args:
        function: lets other threads run while it works, as decoders and copies of arrays do.
        arguments: of the calls.
        threads: how many calls there are at once.
        waiting: how many results may wait to be taken, which bounds the memory that they need; one `chunk` more may be
            at work.
        chunk: how many arguments a thread is given at once, as the chunksize of Executor.map.
    """
    remaining, stopped = iter(arguments), Event()
    pending: deque[Future[tuple[list[T], BaseException | None]]] = deque()

    def several(some: list[A]) -> tuple[list[T], BaseException | None]:
        results: list[T] = []
        for argument in some:
            if stopped.is_set():
                break
            try:
                results.append(function(argument))
            except BaseException as error:  # is raised where its result would be
                return results, error
        return results, None

    def first() -> Iterator[T]:
        results, error = pending.popleft().result()
        yield from results
        if error:
            raise error

    with ThreadPoolExecutor(threads) as pool:
        try:
            while some := list(islice(remaining, chunk)):
                pending.append(pool.submit(several, some))
                if chunk * len(pending) > waiting:
                    yield from first()
            while pending:
                yield from first()
        finally:
            stopped.set()
