"""The objective once more, one location and one box at a time in Python's float64 arithmetic.

Written from the published description (FSAF, sections 3.2 and 3.3) and MMDetection's conventions, not from
``fsaf.objective``: slow, without tensors, and meant to be read.
"""

import math
from dataclasses import dataclass, field

STRIDES = (8, 16, 32, 64, 128)


@dataclass(kw_only=True)
class Box:
    """One box of an image, pixels."""

    xyxy: tuple[float, float, float, float]
    label: int = 0
    crowd: bool = False

    @property
    def area(self) -> float:
        x1, y1, x2, y2 = self.xyxy
        return (x2 - x1) * (y2 - y1)

    def scaled(self, scale: float) -> tuple[float, float, float, float]:
        x1, y1, x2, y2 = self.xyxy
        cx, cy, w, h = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) * scale, (y2 - y1) * scale
        return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


@dataclass(kw_only=True)
class Location:
    """One location of one image, its predictions and what it learns."""

    image: int
    level: int
    row: int
    column: int
    logits: list[float]
    distances: list[float]
    box: int | None = None
    ignored: set[int] = field(default_factory=set)
    background: bool = False

    @property
    def stride(self) -> int:
        return STRIDES[self.level]

    @property
    def x(self) -> int:
        return self.column * self.stride

    @property
    def y(self) -> int:
        return self.row * self.stride


@dataclass(kw_only=True)
class Answer:
    """Values that the objective should return."""

    locations: list[Location]
    levels: dict[tuple[int, int], int]
    """Level that box (image, index) selects; boxes without positives have no entry."""
    loss_cls: list[float]
    loss_box: list[float]
    num_pos: float
    margin: float
    """Distance of the closest decision (overlap share, relative loss of the second best level) from a tie."""


def strictly_inside(x: float, y: float, box: tuple[float, float, float, float]) -> bool:
    return box[0] < x < box[2] and box[1] < y < box[3]


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def focal(logit: float, target: int, alpha: float, gamma: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -alpha * (1 - p) ** gamma * math.log(p) if target else -(1 - alpha) * p**gamma * math.log(1 - p)


def neg_log_iou(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    both = overlap(a, b)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return -math.log(max(both / (area - both), 1e-6))


def assign_one(at: Location, boxes: list[Box], config, size: tuple[int, int]) -> float:
    """Fill in ``box``, ``ignored`` and ``background`` of a location; return the margin of its decisions."""
    margin = math.inf
    limits = [math.ceil(math.ceil(side / 32) * 32 / at.stride) for side in size]
    if at.row >= limits[0] or at.column >= limits[1]:
        at.ignored = set(range(len(at.logits)))
        return margin
    half = at.stride / 2
    square = (at.x - half, at.y - half, at.x + half, at.y + half)
    cores, shadows = [], []
    in_crowd = False
    for index, box in enumerate(boxes):
        if box.crowd:
            in_crowd |= strictly_inside(at.x, at.y, box.scaled(0.5))
            continue
        core = overlap(square, box.scaled(config.pos_scale)) / at.stride**2
        shadow = overlap(square, box.scaled(config.neg_scale)) / at.stride**2
        margin = min(margin, abs(core - 0.01), abs(shadow - 0.01))
        if core > 0.01 and strictly_inside(at.x, at.y, box.xyxy):
            cores.append(index)
        elif shadow > 0.01:
            shadows.append(index)
    if cores:
        # The smallest box first; ties go to the later one.
        winner = min(cores, key=lambda index: (boxes[index].area, -index))
        shadows += [index for index in cores if index != winner]
        at.box = winner
    at.ignored = {boxes[index].label for index in shadows}
    if at.box is not None and boxes[at.box].label in at.ignored:
        if config.foreground_dominate:
            at.ignored.remove(boxes[at.box].label)
        else:
            at.box = None
    if in_crowd:
        at.box = None
        at.ignored = set(range(len(at.logits)))
    at.background = at.box is None and not in_crowd
    return margin


def reference(
    logits: list, distances: list, images: list[list[Box]], sizes: list[tuple[int, int]], config
) -> Answer:
    """logits, distances: nested lists [level][image][channel][row][column]."""
    locations = []
    margin = math.inf
    for image, boxes in enumerate(images):
        for level in range(len(STRIDES)):
            of_class, of_side = logits[level][image], distances[level][image]
            for row in range(len(of_class[0])):
                for column in range(len(of_class[0][0])):
                    at = Location(
                        image=image,
                        level=level,
                        row=row,
                        column=column,
                        logits=[plane[row][column] for plane in of_class],
                        distances=[max(plane[row][column], 1e-4) for plane in of_side],
                    )
                    margin = min(margin, assign_one(at, boxes, config, sizes[image]))
                    locations.append(at)

    # Mean loss of each box on each level.
    losses: dict[tuple[int, int], dict[int, list[float]]] = {}
    terms = []
    for at in locations:
        label = None if at.box is None else images[at.image][at.box].label
        by_class = {
            c: focal(logit, int(c == label), config.alpha, config.gamma)
            for c, logit in enumerate(at.logits)
            if c not in at.ignored
        }
        box_loss = 0.0
        if at.box is not None:
            top, bottom, left, right = (d * 4 * at.stride for d in at.distances)
            predicted = (at.x - left, at.y - top, at.x + right, at.y + bottom)
            box_loss = neg_log_iou(predicted, images[at.image][at.box].xyxy)
            of_box = losses.setdefault((at.image, at.box), {})
            of_box.setdefault(at.level, []).append(sum(by_class.values()) + box_loss)
        terms.append((at, label, by_class, box_loss))

    levels = {}
    for key, by_level in losses.items():
        means = sorted((sum(values) / len(values), level) for level, values in by_level.items())
        levels[key] = means[0][1]
        if len(means) > 1:
            margin = min(margin, means[1][0] / means[0][0] - 1)

    loss_cls, loss_box = [0.0] * len(STRIDES), [0.0] * len(STRIDES)
    positives = backgrounds = 0
    for at, label, by_class, box_loss in terms:
        backgrounds += at.background
        if at.box is not None and levels[at.image, at.box] != at.level:
            by_class.pop(label)
        elif at.box is not None:
            positives += 1
            loss_box[at.level] += box_loss
        loss_cls[at.level] += sum(by_class.values())
    divisor = positives or backgrounds or 1
    return Answer(
        locations=locations,
        levels=levels,
        loss_cls=[value / divisor for value in loss_cls],
        loss_box=[value / divisor for value in loss_box],
        num_pos=positives / len(images),
        margin=margin,
    )
