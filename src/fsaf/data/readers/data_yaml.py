"""YOLO's ``data.yaml``: class names, and the places of the images of each split."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fsaf.data.records import Classes, inside
from fsaf.errors import UserError

NAMES_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


class DataYaml(NamedTuple):
    """The contents of a data.yaml."""

    classes: Classes
    root: Path
    """The folder that its paths start from."""
    splits: dict[str, tuple[Path, ...]]
    """Folders of images, or .txt lists of images, of ``train``, ``val`` and ``test``."""


def read_data_yaml(path: Path) -> DataYaml:
    """Read data.yaml.

    Its paths start from ``path:`` if that is a folder below the file's own, else from the file's folder. A
    leading ``../`` is dropped if the rest exists (some tools write it); other paths that leave the folder are
    refused. Raises UserError, naming file and value.
    """
    data = _load_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: not YOLO's data.yaml: needs keys 'names' and 'train'")
    classes = _read_names(data, path)
    root = path.parent
    given = data.get("path")
    if isinstance(given, str) and (below := inside(given)) and (root / below).is_dir():
        root = root / below
    splits = {}
    for key in ("train", "val", "valid", "test"):
        value = data.get(key)
        if not value:
            continue
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(each, str) for each in values):
            raise UserError(f"{path}: {key}: must be a path or a list of paths")
        splits["val" if key == "valid" else key] = tuple(
            _find_place(each, root, path, key) for each in values
        )
    return DataYaml(classes, root, splits)


def find_classes(folder: Path) -> Classes:
    """Return the class names for a folder of labels, from data.yaml or classes.txt in it or up to two above.

    Raises UserError if there are none.
    """
    for place in (folder, *list(folder.absolute().parents)[:2]):
        for name in NAMES_FILES:
            if (place / name).is_file():
                return _read_names(_load_yaml(place / name), place / name)
        if (place / "classes.txt").is_file():
            return _read_names({"names": read_lines(place / "classes.txt")}, place / "classes.txt")
    raise UserError(
        f"{folder}: no class names; put data.yaml with 'names', or classes.txt, beside the labels"
    )


def _load_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except Exception as error:  # the parser also raises ValueError, TypeError, RecursionError, ...
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())[:200]})") from error


def _read_names(data: Any, path: Path) -> Classes:
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise UserError(f"{path}: needs 'names', a list of class names or a number and a name each")
    for index, name in names.items():
        # The message shows no value: YAML's references can make a huge one of a few lines.
        if type(index) is not int or not 0 <= index < 2**31 or not isinstance(name, (str, int, float)):
            raise UserError(f"{path}: names: must be a name for each number from 0")
    count = data.get("nc")
    if type(count) is int and count != len(names):
        raise UserError(f"{path}: nc is {count}, but there are {len(names)} names")
    ids = sorted(names)
    return Classes(names=tuple(str(names[index]) for index in ids), ids=tuple(ids))


def _find_place(value: str, root: Path, path: Path, key: str) -> Path:
    """Return the folder or list of images that data.yaml names."""
    if Path(value).is_absolute() and Path(value).is_relative_to(root.absolute()):
        value = str(Path(value).relative_to(root.absolute()))
    name = value.replace("\\", "/")
    while name.startswith("../"):
        name = name[3:]
    relative = inside(name)
    if relative is None:
        raise UserError(f"{path}: {key}: {value!r:.120} leaves {root}; write it relative to that folder")
    place = root / relative
    if not (place.is_dir() or (place.suffix == ".txt" and place.is_file())):
        raise UserError(f"{path}: {key}: {value!r:.120} is neither a folder nor a .txt list in {root}")
    return place


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, stripped. Raises UserError if it is not readable as text."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as text ({error})") from error
