"""Dynamic batching: requests that arrive together are run together, in threads."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from typing import Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class Batches(Generic[Task, Result]):
    """Gathers tasks while its threads are busy, and gives the next free one its share of them as a batch.

    A thread that waits and a loop that is woken for each task would cost more than small tasks do.

    Args:
        work: of a batch; a result that is an exception is raised where its task waits. It may stop early and return
            the first results only, one at least: the other tasks come again, unless their client has gone.
        threads: how many work at a time.
        largest: tasks in a batch at most.
    """

    def __init__(
        self, work: Callable[[Sequence[Task]], Sequence[Result | Exception]], threads: int, largest: int
    ) -> None:
        self._work, self._threads, self._largest = work, threads, largest
        self._free = threads
        self._pool = ThreadPoolExecutor(threads)
        self._waiting: deque[tuple[Task, asyncio.Future[Result]]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def do(self, task: Task) -> Result:
        """The result of a task."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((task, future))
        self._start(1)
        return await future

    def _start(self, most: int) -> None:
        """Put so many threads to work, or those that are free."""
        for _ in range(min(most, self._free)):
            self._free -= 1
            running = asyncio.create_task(self._run())
            self._running.add(running)
            running.add_done_callback(self._running.discard)

    async def _run(self) -> None:
        """Keep a thread at work until nothing waits."""
        await asyncio.sleep(0)  # who asks in the same turn of the loop is in the first batch, too
        while self._waiting:
            share = min(self._largest, ceil(len(self._waiting) / self._threads))
            batch = [self._waiting.popleft() for _ in range(share)]
            jobs = [(task, future) for task, future in batch if not future.done()]  # its client may have gone
            if not jobs:
                continue
            tasks = [task for task, _ in jobs]
            results: Sequence[Result | Exception]
            try:
                results = await asyncio.get_running_loop().run_in_executor(self._pool, self._work, tasks)
            except Exception as error:  # each of them waits for an answer
                results = [error] * len(jobs)
            left = jobs[len(results) :]
            self._waiting.extendleft(reversed(left))
            self._start(len(left))
            for (_, future), result in zip(jobs, results, strict=False):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self._free += 1
