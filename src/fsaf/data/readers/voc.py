"""Pascal VOC: a folder of XML files, one an image, read into records.

Corners in VOC are pixels counted from 1, the last included: a box over the whole of a 640 x 480 image is
1, 1, 640, 480. As areas that is 0, 0, 640, 480, so xmin and ymin lose 1 (as in Detectron2). Objects marked
``difficult`` become crowd regions: neither object nor background in training, matched or not without cost in
evaluation.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from fsaf.config import DataConfig
from fsaf.data.decode import IMAGE_SUFFIXES, header_size, is_file
from fsaf.data.faults import Faults
from fsaf.data.progress import follow
from fsaf.data.records import (
    BoxTable,
    Classes,
    ImageRecord,
    Records,
    assemble,
    count_dropped,
    inside,
    no_boxes,
)
from fsaf.errors import UserError


class Object(NamedTuple):
    """One ``object`` of an XML file."""

    name: str
    xywh: tuple[float, float, float, float]
    difficult: bool
    number: int
    """From 1, in the order of the file."""


@dataclass(frozen=True, kw_only=True)
class VocSplit:
    """Where a split lies."""

    annotations: Path
    """Folder of XML files."""
    images: Path
    """Folder of the images."""
    image_set: Path | None = None
    """A file of ``ImageSets/Main`` with an image name a line; None takes every XML file."""
    file_sizes: bool = False
    """Take width and height from the images, whatever the XML says."""

    def read(self, classes: Classes | None, faults: Faults, data: DataConfig) -> Records:
        """Read the split's XML files. Image ids count from 1 in the order of the image set, or of the names.

        classes: those of a checkpoint, matched by name; else the names that occur, sorted, ids from 1.
        Raises UserError, naming file and value, for what the rules of ``faults`` refuse.
        """
        source = self.image_set or self.annotations
        if not self.images.is_dir():
            raise UserError(f"{self.images}: no such image folder (needed by {source})")
        names = _read_image_set(self.image_set, faults) if self.image_set else _stems(self.annotations)
        files = _Files(self.images)
        images: list[ImageRecord] = []
        where: list[Path] = []
        objects: list[list[Object]] = []
        for name in follow(names, f"reading {source}"):
            file = self.annotations / f"{name}.xml"
            found = _read_file(file, name, files, faults, data, self.file_sizes)
            if found is None:
                continue
            path, (height, width), its = found
            images.append(no_boxes(len(images) + 1, path, width, height))
            where.append(file)
            objects.append(its)
        named = sorted({each.name for its in objects for each in its})
        if classes is None:
            if not named and faults.refuse:
                raise UserError(
                    f"{source}: no object in any of its {len(names)} files, so there are no classes"
                )
            classes = Classes(names=tuple(named), ids=tuple(range(1, len(named) + 1)))
        elif named and not set(named) & set(classes.names):
            raise UserError(
                f"{source}: of the classes {', '.join(named)[:120]} the detector has none; "
                f"it has {', '.join(classes.names)[:120]}. Give data with its classes"
            )
        label_of = {name: label for label, name in enumerate(classes.names)}
        table = BoxTable()
        for position, its in enumerate(objects):
            for each in its:
                if each.name in label_of:
                    table.add(position, each.xywh, label_of[each.name], each.difficult, each.number)
                    continue
                text = f"object {each.number} is of class {each.name!r:.80}, which the detector does not have"
                faults.add("box-other-class", where[position], text, image=position + 1, item=each.number)
        assemble(images, table, faults, where.__getitem__, "object")
        return Records(
            images=images,
            classes=classes,
            source=source,
            dropped=count_dropped(faults),
            format="voc",
            folder=self.images,
            faults=faults,
        )


def parse_xml(data: bytes) -> ElementTree.Element:
    """Parse XML that may come from strangers.

    A document type is refused, and with it every entity: none can make text grow or read another file.
    Raises ValueError with what is wrong.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, LookupError, AssertionError) as error:  # LookupError: an unknown encoding
        raise ValueError(str(error)) from error


