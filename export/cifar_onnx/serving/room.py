"""Room for pictures in memory, which requests take part by part, in the order in which they come."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class Room:
    """Room for so many pictures of all requests together: small files may be of large ones.

    A request has a quarter of it at most, however many pictures it has, and then waits behind the others.

    Args:
        size: pictures that it holds.
    """

    def __init__(self, size: int) -> None:
        self._free, self._part = size, max(1, size // 4)
        self._first = asyncio.Lock()  # of those that wait, which are let in in their order
        self._left = asyncio.Event()

    async def each(self, work: Callable[[Task], Awaitable[Result]], tasks: Sequence[Task]) -> list[Result]:
        """The results of a request's pictures; those that there is room for are worked on together."""
        results: list[Result] = []
        for start in range(0, len(tasks), self._part):
            part = tasks[start : start + self._part]
            async with self._taken(len(part)):
                results += await asyncio.gather(*map(work, part))
        return results

    @asynccontextmanager
    async def _taken(self, pictures: int) -> AsyncIterator[None]:
        async with self._first:
            while self._free < pictures:
                self._left.clear()
                await self._left.wait()
            self._free -= pictures
        try:
            yield
        finally:
            self._free += pictures
            self._left.set()
