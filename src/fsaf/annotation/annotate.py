"""The work of ``fsaf predict``: detect objects in pictures and videos, and write the results."""

import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from fsaf.annotation.addresses import without_password
from fsaf.annotation.crops import Crops
from fsaf.annotation.sources import STDIN, Source, place_results
from fsaf.annotation.tables import TableFiles, Tables, open_tables
from fsaf.annotation.tracking import Tracks, import_trackers
from fsaf.annotation.video import Frame, VideoReader
from fsaf.annotation.video_writer import VideoWriter, write_video
from fsaf.config import PredictConfig
from fsaf.data.arrays import read_file
from fsaf.data.progress import follow_iterator
from fsaf.detection.detector import Batch, Detector
from fsaf.detection.draw import draw_result
from fsaf.detection.picture import open_picture
from fsaf.detection.result import Result
from fsaf.errors import DataError, Stopped, UserError
from fsaf.files import check_folder, remove_leftovers, whole
from fsaf.text import printable

if TYPE_CHECKING:
    from fsaf.processes.stop import StopRequest

T = TypeVar("T")


@dataclass(kw_only=True)
class Output:
    """The form of the results."""

    folder: Path
    """Folder of annotated pictures, videos, labels and crops."""
    json: bool = False
    """Print JSON lines instead of writing annotated pictures and videos."""
    crops: bool = False
    """Also write each detection as a picture of its own, in ``crops/CLASS`` of the folder."""
    show_levels: bool = False
    """Colour boxes by pyramid level, not by class."""
    tables: TableFiles = field(default_factory=TableFiles)
    """Files for other programs."""
    track: bool = False
    """Follow objects through videos."""


@dataclass(kw_only=True)
class _Work:
    """What is the same for every source."""

    detector: Detector
    output: Output
    batch_size: int
    settings: PredictConfig
    tables: Tables
    crops: Crops | None
    bad: int = 0
    """Sources that could not be read, or are damaged."""

    def report(self, message: object) -> None:
        """Count a bad source, and print what is wrong with it."""
        self.bad += 1
        print(printable(f"fsaf predict: {message}"), file=sys.stderr)


def annotate(
    detector: Detector,
    sources: Sequence[Source],
    output: Output,
    batch_size: int = 1,
    settings: PredictConfig | None = None,
) -> int:
    """Detect objects in every source, write the results, and return the number of bad sources.

    Bad are sources that cannot be read, and damaged videos, of which the frames that decode are used; a
    message on standard error names each. Raises UserError if there is only one source and it cannot be read,
    and if a file cannot be written; Stopped if a signal ends the work in a video: its output, and all tables,
    then hold what was found up to there.
    settings: by default ``detector.shown``.
    """
    if output.track:
        _check_tracking(sources)
    if output.crops or output.tables.txt or not output.json:
        check_folder(output.folder)
        remove_leftovers(output.folder)
    crops = None
    if output.crops:
        crops = Crops(output.folder / "crops", detector.classes.names)
        for source in sources:
            if crops.folder.resolve() in Path(source.name).resolve().parents:
                raise DataError(
                    f"{source.name}: is in the folder that crops are written to; give another --out"
                )
    pairs = list(zip(sources, place_results(sources, output.folder), strict=True))
    stopped = None
    with open_tables(output.tables, output.folder, detector.classes, sources) as tables:
        work = _Work(
            detector=detector,
            output=output,
            batch_size=batch_size,
            settings=settings or detector.shown,
            tables=tables,
            crops=crops,
        )
        try:
            for moving, group in groupby(pairs, key=lambda pair: pair[0].video):
                if not moving:
                    _pictures(work, list(group), len(sources) == 1)
                    continue
                for source, target in group:
                    try:
                        _video(work, source, target)
                    except DataError as error:
                        if len(sources) == 1:
                            raise
                        work.report(error)
        except Stopped as error:
            stopped = error
    if stopped:
        raise stopped
    return work.bad


def _pictures(work: _Work, pairs: Sequence[tuple[Source, Path]], alone: bool) -> None:
    """Detect in pictures. alone: raise DataError for one that cannot be read, instead of going on."""
    output, start, done = work.output, time.perf_counter(), 0

    def read() -> Iterator[tuple[tuple[Source, Path], np.ndarray]]:
        for pair in pairs:
            try:
                yield pair, _read(work, pair[0])
            except DataError as error:
                if alone:
                    raise
                work.report(error)

    shows, tiles = _shows_progress(output), work.settings.tile is not None
    results = _detect(work, read(), _follow_tiles if shows and tiles else iter)
    if shows and not tiles:  # one bar at a time
        results = follow_iterator(results, len(pairs), "predicting", unit="img")
    for (source, target), image, result in results:
        result, done = replace(result, path=source.name), done + 1
        if output.json:
            print(json.dumps(result.to_dict()), flush=True)
        place = _place(target, output)
        if work.crops:
            work.crops.save(image, result, place)
        work.tables.add(result, place)
        if not output.json:
            with whole(target) as draft:
                _draw(image, result, output).save(draft, "PNG")
            print(printable(f"{source.name} -> {target}: {_counts(Counter(result.names))}"))
    if not output.json and done > 1:
        print(f"{done} pictures at {done / (time.perf_counter() - start):.1f} img/s", file=sys.stderr)


