"""A bar with the time left, for loops over files that may take more than a few seconds."""

import os
from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fsaf.errors import printable

T = TypeVar("T", covariant=True)


class _Sequence(Protocol[T]):
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[T]: ...


def follow(items: _Sequence[T], what: str) -> Iterator[T]:
    """Yield ``items`` and show how far it is on standard error, where that is a terminal."""
    yield from follow_iterator(items, items, what)


def follow_iterator(items: Iterable[T], total: Sized, what: str) -> Iterator[T]:
    """As ``follow`` for an iterator, of as many items as ``total`` has; of many processes the first shows."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal or os.environ.get("RANK", "0") != "0",
    )
    with bar:
        task = bar.add_task(printable(what), total=len(total))
        for item in items:
            yield item
            bar.advance(task)
