"""Read the next pictures in a thread while the network works on those before."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(
    items: Iterable[T], read: Callable[[T], R], count: int = 1
) -> Iterator[tuple[T, Callable[[], R]]]:
    """Yield each item, in order, with a function that returns ``read(item)`` or raises what that raised.

    count: how many items are read before they are asked for. They are in memory together.
    """
    waiting: deque[tuple[T, Future[R]]] = deque()
    iterator = iter(items)
    pool = ThreadPoolExecutor(1, "fsaf-read")
    try:
        while True:
            for item in islice(iterator, count + 1 - len(waiting)):
                waiting.append((item, pool.submit(read, item)))
            if not waiting:
                return
            item, future = waiting.popleft()
            yield item, future.result
    finally:
        pool.shutdown(cancel_futures=True)
