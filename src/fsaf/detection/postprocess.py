"""Turn the network's raw outputs into detections, with fixed shapes only.

Shapes: B batch, C classes, P locations or anchors (of one level or of all), K candidates, M detections of an
image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fsaf.boxes import clip_boxes
from fsaf.config import PredictConfig
from fsaf.detection.found import Found
from fsaf.detection.nms import has_kernel, nms
from fsaf.device import to_host
from fsaf.model.anchors import decode_deltas
from fsaf.model.outputs import RawOutputs
from fsaf.model.points import decode_boxes


class Detections(NamedTuple):
    """The detections of a batch, best first, padded to ``max_detections`` an image."""

    boxes_bm4: Tensor
    """(B, M, 4) float32 x1, y1, x2, y2 in pixels of the resized image, clipped to it; 0 as padding."""
    scores_bm: Tensor
    """(B, M) float32; 0 as padding."""
    labels_bm: Tensor
    """(B, M) int64; -1 as padding."""
    levels_bm: Tensor | None = None
    """(B, M) int64: pyramid level of the detection, 0 for P3; -1 as padding. None if not known."""

    def rows(self) -> list[Found]:
        """Return the detections of each image as arrays, without padding."""
        boxes, scores, labels, *levels = (field.cpu().numpy() for field in self if field is not None)
        return [
            Found(boxes[i, keep], scores[i, keep], labels[i, keep], levels[0][i, keep] if levels else None)
            for i, keep in enumerate(labels >= 0)
        ]


class Candidates(NamedTuple):
    """Boxes before suppression; a score of 0 is padding."""

    boxes_bk4: Tensor
    scores_bk: Tensor
    labels_bk: Tensor
    levels_bk: Tensor | None
    """None if not known, as in a file with suppression inside."""

    def to_host(self) -> "Candidates":
        """Copy to the CPU, in one piece: each copy makes the host wait."""
        numbers = [each for each in self[1:] if each is not None]  # float32 holds such integers exactly
        packed = to_host(torch.cat([self.boxes_bk4, torch.stack([each.float() for each in numbers], 2)], 2))
        scores, *integers = packed[:, :, 4:].unbind(2)
        return Candidates(packed[:, :, :4], scores, *(each.long() for each in integers))


def postprocess(outputs: RawOutputs, sizes_b2: Tensor, config: PredictConfig) -> Detections:
    """Return the detections of a batch, chosen as in MMDetection 3.3's ``BaseDenseHead.predict_by_feat``.

    Take on each level the best ``candidates`` (location, class) pairs with a score above the threshold;
    decode and clip their boxes, and drop empty ones; multiply scores of anchors by ``config.anchor_weight``;
    suppress within each class, over all levels and branches together. With ``config.classes``, labels here,
    pairs of other classes are left out before that; with ``config.class_agnostic`` classes suppress each
    other.
    sizes_b2: (B, 2) height, width of each image inside its padding.

    The result is on the device of the outputs, or on the CPU if torchvision has no kernel for that device:
    suppression in fixed shapes launches some 2,500 operators, and one copy of the candidates takes less time.
    Compiled and exported programs stay on the device.
    """
    candidates = find_candidates(outputs, sizes_b2, config)
    if not torch.compiler.is_compiling() and not has_kernel(candidates.scores_bk.device.type):
        candidates = candidates.to_host()
    return suppress(candidates, config)


def find_candidates(outputs: RawOutputs, sizes_b2: Tensor, config: PredictConfig) -> Candidates:
    """Return the best pairs of each level and branch; arguments as ``postprocess``."""
    found = []
    if outputs.free is not None:
        logits_bcp, distances_b4p, points = outputs.free.flat()
        boxes_b4p = decode_boxes(distances_b4p, points)
        scores_bcp = _of_classes(logits_bcp.sigmoid(), config)
        found.append(_best_of_levels(scores_bcp, boxes_b4p, points.level_sizes, sizes_b2, config))
    if outputs.anchors is not None:
        logits_bcn, deltas_b4n, anchors_4n, level_sizes = outputs.anchors.flat()
        boxes_b4n = decode_deltas(deltas_b4n, anchors_4n)
        scores_bcn = _of_classes(logits_bcn.sigmoid(), config)
        if outputs.free is not None:
            scores_bcn = scores_bcn * config.anchor_weight
        found.append(_best_of_levels(scores_bcn, boxes_b4n, level_sizes, sizes_b2, config))
    return join_candidates(found)


def join_candidates(parts: Sequence[Candidates]) -> Candidates:
    """Concatenate candidates of the same images."""
    return Candidates(*(torch.cat(fields, 1) for fields in zip(*parts, strict=True)))


def _of_classes(scores_bcp: Tensor, config: PredictConfig) -> Tensor:
    """Return the scores with 0, as padding has it, for classes that are not asked for."""
    if config.classes is None:
        return scores_bcp
    kept = [label in config.classes for label in range(scores_bcp.shape[1])]
    return torch.where(torch.tensor(kept, device=scores_bcp.device)[:, None], scores_bcp, 0.0)


def _best_of_levels(
    scores_bcp: Tensor,
    boxes_b4p: Tensor,
    level_sizes: Sequence[int],
    sizes_b2: Tensor,
    config: PredictConfig,
) -> Candidates:
    boxes_bp4 = clip_boxes(boxes_b4p, sizes_b2).transpose(1, 2)
    num_classes = scores_bcp.shape[1]
    scores, labels, places, levels = [], [], [], []
    start = 0
    for level, count in enumerate(level_sizes):
        # Pairs are numbered location by location, and equal scores keep that order. Not `split`: ONNX's
        # operator of opset 18 cannot be brought to an earlier one.
        scores_bk = scores_bcp.narrow(2, start, count).transpose(1, 2).flatten(1)
        scores_bk = torch.where(scores_bk > config.score_threshold, scores_bk, 0.0)
        best_bk, pair_bk = scores_bk.topk(torch.sym_min(config.candidates, scores_bk.shape[1]), 1)
        scores.append(best_bk)
        labels.append(pair_bk % num_classes)
        places.append(start + pair_bk // num_classes)
        levels.append(torch.full_like(pair_bk, level))
        start += count
    scores_bk, place_bk = torch.cat(scores, 1), torch.cat(places, 1)
    boxes_bk4 = boxes_bp4.gather(1, place_bk[:, :, None].expand(-1, -1, 4))
    # Not `all` or, in nms, `amax`: onnxruntime's symbolic shape inference fails on the operators they become.
    left_bk, top_bk, right_bk, bottom_bk = boxes_bk4.unbind(2)
    has_area_bk = (right_bk > left_bk) & (bottom_bk > top_bk)
    return Candidates(
        boxes_bk4, torch.where(has_area_bk, scores_bk, 0.0), torch.cat(labels, 1), torch.cat(levels, 1)
    )


def suppress(candidates: Candidates, config: PredictConfig) -> Detections:
    """Keep the best of overlapping candidates of a class, and the best ``max_detections`` of an image.

    With ``config.class_agnostic`` keep the best of overlapping candidates of any class.
    """
    boxes_bk4, scores_bk, labels_bk, levels_bk = candidates
    groups_bk = torch.zeros_like(labels_bk) if config.class_agnostic else labels_bk
    index_bm = nms(boxes_bk4, scores_bk, groups_bk, config.nms_iou, config.max_detections)
    found_bm = index_bm >= 0
    index_bm = index_bm.clamp(min=0)
    boxes_bm4 = boxes_bk4.gather(1, index_bm[:, :, None].expand(-1, -1, 4))
    return Detections(
        torch.where(found_bm[:, :, None], boxes_bm4, 0.0),
        torch.where(found_bm, scores_bk.gather(1, index_bm), 0.0),
        torch.where(found_bm, labels_bk.gather(1, index_bm), -1),
        None if levels_bk is None else torch.where(found_bm, levels_bk.gather(1, index_bm), -1),
    )
