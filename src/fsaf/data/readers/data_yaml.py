"""YOLO's files that name classes and splits: ``data.yaml``, and Darknet's ``obj.data``."""

from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import yaml

from fsaf.data.readers.layout import is_split_name
from fsaf.data.records import Classes, inside
from fsaf.errors import DataError, UserError

NAMES_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
LIST_FILES = ("classes.txt", "obj.names", "_darknet.labels")
"""Files with the name of a class in each line."""
_KEYS = ("train", "val", "valid", "validation", "test")


class DataYaml(NamedTuple):
    """The contents of a data.yaml."""

    classes: Classes
    root: Path
    """The folder that its paths start from."""
    splits: dict[str, tuple[Path, ...]]
    """Folders of images, or .txt lists of images, of ``train``, ``val`` and ``test``."""
    missing: dict[str, str]
    """Splits whose places do not exist, with a sentence on each."""
    keypoints: int
    """Numbers that follow the box of a line (``kpt_shape``)."""


def read_data_yaml(path: Path) -> DataYaml:
    """Read data.yaml.

    Its paths start from ``path:`` as Ultralytics means it, else from the file's folder; the user chose that
    folder, but its splits must not leave it. Raises UserError, naming file and value.
    """
    data = _load_yaml(path)
    if not isinstance(data, dict):
        raise DataError(f"{path}: not YOLO's data.yaml: needs keys 'names' and 'train'")
    classes = _read_names(data, path)
    return _read_splits(path, data, classes, _find_root(path, data.get("path")), _keypoints(data, path))


def read_darknet(path: Path) -> DataYaml:
    """Read Darknet's ``obj.data``: lines ``key = value`` with ``names``, ``train`` and ``valid``."""
    lines = [line.partition("=") for line in read_lines(path) if line.count("=") == 1]
    data = {key.strip(): value.strip() for key, _, value in lines}
    root = path.parent
    names = _resolve(data.get("names", "obj.names"), root) or root / "obj.names"
    if not names.is_file():
        raise DataError(f"{path}: names: {data.get('names', 'obj.names')!r:.120} is not in {root}")
    return _read_splits(path, data, _listed_names(names), root, 0)


def is_data_yaml(path: Path) -> bool:
    """Return True if a YAML file names classes and a split."""
    content = _load_any(path)
    return "names" in content and any(key in content for key in _KEYS)


def yaml_files(folder: Path) -> list[Path]:
    """Return the YAML files directly in a folder, sorted, without hidden ones."""
    return sorted(path for path in folder.glob("*.y*ml") if not path.name.startswith(".") and path.is_file())


def find_classes(folder: Path) -> Classes:
    """Return the class names for a folder of labels, from a file in it or up to two folders above.

    Raises UserError if there are none.
    """
    above = folder.absolute().parent
    deep = above.name == "labels" or is_split_name(above.name)  # labels/train, train/labels
    for i, place in enumerate((folder, above, above.parent)):
        for name in NAMES_FILES:
            if (place / name).is_file():
                return _read_names(_load_yaml(place / name), place / name)
        for name in LIST_FILES:
            if (place / name).is_file():
                return _listed_names(place / name)
        for file in yaml_files(place) if i < 2 or deep else []:  # not those of another data set
            if "names" in _load_any(file):
                return _read_names(_load_yaml(file), file)
    raise DataError(
        f"{folder}: no class names; put data.yaml with 'names', or classes.txt, beside the labels"
    )


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, stripped. Raises UserError if it is not readable as text."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as text ({error})") from error


def resolve_listed(line: str, place: Path, root: Path) -> Path | None:
    """Return the image that a line of list ``place`` names; None if it leaves ``root``."""
    if line.startswith("./") and (name := inside(line)):
        return place.parent / name
    path = _resolve(line, root)
    return None if path and line.startswith("../") and not path.exists() else path


def _find_root(path: Path, given: object) -> Path:
    """Return the folder that ``path:`` means: absolute, or from the file's, the working or the parent folder.

    Without such a folder, as on another machine, the file's own folder.
    """
    if isinstance(given, str) and given.strip() and "\0" not in given:
        here = path.parent
        for start in (here, Path(), here.parent):
            if (start / given).is_dir():
                return start / given
        if (here / PureWindowsPath(given).name).is_dir():
            return here / PureWindowsPath(given).name
    return path.parent


