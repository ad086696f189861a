"""Pascal VOC: find the XML files of a data set, and the folders of their images."""

from itertools import islice
from pathlib import Path

from fsaf.data.readers.image_files import images_in, is_hidden, walk
from fsaf.data.readers.layout import DEEPEST, SPLIT_NAMES, UNSPLIT, first_folder, split_of
from fsaf.data.readers.voc import VocSplit
from fsaf.data.records import Split
from fsaf.errors import DataError

NAME = "Pascal VOC"
LAYOUT = "folder of XML files (Pascal VOC)"
"""Names that are looked for, for the message if there are none."""


def find(data: Path) -> dict[str, Split]:
    """Return the splits of a file of ImageSets/Main, or of a folder in VOC's layouts, by name."""
    if data.is_file():
        split = at(data, None, UNSPLIT)
        return {data.stem: split} if split else {}
    splits: dict[str, Split] = {}
    for folder in (data / "Annotations", data / "annotations"):
        if not folder.is_dir():
            continue
        sets = data / "ImageSets" / "Main"
        files = sorted((sets if sets.is_dir() else sets.parent).glob("*.txt"))
        for file in files:
            if file.stem in (*SPLIT_NAMES, "trainval"):  # other files list the images of one class
                splits[file.stem] = _split(folder, data, image_set=file)
        for name in SPLIT_NAMES:
            if _has_xml(folder / name):
                splits[name] = _split(folder / name, data)
        if not splits and _has_xml(folder):
            splits[UNSPLIT] = _split(folder, data)
        if splits:
            return splits
    for name in SPLIT_NAMES:
        for folder in (data / name, data / name / "Annotations", data / name / "annotations"):
            if _has_xml(folder):
                splits[name] = _split(folder, data)
    return splits


def search(data: Path) -> dict[Path, tuple[str, Split]]:
    """Return all folders of VOC's XML files below a folder, each with its split's name."""
    return {
        folder: (split_of(folder, data), _split(folder, data))
        for folder, _ in walk(data, DEEPEST)
        if _has_xml(folder, look=True)
    }


def at(annotations: Path, images: Path | None, role: str) -> Split | None:
    """Return the split of a folder of XML files, or of a file of ImageSets/Main, else None."""
    if annotations.is_dir():
        return _split(annotations, annotations.parent, images=images) if _has_xml(annotations) else None
    if annotations.suffix != ".txt":
        return None
    for folder in list(annotations.absolute().parents)[:4]:
        for name in ("Annotations", "annotations"):
            if (folder / name).is_dir():
                return _split(folder / name, folder, images=images, image_set=annotations)
    raise DataError(f"{annotations}: no folder Annotations of XML files beside or above it")


def _has_xml(folder: Path, look: bool = False) -> bool:
    """Return True if a folder holds XML files; look: only if the first of them is an annotation."""
    first = next((path for path in sorted(folder.glob("*.xml")) if not is_hidden(path.name)), None)
    if first is None or not look:
        return first is not None
    try:
        with first.open("rb") as file:
            return b"annotation" in file.read(4096).replace(b"\0", b"")  # also in UTF-16
    except OSError:
        return False


def _split(
    annotations: Path, data: Path, *, images: Path | None = None, image_set: Path | None = None
) -> VocSplit:
    return VocSplit(
        annotations=annotations, images=images or _images_for(annotations, data), image_set=image_set
    )


def _images_for(annotations: Path, data: Path) -> Path:
    """Return the folder with images named like the XML files: a usual one, else any below ``data``."""
    name, above = annotations.name, annotations.parent
    usual = [above / "JPEGImages", above / "images", annotations]
    if name in SPLIT_NAMES:
        usual = [data / f"images/{name}", data / f"JPEGImages/{name}", annotations, *usual]
    stems = {path.stem for path in islice(sorted(annotations.glob("*.xml")), 20)}
    places = [folder for folder in usual if folder.is_dir()]
    places += [folder for folder, _ in walk(data, DEEPEST) if folder not in places]
    for folder in places:
        if any(path.stem in stems for path in images_in(folder)):
            return folder
    return first_folder(usual) or annotations
