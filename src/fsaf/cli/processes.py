"""Run a verb in several processes on this machine."""

from collections.abc import Callable
from typing import Any

from fsaf.errors import UserError


def in_processes(
    verb: str, function: Callable[..., None], arguments: tuple[Any, ...], devices: int, max_restarts: int = 0
) -> None:
    """Call ``function(*arguments)``, here if ``devices`` is 1, else in that many processes.

    verb: for messages. max_restarts: how often to restart all processes if one dies. Raises SystemExit with
    status 1 if they still fail.
    """
    check_devices(devices)
    if max_restarts < 0:
        raise UserError(f"--max-restarts {max_restarts}: must be 0 or more")
    if devices == 1:
        return function(*arguments)
    from fsaf.processes.launch import launch

    try:
        launch(function, arguments, devices, max_restarts)
    except RuntimeError as error:
        raise SystemExit(f"fsaf {verb}: {error}") from error


def check_devices(devices: int) -> None:
    """Raise UserError unless the number of devices is at least 1."""
    if devices < 1:
        raise UserError(f"--devices {devices}: must be at least 1")
