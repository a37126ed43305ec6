"""Work that threads do ahead of who asks for it."""

import threading
import time

import pytest

from cifar_onnx.ahead import ahead


def test_results_come_in_order_from_several_threads() -> None:
    threads = set()

    def slow(number: int) -> int:
        threads.add(threading.get_ident())
        time.sleep(0.002 * (number % 3))
        return number

    for together in (1, 7):
        threads.clear()
        assert list(ahead(slow, range(40), 4, 16, together)) == list(range(40))
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


def test_an_error_comes_where_its_result_would() -> None:
    results = ahead(lambda number: 1 // (3 - number), range(9), 2, 4)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
