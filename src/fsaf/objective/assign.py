"""Assignment of boxes to locations (FSAF section 3.2; MMDetection's CenterRegionAssigner).

Shapes: B batch, C classes, G padded boxes of an image, P all locations, H and W of one level.
Only masks, comparisons and whole-tensor reductions: shapes do not depend on the number of boxes.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fsaf.boxes import Corners, area, scale_boxes, shared_length
from fsaf.config import ObjectiveConfig
from fsaf.config.data import MULTIPLE
from fsaf.data.batch import Boxes
from fsaf.model.points import STRIDES, level_axes
from fsaf.objective.reach import MIN_OVERLAP

CROWD_SCALE = 0.5
"""Locations inside a crowd box scaled by this take no part."""


class Assignment(NamedTuple):
    """The box that each location learns, before feature selection."""

    positive_bp: Tensor
    """(B, P) bool: the location learns a box."""
    box_bp: Tensor
    """(B, P) int64: which of the G boxes; 0 if not positive."""
    label_bp: Tensor
    """(B, P) int64: class of that box; 0 if not positive."""
    counts_bcp: Tensor
    """(B, C, P) bool: the location has a classification loss for the class."""
    negative_bp: Tensor
    """(B, P) bool: the location is background."""


def padding_start(sizes: Tensor, stride: Tensor | int) -> Tensor:
    """Return the coordinate at which padding starts, for locations of ``stride`` in images of ``sizes``.

    MMDetection pads each image to a multiple of 32 (``MULTIPLE``), and locations up to there take part.
    """
    rounded = torch.ceil(sizes.float() / MULTIPLE) * MULTIPLE
    return torch.ceil(rounded / stride) * stride


class _Axis(NamedTuple):
    """The columns of all levels, level after level; or the rows.

    Every test on a location's square is an outer product of a row part and a column part, so both parts are
    computed for all levels at once.
    """

    at: Tensor  # (U,) coordinate of the locations
    half: Tensor  # (U,) half the side of their squares
    sides: Sequence[int]  # number of columns of each level
    strides: Sequence[int]

    def overlap(self, start_bg: Tensor, end_bg: Tensor) -> Tensor:
        """Return the lengths (B, G, U) that regions share with the squares."""
        return shared_length(self.at - self.half, self.at + self.half, start_bg[..., None], end_bg[..., None])

    def inside(self, start_bg: Tensor, end_bg: Tensor) -> Tensor:
        """Return (B, G, U) float: 1 if the column lies strictly inside the box."""
        return ((self.at > start_bg[..., None]) & (self.at < end_bg[..., None])).float()

    def within_image(self, size_b: Tensor) -> Tensor:
        """Return (B, U) bool: the column does not lie in the padding.

        It starts at a multiple of ``MULTIPLE``, and columns at multiples of the stride: rounding it up to the
        stride, as ``padding_start`` does, changes nothing.
        """
        return self.at < padding_start(size_b, 1)[:, None]

    def split(self, values: Tensor) -> Sequence[Tensor]:
        """Split (..., U) by level."""
        return values.split(list(self.sides), -1)


def _axes(
    level_shapes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device
) -> tuple[_Axis, _Axis]:
    """Return the columns and the rows."""
    levels = [level_axes(shape, stride, device) for shape, stride in zip(level_shapes, strides, strict=True)]
    axes = []
    for ats in zip(*levels, strict=True):
        half = [torch.full_like(at, stride * 0.5) for at, stride in zip(ats, strides, strict=True)]
        axes.append(_Axis(torch.cat(ats), torch.cat(half), [len(at) for at in ats], strides))
    return axes[0], axes[1]


def _touched(columns: _Axis, rows: _Axis, region: Corners, real_bg: Tensor) -> Iterator[Tensor]:
    """Yield (B, G, H, W) float of each level: 1 if more than MIN_OVERLAP of the square lies in the region.

    real_bg: (B, G) bool; other regions are ignored. Yields floats directly: converting a bool mask later is
    3x slower on CPU.
    """
    w_bgu = columns.overlap(region[0], region[2])
    h_bgu = torch.where(real_bg[..., None], rows.overlap(region[1], region[3]), 0.0)
    for w, h, stride in zip(columns.split(w_bgu), rows.split(h_bgu), columns.strides, strict=True):
        # Same as overlap / stride**2 > MIN_OVERLAP: dividing by a power of two is exact.
        yield (w[:, :, None, :] * h[:, :, :, None]).gt_(MIN_OVERLAP * stride**2)


def _ranks(boxes: Corners) -> tuple[Tensor, Tensor]:
    """Rank boxes by area: a location in several cores goes to the smallest box; ties go to the later one.

    Returns (B, G) float, 1 for the largest box and G for the smallest; and (B, 1 + G) float, the box of each
    rank, 0 for rank 0. Floats, because an NPU scatters 64-bit integers on a slow core.
    """
    area_bg: Tensor = area(boxes)
    index = torch.arange(area_bg.shape[1], device=area_bg.device)
    larger = area_bg[:, None, :] > area_bg[:, :, None]
    not_later = (area_bg[:, None, :] == area_bg[:, :, None]) & (index[None, :] <= index[:, None])
    rank_bg = (larger | not_later).float().sum(2)
    index_bg = index.to(area_bg.dtype).expand_as(area_bg)
    by_rank_br = area_bg.new_zeros(len(area_bg), len(index) + 1).scatter(1, rank_bg.long(), index_bg)
    return rank_bg, by_rank_br


def taking_part(
    level_shapes: Sequence[tuple[int, int]], boxes: Boxes, strides: Sequence[int] = STRIDES
) -> Tensor:
    """Return (B, P) bool: True for locations within their image and outside crowd regions."""
    return _taking_part(*_axes(level_shapes, strides, boxes.xyxy.device), boxes)


def _taking_part(columns: _Axis, rows: _Axis, boxes: Boxes) -> Tensor:
    x1, y1, x2, y2 = scale_boxes(boxes.xyxy.unbind(2), CROWD_SCALE)
    crowd_bg1 = (boxes.valid & boxes.crowd).float()[..., None]
    in_x, in_y = columns.inside(x1, x2), rows.inside(y1, y2) * crowd_bg1
    part_x, part_y = columns.within_image(boxes.sizes[:, 1]), rows.within_image(boxes.sizes[:, 0])
    levels = []
    for axes in zip(*map(columns.split, (in_x, part_x)), *map(rows.split, (in_y, part_y)), strict=True):
        in_x_bgw, part_x_bw, in_y_bgh, part_y_bh = axes
        crowd_bhw = torch.bmm(in_y_bgh.mT, in_x_bgw) > 0
        levels.append((part_y_bh[:, :, None] & part_x_bw[:, None, :] & ~crowd_bhw).flatten(1))
    return torch.cat(levels, 1)


def assign(
    level_shapes: Sequence[tuple[int, int]],
    boxes: Boxes,
    num_classes: int,
    config: ObjectiveConfig,
    strides: Sequence[int] = STRIDES,
) -> Assignment:
    """Assign the boxes of a batch to the locations of all levels.

    A location whose square touches the core of a box, and that lies in the box, learns it; of several boxes,
    the smallest. A location that touches the shadow of a box without learning it has no loss for the class of
    that box. Every other location is background.
    level_shapes: (height, width) of each level. boxes: padded boxes in pixels of the resized images.
    """
    device = boxes.xyxy.device
    real_bg = boxes.valid & ~boxes.crowd
    xyxy = boxes.xyxy.unbind(2)
    core, shadow = scale_boxes(xyxy, config.pos_scale), scale_boxes(xyxy, config.neg_scale)

    rank_bg, by_rank_bg = _ranks(xyxy)
    row_bg = boxes.labels + torch.arange(len(boxes.labels), device=device)[:, None] * num_classes
    columns, rows = _axes(level_shapes, strides, device)
    in_x = columns.split(columns.inside(xyxy[0], xyxy[2]))
    ranked_y = rows.split(rows.inside(xyxy[1], xyxy[3]) * rank_bg[..., None])
    near = list(_touched(columns, rows, shadow, real_bg))
    cores = near if config.pos_scale == config.neg_scale else _touched(columns, rows, core, real_bg)
    best, box, ignored = [], [], []
    for near_bghw, core_bghw, in_x_bgw, ranked_y_bgh in zip(near, cores, in_x, ranked_y, strict=True):
        # The smallest box wins a location that lies in its core and strictly inside it.
        ranked_bghw = (core_bghw * ranked_y_bgh[:, :, :, None]).mul_(in_x_bgw[:, :, None, :])
        best.append(ranked_bghw.amax(1).flatten(1))
        box.append(torch.gather(by_rank_bg, 1, best[-1].long()).long())

        # A location in the shadow of box g, which contains the core, ignores g's class unless g won it.
        near_bgp, box_b1p, lost_bp = near_bghw.flatten(2), box[-1][:, None, :], best[-1] == 0
        near_bgp.scatter_(1, box_b1p, near_bgp.gather(1, box_b1p) * lost_bp.float()[:, None, :])
        # Summed by index_add: as a matrix product it is three times as slow on a CPU.
        near_rp = near_bgp.new_zeros(len(boxes.labels) * num_classes, near_bgp.shape[2])
        near_rp = near_rp.index_add(0, row_bg.flatten(), near_bgp.flatten(0, 1))
        ignored.append(near_rp.unflatten(0, (-1, num_classes)) > 0)
    won_bp, box_bp, ignored_bcp = torch.cat(best, 1) > 0, torch.cat(box, 1), torch.cat(ignored, 2)

    label_bp = torch.gather(boxes.labels, 1, box_bp)
    class_c = torch.arange(num_classes, device=device)
    # Floats, because an NPU gathers booleans on a slow core.
    own_ignored_bp = (torch.gather(ignored_bcp.float(), 1, label_bp[:, None, :])[:, 0] > 0) & won_bp
    if config.foreground_dominate:
        own_bcp = (label_bp[:, None, :] == class_c[:, None]) & won_bp[:, None, :]
        ignored_bcp = ignored_bcp & ~own_bcp
    else:
        won_bp = won_bp & ~own_ignored_bp
    counts_bp = _taking_part(columns, rows, boxes)
    positive_bp = won_bp & counts_bp
    return Assignment(
        positive_bp=positive_bp,
        box_bp=torch.where(positive_bp, box_bp, 0),
        label_bp=torch.where(positive_bp, label_bp, 0),
        counts_bcp=counts_bp[:, None, :] & ~ignored_bcp,
        negative_bp=counts_bp & ~won_bp,
    )
