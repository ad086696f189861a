"""The loader of batches: it hands out what its worker processes read, and reports those that fail."""

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from fsaf.config.data import MULTIPLE
from fsaf.data.balance import image_factors
from fsaf.data.batch import Batch
from fsaf.data.sampler import ShapeBatches
from fsaf.data.samples import Collate, Images
from fsaf.data.worker import CANNOT_SEND, Noting, start_worker
from fsaf.errors import UserError
from fsaf.text import printable

POLL = 1
"""Seconds between looks at the workers and at a request to stop, while a batch is awaited."""
PATIENCE = 60.0
"""Seconds without a batch after which the loader prints what it waits for; after twice as long again."""
ENDING = 5.0
"""Seconds to wait for the exit status of a worker that broke off in the middle of a batch."""

UNGUARDED = 94
"""Exit status of a process that would run the script of its parent again."""
NO_GUARD = (
    "loader processes import the script again, which would begin anew there: put its calls under "
    "`if __name__ == '__main__':`, or set data.workers to 0 (docs/troubleshooting.md)"
)


class WorkerDied(UserError):
    """A worker process of the loader failed; the message names the image that it was reading."""


class Loader(DataLoader[Batch]):
    """A DataLoader that raises the UserError of an image, and WorkerDied if a worker failed.

    Workers return the error: PyTorch would replace the message of a raised one by the text of its traceback.
    """

    _since: float | None = None
    """Time since which a batch is awaited; None while none is."""
    _stopped = False
    """True once a stop request has ended the waiting."""
    on_first: Callable[[Batch], None] | None = None
    """Called once, with the first batch that is handed out."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return self.batches()

    def batches(
        self, stop: Callable[[], object] = lambda: False, say: Callable[[str], None] | None = None
    ) -> Iterator[Batch]:
        """Yield the batches; end early if ``stop()`` is true while a batch is awaited.

        say: prints which process a batch is awaited from if none has come for ``PATIENCE`` seconds; by
        default on standard error. Another thread calls both.
        """
        done = threading.Event()
        if self.num_workers:
            check_main_guard()
            threading.Thread(target=self._watch, args=(done, stop, say or _to_stderr), daemon=True).start()
        try:
            yield from self._batches()
        finally:
            done.set()

    def _batches(self) -> Iterator[Batch]:
        batches: Any = None
        self._stopped = False
        while True:
            self._since = time.monotonic()
            try:
                batches = batches or self._start()
                batch = next(batches)
            except StopIteration:
                return
            except Exception as error:
                if self._stopped:
                    return
                message = self._fault(batches, error)
                self._kill()
                if message:
                    raise WorkerDied(message) from error
                raise
            except BaseException:
                self._kill()  # a stopped process would keep this one from ending
                raise
            finally:
                self._since = None
            if isinstance(batch, UserError):
                self._kill()
                raise batch
            if self.on_first:
                self.on_first(batch)
                self.on_first = None
            yield batch

    def _start(self) -> Any:
        """Start the worker processes, or let them go on; return PyTorch's iterator."""
        handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
        batches: Any = super().__iter__()
        if self.num_workers:  # look at the workers more often than every 5 seconds
            batches._try_get_data = functools.partial(type(batches)._try_get_data, batches, POLL)
        if handler is not None and threading.current_thread() is threading.main_thread():
            # PyTorch's handler would raise anywhere in the program, even in the middle of a step.
            signal.signal(signal.SIGCHLD, handler)
        return batches

    def _watch(self, done: threading.Event, stop: Callable[[], object], say: Callable[[str], None]) -> None:
        """Watch the waiting for batches from a thread of its own until ``done``.

        The main thread cannot: it may wait in a system call for a process that does not answer.
        """
        said = 0.0
        while not done.wait(POLL):
            since, batches = self._since, self._iterator
            if since is None or batches is None:
                said = 0.0
                continue
            if stop():
                self._stopped = True
                self._kill()  # ends the waiting
                return
            waited = time.monotonic() - since
            if waited >= max(PATIENCE, 2 * said):
                said = waited
                say(self._waiting(batches, waited))

    def _waiting(self, batches: Any, seconds: float) -> str:
        """Return the message about the process whose batch is awaited."""
        worker = batches._task_info.get(batches._rcvd_idx, [0])[0]
        image = self.dataset.image(worker) if isinstance(self.dataset, Noting) else None
        doing = f"is reading {printable(image)}" if image else "is reading no image"
        return (
            f"warning: no batch for {seconds:.0f} s: loader process {batches._workers[worker].pid} {doing}; "
            "is it stopped, or is its disk gone? Ctrl-C saves the steps done and stops"
        )

    def _kill(self) -> None:
        """End the workers, also those that are stopped; the next iteration starts new ones."""
        for worker in getattr(self._iterator, "_workers", ()):
            if worker.is_alive():
                worker.kill()
        self._iterator = None

    def _fault(self, batches: Any, error: Exception) -> str | None:
        """Return the message about workers that failed; None if none did."""
        if not isinstance(self.dataset, Noting):
            return None
        workers = batches._workers if batches else []
        broke_off = isinstance(
            error, (EOFError, ConnectionError, FileNotFoundError)
        )  # in the middle of a batch
        limit = time.monotonic() + ENDING * broke_off  # for a worker that is ending
        while time.monotonic() < limit and all(worker.exitcode is None for worker in workers):
            time.sleep(0.05)
        codes = {i: worker.exitcode for i, worker in enumerate(workers) if worker.exitcode is not None}
        if UNGUARDED in codes.values():
            return NO_GUARD
        unsent = [self.dataset.fault(i) for i, code in codes.items() if code == CANNOT_SEND]
        if unsent or not codes:
            text = "Too many open files" if broke_off else str(error)  # which a living worker ran into
            return memory_message(unsent[0] if unsent else text, self.num_workers)
        how = ", ".join(
            signal.Signals(-code).name if code < 0 else f"status {code}" for code in codes.values()
        )
        # Writing to shared memory that cannot grow ends in SIGBUS.
        cause = "/dev/shm full" if "SIGBUS" in how else "out of memory"
        what = ", ".join(printable(image) for i in codes if (image := self.dataset.image(i)))
        return (
            f"a loader process ended with {how} while reading {what or 'no image'} "
            f"({cause}? lower data.workers or data.batch_size)"
        )


