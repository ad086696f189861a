"""The work of ``fsaf predict``: pictures, videos and cameras in; annotated ones, crops and JSON lines out."""

import json
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from fsaf.annotation.crops import Crops
from fsaf.annotation.draw import draw_result
from fsaf.annotation.sources import Source, place_results
from fsaf.annotation.video import Frame, VideoReader, VideoWriter
from fsaf.data.progress import follow_iterator
from fsaf.data.transforms import read_image
from fsaf.detection.detector import Batch, Detector, Result
from fsaf.errors import Stopped, UserError, check_folder, printable
from fsaf.processes.stop import StopRequest


@dataclass(kw_only=True)
class Output:
    """What is written."""

    folder: Path
    """Of annotated pictures, videos and crops."""
    json: bool = False
    """JSON lines on standard output in place of annotated pictures and videos."""
    crops: bool = False
    """Each detection as a picture of its own, in ``crops/CLASS`` of the folder."""
    show_levels: bool = False
    """Boxes in the colours of pyramid levels, not of classes."""


def annotate(detector: Detector, sources: Sequence[Source], output: Output, batch_size: int = 1) -> int:
    """Detect in every source and write what is found.

    Returns the number of videos that were damaged; each is told of on standard error, and what decodes of it
    is written. Raises UserError for what cannot be read or written, and Stopped where a signal ends the work
    in a video, whose file is complete up to there.
    """
    crops = None
    if output.crops or not output.json:
        check_folder(output.folder)
    if output.crops:
        crops = Crops(output.folder / "crops", detector.classes.names)
        for source in sources:
            if crops.folder.resolve() in Path(source.name).resolve().parents:
                raise UserError(f"{source.name}: lies where crops are written; give another --out")
    pairs = list(zip(sources, place_results(sources, output.folder), strict=True))
    damaged = 0
    for moving, group in groupby(pairs, key=lambda pair: pair[0].video):
        if not moving:
            _pictures(detector, list(group), output, crops, batch_size)
            continue
        for source, target in group:
            damaged += _video(detector, source, target, output, crops, batch_size)
    return damaged


def _pictures(
    detector: Detector,
    pairs: Sequence[tuple[Source, Path]],
    output: Output,
    crops: Crops | None,
    batch_size: int,
) -> None:
    data = detector.config.data
    start = time.perf_counter()
    paths = [source.name for source, _ in pairs]
    shows, tiles = _shows_progress(output), detector.config.predict.tile is not None
    results = detector.stream(paths, batch_size=batch_size, follow=_follow_tiles if shows and tiles else iter)
    if shows and not tiles:  # one bar at a time
        results = follow_iterator(results, len(pairs), "predicting", unit="img")
    for (source, target), result in zip(pairs, results, strict=True):
        if output.json:
            print(json.dumps(result.to_dict()), flush=True)
        if output.json and crops is None:
            continue
        image = read_image(Path(source.name), data.exif_rotation, data.max_pixels).permute(1, 2, 0).numpy()
        if crops:
            crops.save(image, result, _crops_place(target, output))
        if not output.json:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                _draw(image, result, output).save(target)
            except OSError as error:
                raise UserError(f"{target}: cannot be written ({error}); give another --out") from error
            print(printable(f"{source.name} -> {target}: {_counts(Counter(result.names))}"))
    if not output.json and len(pairs) > 1:
        speed = len(pairs) / (time.perf_counter() - start)
        print(f"{len(pairs)} pictures at {speed:.1f} img/s", file=sys.stderr)


def _video(
    detector: Detector, source: Source, target: Path, output: Output, crops: Crops | None, batch_size: int
) -> int:
    """Whether it was damaged, as a number."""
    place = _crops_place(target, output)
    counts: Counter[str] = Counter()
    number, start = 0, time.perf_counter()
    with VideoReader(source.name, detector.config.data.max_pixels) as reader, ExitStack() as files:
        stop = files.enter_context(StopRequest())
        seen = _detect(detector, _until(reader.frames(), stop), source, batch_size)
        if _shows_progress(output):
            total = None if source.camera else reader.total
            seen = follow_iterator(seen, total, f"predicting {source.name}", unit="img")
        writer: VideoWriter | None = None
        for frame, result in seen:
            number += 1
            counts.update(result.names)
            if output.json:
                about = {"image": source.name, "frame": frame.index, "time": round(frame.time, 6)}
                print(json.dumps(about | result.to_dict()), flush=True)
            else:
                if writer is None:
                    size = frame.image.shape[0], frame.image.shape[1]
                    writer = VideoWriter(target, size, reader.rate, reader.time_base, reader.aspect)
                    files.enter_context(writer)
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
    detector: Detector, frames: Iterator[Frame], source: Source, batch_size: int
) -> Iterator[tuple[Frame, Result]]:
    """Frames with what is found in them; no more than a batch of them is in memory."""
    waiting: deque[Frame] = deque()

    def images() -> Iterator[np.ndarray]:
        for frame in frames:
            waiting.append(frame)
            yield frame.image

    for result in detector.stream(images(), batch_size=batch_size):
        yield waiting.popleft(), replace(result, path=source.name)


def _until(frames: Iterator[Frame], stop: StopRequest) -> Iterator[Frame]:
    """``frames`` up to a signal; at least one, so that there is a file to end properly."""
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
    """A bar would come between lines of JSON on a terminal."""
    return not (output.json and sys.stdout.isatty())
