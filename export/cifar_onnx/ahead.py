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


def batches_ahead(
    function: Callable[[A], T], arguments: Iterable[A], threads: int, batch_size: int
) -> Iterator[list[T]]:
    """Yield what a function returns for each argument, in batches; threads are at work on the one after.

    What `arguments` raises is raised once all before it are yielded.

    Args:
        function: as for `ahead`.
        arguments: of the calls.
        threads: among which a batch is divided.
        batch_size: how many results are yielded at once; 1 asks for no argument before the result of the one before it
            was taken.
    """
    remaining = iter(arguments)
    failure: Exception | None = None

    with ThreadPoolExecutor(threads) as pool:

        def begin() -> list[Future[list[T]]]:
            nonlocal failure
            some: list[A] = []
            try:
                some.extend(islice(() if failure else remaining, batch_size))
            except Exception as error:
                failure = error
            share = -(-len(some) // threads) or 1
            parts = (some[start : start + share] for start in range(0, len(some), share))
            return [pool.submit(lambda part: list(map(function, part)), part) for part in parts]

        waiting = begin()
        while waiting:
            batch = [result for future in waiting for result in future.result()]
            waiting = begin() if batch_size > 1 else []
            yield batch
            waiting = waiting or begin()
    if failure:
        raise failure
