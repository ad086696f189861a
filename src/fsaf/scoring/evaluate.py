"""Evaluation of a detector on a split with COCO's metrics."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, zip_longest
from typing import Any

from rich.console import Console
from rich.progress import track

from fsaf.config import DataConfig
from fsaf.data.batch import Batch
from fsaf.data.records import Records, ground_truth
from fsaf.data.samples import Images, read_record
from fsaf.data.workers import make_loader
from fsaf.detection.detector import Detector
from fsaf.detection.views import to_original
from fsaf.device import is_accelerator
from fsaf.processes import group
from fsaf.scoring.confidence import intervals
from fsaf.scoring.matching import tabulate
from fsaf.scoring.metrics import Metrics, coco_metrics
from fsaf.scoring.results import to_coco_results


def evaluate(
    detector: Detector,
    records: Records,
    data: DataConfig,
    console: Console | None = None,
    before_batch: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], object] = lambda: False,
    after_batch: Callable[[Batch], None] = lambda batch: None,
) -> tuple[Metrics, list[dict[str, Any]]]:
    """Detect on every image of a split, and return the metrics and the predictions.

    Each of several processes detects on its share of the images. The metrics are those of one process, and
    all processes return them; only the main process returns the predictions.

    Predictions are in COCO's results format, with the pyramid ``level`` of each (3 for P3; absent for
    exported files). console: show progress there. before_batch: called before each batch with
    the number of batches done and of all, of this process; it may raise. stop: ends the waiting for a batch
    when true; ``before_batch`` must raise then. after_batch: called with each batch after its detection,
    unless detectors use several views of an image.
    """
    start = time.perf_counter()
    if detector.config.predict.is_plain():
        found = _plain_batches(detector, records, data, console, before_batch, stop, after_batch)
    else:
        found = _view_batches(detector, records, data, console, before_batch)
    shares = group.gather(list(found))
    seconds = time.perf_counter() - start
    # The processes took the batches in turn; restore the order of one process.
    in_turn = chain.from_iterable(zip_longest(*shares, fillvalue=[]))
    predictions = list(chain.from_iterable(in_turn))

    def score() -> Metrics:
        metrics = coco_metrics(ground_truth(records), predictions, category_ids=detector.classes.ids)
        metrics["images"] = len(records.images)
        metrics["intervals"] = intervals(records, tabulate(records, predictions), metrics)
        metrics["images_per_second"] = len(records.images) / seconds
        return metrics

    return group.from_main(score), predictions


def _plain_batches(
    detector: Detector,
    records: Records,
    data: DataConfig,
    console: Console | None,
    before_batch: Callable[[int, int], None],
    stop: Callable[[], object],
    after_batch: Callable[[Batch], None],
) -> Iterator[list[dict[str, Any]]]:
    """Yield the COCO results of each batch of this process; the loader's workers read the images."""
    loader, _ = make_loader(
        Images(records, data, augment=False),
        data.batch_size,
        workers=data.workers,
        train=False,
        rank=group.rank(),
        world=group.processes(),
        pin_memory=detector.network.module is not None
        and is_accelerator(detector.network.module.mean.device),
    )
    awaited, number = loader.batches(stop), -1
    quiet = _quiet(console)
    batches = track(awaited, "evaluating", len(loader), console=console, disable=quiet, transient=True)
    for number, batch in enumerate(batches):
        before_batch(number, len(loader))
        found = detector.detect(batch.images, batch.boxes.sizes)
        after_batch(batch)
        boxes, scores, labels, *levels = (tensor.cpu().numpy() for tensor in found if tensor is not None)
        sizes = batch.boxes.sizes.tolist()
        results = []
        for row, (image_id, original) in enumerate(zip(batch.ids, batch.original_sizes, strict=True)):
            keep = labels[row] >= 0
            height, width = sizes[row]
            results += to_coco_results(
                image_id,
                to_original(boxes[row][keep], (height, width), original),
                scores[row][keep],
                labels[row][keep],
                detector.classes.ids,
                levels[0][row][keep] if levels else None,
            )
        yield results
    if number + 1 < len(loader):
        before_batch(number + 1, len(loader))
        raise AssertionError("stopped without a reason")


def _view_batches(
    detector: Detector,
    records: Records,
    data: DataConfig,
    console: Console | None,
    before_batch: Callable[[int, int], None],
) -> Iterator[list[dict[str, Any]]]:
    """Do the same as ``_plain_batches`` for detectors that use several views of each image."""
    detector = Detector(detector.network, detector.classes, replace(detector.config, data=data))
    size = data.batch_size
    chunks = [records.images[start : start + size] for start in range(0, len(records.images), size)]
    mine = chunks[group.rank() :: group.processes()]
    chunks_shown = track(mine, "evaluating", console=console, disable=_quiet(console), transient=True)
    for number, chunk in enumerate(chunks_shown):
        before_batch(number, len(mine))
        pictures = (read_record(record, records, data) for record in chunk)
        results = detector.stream(pictures, detector.config.predict, size)
        yield [
            entry
            for record, found in zip(chunk, results, strict=True)
            for entry in to_coco_results(
                record.id, found.boxes, found.scores, found.labels, detector.classes.ids, found.levels
            )
        ]


def _quiet(console: Console | None) -> bool:
    return console is None or not console.is_terminal or not group.is_main()
