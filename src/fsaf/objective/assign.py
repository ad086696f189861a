"""Which location learns which box (FSAF section 3.2; MMDetection's CenterRegionAssigner).

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

MIN_OVERLAP = 0.01
"""A location touches a region if more than this share of its square lies inside."""
CROWD_SCALE = 0.5
"""Locations inside a crowd box scaled by this take no part."""


class Assignment(NamedTuple):
    """What each location learns, before feature selection."""

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


class _Grid(NamedTuple):
    """The locations of one level and their squares.

    Every test of a square against a box is an outer product of a test along x and one along y.
    """

    x: Tensor  # (W,)
    y: Tensor  # (H,)
    stride: int

    def touches(self, regions: Corners, real_bg: Tensor) -> Tensor:
        """Return (B, G, H, W) float: 1 if more than MIN_OVERLAP of a location's square lies in the region.

        real_bg: (B, G) bool; other regions are ignored. Returns float directly: converting a bool mask later
        is three times as slow on a CPU.
        """
        half = self.stride * 0.5
        x1, y1, x2, y2 = (side_bg[..., None] for side_bg in regions)
        w = shared_length(self.x - half, self.x + half, x1, x2)
        h = shared_length(self.y - half, self.y + half, y1, y2)
        h = torch.where(real_bg[..., None], h, 0.0)
        # Same as overlap / stride**2 > MIN_OVERLAP: dividing by a power of two is exact.
        return (w[:, :, None, :] * h[:, :, :, None]).gt_(MIN_OVERLAP * self.stride**2)

    def highest(self, rank_bg: Tensor, touched_bghw: Tensor, boxes: Corners) -> Tensor:
        """Return (B, H*W): the highest rank among boxes that are touched and contain the location; or 0.

        rank_bg: see ``_ranks``. touched_bghw: as ``touches`` returns it, of the boxes' cores.
        """
        in_x, in_y = self._inside(boxes)
        ranked_y = in_y.float() * rank_bg[..., None]
        ranked_bghw = (touched_bghw * ranked_y[:, :, :, None]).mul_(in_x.float()[:, :, None, :])
        return ranked_bghw.amax(1).flatten(1)

    def inside_any(self, boxes: Corners, real_bg: Tensor) -> Tensor:
        """Return (B, H*W): True if the location lies strictly inside one of the real boxes."""
        in_x, in_y = self._inside(boxes)
        return (torch.bmm((in_y & real_bg[..., None]).float().mT, in_x.float()) > 0).flatten(1)

    def _inside(self, boxes: Corners) -> tuple[Tensor, Tensor]:
        """Return (B, G, W) and (B, G, H): True if the column, or row, lies strictly inside the box."""
        x1, y1, x2, y2 = (side_bg[..., None] for side_bg in boxes)
        return (self.x > x1) & (self.x < x2), (self.y > y1) & (self.y < y2)

    def within_image(self, sizes_b2: Tensor) -> Tensor:
        """Return (B, H*W): True if the location does not lie in the image's padding."""
        limit = padding_start(sizes_b2, self.stride)
        in_y = self.y < limit[:, :1]
        in_x = self.x < limit[:, 1:]
        return (in_y[:, :, None] & in_x[:, None, :]).flatten(1)


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
    crowd_box, crowd_bg = scale_boxes(boxes.xyxy.unbind(2), CROWD_SCALE), boxes.valid & boxes.crowd
    levels = []
    for grid in _grids(level_shapes, strides, boxes.xyxy.device):
        levels.append(grid.within_image(boxes.sizes) & ~grid.inside_any(crowd_box, crowd_bg))
    return torch.cat(levels, 1)


def _grids(
    level_shapes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device
) -> Iterator[_Grid]:
    for shape, stride in zip(level_shapes, strides, strict=True):
        yield _Grid(*level_axes(shape, stride, device), stride)


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
    best, box, ignored = [], [], []
    for grid in _grids(level_shapes, strides, device):
        near_bghw = grid.touches(shadow, real_bg)
        core_bghw = near_bghw if config.pos_scale == config.neg_scale else grid.touches(core, real_bg)
        # A location goes to the smallest box whose core it touches.
        best.append(grid.highest(rank_bg, core_bghw, xyxy))
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
    counts_bp = taking_part(level_shapes, boxes, strides)
    positive_bp = won_bp & counts_bp
    return Assignment(
        positive_bp=positive_bp,
        box_bp=torch.where(positive_bp, box_bp, 0),
        label_bp=torch.where(positive_bp, label_bp, 0),
        counts_bcp=counts_bp[:, None, :] & ~ignored_bcp,
        negative_bp=counts_bp & ~won_bp,
    )
