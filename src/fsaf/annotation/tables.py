"""Detections as files for other programs: lines of YOLO, results of COCO, a CSV table."""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from fsaf.annotation.sources import Source
from fsaf.annotation.video import Frame
from fsaf.data.records import Classes
from fsaf.detection.result import Result
from fsaf.errors import DataError
from fsaf.files import whole, write_text
from fsaf.scoring.results import to_coco_results
from fsaf.text import parse_json, short

COLUMNS = ("image", "frame", "time", "name", "label", "score", "x1", "y1", "x2", "y2", "track")
"""Columns of the CSV table; frame and time are empty for pictures, track without tracking."""


@dataclass(kw_only=True)
class TableFiles:
    """The files to write."""

    txt: bool = False
    """``labels/NAME.txt`` in the output folder: lines of YOLO with scores."""
    coco: Path | None = None
    """COCO's results format."""
    ids: Path | None = None
    """Annotations in COCO's format with the image ids for ``coco``; else pictures are numbered from 1."""
    csv: Path | None = None
    """A row for each detection."""


@contextmanager
def open_tables(
    files: TableFiles, folder: Path, classes: Classes, sources: Sequence[Source]
) -> Iterator["Tables"]:
    """Yield the tables, which appear whole when the block ends; if it raises, no CSV and COCO file does.

    Raises DataError if the annotations cannot be read, or lack a picture of ``sources``.
    """
    ids = None if files.ids is None else read_ids(files.ids, sources)
    with ExitStack() as opened:
        table = None
        if files.csv is not None:
            draft = opened.enter_context(whole(files.csv))
            table = opened.enter_context(draft.open("w", encoding="utf-8", newline=""))
            csv.writer(table).writerow(COLUMNS)
        tables = Tables(files=files, labels=folder / "labels", classes=classes, ids=ids, table=table)
        yield tables
        if files.coco is not None:
            write_text(files.coco, json.dumps(tables.entries))


@dataclass(kw_only=True)
class Tables:
    """Writer of the tables; made by ``open_tables``."""

    files: TableFiles
    labels: Path
    classes: Classes
    ids: dict[str, int] | None
    table: Any
    entries: list[dict[str, Any]] = field(default_factory=list)
    number: int = 0

    def add(self, result: Result, place: PurePath, frame: Frame | None = None) -> None:
        """Add the detections of a picture or frame. place: its path in the output folder, without suffix."""
        self.number += 1
        if self.files.txt:
            lines = yolo_lines(result)
            write_text(self.labels / place.parent / f"{place.name}.txt", "".join(f"{x}\n" for x in lines))
        if self.files.coco is not None:
            self.entries += self._coco(result, frame)
        if self.table is not None:
            csv.writer(self.table).writerows(_rows(result, frame))

    def _coco(self, result: Result, frame: Frame | None) -> list[dict[str, Any]]:
        number = self.number if self.ids is None else self.ids[str(result.path)]
        found = to_coco_results(number, result.boxes, result.scores, result.labels, self.classes.ids)
        about: dict[str, Any] = {"file_name": result.path} | ({"frame": frame.index} if frame else {})
        for entry, track in zip(found, result.track_ids(), strict=True):
            entry |= about if track is None else about | {"track_id": track}
        return found


def yolo_lines(result: Result) -> list[str]:
    """Return ``label x y width height score``, and the track if there is one, for each detection.

    The box is its centre and size, as shares of the picture's width and height.
    """
    height, width = result.size
    lines = []
    rows = zip(result.boxes.tolist(), result.labels, result.scores, result.track_ids(), strict=True)
    for (x1, y1, x2, y2), label, score, track in rows:
        box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        numbers = " ".join(f"{value:.6f}" for value in (*box, score))
        lines.append(f"{label} {numbers}" + ("" if track is None else f" {track}"))
    return lines


def _rows(result: Result, frame: Frame | None) -> Iterator[list[Any]]:
    about = [result.path, "", ""] if frame is None else [result.path, frame.index, round(frame.time, 6)]
    rows = zip(result.names, result.labels, result.scores, result.boxes.tolist(), strict=True)
    for (name, label, score, box), track in zip(rows, result.track_ids(), strict=True):
        yield [*about, name, label, f"{score:.6f}", *(round(side, 3) for side in box), track]


def read_ids(path: Path, sources: Sequence[Source]) -> dict[str, int]:
    """Return the image id of each source, by its name.

    A ``file_name`` of the annotations fits a picture if its path ends with it, or if the names without
    folders are equal and no other image has that name. Raises DataError naming ``path``.
    """
    try:
        images = parse_json(path.read_text(encoding="utf-8"))["images"]
        known = {str(image["file_name"]): int(image["id"]) for image in images}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is no annotation file of COCO ({short(error)})") from error
    plain: dict[str, list[int]] = {}
    for name, image_id in known.items():
        plain.setdefault(PurePath(name).name, []).append(image_id)
    ids = {}
    for source in sources:
        parts = PurePath(source.name).parts
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        number: int | None = next((known[end] for end in ends if end in known), None)
        alike = plain.get(parts[-1] if parts else "", [])
        if number is None and len(alike) == 1:
            number = alike[0]
        if number is None or source.video:
            raise DataError(f"{path}: has no image {source.name}, so --save-coco has no id for it")
        ids[source.name] = number
    return ids
