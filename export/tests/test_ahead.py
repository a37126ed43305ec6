"""Work that threads do ahead of who asks for it."""

import threading
import time

import pytest

from cifar_onnx.ahead import ahead, chunk_size


def test_results_come_in_order_from_several_threads() -> None:
    threads = set()

    def slow(number: int) -> int:
        threads.add(threading.get_ident())
        time.sleep(0.002 * (number % 3))
        return number

    for chunk in (1, 7):
        threads.clear()
        assert list(ahead(slow, range(40), 4, 16, chunk)) == list(range(40))
        assert len(threads) > 1


def test_no_more_are_begun_than_may_wait() -> None:
    numbers = iter(range(40))
    results = ahead(lambda number: number, numbers, 2, 4)
    assert (next(results), next(numbers)) == (0, 5)


def test_a_thread_takes_several_at_once() -> None:
    asked = iter(range(40))
    results = ahead(lambda _: threading.get_ident(), asked, 4, 8, 5)
    threads = [next(results)]
    assert next(asked) == 10  # two times five
    threads += list(results)
    assert all(len({*threads[start : start + 5]}) == 1 for start in range(0, 10, 5))


@pytest.mark.parametrize("chunk", [1, 4])
def test_an_error_comes_where_its_result_would(chunk: int) -> None:
    results = ahead(lambda number: 1 // (3 - number), range(9), 2, 4, chunk)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_who_stops_waits_for_one_call_of_each_thread_at_most() -> None:
    begun = []

    def slow(number: int) -> int:
        begun.append(number)
        time.sleep(0.005)
        return number

    results = ahead(slow, range(400), 2, 100, 50)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert len(begun) < 150


def test_few_calls_are_shared_out_among_the_threads() -> None:
    assert chunk_size(30, 8) == 1
    assert chunk_size(200, 8) == 6
    assert chunk_size(10_000, 2) == chunk_size(100_000, 8) == 16
