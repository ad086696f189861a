"""Records written as Pascal VOC and YOLO folders, for tests."""

from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from fsaf.data.records import ImageRecord, Records


def write_voc(folder: Path, splits: Mapping[str, Records]) -> Path:
    """Write ``Annotations``, ``JPEGImages`` (links) and ``ImageSets/Main``; crowds are ``difficult``."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, records in splits.items():
        for image in records.images:
            (folder / "JPEGImages" / image.path.name).symlink_to(image.path.resolve())
            text = voc_xml(image, records)
            (folder / "Annotations" / f"{image.path.stem}.xml").write_text(text, encoding="utf-8")
        lines = "".join(f"{image.path.stem}\n" for image in records.images)
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text(lines)
    return folder


def voc_xml(image: ImageRecord, records: Records) -> str:
    """Return the XML file of an image as LabelImg writes it, with pixels counted from 1."""
    objects = ""
    for box, label, crowd in zip(
        image.boxes.tolist(), image.labels.tolist(), image.crowd.tolist(), strict=True
    ):
        x1, y1, x2, y2 = box
        objects += (
            f"<object><name>{escape(records.classes.names[label])}</name><pose>Unspecified</pose>"
            f"<truncated>0</truncated><difficult>{int(crowd)}</difficult><bndbox>"
            f"<xmin>{x1 + 1:g}</xmin><ymin>{y1 + 1:g}</ymin><xmax>{x2:g}</xmax><ymax>{y2:g}</ymax>"
            "</bndbox></object>\n"
        )
    return (
        f"<annotation>\n<folder>x</folder><filename>{escape(image.path.name)}</filename>\n"
        f"<size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>\n"
        f"{objects}</annotation>\n"
    )


def write_yolo(folder: Path, splits: Mapping[str, Records]) -> Path:
    """Write ``images/SPLIT`` (links), ``labels/SPLIT`` and ``data.yaml``, without crowd regions."""
    lines = ["names:"]
    for name, records in splits.items():
        lines.insert(0, f"{name}: images/{name}")
        for kind in ("images", "labels"):
            (folder / kind / name).mkdir(parents=True, exist_ok=True)
        for image in records.images:
            (folder / "images" / name / image.path.name).symlink_to(image.path.resolve())
            text = yolo_text(image)
            (folder / "labels" / name / f"{image.path.stem}.txt").write_text(text)
    lines += [f"  {i}: {name}" for i, name in enumerate(records.classes.names)]
    (folder / "data.yaml").write_text("\n".join(lines) + "\n")
    return folder


def yolo_text(image: ImageRecord) -> str:
    """Return the label file of an image, with all digits of a float."""
    boxes = image.boxes[~image.crowd].astype(np.float64) / [
        image.width,
        image.height,
        image.width,
        image.height,
    ]
    return "".join(
        f"{label} {(x1 + x2) / 2!r} {(y1 + y2) / 2!r} {x2 - x1!r} {y2 - y1!r}\n"
        for label, (x1, y1, x2, y2) in zip(image.labels[~image.crowd].tolist(), boxes.tolist(), strict=True)
    )


def same_records(one: Records, other: Records, atol: float = 0.0) -> None:
    """Assert that the images have the same names, sizes, boxes, class names and crowd regions."""
    mine = {image.path.name: image for image in one.images}
    assert set(mine) == {image.path.name for image in other.images} and len(mine) == len(other.images)
    for image in other.images:
        expected = mine[image.path.name]
        assert (image.width, image.height) == (expected.width, expected.height)
        np.testing.assert_allclose(image.boxes, expected.boxes, rtol=0, atol=atol)
        assert image.boxes.dtype == np.float32 and image.crowd.tolist() == expected.crowd.tolist()
        names = [other.classes.names[label] for label in image.labels]
        assert names == [one.classes.names[label] for label in expected.labels]
