"""The work of ``fsaf predict``: detect objects in pictures and videos, and write the results."""

import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path, PurePath
from typing import TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from fsaf.annotation.crops import Crops
from fsaf.annotation.sources import Source, place_results
from fsaf.annotation.video import Frame, VideoReader
from fsaf.annotation.video_writer import VideoWriter, write_video
from fsaf.config import PredictConfig
from fsaf.data.progress import follow_iterator
from fsaf.data.transforms import read_file
from fsaf.detection.detector import Batch, Detector
from fsaf.detection.draw import draw_result
from fsaf.detection.result import Result
from fsaf.errors import DataError, Stopped
from fsaf.files import check_folder, remove_leftovers, whole
from fsaf.processes.stop import StopRequest
from fsaf.text import printable

T = TypeVar("T")
P = TypeVar("P", bound=np.ndarray | Tensor)


@dataclass(kw_only=True)
class Output:
    """The form of the results."""

    folder: Path
    """Folder of annotated pictures, videos and crops."""
    json: bool = False
    """Print JSON lines instead of writing annotated pictures and videos."""
    crops: bool = False
    """Also write each detection as a picture of its own, in ``crops/CLASS`` of the folder."""
    show_levels: bool = False
    """Colour boxes by pyramid level, not by class."""


def annotate(
    detector: Detector,
    sources: Sequence[Source],
    output: Output,
    batch_size: int = 1,
    settings: PredictConfig | None = None,
) -> int:
    """Detect objects in every source, write the results, and return the number of damaged videos.

    settings: by default ``detector.shown``.

    The frames of a damaged video that decode are used; a message on standard error names the video. Raises
    UserError for sources that cannot be read and files that cannot be written, and Stopped if a signal ends
    the work in a video; its output then holds the frames up to there.
    """
    crops, settings = None, settings or detector.shown
    if output.crops or not output.json:
        check_folder(output.folder)
        remove_leftovers(output.folder)
    if output.crops:
        crops = Crops(output.folder / "crops", detector.classes.names)
        for source in sources:
            if crops.folder.resolve() in Path(source.name).resolve().parents:
                raise DataError(
                    f"{source.name}: is in the folder that crops are written to; give another --out"
                )
    pairs = list(zip(sources, place_results(sources, output.folder), strict=True))
    damaged = 0
    for moving, group in groupby(pairs, key=lambda pair: pair[0].video):
        if not moving:
            _pictures(detector, list(group), output, crops, batch_size, settings)
            continue
        for source, target in group:
            damaged += _video(detector, source, target, output, crops, batch_size, settings)
    return damaged


def _pictures(
    detector: Detector,
    pairs: Sequence[tuple[Source, Path]],
    output: Output,
    crops: Crops | None,
    batch_size: int,
    settings: PredictConfig,
) -> None:
    data = detector.config.data
    start = time.perf_counter()
    pictures = ((pair, read_file(Path(pair[0].name), data)) for pair in pairs)
    shows, tiles = _shows_progress(output), settings.tile is not None
    results = _detect(detector, pictures, batch_size, settings, _follow_tiles if shows and tiles else iter)
    if shows and not tiles:  # one bar at a time
        results = follow_iterator(results, len(pairs), "predicting", unit="img")
    for (source, target), pixels, result in results:
        result = replace(result, path=source.name)
        image = pixels.permute(1, 2, 0).numpy()
        if output.json:
            print(json.dumps(result.to_dict()), flush=True)
        if crops:
            crops.save(image, result, _crops_place(target, output))
        if not output.json:
            with whole(target) as draft:
                _draw(image, result, output).save(draft, "PNG")
            print(printable(f"{source.name} -> {target}: {_counts(Counter(result.names))}"))
    if not output.json and len(pairs) > 1:
        speed = len(pairs) / (time.perf_counter() - start)
        print(f"{len(pairs)} pictures at {speed:.1f} img/s", file=sys.stderr)


def _video(
    detector: Detector,
    source: Source,
    target: Path,
    output: Output,
    crops: Crops | None,
    batch_size: int,
    settings: PredictConfig,
) -> int:
    """Return 1 if the video is damaged, else 0."""
    place = _crops_place(target, output)
    counts: Counter[str] = Counter()
    number, start = 0, time.perf_counter()
    with VideoReader(source.name, detector.config.data.max_pixels) as reader, ExitStack() as files:
        stop = files.enter_context(StopRequest())
        frames = ((frame, frame.image) for frame in _until(reader.frames(), stop))
        seen = _detect(detector, frames, batch_size, settings)
        if _shows_progress(output):
            total = None if source.camera else reader.total
            seen = follow_iterator(seen, total, f"predicting {source.name}", unit="img")
        writer: VideoWriter | None = None
        for frame, _, result in seen:
            result = replace(result, path=source.name)
            number += 1
            counts.update(result.names)
            if output.json:
                about = {"image": source.name, "frame": frame.index, "time": round(frame.time, 6)}
                print(json.dumps(about | result.to_dict()), flush=True)
            else:
                if writer is None:
                    size = frame.image.shape[0], frame.image.shape[1]
                    new = write_video(target, size, reader.rate, reader.time_base, reader.aspect)
                    writer = files.enter_context(new)
                writer.write(np.asarray(_draw(frame.image, result, output)), frame.ticks)
            if crops:
                crops.save(frame.image, result, place.with_name(f"{place.name}_{frame.index:06d}"))
    speed = number / (time.perf_counter() - start)
    if not output.json:
        print(
            printable(f"{source.name} -> {target}: {number} frames at {speed:.1f} img/s, {_counts(counts)}")
        )
    if reader.faults:
        kept = f"; the {number} frames that decode are {'above' if output.json else f'in {target}'}"
        print(printable(f"fsaf predict: {source.name}: {', '.join(reader.faults)}{kept}"), file=sys.stderr)
    if stop.number and not source.camera:
        where = "" if output.json else f"; they are in {target}"
        raise Stopped(f"stopped after {number} frames of {source.name}{where}", stop.number)
    return bool(reader.faults)


def _detect(
    detector: Detector,
    pictures: Iterable[tuple[T, P]],
    batch_size: int,
    settings: PredictConfig,
    follow: Callable[[list[Batch]], Iterable[Batch]] = iter,
) -> Iterator[tuple[T, P, Result]]:
    """Yield each (item, picture) with the detections in the picture; at most a batch is in memory."""
    waiting: deque[tuple[T, P]] = deque()

    def images() -> Iterator[P]:
        for thing, picture in pictures:
            waiting.append((thing, picture))
            yield picture

    for result in detector.stream(images(), settings, batch_size, follow):
        yield *waiting.popleft(), result


def _until(frames: Iterator[Frame], stop: StopRequest) -> Iterator[Frame]:
    """Yield frames until a signal comes; at least one, so that the output is a valid file."""
    for frame in frames:
        yield frame
        if stop.number:
            return


def _draw(image: np.ndarray, result: Result, output: Output) -> Image.Image:
    labels, names = result.by_level() if output.show_levels else (result.labels, result.names)
    return draw_result(image, result.boxes, labels, result.scores, names)


def _crops_place(target: Path, output: Output) -> PurePath:
    return target.relative_to(output.folder).with_suffix("")


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"


def _follow_tiles(batches: list[Batch]) -> Iterator[Batch]:
    return follow_iterator(batches, batches, "predicting in tiles", unit="batches")


def _shows_progress(output: Output) -> bool:
    """Return False if a bar would mix with lines of JSON on a terminal."""
    return not (output.json and sys.stdout.isatty())
