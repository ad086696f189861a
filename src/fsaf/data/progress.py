"""Progress bars with the time left, for loops over many files."""

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fsaf.text import printable

T = TypeVar("T", covariant=True)


class _Sequence(Protocol[T]):
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[T]: ...


def follow(items: _Sequence[T], what: str) -> Iterator[T]:
    """Yield ``items``, with a progress bar on standard error if that is a terminal."""
    yield from follow_iterator(items, items, what)


def follow_iterator(
    items: Iterable[T], total: Sized | int | None, what: str, unit: str | None = None
) -> Iterator[T]:
    """Yield ``items`` as ``follow`` does; of several processes only the first shows the bar.

    total: the number of items, or an object of that length; None if unknown. unit: also show items per
    second, with this unit (``img``).
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        *([_Speed(unit)] if unit else []),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # leave output to files and pipes alone
        disable=not console.is_terminal or not _is_main(),
    )
    with bar:
        count = total if total is None or isinstance(total, int) else len(total)
        task = bar.add_task(printable(what), total=count)
        for item in items:
            yield item
            bar.advance(task)


def _is_main() -> bool:
    """Return True in the process that prints; PyTorch is not imported only to ask."""
    if "torch" not in sys.modules:
        return True
    from fsaf.processes.group import is_main

    return is_main()


class _Speed(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} {self.unit}/s" if task.speed else f"- {self.unit}/s")
