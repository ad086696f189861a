"""Pascal VOC: read a folder of XML files, one an image, into records.

VOC's corners are pixels counted from 1, the last one included: a box over a whole 640 x 480 image is
1, 1, 640, 480. The same area has the corners 0, 0, 640, 480, so xmin and ymin lose 1 (as in Detectron2).
Objects marked ``difficult`` become crowd regions: training ignores them, evaluation does not count them.
"""

from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from xml.etree import ElementTree

from fsaf.config import DataConfig
from fsaf.data.decode import fault_kind, is_file, read_header
from fsaf.data.exif import turned_size
from fsaf.data.faults import Faults
from fsaf.data.progress import follow
from fsaf.data.readers.image_files import images_in, is_hidden
from fsaf.data.readers.voc_xml import Object, parse_xml, read_object, read_size
from fsaf.data.records import Classes, ImageRecord, Records, assemble, inside
from fsaf.data.table import BoxTable
from fsaf.errors import DataError, UserError


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
    missing: str | None = None

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
            raise DataError(f"{self.images}: no such image folder (needed by {source})")
        names = _read_image_set(self.image_set, faults) if self.image_set else _stems(self.annotations)
        files = _Files(self.images)
        images: list[ImageRecord] = []
        where: list[Path] = []
        objects: list[list[Object]] = []
        measured = 0
        for number, name in enumerate(follow(names, f"reading {source}"), start=1):
            file = self.annotations / f"{name}.xml"
            found = _read_file(file, name, number, files, faults, data)
            if found is None:
                continue
            path, (height, width), its, was_measured = found
            measured += was_measured
            images.append(ImageRecord(id=number, path=path, width=width, height=height))
            where.append(file)
            objects.append(its)
        named = sorted({each.name for its in objects for each in its})
        if classes is None:
            if not named and faults.refuse:
                raise DataError(
                    f"{source}: no object in any of its {len(names)} files, so there are no classes"
                )
            classes = Classes(names=tuple(named), ids=tuple(range(1, len(named) + 1)))
        elif named and not set(named) & set(classes.names):
            raise DataError(
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
                faults.add(
                    "box-other-class", where[position], text, image=images[position].id, item=each.number
                )
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
            turned=measured > 0 if data.exif_rotation is None else data.exif_rotation,
            measured=bool(images) and measured == len(images),
        )


class _Files:
    """The files of an image folder by name without suffix: one listing instead of many look-ups."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_stem: dict[str, str] = {}
        for path in images_in(folder):
            self.by_stem.setdefault(path.stem, path.name)


def _stems(folder: Path) -> list[str]:
    names = sorted(path.stem for path in folder.glob("*.xml") if not is_hidden(path.name))
    if not names:
        raise DataError(f"{folder}: no XML files in it")
    return names


def _read_image_set(path: Path, faults: Faults) -> list[str]:
    """Return the names of the images of an image set."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as text ({error})") from error
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
    file: Path, name: str, number: int, files: _Files, faults: Faults, data: DataConfig
) -> tuple[Path, tuple[int, int], list[Object], bool] | None:
    """Return the image, its height and width, its objects, and True if the size was read from the image.

    number: the image's id. Returns None if a fault leaves no image.
    """
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
    size = given = read_size(root)
    if size is None:  # some tools write none
        try:
            stored, tag = read_header(path, data.max_pixels)
        except UserError as error:
            kind = fault_kind(path, error, data.on_bad_image == "skip")
            text = f"has no width and height, and they cannot be read from the image: {error}"
            faults.add(kind, file, text, image=number, boxes=len(root.findall("object")))
            return None
        size = stored if data.exif_rotation is False else turned_size(stored, tag)
    objects = [read_object(each, i, file, faults) for i, each in enumerate(root.findall("object"), start=1)]
    return path, size, [each for each in objects if each is not None], given is None


def _find_image(
    root: ElementTree.Element, file: Path, name: str, files: _Files, faults: Faults
) -> Path | None:
    """Return the image with the name of the XML file, else the one that ``filename`` names."""
    given = (root.findtext("filename") or "").strip()
    relative = inside(given)
    own = files.by_stem.get(name)
    if own is None:
        last = PureWindowsPath(given).name  # a path of the machine where it was labelled
        if last and not (relative and is_file(files.folder / relative)) and is_file(files.folder / last):
            return files.folder / last
        if relative is None:
            faults.add("path-leaves", file, f"filename {given!r:.120} leaves {files.folder}")
            return None
        return files.folder / (relative or f"{name}.jpg")
    if relative and own != relative and is_file(files.folder / relative):
        text = f"belongs to {own} by its name, to {relative!r:.120} by 'filename'; {own} is used"
        faults.add("name-differs", file, text)
    return files.folder / own
