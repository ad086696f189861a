"""Pascal VOC: find the files of a data set and read a folder of XML files, one an image, into records.

VOC's corners are pixels counted from 1, the last one included: a box over a whole 640 x 480 image is
1, 1, 640, 480. The same area has the corners 0, 0, 640, 480, so xmin and ymin lose 1 (as in Detectron2).
Objects marked ``difficult`` become crowd regions: training ignores them, evaluation does not count them.
"""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from fsaf.config import DataConfig
from fsaf.data.decode import IMAGE_SUFFIXES, header_size, is_file
from fsaf.data.faults import Faults
from fsaf.data.progress import follow
from fsaf.data.readers.layout import SPLIT_NAMES, first_folder
from fsaf.data.readers.voc_xml import Object, parse_xml, read_object, read_size
from fsaf.data.records import Classes, ImageRecord, Records, Split, assemble, inside
from fsaf.data.table import BoxTable
from fsaf.errors import UserError

NAME = "Pascal VOC"
LAYOUT = "ImageSets/Main/*.txt or a folder of XML files (Pascal VOC)"
"""Files to look for, for the message if there are none."""


@dataclass(frozen=True, kw_only=True)
class VocSplit:
    """A folder of XML files, or the part of it that an image set lists, and the folder of its images."""

    annotations: Path
    """Folder of XML files."""
    images: Path
    """Folder of the images."""
    image_set: Path | None = None
    """A file of ``ImageSets/Main`` with an image name in each line; None takes every XML file."""
    ids_are_official: bool = False

    @property
    def source(self) -> Path:
        """The image set, or the folder of XML files."""
        return self.image_set or self.annotations

    def original(self) -> None:
        """Return None: the split is not COCO JSON."""

    def read(self, classes: Classes | None, faults: Faults, data: DataConfig) -> Records:
        """Read the XML files. Image ids count from 1 in the order of the image set, or of the names.

        classes: those of a detector, matched by name; None takes the names that occur, sorted, ids from 1.
        Raises UserError, naming file and value, for a fault that is refused.
        """
        source = self.source
        if not self.images.is_dir():
            raise UserError(f"{self.images}: no such image folder (needed by {source})")
        names = _read_image_set(self.image_set, faults) if self.image_set else _stems(self.annotations)
        files = _Files(self.images)
        images: list[ImageRecord] = []
        where: list[Path] = []
        objects: list[list[Object]] = []
        for name in follow(names, f"reading {source}"):
            file = self.annotations / f"{name}.xml"
            found = _read_file(file, name, files, faults, data)
            if found is None:
                continue
            path, (height, width), its = found
            images.append(ImageRecord(id=len(images) + 1, path=path, width=width, height=height))
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
            dropped=faults.dropped,
            format="voc",
            folder=self.images,
            faults=faults,
            table=table,
        )


def find(data: Path) -> dict[str, Split]:
    """Return the splits of a file of ImageSets/Main, or of a folder in VOC's layouts, by name."""
    if data.is_file():
        split = at(data, None, "all")
        return {data.stem: split} if split else {}
    splits: dict[str, Split] = {}
    for folder in (data / "Annotations", data / "annotations"):
        if not folder.is_dir():
            continue
        sets = data / "ImageSets" / "Main"
        files = sorted((sets if sets.is_dir() else sets.parent).glob("*.txt"))
        for file in files:
            if file.stem in (*SPLIT_NAMES, "trainval"):  # other files list the images of one class
                splits[file.stem] = VocSplit(annotations=folder, images=_image_folder(folder), image_set=file)
        for name in SPLIT_NAMES:
            if any((folder / name).glob("*.xml")):
                pictures = (
                    first_folder([data / f"images/{name}", data / f"JPEGImages/{name}"]) or folder / name
                )
                splits[name] = VocSplit(annotations=folder / name, images=pictures)
        if not splits and any(folder.glob("*.xml")):
            splits["all"] = VocSplit(annotations=folder, images=_image_folder(folder))
        if splits:
            return splits
    for name in SPLIT_NAMES:
        for folder in (data / name, data / name / "Annotations", data / name / "annotations"):
            if any(folder.glob("*.xml")):
                splits[name] = VocSplit(annotations=folder, images=_image_folder(folder))
    return splits


def at(annotations: Path, images: Path | None, role: str) -> Split | None:
    """Return the split of a folder of XML files, or of a file of ImageSets/Main, else None."""
    if annotations.is_dir() and any(annotations.glob("*.xml")):
        return VocSplit(annotations=annotations, images=images or _image_folder(annotations))
    if annotations.suffix != ".txt" or annotations.is_dir():
        return None
    for folder in list(annotations.absolute().parents)[:4]:
        for name in ("Annotations", "annotations"):
            if (folder / name).is_dir():
                pictures = images or _image_folder(folder / name)
                return VocSplit(annotations=folder / name, images=pictures, image_set=annotations)
    raise UserError(f"{annotations}: no folder Annotations of XML files beside or above it")


def _image_folder(annotations: Path) -> Path:
    """Return JPEGImages or images beside the folder of XML files, else the folder itself."""
    return first_folder([annotations.parent / "JPEGImages", annotations.parent / "images"]) or annotations


class _Files:
    """The files of an image folder by name without suffix: one listing instead of many look-ups."""

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
    """Return the names of the images of an image set."""
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
    file: Path, name: str, files: _Files, faults: Faults, data: DataConfig
) -> tuple[Path, tuple[int, int], list[Object]] | None:
    """Return the image, its height and width, and its objects; None if a fault leaves no image."""
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
    size = read_size(root)
    if size is None:  # some tools write none
        try:
            size = header_size(path, data.max_pixels, data.exif_rotation)
        except UserError as error:
            kind = "image-unreadable" if is_file(path) else "image-missing"
            faults.add(
                kind, file, f"has no width and height, and they cannot be read from the image: {error}"
            )
            return None
    objects = []
    for number, element in enumerate(root.findall("object"), start=1):
        found = read_object(element, number, file, faults)
        if found is not None:
            objects.append(found)
    return path, size, objects


def _find_image(
    root: ElementTree.Element, file: Path, name: str, files: _Files, faults: Faults
) -> Path | None:
    """Return the image with the name of the XML file, else the one that ``filename`` names."""
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
