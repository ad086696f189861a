"""YOLO: find the labels of a data set, its class names, and the folders of its images."""

from pathlib import Path

from fsaf.data.readers.data_yaml import (
    NAMES_FILES,
    find_classes,
    is_data_yaml,
    read_darknet,
    read_data_yaml,
    yaml_files,
)
from fsaf.data.readers.image_files import is_hidden, is_image, walk
from fsaf.data.readers.layout import DEEPEST, SPLIT_NAMES, UNSPLIT, first_folder, split_of
from fsaf.data.readers.yolo import YoloSplit, splits_in
from fsaf.data.records import Split
from fsaf.errors import DataError, UserError

NAME = "YOLO"
LAYOUT = "data.yaml, obj.data or images with .txt labels (YOLO)"
"""Names that are looked for, for the message if there are none."""


def find(data: Path) -> dict[str, Split]:
    """Return the splits of a data.yaml or obj.data, or of a folder in YOLO's layouts, by name."""
    if data.is_file():
        return _named(data) if data.suffix in (".yaml", ".yml", ".data") else {}
    if named := named_yaml(data):
        return _named(named)
    splits: dict[str, Split] = {}
    for name in SPLIT_NAMES:
        for labels, images in ((f"labels/{name}", f"images/{name}"), (f"{name}/labels", f"{name}/images")):
            if (data / labels).is_dir() and (data / images).is_dir():
                splits[name] = _labels(data / labels, data / images)
    if not splits and (data / "labels").is_dir() and (data / "images").is_dir():
        splits[UNSPLIT] = _labels(data / "labels", data / "images")
    return splits


def search(data: Path) -> dict[Path, tuple[str, Split]]:
    """Return the splits of any data.yaml or obj.data below a folder, else folders of labelled images."""
    folders = list(walk(data, DEEPEST))
    files = [folder / name for folder, names in folders for name in names]
    named = [file for file in files if file.suffix in (".yaml", ".yml") and is_data_yaml(file)]
    named = named or [file for file in files if file.suffix == ".data" and _is_darknet(file)]
    if named:
        return {file / name: (name, split) for file in named for name, split in _named(file).items()}
    return {
        folder: (split_of(folder, data), _labels(folder, folder))
        for folder, names in folders
        if _has_labelled(folder, names)
    }


def at(annotations: Path, images: Path | None, role: str) -> Split | None:
    """Return the split of a folder of labels, or ``role`` of a data.yaml, that a config names, else None."""
    if annotations.is_dir() and any(not is_hidden(path.name) for path in annotations.glob("*.txt")):
        return _labels(annotations, images or _swap(annotations, "labels", "images"))
    if annotations.suffix not in (".yaml", ".yml", ".data"):
        return None
    splits = _named(annotations)
    if role not in splits:
        raise DataError(f"{annotations}: names no split {role!r}; it has: {', '.join(splits) or 'none'}")
    return splits[role]


def named_yaml(folder: Path) -> Path | None:
    """Return the data.yaml of a folder, whatever its name. Raises UserError if there are several."""
    for name in NAMES_FILES:
        if (folder / name).is_file():
            return folder / name
    files = [file for file in yaml_files(folder) if is_data_yaml(file)]
    if len(files) > 1:
        raise DataError(
            f"{folder}: any of {', '.join(file.name for file in files)} could be meant; give one itself"
        )
    return files[0] if files else None


def _named(file: Path) -> dict[str, Split]:
    content = read_darknet(file) if file.suffix == ".data" else read_data_yaml(file)
    return {**splits_in(content, file)}


def _is_darknet(file: Path) -> bool:
    try:
        return bool(read_darknet(file).splits)
    except UserError:
        return False


def _has_labelled(folder: Path, names: list[str]) -> bool:
    """Return True if a folder holds an image and a text file of the same name."""
    texts = {name[:-4] for name in names if name.endswith(".txt")}
    return any(Path(name).stem in texts and is_image(folder / name) for name in names if name[-4:] != ".txt")


def _labels(labels: Path, images: Path) -> YoloSplit:
    return YoloSplit(
        source=labels, root=images, images=(images,), classes=find_classes(labels), labels=labels
    )


def _swap(folder: Path, old: str, new: str) -> Path:
    """Return ``folder`` with its last part ``old`` made ``new`` if that is a folder, else ``folder``."""
    parts = list(folder.parts)
    if old in parts:
        parts[len(parts) - 1 - parts[::-1].index(old)] = new
    return first_folder([Path(*parts)]) or folder
