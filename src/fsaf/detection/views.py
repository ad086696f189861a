"""Test-time augmentation and tiles: detect in several views of a picture and merge the detections.

A view is a region of the picture, resized, optionally mirrored, and padded to a batch shape.
What is found in views is brought into pixels of the picture and merged there by one suppression.

Shapes: n detections of a view or of a picture, R tiles. Sizes are (height, width).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fsaf.boxes import area, intersection, mirror_boxes
from fsaf.config import DataConfig, PredictConfig, limits
from fsaf.config.data import MULTIPLE
from fsaf.data.arrays import resize_array
from fsaf.data.augment import Region
from fsaf.data.shapes import fit_image, padded_shape, round_up
from fsaf.detection.found import Found
from fsaf.errors import RecipeError

EDGE = 4
"""Pixels of the view. A box that ends closer to an inner edge of its tile may be cut off there."""
COVERED = 0.5
"""A cut box is dropped if a detection of its class covers more than this share of it."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A region of a picture, and how it is resized, padded and mirrored."""

    region: Region
    size: tuple[int, int]
    """Size after resizing."""
    shape: tuple[int, int]
    """Size after padding."""
    mirror: bool = False
    """The view is mirrored left to right."""
    tile: bool = False
    """The view is one of several tiles."""


def plan_views(size: tuple[int, int], data: DataConfig, settings: PredictConfig) -> list[View]:
    """Return all combinations of region, scale and mirror for a picture of ``size``; the plain view first.

    With ``settings.tile`` the regions are the whole picture, for objects larger than a tile, and the tiles.
    Raises UserError for a scale that leaves less than 32 pixels.
    """
    views = []
    tiles = plan_tiles(size, settings)
    for number, region in enumerate([Region(0, 0, *size), *tiles]):
        for factor in settings.scales:
            resized, shape = fit_image((region[2], region[3]), scale_data(data, factor))
            shape = shape or padded_shape([resized], data.pad or MULTIPLE)
            for mirror in (False, True) if settings.flip else (False,):
                views.append(View(region=region, size=resized, shape=shape, mirror=mirror, tile=number > 0))
    return views


