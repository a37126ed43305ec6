"""Work that arrives together."""

import asyncio
import threading
from collections.abc import Awaitable, Sequence

import pytest

pytest.importorskip("anyio")  # it comes with what serving needs, and runs tests that are coroutines
from cifar_onnx.serving.batches import Batches

pytestmark = pytest.mark.anyio


class Bench:
    """Doubles numbers, once it is let go, and knows the batches that it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.go.wait(10)
        self.batches.append(list(numbers))
        if 13 in numbers:
            raise OSError("thirteen")
        return [ValueError(f"{number} is odd") if number % 2 else 2 * number for number in numbers]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def together(*tasks: Awaitable[int]) -> list[int | BaseException]:
    """Results, or exceptions in their place; a task that is never answered is a failure."""
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)


async def first_in_the_thread(batches: Batches[int, int], bench: Bench, number: int) -> asyncio.Task[int]:
    """A task that the thread has taken, and holds until the bench is let go."""
    task = asyncio.create_task(batches.do(number))
    async with asyncio.timeout(10):
        while batches._waiting or not batches._running:
            await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert not bench.batches
    return task


async def test_what_comes_while_the_thread_is_busy_is_done_together(bench: Bench) -> None:
    batches = Batches(bench, threads=1, largest=3)
    first = await first_in_the_thread(batches, bench, 0)
    others = [asyncio.create_task(batches.do(number)) for number in range(2, 12, 2)]
    await asyncio.sleep(0.01)
    bench.go.set()
    assert await together(first, *others) == [0, 4, 8, 12, 16, 20]
    assert bench.batches == [[0], [2, 4, 6], [8, 10]]


async def test_an_exception_among_the_results_is_that_of_its_task_alone(bench: Bench) -> None:
    bench.go.set()
    batches = Batches(bench, threads=1, largest=8)
    two, three, four = (asyncio.create_task(batches.do(number)) for number in (2, 3, 4))
    assert await together(two, four) == [4, 8]
    with pytest.raises(ValueError, match="3 is odd"):
        await three
    assert bench.batches == [[2, 3, 4]]


async def test_work_that_fails_fails_for_its_batch_and_not_for_the_next(bench: Bench) -> None:
    batches = Batches(bench, threads=1, largest=2)
    first = await first_in_the_thread(batches, bench, 0)
    others = [asyncio.create_task(batches.do(number)) for number in (13, 2, 4)]
    await asyncio.sleep(0.01)
    bench.go.set()
    found = await together(first, *others)
    assert (found[0], found[3]) == (0, 8)
    assert [type(each) for each in found[1:3]] == [OSError, OSError]
    assert await together(batches.do(6)) == [12]


async def test_nothing_is_done_for_a_client_that_has_gone(bench: Bench) -> None:
    batches = Batches(bench, threads=1, largest=2)
    first = await first_in_the_thread(batches, bench, 0)
    others = [asyncio.create_task(batches.do(number)) for number in (2, 4, 6)]
    await asyncio.sleep(0.01)
    others[0].cancel()
    others[1].cancel()
    first.cancel()  # while the thread is at it
    bench.go.set()
    assert await together(others[2]) == [12]
    assert bench.batches == [[0], [6]]


async def test_work_that_ends_early_is_given_the_rest_but_for_clients_that_have_gone(bench: Bench) -> None:
    batches = Batches(lambda numbers: bench(numbers[:1]), threads=1, largest=8)
    first = await first_in_the_thread(batches, bench, 0)
    others = [asyncio.create_task(batches.do(number)) for number in (2, 4, 6)]
    await asyncio.sleep(0.01)
    others[1].cancel()
    bench.go.set()
    assert await together(first, others[0], others[2]) == [0, 4, 12]
    assert bench.batches == [[0], [2], [6]]


@pytest.mark.parametrize("largest", [2, 8])
async def test_what_was_not_done_keeps_its_place_before_those_that_came_later(bench: Bench, largest: int) -> None:
    batches = Batches[int, int](lambda numbers: bench(numbers[:1]), threads=1, largest=largest)
    first = await first_in_the_thread(batches, bench, 0)
    others = [asyncio.create_task(batches.do(number)) for number in (2, 4, 6, 8)]
    await asyncio.sleep(0.01)
    bench.go.set()
    await together(first, *others)
    assert bench.batches == [[0], [2], [4], [6], [8]]


async def test_tasks_that_come_together_are_shared_out_among_the_threads() -> None:
    """With one batch of them all, or of any two, the threads would not meet."""
    meeting = threading.Barrier(4)

    def meet(numbers: Sequence[int]) -> list[int]:
        meeting.wait(2)
        return [2 * number for number in numbers]

    batches = Batches[int, int](meet, threads=4, largest=8)
    assert await together(*map(batches.do, range(4))) == [0, 2, 4, 6]


async def test_what_is_left_of_a_batch_is_shared_with_threads_that_have_nothing_else_to_do() -> None:
    others_done, meeting = threading.Event(), threading.Barrier(2)

    def work(numbers: Sequence[int]) -> list[int]:
        if numbers[0] == 0:  # of a batch of [0, 1, 2, 3], while the other thread does all that is not in it
            others_done.wait(2)
        elif numbers[0] < 4:
            meeting.wait(2)
        return [2 * number for number in numbers[: 1 if numbers[0] == 0 else None]]

    batches = Batches[int, int](work, threads=2, largest=8)
    tasks = [asyncio.create_task(batches.do(number)) for number in range(8)]
    await together(*tasks[4:])
    others_done.set()
    assert await together(*tasks) == [2 * number for number in range(8)]
