"""Small COCO folders for tests: coloured rectangles on a plain ground, exactly where the annotations say."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fsaf.config import ModelConfig
from fsaf.data.records import Classes
from fsaf.model.detector import FSAF
from fsaf.model.outputs import FreeOutputs, RawOutputs
from fsaf.model.points import STRIDES

COLORS = {7: (230, 40, 30), 3: (40, 200, 60), 90: (50, 60, 220)}
"""Fill colour by category id. Ids are deliberately sparse and unordered."""
NAMES = {7: "red", 3: "green", 90: "blue"}
CLASSES = Classes(names=("green", "red", "blue"), ids=(3, 7, 90))
CATEGORIES = [{"id": id_, "name": name} for id_, name in NAMES.items()]
GROUND = (128, 128, 128)

Object = tuple[int, int, int, int, int]
"""x, y, width, height, category id."""


@dataclass(kw_only=True)
class Picture:
    """One image of a data set and its objects."""

    height: int
    width: int
    objects: list[Object] = field(default_factory=list)
    crowds: list[Object] = field(default_factory=list)


def paint(picture: Picture) -> np.ndarray:
    """Return the picture, (H, W, 3) uint8; later objects cover earlier ones."""
    pixels = np.full((picture.height, picture.width, 3), GROUND, np.uint8)
    for x, y, width, height, category in picture.objects:
        pixels[max(y, 0) : y + height, max(x, 0) : x + width] = COLORS[category]
    return pixels


def write_coco(folder: Path, pictures: Sequence[Picture], name: str = "train", first_id: int = 11) -> Path:
    """Write ``annotations/NAME.json`` and ``images/NAME/*.png``; return the annotation file.

    Image ids count up from ``first_id``.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    (folder / "images" / name).mkdir(parents=True, exist_ok=True)
    for id_, picture in enumerate(pictures, start=first_id):
        file_name = f"{id_:04d}.png"
        Image.fromarray(paint(picture)).save(folder / "images" / name / file_name)
        images.append({"id": id_, "file_name": file_name, "width": picture.width, "height": picture.height})
        for crowd, objects in ((0, picture.objects), (1, picture.crowds)):
            for x, y, width, height, category in objects:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": id_,
                        "category_id": category,
                        "bbox": [x, y, width, height],
                        "area": width * height,
                        "iscrowd": crowd,
                    }
                )
    path = folder / "annotations" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return path


def eight_pictures(seed: int = 0) -> list[Picture]:
    """Return eight pictures of 64 x 96, each with one to three rectangles of 12 to 40 pixels."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(8):
        objects = []
        for _ in range(rng.integers(1, 4)):
            width, height = (int(side) for side in rng.integers(12, 41, 2))
            x, y = int(rng.integers(0, 96 - width)), int(rng.integers(0, 64 - height))
            objects.append((x, y, width, height, int(rng.choice(list(COLORS)))))
        pictures.append(Picture(height=64, width=96, objects=objects))
    return pictures


def write_eight(folder: Path, val: int = 3) -> None:
    """Write eight pictures to train on and ``val`` others, with ids from 501, to evaluate on."""
    write_coco(folder, eight_pictures())
    write_coco(folder, eight_pictures(1)[:val], "val", first_id=501)


def tiny_model(**changes: Any) -> ModelConfig:
    """Return the settings of a detector of 0.3 million weights."""
    settings: dict[str, Any] = {
        "backbone": "test_efficientnet",
        "weights": "none",
        "channels": 64,
        "convs": 1,
        "norm": "group",
        "frozen_stages": -1,
    }
    return ModelConfig(**{**settings, **changes})


def recipe(root: Path, out: Path, **overrides: Any) -> dict[str, Any]:
    """Return a recipe for ``write_eight`` as parsed YAML. Overrides are dotted keys with ``__``."""
    values: dict[str, Any] = {
        "out": str(out),
        "device": "cpu",
        "data": {
            "root": str(root),
            "train": {"annotations": "annotations/train.json", "images": "images/train"},
            "val": {"annotations": "annotations/val.json", "images": "images/val"},
            "batch_size": 4,
            "workers": 0,
            "short_side": 64,
            "long_side": 96,
            "shapes": [[64, 96]],
            "max_boxes": 8,
        },
        "model": {
            "backbone": "tf_efficientnet_lite0",
            "weights": "none",
            "channels": 64,
            "convs": 1,
            "norm": "group",
            "frozen_stages": -1,
            "frozen_norm": False,
        },
        "optim": {"name": "adamw", "lr": 0.001, "schedule": "one_cycle", "warmup_steps": 1},
        "train": {"epochs": 2},
        "log": {"every": 1},
    }
    for key, value in overrides.items():
        at = values
        *groups, last = key.split("__")
        for group in groups:
            at = at.setdefault(group, {})
        at[last] = value
    return values


class SeesColours(FSAF):
    """Stand-in for a trained network: detects the one rectangle of each category's exact colour.

    The box is on the P3 location nearest to the rectangle's centre. Redder means a higher score. Labels are
    in order of category id.
    """

    def __init__(self) -> None:
        super().__init__(
            ModelConfig(backbone="test_efficientnet", channels=4, convs=0, frozen_stages=-1), len(COLORS)
        )

    def forward(self, images: Tensor, sizes_b2: Tensor | None = None) -> RawOutputs:
        batch, _, height, width = images.shape
        shapes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
        logits = [torch.full((batch, len(COLORS), *shape), -20.0) for shape in shapes]
        distances = [torch.zeros(batch, 4, *shape) for shape in shapes]
        stride, unit = STRIDES[0], 4.0 * STRIDES[0]
        for row in range(batch):
            for label, category in enumerate(sorted(COLORS)):
                colour = torch.tensor(COLORS[category])[:, None, None]
                y, x = torch.nonzero((images[row] == colour).all(0), as_tuple=True)
                if not len(y):
                    continue
                y1, y2, x1, x2 = int(y.min()), int(y.max()) + 1, int(x.min()), int(x.max()) + 1
                i, j = round((y1 + y2 - 1) / 2 / stride), round((x1 + x2 - 1) / 2 / stride)
                i, j = min(i, shapes[0][0] - 1), min(j, shapes[0][1] - 1)
                sides = [i * stride - y1, y2 - i * stride, j * stride - x1, x2 - j * stride]
                logits[0][row, label, i, j] = 3 + COLORS[category][0] / 100
                distances[0][row, :, i, j] = torch.tensor(sides) / unit
        return RawOutputs(FreeOutputs(logits, distances))


class SeesBadly(SeesColours):
    """Stand-in for a poor network: boxes are off by some pixels, scores vary, some detections are false."""

    def forward(self, images: Tensor, sizes_b2: Tensor | None = None) -> RawOutputs:
        outputs = super().forward(images, sizes_b2)
        random = torch.Generator().manual_seed(int(images.sum()))
        assert outputs.free is not None
        for logits, distances in zip(*outputs.free, strict=True):
            logits += 3 * torch.randn(logits.shape, generator=random)
            distances += 0.5 * torch.rand(distances.shape, generator=random)
            extra = torch.rand(logits.shape, generator=random) < 0.03
            logits[extra] = 4 * torch.randn(int(extra.sum()), generator=random) - 1
        return outputs
