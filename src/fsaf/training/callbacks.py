"""Functions that training calls on the way: loggers, and whatever a user passes to ``fsaf.train``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsaf.training.run import Run


class Callback:
    """Base of callbacks, whose methods do nothing. The main process calls them, between two steps.

    >>> class Stars(fsaf.Callback):
    ...     def on_evaluation(self, record):
    ...         print("*" * round(100 * record["AP"]))
    >>> fsaf.train("lite0", data="DATA", callbacks=[Stars()])

    An exception ends the training; ``on_end`` is called then too.
    """

    def on_start(self, run: Run) -> None:
        """The run folder ``run.out`` exists and the first step is next, of a new run or a resumed one."""

    def on_step(self, record: dict[str, Any]) -> None:
        """A record of the last steps was logged, every ``log.every`` steps: loss, learning rate, speed."""

    def on_evaluation(self, record: dict[str, Any]) -> None:
        """The network was evaluated. record: COCO's metrics, with ``step`` and ``epoch``."""

    def on_checkpoint(self, path: Path) -> None:
        """The state of the run was written to ``path``."""

    def on_end(self, error: BaseException | None) -> None:
        """Training has ended. error: the exception that ended it, if one did."""


class Guarded(Callback):
    """A callback that cannot end a training: after its first exception it is not called again.

    name: for the message. say: prints it.
    """

    def __init__(self, name: str, callback: Callback, say: Callable[[str], None]) -> None:
        self.name, self.say = name, say
        self.callback: Callback | None = callback

    def on_start(self, run: Run) -> None:
        self._call("on_start", run)

    def on_step(self, record: dict[str, Any]) -> None:
        self._call("on_step", record)

    def on_evaluation(self, record: dict[str, Any]) -> None:
        self._call("on_evaluation", record)

    def on_checkpoint(self, path: Path) -> None:
        self._call("on_checkpoint", path)

    def on_end(self, error: BaseException | None) -> None:
        self._call("on_end", error)

    def _call(self, method: str, argument: Any) -> None:
        if self.callback is None:
            return
        try:
            getattr(self.callback, method)(argument)
        except (Exception, SystemExit) as error:
            self.callback = None
            text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            self.say(f"warning: log.to {self.name}: {text}; training continues without it")


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a record by name: ``train/loss``, ``val/AP``; ``AP/cat`` for each class."""
    group = "train" if "loss" in record else "val"
    found = {
        f"{group}/{key.removeprefix('val_')}": value
        for key, value in record.items()
        if isinstance(value, (int, float))
    }
    classes = {f"AP/{name}": each["AP"] for name, each in record.get("per_class", {}).items()}
    return found | {name: value for name, value in classes.items() if value is not None}
