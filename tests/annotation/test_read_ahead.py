"""Reading ahead: order, errors in their place, no more in memory than said, and no thread left."""

import threading
from collections.abc import Iterator

import pytest

from fsaf.annotation.read_ahead import read_ahead


@pytest.mark.parametrize("count", [1, 3, 10])
def test_order_and_results_are_those_of_a_loop(count: int) -> None:
    found = [(item, result()) for item, result in read_ahead(range(7), lambda x: x * x, count)]
    assert found == [(x, x * x) for x in range(7)]


def test_the_next_is_read_while_the_caller_works_and_no_more_than_that() -> None:
    read, started = [], threading.Semaphore(0)

    def note(item: int) -> int:
        read.append(item)
        started.release()
        return item

    pairs = read_ahead(range(10), note, 2)
    next(pairs)
    for _ in range(3):  # the one at hand and two ahead, without being asked for
        assert started.acquire(timeout=10)
    assert not started.acquire(timeout=0.2)
    assert read == [0, 1, 2]
    pairs.close()


def test_an_error_is_raised_at_its_item_and_the_rest_goes_on() -> None:
    outcomes = []
    for item, result in read_ahead([2, 0, 1], lambda x: 1 / x):
        try:
            outcomes.append(result())
        except ZeroDivisionError:
            outcomes.append(f"bad {item}")
    assert outcomes == [0.5, "bad 0", 1.0]


def test_no_thread_is_left_if_the_caller_stops_early_or_items_fail() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    before = threading.active_count()
    pairs = read_ahead(range(100), lambda x: x)
    next(pairs)
    pairs.close()
    with pytest.raises(OSError, match="gone"):
        list(read_ahead(items(), lambda x: x))
    assert threading.active_count() == before
