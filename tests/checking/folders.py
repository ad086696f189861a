"""Little data sets in three formats, with images that are good, missing, broken or copied."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fsaf.config import Config, DataConfig

NAMES = ("cat", "dog")
WIDTH, HEIGHT = 60, 40

Box = tuple[int, int, int, int, int]
"""Left, top, width, height, class."""


@dataclass
class Photo:
    """An image file with its boxes."""

    name: str
    boxes: list[Box]
    state: str = "good"
    """``good``, ``missing``, ``broken`` or ``copy`` (of the first image of the other split)."""


@dataclass
class Folder:
    """A data set to write, by split."""

    splits: dict[str, list[Photo]] = field(default_factory=dict)


def paint(path: Path, boxes: list[Box], seed: int) -> None:
    """Write an image of noise with a bright rectangle for each box."""
    pixels = np.random.default_rng(seed).integers(0, 90, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    for x, y, w, h, label in boxes:
        pixels[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = (250, 120 * label, 20)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_images(folder: Folder, place: Any) -> None:
    first = {split: photos[0] for split, photos in folder.splits.items()}
    for split, photos in folder.splits.items():
        for i, photo in enumerate(photos):
            path = place(split, photo)
            other = next((each for name, each in first.items() if name != split), photo)
            if photo.state == "missing":
                path.parent.mkdir(parents=True, exist_ok=True)
            elif photo.state == "broken":
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"\x89PNG\r\n\x1a\n broken")
            elif photo.state == "copy":
                paint(path, other.boxes, seed=hash_of(other.name))
            else:
                paint(path, photo.boxes, seed=hash_of(photo.name) + i * 0)


def hash_of(name: str) -> int:
    return int.from_bytes(name.encode(), "little") % 2**31


def write_coco(root: Path, folder: Folder, sizes: bool = True) -> None:
    write_images(folder, lambda split, photo: root / "images" / split / photo.name)
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, photos in folder.splits.items():
        images, annotations = [], []
        for i, photo in enumerate(photos, start=1):
            images.append({"id": 10 * i, "file_name": photo.name})
            if sizes:
                images[-1] |= {"width": WIDTH, "height": HEIGHT}
            for *xywh, label in photo.boxes:
                entry = {
                    "id": len(annotations) + 1,
                    "image_id": 10 * i,
                    "category_id": label + 1,
                    "bbox": xywh,
                }
                annotations.append(entry)
        categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, start=1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))


def write_voc(root: Path, folder: Folder) -> None:
    write_images(folder, lambda split, photo: root / "JPEGImages" / photo.name)
    for name in ("Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for split, photos in folder.splits.items():
        for photo in photos:
            objects = ""
            for x, y, w, h, label in photo.boxes:
                name = NAMES[label] if label < len(NAMES) else ""
                objects += (
                    f"<object><name>{name}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
                    f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
                )
            size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
            text = f"<annotation><filename>{photo.name}</filename>{size}{objects}</annotation>"
            (root / "Annotations" / f"{Path(photo.name).stem}.xml").write_text(text)
        lines = "".join(f"{Path(photo.name).stem}\n" for photo in photos)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(lines)


def write_yolo(root: Path, folder: Folder) -> None:
    write_images(folder, lambda split, photo: root / "images" / split / photo.name)
    for split, photos in folder.splits.items():
        (root / "labels" / split).mkdir(parents=True, exist_ok=True)
        for photo in photos:
            lines = [
                f"{label} {(x + w / 2) / WIDTH} {(y + h / 2) / HEIGHT} {w / WIDTH} {h / HEIGHT}\n"
                for x, y, w, h, label in photo.boxes
            ]
            (root / "labels" / split / f"{Path(photo.name).stem}.txt").write_text("".join(lines))
    splits = "".join(f"{split}: images/{split}\n" for split in folder.splits)
    (root / "data.yaml").write_text(f"{splits}names: [{', '.join(NAMES)}]\n")


def write_coco_without_sizes(root: Path, folder: Folder) -> None:
    write_coco(root, folder, sizes=False)


WRITERS = {
    "coco": write_coco,
    "coco without sizes": write_coco_without_sizes,
    "voc": write_voc,
    "yolo": write_yolo,
}


def config(root: Path, **data: Any) -> Config:
    return Config(data=DataConfig(root=str(root), short_side=40, long_side=64, min_size=1, **data))
