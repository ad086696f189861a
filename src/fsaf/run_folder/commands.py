"""``commands.jsonl`` of a run folder: commands that made it, with time, device and versions."""

import json
import platform
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from fsaf._version import __version__
from fsaf.device import is_accelerator
from fsaf.files import write_text
from fsaf.run_folder.read import read_text
from fsaf.text import counted


def note_command(run: Path, device: torch.device | str, command: str) -> None:
    """Append a command line, the time, ``device`` and versions to the record of run folder ``run``.

    device: a device of PyTorch, or the name of another runtime's. Raises WriteError if the record cannot be
    written.
    """
    record = {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
        "device": _name(device),
        "versions": {
            "fsaf": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "system": platform.platform(),
        },
    }
    path = run / "commands.jsonl"
    before = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if before and not before.endswith("\n"):  # a line that was cut short stays on its own
        before += "\n"
    write_text(path, before + json.dumps(record) + "\n")


def read_commands(run: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Return the record, oldest first: time, command, device (texts) and versions (texts by name).

    notes: gets a sentence if lines cannot be read.
    """
    commands, broken = [], 0
    for line in (read_text(run / "commands.jsonl", notes) or "").splitlines():
        try:
            record = json.loads(line)
            texts = {key: str(record[key]) for key in ("time", "command", "device")}
            commands.append({**texts, "versions": {str(k): str(v) for k, v in record["versions"].items()}})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            broken += bool(line.strip())
    if broken:
        notes.append(f"commands.jsonl: {counted(broken, 'line')} could not be read")
    return commands


def _name(device: torch.device | str) -> str:
    """Return ``cuda:0 (NVIDIA H100)``, or ``cpu (x86_64)``."""
    try:
        device = torch.device(device)
        module = torch.get_device_module(device)
    except (RuntimeError, AttributeError):  # a device of another runtime
        return str(device)
    if not is_accelerator(device):
        return f"{device.type} ({platform.processor() or platform.machine()})"
    return (
        f"{device} ({module.get_device_name(device)})" if hasattr(module, "get_device_name") else str(device)
    )