def _read(work: _Work, source: Source) -> np.ndarray:
    data = work.detector.config.data
    if source.name == STDIN:
        return read_file("standard input", data, sys.stdin.buffer.read())
    return open_picture(source.name, data).image


def _video(work: _Work, source: Source, target: Path) -> None:
    """Detect in the frames of a video. Raises DataError if it has none."""
    from fsaf.processes.stop import StopRequest  # late: it imports PyTorch

    output, place = work.output, _place(target, work.output)
    name = without_password(source.name)
    counts: Counter[str] = Counter()
    number, start = 0, time.perf_counter()
    with VideoReader(source.name, work.detector.config.data.max_pixels) as reader, ExitStack() as files:
        stop = files.enter_context(StopRequest())
        frames = ((frame, frame.image) for frame in _until(reader.frames(), stop))
        seen = _detect(work, frames)
        total = None if source.camera else reader.total
        if _shows_progress(output):
            seen = follow_iterator(seen, total, f"predicting {name}", unit="img")
        writer: VideoWriter | None = None
        tracks = Tracks(float(reader.rate), work.settings.score_threshold) if output.track else None
        for frame, _, result in seen:
            result = replace(result, path=name)
            if tracks:
                result = tracks.follow(result, frame)
            number += 1
            counts.update(result.names)
            if output.json:
                about = {"image": name, "frame": frame.index, "time": round(frame.time, 6)}
                print(json.dumps(about | result.to_dict()), flush=True)
            else:
                if writer is None:
                    size = frame.image.shape[0], frame.image.shape[1]
                    new = write_video(target, size, reader.rate, reader.time_base, reader.aspect)
                    writer = files.enter_context(new)
                writer.write(np.asarray(_draw(frame.image, result, output)), frame.ticks)
            frame_place = place.with_name(f"{place.name}_{frame.index:06d}")
            if work.crops:
                work.crops.save(frame.image, result, frame_place)
            work.tables.add(result, frame_place, frame)
    speed = number / (time.perf_counter() - start)
    if not output.json:
        print(printable(f"{name} -> {target}: {number} frames at {speed:.1f} img/s, {_counts(counts)}"))
    if reader.faults:
        kept = f"; the {number} frames that decode are {'above' if output.json else f'in {target}'}"
        work.report(f"{name}: {', '.join(reader.faults)}{kept}")
    if stop.number and not source.camera:
        where = "" if output.json else f"; they are in {target}"
        raise Stopped(f"stopped after {number} frames of {name}{where}", stop.number)


def _check_tracking(sources: Sequence[Source]) -> None:
    import_trackers()
    if not any(source.video for source in sources):
        raise UserError("--track: follows objects through videos, and none is given")


def _detect(
    work: _Work,
    pictures: Iterable[tuple[T, np.ndarray]],
    follow: Callable[[list[Batch]], Iterable[Batch]] = iter,
) -> Iterator[tuple[T, np.ndarray, Result]]:
    """Yield each (item, picture) with the detections in the picture; at most a batch is in memory."""
    waiting: deque[tuple[T, np.ndarray]] = deque()

    def images() -> Iterator[np.ndarray]:
        for thing, picture in pictures:
            waiting.append((thing, picture))
            yield picture

    for result in work.detector.stream(images(), work.settings, work.batch_size, follow):
        yield *waiting.popleft(), result


def _until(frames: Iterator[Frame], stop: "StopRequest") -> Iterator[Frame]:
    """Yield frames until a signal comes; at least one, so that the output is a valid file."""
    for frame in frames:
        yield frame
        if stop.number:
            return


def _draw(image: np.ndarray, result: Result, output: Output) -> Image.Image:
    labels, names = result.by_level() if output.show_levels else (result.labels, result.captions())
    return draw_result(image, result.boxes, labels, result.scores, names)


def _place(target: Path, output: Output) -> PurePath:
    """Return the path of a result in the output folder, without suffix."""
    return target.relative_to(output.folder).with_suffix("")


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"


def _follow_tiles(batches: list[Batch]) -> Iterator[Batch]:
    return follow_iterator(batches, batches, "predicting in tiles", unit="batches")


def _shows_progress(output: Output) -> bool:
    """Return False if a bar would mix with lines of JSON on a terminal."""
    return not (output.json and sys.stdout.isatty())
