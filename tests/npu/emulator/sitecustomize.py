"""Python imports this module at its start: torchvision's suppression for a CPU build of PyTorch.

PyPI's torchvision is built for CUDA on x86-64. Beside a CPU build, which torch_npu needs, it cannot load its
compiled operators, and then cannot be imported either.
"""

import torch


def _nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy suppression, written for clarity: the same result as torchvision's kernel."""
    order, kept = scores.argsort(descending=True, stable=True), []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low = torch.maximum(boxes[best, :2], boxes[order, :2])
        width, height = (torch.minimum(boxes[best, 2:], boxes[order, 2:]) - low).clamp(min=0).unbind(1)
        common = width * height
        order = order[~(common / (area[best] + area[order] - common) > iou_threshold)]
    return torch.stack(kept) if kept else order


library = torch.library.Library("torchvision", "FRAGMENT")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.impl("nms", _nms, "CPU")

import torchvision.extension  # noqa: E402

torchvision.extension._has_ops = lambda: True
