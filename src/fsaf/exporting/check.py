"""Compare an exported file with the PyTorch network it was written from.

Shapes: N images, M detections of an image.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from fsaf.config import Config, PredictConfig
from fsaf.data.records import Classes
from fsaf.detection.exported import Session, prepare_inputs, run_session
from fsaf.detection.file_info import Outputs
from fsaf.detection.postprocess import Detections
from fsaf.detection.raw_file import to_raw_outputs
from fsaf.errors import UserError
from fsaf.model.anchors import decode_deltas
from fsaf.model.outputs import RawOutputs
from fsaf.model.points import decode_boxes

BOX_TOLERANCE = 0.1
"""Pixels of the resized image."""

SCORE_TOLERANCE = 1e-3

IOU_MARGIN = 0.01
"""Rounding may put an IoU this close to the threshold of suppression on either side of it."""

TIE_SHARE = 0.05
"""Largest share of detections that may differ because two candidates tied."""

PASSES = 5
"""Timed passes of each runtime."""


@dataclass(kw_only=True)
class Comparison:
    """Largest differences between the file and PyTorch."""

    images: int
    runtime: str = "onnxruntime"
    """Library that ran the file."""
    compared: Literal["detections", "locations"] = "detections"
    """Locations in a file without suppression."""
    detections: int = 0
    """Number of detections, or locations, compared one by one. 0 if neither side found anything."""
    max_box_difference: float = 0.0
    """Pixels of the resized image."""
    max_score_difference: float = 0.0
    on_edge: int = 0
    """Number found by one side only, with a score at the threshold or in the last place."""
    tied: int = 0
    """Number found by one side only because suppression had to choose between equals."""
    torch_seconds: float = 0.0
    """Of the first image on the CPU, the median of ``PASSES``."""
    file_seconds: float = 0.0
    """Of the first image on the CPU, the median of ``PASSES``."""


Check = Callable[[Session], Comparison]
"""Compares a file with PyTorch. Raises UserError if they disagree."""


def check_file(
    session: Session,
    network: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    outputs: Outputs,
    config: Config,
    classes: Classes,
    name: str,
) -> Comparison:
    """Run file and network on batches of images (n, 3, H, W) uint8 with sizes (n, 2), and compare.

    Raises UserError, calling the file ``name``, if they differ by more than the tolerances.
    """
    mean = config.model.mean_colour

    def run_network(images: Tensor, sizes_b2: Tensor) -> tuple[Tensor, ...]:
        return network(*map(torch.from_numpy, prepare_inputs(session, images, sizes_b2, mean)))

    count = sum(len(images) for images, _ in batches)
    comparison = Comparison(images=count, runtime=session.runtime)
    for images, sizes_b2 in batches:
        with torch.inference_mode():
            pairs = zip(images.split(1), sizes_b2.split(1), strict=True)
            ours = [run_network(image, size) for image, size in pairs]
            found = tuple(map(torch.from_numpy, run_session(session, images, sizes_b2, mean)))
        expected = [torch.cat(x) for x in zip(*ours, strict=True)]
        if outputs == "detections":
            both = Detections(*expected), Detections(*found)
            compare_detections(*both, config.predict, classes, comparison, name)
        else:
            padded = (images.shape[2], images.shape[3])
            a, b = (to_raw_outputs(x, outputs, config, padded) for x in (expected, found))
            _compare_raw(a, b, comparison, name)
    images, sizes_b2 = (x[:1] for x in batches[0])
    with torch.inference_mode():
        calls = (
            lambda: run_network(images, sizes_b2),
            lambda: run_session(session, images, sizes_b2, mean),
        )
        comparison.torch_seconds, comparison.file_seconds = _median_seconds(calls)
    return comparison


def _median_seconds(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Return the time of each call. They take turns, because a machine is not equally fast all the time."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(PASSES):
        for call, own in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in seconds]


def _compare_raw(expected: RawOutputs, found: RawOutputs, comparison: Comparison, name: str) -> None:
    scores = boxes = 0.0
    comparison.compared = "locations"
    for a, b in zip(_decode(expected), _decode(found), strict=True):
        scores = max(scores, (a[0] - b[0]).abs().max().item())
        boxes = max(boxes, (a[1] - b[1]).abs().max().item())
        comparison.detections += a[1].shape[0] * a[1].shape[2]
    comparison.max_score_difference = max(comparison.max_score_difference, scores)
    comparison.max_box_difference = max(comparison.max_box_difference, boxes)
    if not (scores <= SCORE_TOLERANCE and boxes <= BOX_TOLERANCE):  # so that NaN fails too
        what = f"boxes by up to {boxes:.3g} px, scores by up to {scores:.3g}"
        raise _disagreement(name, comparison, what)


def _decode(outputs: RawOutputs) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield scores and boxes (n, 4, P), not clipped, of each branch."""
    if outputs.free is not None:
        logits, distances, points = outputs.free.flat()
        yield logits.sigmoid(), decode_boxes(distances, points)
    if outputs.anchors is not None:
        logits, deltas, anchors, _ = outputs.anchors.flat()
        yield logits.sigmoid(), decode_deltas(deltas, anchors)


