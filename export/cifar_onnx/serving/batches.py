"""Dynamic batching: requests that arrive together are run together, in threads."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class Batches(Generic[Task, Result]):
    """Gathers tasks while its threads are busy, and gives them to the next free one in batches.

    A thread that waits and a loop that is woken for each task would cost more than small tasks do.

    Args:
        work: of a batch; a result that is an exception is raised where its task waits. It may stop early and return
            the first results only, one at least: the other tasks come again, unless their client has gone.
        threads: how many work at a time.
        largest: tasks in a batch at most.
        wait: seconds to wait for others when a task comes while a thread is free.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Task]], Sequence[Result | Exception]],
        threads: int,
        largest: int,
        wait: float = 0,
    ) -> None:
        self._work, self._free, self._largest, self._wait = work, threads, largest, wait
        self._pool = ThreadPoolExecutor(threads)
        self._waiting: deque[tuple[Task, asyncio.Future[Result]]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def do(self, task: Task) -> Result:
        """The result of a task."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((task, future))
        if self._free:
            self._free -= 1
            running = asyncio.create_task(self._run())
            self._running.add(running)
            running.add_done_callback(self._running.discard)
        return await future

    async def _run(self) -> None:
        """Keep a thread at work until nothing waits."""
        await asyncio.sleep(self._wait)
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._largest))]
            jobs = [(task, future) for task, future in batch if not future.done()]  # its client may have gone
            if not jobs:
                continue
            tasks = [task for task, _ in jobs]
            results: Sequence[Result | Exception]
            try:
                results = await asyncio.get_running_loop().run_in_executor(self._pool, self._work, tasks)
            except Exception as error:  # each of them waits for an answer
                results = [error] * len(jobs)
            self._waiting.extendleft(reversed(jobs[len(results) :]))
            for (_, future), result in zip(jobs, results, strict=False):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self._free += 1