def memory_message(error: str, workers: int) -> str | None:
    """Return the message for an error of memory or files that processes share; None for another error."""
    if "Too many open files" in error or "ancdata" in error:
        what, remedy = "Too many open files", "raise the limit of open files with ulimit -n"
    elif any(text in error for text in ("No space left", "Cannot allocate memory", "unavailable")):
        what = "No space left on device" if "No space left" in error else "Cannot allocate memory"
        remedy = "enlarge /dev/shm (docker run --shm-size=2g)"
    else:
        return None
    return (
        f"loader processes cannot hand over their batches in /dev/shm, memory that processes share ({what}); "
        f"lower data.workers, now {workers}, or data.batch_size, or {remedy} (docs/troubleshooting.md)"
    )


@contextlib.contextmanager
def _naming_memory(workers: int) -> Iterator[None]:
    """Turn an error of shared memory or of too many files or processes into a WorkerDied."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        if message := memory_message(str(error), workers):
            raise WorkerDied(message) from error
        raise


def check_main_guard() -> None:
    """End this process if it is importing the script of its parent, which has no main guard.

    Python's start methods spawn and forkserver import the script in each process that they start.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)  # SystemExit would lose its status under forkserver


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def make_loader(
    images: Images,
    batch_size: int,
    *,
    workers: int,
    train: bool,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> tuple[Loader, ShapeBatches]:
    """Return a loader over a split, and the sampler that orders it.

    train: shuffle and balance as configured and fill up short batches; otherwise read every image once, in
    order.
    """
    data = images.data
    sampler = ShapeBatches(
        images.shapes,
        batch_size,
        shuffle=train and data.shuffle,
        seed=seed,
        rank=rank,
        world=world,
        fill=train,
        factors=image_factors(images.records, data.balance) if train and data.balance else None,
    )
    with _naming_memory(workers):
        dataset = Noting(images, workers) if workers else images
    loader = Loader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=Collate(data.pad or MULTIPLE, data.max_boxes if train else None, data.antialias),
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # own generator: seeding workers must not advance the global one
    )
    return loader, sampler
