"""Read the files of a run folder for a report. Missing files are None or empty; damaged ones are noted.

``notes`` gets a sentence on each file that cannot be read; nothing here raises for the content of a file.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from fsaf.data.decode import open_image
from fsaf.errors import UserError
from fsaf.text import counted, parse_yaml

MOST_PICTURES = 12
LARGEST = 1e30
"""Largest number in the records of a run; larger ones are damage, and charts could not show them."""
PICTURE_BYTES = 3_000_000
"""Size of all pictures together, before base64 makes them a third larger."""


def read_text(path: Path, notes: list[str]) -> str | None:
    """Return the text of a file, or None if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        notes.append(f"{path.name} is not readable: {error}")
        return None


def parse_settings(text: str | None, notes: list[str]) -> Any:
    """Parse the text of ``config.yaml``; return None if it is empty or not readable."""
    try:
        return parse_yaml(text or "")
    except ValueError as error:
        notes.append(f"config.yaml is not readable: {error}")
        return None


def read_object(path: Path, notes: list[str]) -> dict[str, Any] | None:
    """Return the JSON object in a file, or None if there is none."""
    text = read_text(path, notes)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        notes.append(f"{path.name} is not readable: {error}")
        return None
    if not isinstance(value, dict):
        notes.append(f"{path.name} is not readable: it holds no JSON object")
        return None
    return value


def read_metrics(path: Path, notes: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the records of training steps and of evaluations, in order of steps.

    A run that was resumed from an earlier checkpoint has some steps twice; the later record counts.
    """
    steps: list[dict[str, Any]] = []
    evaluations: list[dict[str, Any]] = []
    broken = 0
    for line in (read_text(path, notes) or "").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            broken += bool(line.strip())
            continue
        key, records = ("step", steps) if "loss" in record else ("epoch", evaluations)
        at = finite(record.get(key))
        if at is None or ("loss" not in record and "AP" not in record):
            broken += 1
            continue
        while records and records[-1][key] >= at:
            records.pop()
        records.append(record)
    if broken:
        notes.append(f"{path.name}: {counted(broken, 'line')} could not be read and are left out")
    return steps, evaluations


def finite(value: Any) -> float | None:
    """Return a number up to ``LARGEST`` as a float, and None for anything else."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if abs(value) <= LARGEST else None  # NaN is not, and infinity is not


def read_pictures(folder: Path, notes: list[str]) -> tuple[list[tuple[str, str]], int]:
    """Return name and data URL of the first pictures, and the number of all."""
    paths = sorted(folder.glob("*.png"))
    shown = []
    for path in paths[:MOST_PICTURES]:
        try:
            shown.append((path.stem, data_url(path, PICTURE_BYTES // min(len(paths), MOST_PICTURES))))
        except UserError as error:
            notes.append(f"pictures/{path.name} is not readable: {error}")
    return shown, len(paths)


def read_picture(path: Path, notes: list[str]) -> str | None:
    """Return the data URL of one picture; None if it is missing or, with a note, not readable."""
    if not path.is_file():
        return None
    try:
        return data_url(path, PICTURE_BYTES)
    except UserError as error:
        notes.append(f"{path.name} is not readable: {error}")
        return None


def data_url(path: Path, limit: int) -> str:
    """Return a PNG file as it is if it is small enough, else a JPEG scaled down until it is.

    Raises UserError if the file is not an image.
    """
    with open_image(path) as image:
        image.load()
        if image.width <= 1000 and path.stat().st_size <= limit and image.format == "PNG":
            return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        return jpeg_url(image, limit)


def jpeg_url(image: Image.Image, limit: int) -> str:
    """Return a picture as a JPEG of at most ``limit`` bytes, scaled down if necessary."""
    picture = image.convert("RGB")
    for side in (1000, 800, 640, 480, 320, 160):
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85, optimize=True)
        if buffer.tell() <= limit:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
