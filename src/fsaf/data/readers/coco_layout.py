"""COCO: find the JSON files of a data set, and the folders of their images."""

from pathlib import Path

from fsaf.data.readers.coco import CocoSplit
from fsaf.data.readers.coco_json import is_coco
from fsaf.data.readers.image_files import walk
from fsaf.data.readers.layout import DEEPEST, SPLIT_NAMES, UNSPLIT, is_split_name, split_of
from fsaf.data.records import Split

NAME = "COCO"
LAYOUT = "JSON file with images, annotations and categories (COCO)"
"""Names that are looked for, for the message if there are none."""


def find(data: Path) -> dict[str, Split]:
    """Return the splits of a JSON file, or of a folder in COCO's own layouts, by name.

    If there are ``instances_*.json``, other JSON files beside them (captions, keypoints) are not read.
    """
    if data.is_file():
        split = at(data, None, UNSPLIT)
        return {_name(data): split} if split else {}
    files = sorted((data / "annotations").glob("*.json"))
    files = [file for file in files if is_split_name(_name(file)) or is_coco(file)]
    files = files or [file for name in SPLIT_NAMES for file in sorted((data / name).glob("*.coco.json"))]
    files = files or sorted(file for file in data.glob("*.json") if is_split_name(_name(file)))
    files = [file for file in files if file.name.startswith("instances_")] or files
    return {_name(file): _split(file, data) for file in files}


def search(data: Path) -> dict[Path, tuple[str, Split]]:
    """Return all COCO files below a folder, recognised by their keys, each with its split's name."""
    files = [
        folder / name
        for folder, names in walk(data, DEEPEST - 1)
        for name in names
        if name.lower().endswith(".json") and is_coco(folder / name)
    ]
    return {file: (_name_below(file, data), _split(file, data)) for file in files}


def at(file: Path, images: Path | None, role: str) -> Split | None:
    """Return the split of a JSON file that a config names, else None."""
    if file.is_dir() or file.suffix in (".txt", ".yaml", ".yml", ".data"):
        return None
    if images is None:
        return _split(file, _root(file))
    return CocoSplit(annotations=file, images=(images,), root=_root(file))


def _name(file: Path) -> str:
    """Return the name of the split in a JSON file, from the name of the file or of its folder."""
    if file.name.endswith(".coco.json"):  # train/_annotations.coco.json
        return file.parent.name
    return file.stem.removeprefix("instances_") or file.stem


def _name_below(file: Path, data: Path) -> str:
    name = _name(file)
    return name if is_split_name(name) else split_of(file.parent, data)


def _root(file: Path) -> Path:
    return file.parent.parent if file.parent.name == "annotations" else file.parent


def _split(file: Path, data: Path) -> CocoSplit:
    """Return the split of a file, with the folders that ``file_name`` may start from, the likeliest first."""
    root, name = _root(file), _name(file)
    if file.name.endswith(".coco.json"):
        return CocoSplit(annotations=file, images=(file.parent,), root=data)
    names = (f"images/{name}", name, "images", "data", ".")
    folders = [root / each for each in names]
    folders += [data / each for each in names] if data != root else []
    folders += [root.parent / "images"] if root != data else []
    images = tuple(dict.fromkeys(folder for folder in folders if folder.is_dir()))
    return CocoSplit(annotations=file, images=images, root=data)