def _refuse_doctype(*_: object) -> None:
    raise ValueError("holds a DOCTYPE, which may define entities; remove it")


class _Files:
    """The files of an image folder by their name without suffix; one listing instead of many look-ups."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_stem: dict[str, str] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                self.by_stem.setdefault(path.stem, path.name)


def _stems(folder: Path) -> list[str]:
    names = sorted(path.stem for path in folder.glob("*.xml"))
    if not names:
        raise UserError(f"{folder}: no XML files in it")
    return names


def _read_image_set(path: Path, faults: Faults) -> list[str]:
    """Names of the images; a second column, 1, 0 or -1 of a single class' lists, is refused by its values."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as text ({error})") from error
    names: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            continue
        if inside(name) is None:
            faults.add("path-leaves", path, f"line {number}: {name!r:.120} leaves the folder of XML files")
        elif name in names:
            faults.add("image-id-twice", path, f"line {number}: {name!r:.120} appears twice")
        else:
            names[name] = None
    return list(names)


def _read_file(
    file: Path, name: str, files: _Files, faults: Faults, data: DataConfig, file_sizes: bool
) -> tuple[Path, tuple[int, int], list[Object]] | None:
    """Image, its height and width, and its objects; None where a fault leaves no image."""
    try:
        root = parse_xml(file.read_bytes())
    except (OSError, ValueError) as error:
        faults.add("entry", file, f"not readable as XML ({error})")
        return None
    if root.tag != "annotation":
        faults.add("entry", file, f"not a Pascal VOC annotation: its root is <{root.tag:.40}>")
        return None
    path = _find_image(root, file, name, files, faults)
    if path is None:
        return None
    size = None if file_sizes else _size(root)
    if size is None:  # some tools leave it out
        try:
            size = header_size(path, data.max_pixels, data.exif_rotation)
        except UserError as error:
            kind = "image-unreadable" if is_file(path) else "image-missing"
            faults.add(kind, file, f"has no width and height, and the image does not tell them: {error}")
            return None
    objects = []
    for number, element in enumerate(root.findall("object"), start=1):
        found = _read_object(element, number, file, faults)
        if found is not None:
            objects.append(found)
    return path, size, objects


def _find_image(
    root: ElementTree.Element, file: Path, name: str, files: _Files, faults: Faults
) -> Path | None:
    """The image of the XML file's own name; where there is none, the one that ``filename`` says."""
    given = (root.findtext("filename") or "").strip()
    relative = inside(given)
    if relative is None:
        faults.add("path-leaves", file, f"filename {given!r:.120} leaves {files.folder}")
        return None
    own = files.by_stem.get(name)
    if own is None:
        return files.folder / (relative or f"{name}.jpg")
    if relative and own != relative and is_file(files.folder / relative):
        text = f"belongs to {own} by its name, to {relative!r:.120} by 'filename'; {own} is used"
        faults.add("name-differs", file, text)
    return files.folder / own


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Height and width, None where not given or not above 0."""
    values = [_number(root.findtext(f"size/{key}")) for key in ("height", "width")]
    if not all(1 <= value < 2**31 for value in values):  # false for NaN
        return None
    return int(values[0]), int(values[1])


def _read_object(element: ElementTree.Element, number: int, file: Path, faults: Faults) -> Object | None:
    name = (element.findtext("name") or "").strip()
    corners = [element.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
    if not name or None in corners:
        text = f"object {number}: needs a name, and a bndbox with xmin, ymin, xmax, ymax"
        faults.add("entry", file, text, item=number)
        return None
    x1, y1, x2, y2 = map(_number, corners)
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        text = f"object {number}: bndbox {corners!r:.120} must be four finite numbers"
        faults.add("box-not-a-number", file, text, item=number)
        return None
    # xmax = xmin - 1 would be a box of no pixel, anything below that is inverted; tools write both for empty.
    difficult = (element.findtext("difficult") or "").strip() not in ("", "0")
    return Object(name, (x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1), difficult, number)


def _number(text: str | None) -> float:
    """The number that ``text`` says, NaN where it says none."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
