"""From the network's raw tensors to detections, with fixed shapes only.

Shapes: B batch, C classes, P locations (of one level or of all), K candidates, M detections of an image.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fsaf.config import PredictConfig
from fsaf.model.detector import RawOutputs
from fsaf.model.points import decode_boxes
from fsaf.results.nms import nms


class Detections(NamedTuple):
    """The detections of a batch, best first, padded to ``max_detections`` an image."""

    boxes_bm4: Tensor
    """(B, M, 4) float32 x1, y1, x2, y2 in pixels of the resized image, clipped to it; 0 where none."""
    scores_bm: Tensor
    """(B, M) float32; 0 where there is none."""
    labels_bm: Tensor
    """(B, M) int64; -1 where there is none."""


def postprocess(outputs: RawOutputs, sizes_b2: Tensor, config: PredictConfig) -> Detections:
    """Detections of a batch, chosen as MMDetection 3.3's ``BaseDenseHead.predict_by_feat`` does.

    On each level the best ``candidates`` (location, class) pairs with a score above the threshold go on;
    their boxes are decoded and clipped, empty ones dropped; suppression within each class runs over all
    levels together. sizes_b2: (B, 2) height, width of each image inside its padding.
    """
    logits_bcp, distances_b4p, points = outputs.flat()
    boxes_bp4 = clip_boxes(decode_boxes(distances_b4p, points), sizes_b2).transpose(1, 2)
    num_classes = logits_bcp.shape[1]

    scores, labels, locations = [], [], []
    start = 0
    for level_bcp in logits_bcp.split(points.level_sizes, 2):
        # Pairs are numbered location by location, and equal scores keep that order.
        scores_bk = level_bcp.transpose(1, 2).flatten(1).sigmoid()
        scores_bk = torch.where(scores_bk > config.score_threshold, scores_bk, 0.0)
        best_bk, pair_bk = scores_bk.topk(min(config.candidates, scores_bk.shape[1]), 1)
        scores.append(best_bk)
        labels.append(pair_bk % num_classes)
        locations.append(start + pair_bk // num_classes)
        start += level_bcp.shape[2]
    scores_bk, labels_bk, location_bk = (torch.cat(parts, 1) for parts in (scores, labels, locations))

    boxes_bk4 = boxes_bp4.gather(1, location_bk[:, :, None].expand(-1, -1, 4))
    has_area_bk = (boxes_bk4[:, :, 2:] > boxes_bk4[:, :, :2]).all(2)
    scores_bk = torch.where(has_area_bk, scores_bk, 0.0)
    index_bm = nms(boxes_bk4, scores_bk, labels_bk, config.nms_iou, config.max_detections)
    found_bm = index_bm >= 0
    index_bm = index_bm.clamp(min=0)
    boxes_bm4 = boxes_bk4.gather(1, index_bm[:, :, None].expand(-1, -1, 4))
    return Detections(
        torch.where(found_bm[:, :, None], boxes_bm4, 0.0),
        torch.where(found_bm, scores_bk.gather(1, index_bm), 0.0),
        torch.where(found_bm, labels_bk.gather(1, index_bm), -1),
    )


def clip_boxes(boxes_b4p: Tensor, sizes_b2: Tensor) -> Tensor:
    """Boxes (B, 4, P) with coordinates moved into [0, width] and [0, height] of their image."""
    limits_b4 = sizes_b2.flip(1).repeat(1, 2).to(boxes_b4p.dtype)
    return torch.minimum(boxes_b4p.clamp(min=0), limits_b4[:, :, None])