def _read_splits(path: Path, data: dict[str, Any], classes: Classes, root: Path, keypoints: int) -> DataYaml:
    splits: dict[str, tuple[Path, ...]] = {}
    missing: dict[str, str] = {}
    for key in _KEYS:
        value = data.get(key)
        if not value:
            continue
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(each, str) for each in values):
            raise DataError(f"{path}: {key}: must be a path or a list of paths")
        name = "val" if key.startswith("val") else key
        if name in splits:
            continue
        places = [_find_place(each, root, path, key) for each in values]
        gone = next((each for each, place in zip(values, places, strict=True) if place is None), None)
        if gone is None:
            splits[name] = tuple(place for place in places if place is not None)
            missing.pop(name, None)
        else:
            missing[name] = f"{path}: {key}: {gone!r:.120} is neither a folder nor a .txt list in {root}"
    return DataYaml(classes, root, splits, missing, keypoints)


def _find_place(value: str, root: Path, path: Path, key: str) -> Path | None:
    """Return the folder or list of images that data.yaml names; None if it does not exist."""
    place = _resolve(value, root)
    if place is None:
        raise DataError(f"{path}: {key}: {value!r:.120} leaves {root}; write it relative to that folder")
    if place.is_dir() or (place.suffix == ".txt" and place.is_file()):
        return place
    return None


def _resolve(value: str, root: Path) -> Path | None:
    """Return the path that a value means below ``root``; None if it leaves ``root``.

    A leading ``../`` is dropped if the path does not exist with it: Roboflow writes it. So is a first folder
    named like the root, or Darknet's ``data``, if the rest exists.
    """
    if Path(value).is_absolute():
        for base in {root.absolute(), root.resolve()}:
            if Path(value).is_relative_to(base):
                value = str(Path(value).relative_to(base))
    name = value.replace("\\", "/")
    while name.startswith("../"):
        name = name[3:]
    relative = inside(name)
    if relative is None:
        return None
    parts = Path(relative).parts
    if len(parts) > 1 and parts[0] in (root.resolve().name, "data") and not (root / relative).exists():
        shorter = root.joinpath(*parts[1:])
        return shorter if shorter.exists() else root / relative
    return root / relative


def _load_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Exception as error:  # the parser also raises ValueError, TypeError, RecursionError, ...
        raise DataError(f"{path}: not readable as YAML ({' '.join(str(error).split())[:200]})") from error


def _load_any(path: Path) -> dict[Any, Any]:
    """Return the keys of any YAML file; none if it is not readable."""
    try:
        content = _load_yaml(path)
    except UserError:
        return {}
    return content if isinstance(content, dict) else {}


def _read_names(data: Any, path: Path) -> Classes:
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if isinstance(names, dict):
        names = {
            int(key) if type(key) is str and key.isdecimal() else key: name for key, name in names.items()
        }
    if not isinstance(names, dict) or not names:
        raise DataError(f"{path}: needs 'names', a list of class names or a number and a name each")
    for index, name in names.items():
        # The message shows no value: YAML's references can make a huge one of a few lines.
        if type(index) is not int or not 0 <= index < 2**31 or not isinstance(name, (str, int, float)):
            raise DataError(f"{path}: names: must be a name for each number from 0")
    count = data.get("nc")
    if type(count) is int and count != len(names):
        raise DataError(f"{path}: nc is {count}, but there are {len(names)} names")
    ids = sorted(names)
    return Classes(names=tuple(str(names[index]) for index in ids), ids=tuple(ids))


def _listed_names(path: Path) -> Classes:
    lines = read_lines(path)
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"{path}: holds no class names")
    return Classes(names=tuple(lines), ids=tuple(range(len(lines))))


def _keypoints(data: dict[str, Any], path: Path) -> int:
    """Return how many numbers the keypoints of a line take: ``kpt_shape`` is their number and dimension."""
    shape = data.get("kpt_shape")
    if shape is None:
        return 0
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and n > 0 for n in shape)):
        raise DataError(f"{path}: kpt_shape: must be the number of keypoints and 2 or 3")
    return int(shape[0] * shape[1])
