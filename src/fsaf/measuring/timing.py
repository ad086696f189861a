"""Time calls on a device, and summarise the times."""

import time
from collections.abc import Callable
from typing import Any

import torch

from fsaf.device import is_accelerator


def measure(
    call: Callable[[], Any], device: torch.device, seconds: float, least: int = 3, warm_up: int = 2
) -> list[float]:
    """Return the seconds of each of several calls, repeated for ``seconds``.

    least: lowest number of calls. warm_up: calls before them, which are not measured.
    """
    for _ in range(warm_up):
        call()
    wait(device)
    times: list[float] = []
    while len(times) < least or (sum(times) < seconds and len(times) < 1000):
        start = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - start)
    return times


def wait(device: torch.device) -> None:
    """Wait until an accelerator has finished all work; return at once on a CPU."""
    if is_accelerator(device):
        torch.accelerator.synchronize(device)


def summary(times: list[float]) -> dict[str, float]:
    """Return median, quartiles and tails of times in seconds, the shortest and their number."""
    row = torch.tensor(sorted(times), dtype=torch.float64)
    points = {"median": 0.5, "p25": 0.25, "p75": 0.75, "p90": 0.9, "p99": 0.99}
    named = {name: float(torch.quantile(row, share)) for name, share in points.items()}
    return {**named, "least": float(row[0]), "count": len(times)}
