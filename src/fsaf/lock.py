"""Lock of a folder that one process writes; it also tells where the folder is, if it is moved."""

import contextlib
import json
import os
import platform
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from fsaf.errors import WriteError
from fsaf.files import check_folder, write_error
from fsaf.text import printable

try:
    import fcntl
except ImportError:  # Windows: folders are not locked
    fcntl = None  # type: ignore[assignment]

LOCK = ".fsaf-lock"
"""File in a locked folder. It names the process that holds the lock; the lock ends with that process."""


class FolderLock:
    """Context manager: locks a folder against processes of this machine and of those that share the disk."""

    def __init__(self, folder: Path, verb: str) -> None:
        """verb: of this process, for the messages of others."""
        self.folder, self.verb = folder, verb
        self.descriptor: int | None = None
        self.created: list[Path] = []
        """Folders that did not exist before, the innermost first."""

    def __enter__(self) -> "FolderLock":
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.release()

    def acquire(self) -> None:
        """Lock the folder, and create it if it does not exist.

        Raises WriteError that names the process that writes the folder, or if the folder cannot be written.
        """
        check_folder(self.folder)
        self.created = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        try:
            while self.descriptor is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self.descriptor = self._try()
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            about = {"verb": self.verb, "process": os.getpid(), "host": platform.node(), "since": since}
            os.ftruncate(self.descriptor, 0)
            os.write(self.descriptor, json.dumps(about).encode())
        except OSError as error:
            self.release()
            raise write_error(self.folder, error) from error

    def release(self) -> None:
        """Unlock the folder; remove it if it was created and is still empty."""
        if self.descriptor is None:
            return
        with contextlib.suppress(OSError):
            if (place := self.place()) is not None:
                (place / LOCK).unlink()
        os.close(self.descriptor)
        self.descriptor = None
        with contextlib.suppress(OSError):
            for path in self.created:
                path.rmdir()

    def place(self) -> Path | None:
        """Return the folder, or its new path if it was moved; None if it was deleted.

        Only Linux finds a moved folder. Elsewhere the result is None for it.
        """
        if self.descriptor is None or _is(self.folder / LOCK, self.descriptor):
            return self.folder
        with contextlib.suppress(OSError):
            moved = Path(f"/proc/self/fd/{self.descriptor}").readlink()
            if _is(moved, self.descriptor):
                return moved.parent
        return None

    def _try(self) -> int | None:
        """Return the descriptor of the locked file; None if its holder has just removed the file."""
        path = self.folder / LOCK
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            content = os.read(descriptor, 1000)
            os.close(descriptor)
            raise WriteError(self._held(content)) from None
        except OSError:
            pass  # a file system without locks
        if _is(path, descriptor):
            return descriptor
        os.close(descriptor)
        return None

    def _held(self, content: bytes) -> str:
        """Return the message that another process has the lock. content: of the file."""
        try:
            about: Any = json.loads(content)
            where = f"process {about['process']} on {about['host']}, since {about['since']}"
            holder = f"fsaf {about['verb']} ({where})"
        except (ValueError, KeyError, TypeError):  # the other process is just writing it
            holder = "another process"
        return (
            f"{self.folder}: {printable(holder)} writes this folder; wait for it, stop it, or give another "
            "--out FOLDER"
        )


def _is(path: Path, descriptor: int) -> bool:
    """Return True if ``path`` is the open file ``descriptor``."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False