def compare_detections(
    expected: Detections,
    found: Detections,
    settings: PredictConfig,
    classes: Classes,
    comparison: Comparison,
    name: str,
) -> None:
    """Pair the detections of both sides and fill in ``comparison``.

    Detections pair up if their labels are equal, and boxes and scores within the tolerances. Rounding must
    explain every other one: a score at the threshold or in the last place (``on_edge``), or a tie in
    suppression (``tied``). Raises UserError for anything else.
    """
    alone = 0
    for i, (a, b) in enumerate(zip(_rows(expected), _rows(found), strict=True)):
        pairs = _pair(a, b)
        rest_a = sorted(set(range(len(a["scores"]))) - {j for j, _ in pairs})
        rest_b = sorted(set(range(len(b["scores"]))) - {k for _, k in pairs})
        for j, k in pairs:
            box = np.abs(a["boxes"][j] - b["boxes"][k]).max()
            score = abs(a["scores"][j] - b["scores"][k])
            comparison.max_box_difference = max(comparison.max_box_difference, float(box))
            comparison.max_score_difference = max(comparison.max_score_difference, float(score))
        comparison.detections += len(pairs)
        alone += len(rest_a) + len(rest_b)
        for who, own, rest, other, other_rest in (
            ("PyTorch", a, rest_a, b, rest_b),
            (comparison.runtime, b, rest_b, a, rest_a),
        ):
            for j in rest:
                if _on_edge(own["scores"][j], other, settings):
                    comparison.on_edge += 1
                elif _tied(own, j, other, other_rest, settings):
                    comparison.tied += 1
                else:
                    raise _disagreement(name, comparison, _describe(i, who, own, j, classes))
    limit = TIE_SHARE * comparison.detections
    if comparison.tied > limit or (alone and not comparison.detections):
        what = f"{alone} detections found by one only, beside {comparison.detections} found by both"
        raise _disagreement(name, comparison, what)


def _rows(detections: Detections) -> Iterator[dict[str, Any]]:
    for boxes, scores, labels in zip(*(x.numpy() for x in detections[:3] if x is not None), strict=True):
        real = labels >= 0
        yield {"boxes": boxes[real], "scores": scores[real], "labels": labels[real], "slots": len(real)}


def _pair(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[int, int]]:
    """Pair each of ``a``, best first, with the nearest unused one of ``b`` within the tolerances."""
    pairs = []
    free = np.ones(len(b["scores"]), bool)
    for j in range(len(a["scores"])):
        box = np.abs(b["boxes"] - a["boxes"][j]).max(1, initial=0)
        score = np.abs(b["scores"] - a["scores"][j])
        fits = free & (b["labels"] == a["labels"][j]) & (box <= BOX_TOLERANCE) & (score <= SCORE_TOLERANCE)
        if fits.any():
            k = int(np.where(fits, box / BOX_TOLERANCE + score / SCORE_TOLERANCE, np.inf).argmin())
            free[k] = False
            pairs.append((j, k))
    return pairs


def _on_edge(score: float, other: dict[str, Any], settings: PredictConfig) -> bool:
    if score <= settings.score_threshold + SCORE_TOLERANCE:
        return True
    full = len(other["scores"]) == other["slots"]
    return bool(full and score <= other["scores"].min() + SCORE_TOLERANCE)


def _tied(
    own: dict[str, Any], j: int, other: dict[str, Any], other_rest: list[int], settings: PredictConfig
) -> bool:
    """Return True if the other side kept a rival that may rightly have suppressed detection ``j``.

    A rival has the same class and no lower score. Its overlap is at the threshold; or above it, if only that
    side kept the rival.
    """
    if not len(other["scores"]):
        return False
    iou = box_iou(torch.from_numpy(own["boxes"][j : j + 1]), torch.from_numpy(other["boxes"]))[0].numpy()
    rival = (other["labels"] == own["labels"][j]) & (other["scores"] >= own["scores"][j] - SCORE_TOLERANCE)
    only_there = np.isin(np.arange(len(iou)), other_rest)
    near = np.abs(iou - settings.nms_iou) <= IOU_MARGIN
    return bool((rival & (near | (only_there & (iou > settings.nms_iou)))).any())


def _describe(image: int, who: str, own: dict[str, Any], j: int, classes: Classes) -> str:
    box = ", ".join(f"{v:.1f}" for v in own["boxes"][j])
    return (
        f"in image {image} only {who} finds {classes.names[own['labels'][j]]!r} with score "
        f"{own['scores'][j]:.4f} at [{box}] (tolerances: {BOX_TOLERANCE} px, {SCORE_TOLERANCE})"
    )


def _disagreement(name: str, comparison: Comparison, what: str) -> UserError:
    return UserError(
        f"{name}: not written, because {comparison.runtime} and PyTorch disagree: {what}. Try another opset, "
        f"or other versions of torch, onnxscript and {comparison.runtime}"
    )
