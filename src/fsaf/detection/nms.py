"""Greedy non-maximum suppression with a fixed number of results, as one operator.

The number of boxes that survive depends on their values, which a graph compiler cannot know. Here the result
is always ``max_detections`` indices, -1 where there is none, so that torch.compile, torch.export and the ONNX
exporter see one operator, ``fsaf::nms``, of a fixed shape.

Shapes: B batch, K candidates of an image, M max_detections.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from fsaf.boxes import area, intersection


def nms(
    boxes_bk4: Tensor, scores_bk: Tensor, labels_bk: Tensor, iou_threshold: float, max_detections: int
) -> Tensor:
    """Return indices (B, M) int64 of the candidates that greedy suppression within each class keeps.

    boxes_bk4: float32 x1, y1, x2, y2 >= 0. scores_bk: float32; candidates with a score <= 0 are padding,
    never kept. labels_bk: int64. Best score first, the lower index first among equal scores, -1 if none is
    left. A candidate goes when its IoU with a kept one of its class is above ``iou_threshold`` (as float32).
    """
    # Classes are moved apart so that they never overlap, as MMCV's batched_nms does. Padding must not take
    # part in the maximum: MMCV has none.
    corners_bk = torch.where(scores_bk > 0, torch.maximum(boxes_bk4[:, :, 2], boxes_bk4[:, :, 3]), 0.0)
    apart_b1 = corners_bk.topk(1, 1).values + 1  # not `amax`: see `postprocess`
    shifted_bk4 = boxes_bk4 + (labels_bk.to(boxes_bk4.dtype) * apart_b1)[:, :, None]
    # Kernels differ in whether they compare in float32 or float64; a rounded threshold makes them agree.
    threshold = float(np.float32(iou_threshold))
    return torch.ops.fsaf.nms(shifted_bk4, scores_bk, threshold, max_detections)


@torch.library.custom_op("fsaf::nms", mutates_args=())
def _nms(boxes_bk4: Tensor, scores_bk: Tensor, iou_threshold: float, max_detections: int) -> Tensor:
    """Suppress regardless of class; otherwise as ``nms``."""
    if has_kernel(boxes_bk4.device.type):
        return nms_by_image(boxes_bk4, scores_bk, iou_threshold, max_detections)
    return nms_by_rounds(boxes_bk4, scores_bk, iou_threshold, max_detections)


@_nms.register_fake
def _(boxes_bk4: Tensor, scores_bk: Tensor, iou_threshold: float, max_detections: int) -> Tensor:
    return scores_bk.new_empty((scores_bk.shape[0], max_detections), dtype=torch.int64)


@functools.cache
def has_kernel(device_type: str) -> bool:
    """Return True if torchvision has an NMS kernel for this type of device (``cpu``, ``cuda``)."""
    import torchvision  # noqa: F401  registers its operators

    key = torch._C._dispatch_key_for_device(device_type)
    return torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", key)


def nms_by_image(boxes_bk4: Tensor, scores_bk: Tensor, iou_threshold: float, max_detections: int) -> Tensor:
    """Suppress with torchvision's kernel, image by image. Waits for the device, as that kernel does."""
    from torchvision.ops import nms as torchvision_nms

    index_bm = scores_bk.new_full((scores_bk.shape[0], max_detections), -1, dtype=torch.int64)
    for boxes_k4, scores_k, index_m in zip(boxes_bk4, scores_bk, index_bm, strict=True):
        real = (scores_k > 0).nonzero()[:, 0]
        kept = real[torchvision_nms(boxes_k4[real], scores_k[real], iou_threshold)[:max_detections]]
        index_m[: len(kept)] = kept
    return index_bm


def nms_by_rounds(boxes_bk4: Tensor, scores_bk: Tensor, iou_threshold: float, max_detections: int) -> Tensor:
    """Suppress all images at once with tensor operations of fixed shapes, for devices without the kernel.

    Each round takes the best candidate left and removes those that overlap it: after M rounds this is what
    greedy suppression keeps first. IoU is computed as torchvision does, so that both round alike.
    """
    boxes = boxes_bk4.unbind(2)
    area_bk = area(boxes)
    left_bk = scores_bk.clamp(min=0)
    rounds = []
    for _ in range(max_detections):
        best_b1 = left_bk.argmax(1, keepdim=True)  # the first of equal ones
        rounds.append(torch.where(left_bk.gather(1, best_b1) > 0, best_b1, -1))
        shared_bk = intersection(boxes, [side_bk.gather(1, best_b1) for side_bk in boxes])
        iou_bk = shared_bk / (area_bk.gather(1, best_b1) + area_bk - shared_bk)
        # Boxes without area have IoU 0/0, which is not above the threshold; the best one goes by itself.
        left_bk = torch.where(iou_bk > iou_threshold, 0.0, left_bk).scatter(1, best_b1, 0.0)
    return torch.cat(rounds, 1)
