"""Standard output and standard error that break: a closed pipe, a dead terminal, a full disk."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from fsaf.files import write_error

if TYPE_CHECKING:
    from rich.console import Console


class Lasting:
    """Text stream that drops its output, instead of raising OSError, once it cannot be written any more."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write ``text``; return its length."""
        with self._guarded():
            try:
                self.stream.write(text)
            except UnicodeEncodeError as error:
                self.stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with self._guarded():
            self.stream.flush()

    def failed(self, error: OSError) -> None:
        """Continue, or raise another error, after ``error``."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _discard(self.stream)
            self.failed(error)


class Checked(Lasting):
    """Text stream that raises a WriteError that names it, or BrokenPipeError if its reader has gone."""

    def failed(self, error: OSError) -> None:
        """Raise WriteError or BrokenPipeError."""
        if isinstance(error, BrokenPipeError):
            raise error
        raise write_error(Path("standard output"), error) from error


@contextlib.contextmanager
def guarded_output(lasting: bool = False) -> Iterator[None]:
    """Context in which standard error is ``Lasting``, and standard output ``Checked``.

    lasting: make standard output ``Lasting`` too, for work whose result is not what it prints.
    """
    _open_missing()
    before = sys.stdout, sys.stderr
    sys.stdout = cast(TextIO, (Lasting if lasting else Checked)(_inner(sys.stdout)))
    sys.stderr = cast(TextIO, Lasting(_inner(sys.stderr)))
    try:
        yield
    finally:
        if lasting:
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def keep_writing(console: "Console") -> None:
    """Let a rich console drop its output once it cannot be written any more."""
    if not isinstance(console.file, Lasting):
        console.file = cast(TextIO, Lasting(console.file))


def _inner(stream: TextIO) -> IO[str]:
    return stream.stream if isinstance(stream, Lasting) else stream


def _discard(stream: IO[str]) -> None:
    """Connect a broken stream to the null device, or Python fails at exit when it writes the rest."""
    with contextlib.suppress(OSError, ValueError):  # streams of tests have no descriptor
        number, null = stream.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)


def _open_missing() -> None:
    """Open closed standard descriptors: the next file opened would get the number and receive all output.

    Writing to them still fails, as it should for ``>&-``.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # gets the lowest free number
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