def plan_tiles(size: tuple[int, int], settings: PredictConfig) -> list[Region]:
    """Return overlapping tiles of one size that cover a picture of ``size``; none if it fits in one.

    Raises UserError for more than ``limits.TILES``.
    """
    if settings.tile is None or max(size) <= settings.tile:
        return []
    sides = [min(settings.tile, length) for length in size]
    steps = [max(1, int(side * (1 - settings.tile_overlap))) for side in sides]
    counts = [-(-(length - side) // step) + 1 for length, side, step in zip(size, sides, steps, strict=True)]
    if (total := counts[0] * counts[1]) > limits.TILES:
        raise RecipeError(
            f"predict.tile = {settings.tile} with predict.tile_overlap = {settings.tile_overlap:g}: cuts a "
            f"picture of {size[1]} x {size[0]} into {total:,} tiles; at most {limits.TILES:,} are possible"
        )
    starts = [
        np.linspace(0, length - side, count).round().astype(int).tolist()
        for length, side, count in zip(size, sides, counts, strict=True)
    ]
    return [Region(top, left, sides[0], sides[1]) for top in starts[0] for left in starts[1]]


def scale_data(data: DataConfig, factor: float) -> DataConfig:
    """Return ``data`` with image sizes and batch shapes multiplied by ``factor``."""
    if factor == 1:
        return data
    short, long = (max(1, round(side * factor)) for side in (data.short_side, data.long_side))
    if short < MULTIPLE:
        raise RecipeError(
            f"predict.scales: {factor:g} of data.short_side = {data.short_side} is {short} pixels; "
            f"at least {MULTIPLE} are needed"
        )
    if short * long > limits.AREA:
        raise RecipeError(
            f"predict.scales: {factor:g} makes images of up to {short} x {long}; at most {limits.AREA:,} "
            "pixels are possible; take predict.tile instead"
        )
    shapes = data.shapes and [
        (round_up(round(h * factor)), round_up(round(w * factor))) for h, w in data.shapes
    ]
    return replace(data, short_side=short, long_side=long, shapes=shapes)


def take_view(image: np.ndarray, view: View, antialias: bool) -> np.ndarray:
    """Return the pixels of a view without padding: (h, w, 3) of a picture (H, W, 3), both uint8."""
    top, left, height, width = view.region
    part = image[top : top + height, left : left + width]
    if part.shape[:2] != view.size:
        part = _smooth(part, view.size) if antialias else resize_array(part, view.size)
    return part[:, ::-1] if view.mirror else part


def _smooth(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize as PyTorch does with antialias."""
    import torch

    from fsaf.data.transforms import resize

    image = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    return resize(image.permute(2, 0, 1), size, antialias=True).permute(1, 2, 0).numpy()


def from_view(found: Found, view: View) -> Found:
    """Return the detections in a view in pixels of the picture that it shows."""
    boxes = found.boxes
    if view.mirror:
        boxes = mirror_boxes(boxes, view.size, True, False)
    top, left, height, width = view.region
    boxes = to_original(boxes, view.size, (height, width)) + np.array([left, top] * 2, np.float32)
    return found._replace(boxes=boxes)


def to_original(boxes: np.ndarray, size: tuple[int, int], original: tuple[int, int]) -> np.ndarray:
    """Convert boxes (n, 4) from pixels of the resized image to pixels of the original."""
    scale = np.array([original[1] / size[1], original[0] / size[0]] * 2, np.float32)
    return (boxes * scale).astype(np.float32)


def merge(parts: Sequence[tuple[View, Found]], size: tuple[int, int], settings: PredictConfig) -> Found:
    """Merge the detections of all views of a picture of ``size``.

    As in MMDetection's DetTTAModel, detections are joined and suppressed within each class
    (across classes with ``settings.class_agnostic``). Tiles cut objects
    in two, so two rules come first:

    - A box that touches an inner edge of its tile is dropped if another tile contains it, away from its own
      inner edges. A box from the whole picture is dropped if any tile contains it.
    - The remaining boxes that touch an inner edge, of objects larger than the overlap, are ranked after all
      others. One is dropped if a detection of its class covers more than half of it.
    """
    if len(parts) == 1:
        return parts[0][1]
    tiles = plan_tiles(size, settings)
    if not tiles:
        return _suppress(_join([found for _, found in parts]), settings, settings.max_detections)
    margin = EDGE * max(view.region[2] / view.size[0] for view, _ in parts if view.tile)
    whole, cut = [], []
    for view, found in parts:
        others = [tile for tile in tiles if tile != view.region]
        held = np.any(_holds(found.boxes, others, size, margin), axis=1)
        touching = ~_holds(found.boxes, [view.region], size, margin)[:, 0]
        whole.append(_select(found, ~touching if view.tile else ~held))
        cut.append(_select(found, touching & ~held))  # none in the whole picture, which has no inner edge
    limit = settings.max_detections * len(tiles)
    return _add_cut(_suppress(_join(whole), settings, limit), _join(cut), settings, limit)


def _holds(boxes: np.ndarray, regions: Sequence[Region], size: tuple[int, int], margin: float) -> np.ndarray:
    """Return (n, R) bool: True if a box lies inside a region and does not touch its inner edges."""
    edges = np.array([(x, y, x + width, y + height) for y, x, height, width in regions]).reshape(1, -1, 4)
    inner = np.array([margin, margin, -margin, -margin])
    at_border = edges == np.array([0, 0, size[1], size[0]])
    edges = np.where(at_border, np.array([-np.inf, -np.inf, np.inf, np.inf]), edges + inner)
    boxes = boxes[:, None]
    inside = (boxes[..., :2] >= edges[..., :2]) & (boxes[..., 2:] <= edges[..., 2:])
    return np.all(inside, axis=2)


def _select(found: Found, index: np.ndarray) -> Found:
    boxes, scores, labels, levels = found
    return Found(boxes[index], scores[index], labels[index], None if levels is None else levels[index])


def _join(parts: Sequence[Found]) -> Found:
    levels = [part.levels for part in parts if part.levels is not None]
    boxes, scores, labels = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return Found(boxes, scores, labels, np.concatenate(levels) if len(levels) == len(parts) else None)


def _suppress(found: Found, settings: PredictConfig, limit: int) -> Found:
    """Suppress as ``postprocess.suppress`` does, on the CPU, without its fixed number of rounds."""
    if not len(found.scores):
        return found
    import torch  # late: a single view, as an exported file has it, needs no PyTorch

    from fsaf.detection.postprocess import Candidates, suppress

    levels = np.zeros_like(found.labels) if found.levels is None else found.levels
    # Suppression moves classes apart by the largest corner: in huge pictures float32 would round small boxes.
    fine = (found.boxes.astype(np.float64), found.scores.astype(np.float64), found.labels, levels)
    candidates = Candidates(*(torch.from_numpy(field)[None] for field in fine))
    boxes, scores, labels, levels_bm = suppress(candidates, replace(settings, max_detections=limit))
    assert levels_bm is not None
    levels_m = None if found.levels is None else levels_bm[0].numpy()
    kept = Found(boxes[0].float().numpy(), scores[0].float().numpy(), labels[0].numpy(), levels_m)
    return _select(kept, kept.labels >= 0)


def _add_cut(kept: Found, cut: Found, settings: PredictConfig, limit: int) -> Found:
    """Add to ``kept`` the boxes of ``cut``, larger ones first, that no box of their class covers.

    With ``settings.class_agnostic``: that no box covers.
    """
    areas = area(cut.boxes.T)
    everything = _join([kept, cut])
    chosen = list(range(len(kept.scores)))
    for i in np.argsort(-areas, kind="stable"):
        place = len(kept.scores) + int(i)
        same = everything.labels[chosen] == cut.labels[i]
        rivals = everything.boxes[chosen][same | settings.class_agnostic]
        if not (intersection(rivals.T, cut.boxes[i]) > COVERED * areas[i]).any():
            chosen.append(place)
    best = sorted(chosen, key=lambda k: -everything.scores[k])[:limit]
    return _select(everything, np.array(best, np.int64))
