"""Which format a folder or file is in, and where its splits lie."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from fsaf.data.readers.coco import CocoSplit
from fsaf.data.readers.voc import VocSplit
from fsaf.data.readers.yolo import NAMES_FILES, YoloSplit, find_classes, read_data_yaml
from fsaf.errors import UserError

Split: TypeAlias = CocoSplit | VocSplit | YoloSplit
"""Where a split lies, and how it is read."""

USUAL = ("train", "val", "valid", "validation", "dev", "test")
"""Names of splits."""


def find_splits(data: Path) -> dict[str, Split]:
    """The splits of a data set by name, found by the layouts that docs/your-data.md lists.

    data: the folder of a data set; or one COCO JSON file, data.yaml, ImageSets/Main/*.txt, folder of XML
    files or of YOLO labels. Of COCO's own archives, whose folder also holds captions and keypoints of the
    same images, only ``instances_*.json`` are taken.
    Raises UserError where there is none, or more than one format.
    """
    if data.is_file() and data.suffix in (".yaml", ".yml"):
        splits: dict[str, Split] = {**read_data_yaml(data)}
        if not splits:
            raise UserError(f"{data}: names no split; needs 'train', 'val' or 'test'")
        return splits
    if data.is_file():
        return {_name(data): _given(data, None, _name(data))}
    if not data.is_dir():
        raise UserError(f"{data}: no such file or folder; give a COCO JSON file, or a folder of a data set")
    found = {"COCO": _find_coco(data), "Pascal VOC": _find_voc(data), "YOLO": _find_yolo(data)}
    found = {name: its for name, its in found.items() if its}
    if len(found) > 1:
        raise UserError(
            f"{data}: holds data of {' and '.join(found)}; give the one meant itself: its JSON file, folder "
            "of XML files, or data.yaml (in training as --data.train.annotations)"
        )
    if found:
        (splits,) = found.values()
        return splits
    if any(data.glob("*.xml")) or any(data.glob("*.txt")):
        return {"all": _given(data, None, "all")}
    raise UserError(
        f"{data}: no data set found: no annotations/*.json (COCO) in it, no ImageSets/Main/*.txt or folder "
        "of XML files (Pascal VOC), no data.yaml or images/ with labels/ (YOLO); layouts: docs/your-data.md"
    )


def choose_split(splits: Mapping[str, Split], role: str, data: Path) -> tuple[str, Split] | None:
    """The split to train on (role ``train``) or to evaluate on (``val``: one so named, else a test split).

    Raises UserError where several could be meant.
    """
    for prefix in ("train",) if role == "train" else ("val", "dev", "test"):
        names = [name for name in splits if name.lower().startswith(prefix)]
        if prefix == "train" and len(names) > 1:
            names = [name for name in names if not name.lower().startswith("trainval")]
        names = [name for name in names if name == prefix] or names
        if len(names) > 1:
            raise UserError(
                f"{data}: any of the splits {', '.join(names)} could be meant; give "
                f"--data.{role}.annotations and --data.{role}.images"
            )
        if names:
            return names[0], splits[names[0]]
    return None


def given_split(annotations: Path, images: Path | None, role: str) -> Split:
    """The split of an annotation file or folder that a config names; ``images`` may be None but for COCO.

    annotations: a COCO JSON file; a folder of XML files or a file of ImageSets/Main; data.yaml (its split
    ``role``) or a folder of labels. Raises UserError where it is none of these.
    """
    if images is None and annotations.suffix == ".json":
        raise UserError(
            f"data.{role}.images is not set; give it in the config or as --data.{role}.images PATH"
        )
    if not annotations.exists():
        raise UserError(
            f"{annotations}: no such file; check --data.root and --data.{role}.annotations "
            f"(null, and --data.{role}.images null, to have the split found in data.root)"
        )
    if images is not None and not images.is_dir():
        raise UserError(
            f"{images}: no such image folder (needed by {annotations}); check data.root and images"
        )
    return _given(annotations, images, role)


def _given(annotations: Path, images: Path | None, role: str) -> Split:
    if annotations.is_dir():
        if any(annotations.glob("*.xml")):
            return VocSplit(annotations=annotations, images=images or _voc_images(annotations))
        if any(annotations.glob("*.txt")):
            return _labels(annotations, images or _swap(annotations, "labels", "images"))
        raise UserError(f"{annotations}: holds neither XML files (Pascal VOC) nor .txt labels (YOLO)")
    if annotations.suffix in (".yaml", ".yml"):
        splits = read_data_yaml(annotations)
        if role not in splits:
            raise UserError(f"{annotations}: names no split {role!r}; it has: {', '.join(splits) or 'none'}")
        return splits[role]
    if annotations.suffix == ".txt":
        for folder in list(annotations.absolute().parents)[:4]:
            for name in ("Annotations", "annotations"):
                if (folder / name).is_dir():
                    pictures = images or _voc_images(folder / name)
                    return VocSplit(annotations=folder / name, images=pictures, image_set=annotations)
        raise UserError(f"{annotations}: no folder Annotations of XML files beside or above it")
    return CocoSplit(annotations=annotations, images=(images,) if images else _coco_images(annotations))


# -- COCO ---------------------------------------------------------------------------------------------------


def _find_coco(data: Path) -> dict[str, Split]:
    files = sorted((data / "annotations").glob("*.json"))
    files = files or [file for name in USUAL for file in sorted((data / name).glob("*.coco.json"))]
    files = files or sorted(file for file in data.glob("*.json") if _usual(_name(file)))
    files = [file for file in files if file.name.startswith("instances_")] or files
    return {_name(file): CocoSplit(annotations=file, images=_coco_images(file)) for file in files}


def _coco_images(file: Path) -> tuple[Path, ...]:
    """Folders that ``file_name`` may start from, the likeliest first."""
    if file.name.endswith(".coco.json"):
        return (file.parent,)
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    name = _name(file)
    return tuple(folder for folder in _names(root, f"images/{name}", name, "images", ".") if folder.is_dir())


def _name(file: Path) -> str:
    if file.name.endswith(".coco.json"):  # train/_annotations.coco.json
        return file.parent.name
    return file.stem.removeprefix("instances_") or file.stem


# -- Pascal VOC ---------------------------------------------------------------------------------------------


def _find_voc(data: Path) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    for folder in _names(data, "Annotations", "annotations"):
        if not folder.is_dir():
            continue
        sets = data / "ImageSets" / "Main"
        files = sorted((sets if sets.is_dir() else sets.parent).glob("*.txt"))
        for file in files:
            if file.stem in (*USUAL, "trainval"):  # the others list images of a single class
                splits[file.stem] = VocSplit(annotations=folder, images=_voc_images(folder), image_set=file)
        for name in USUAL:
            if any((folder / name).glob("*.xml")):
                pictures = _first(_names(data, f"images/{name}", f"JPEGImages/{name}")) or folder / name
                splits[name] = VocSplit(annotations=folder / name, images=pictures)
        if not splits and any(folder.glob("*.xml")):
            splits["all"] = VocSplit(annotations=folder, images=_voc_images(folder))
        if splits:
            return splits
    for name in USUAL:
        for folder in _names(data / name, ".", "Annotations", "annotations"):
            if any(folder.glob("*.xml")):
                splits[name] = VocSplit(annotations=folder, images=_voc_images(folder))
    return splits


def _voc_images(annotations: Path) -> Path:
    """JPEGImages or images beside the folder of XML files, else the folder itself."""
    return _first(_names(annotations.parent, "JPEGImages", "images")) or annotations


# -- YOLO ---------------------------------------------------------------------------------------------------


def _find_yolo(data: Path) -> dict[str, Split]:
    files = [data / name for name in NAMES_FILES if (data / name).is_file()]
    if files:
        return {**read_data_yaml(files[0])}
    splits: dict[str, Split] = {}
    for name in USUAL:
        for labels, images in ((f"labels/{name}", f"images/{name}"), (f"{name}/labels", f"{name}/images")):
            if (data / labels).is_dir() and (data / images).is_dir():
                splits[name] = _labels(data / labels, data / images)
    if not splits and (data / "labels").is_dir() and (data / "images").is_dir():
        splits["all"] = _labels(data / "labels", data / "images")
    return splits


def _labels(labels: Path, images: Path) -> YoloSplit:
    return YoloSplit(
        source=labels, root=images, images=(images,), classes=find_classes(labels), labels=labels
    )


def _swap(folder: Path, old: str, new: str) -> Path:
    """``folder`` with its last part ``old`` made ``new``, where there is such a folder; else itself."""
    parts = list(folder.parts)
    if old in parts:
        parts[len(parts) - 1 - parts[::-1].index(old)] = new
    return _first([Path(*parts)]) or folder


def _names(folder: Path, *names: str) -> list[Path]:
    return [folder / name for name in names]


def _first(folders: Iterable[Path]) -> Path | None:
    return next((folder for folder in folders if folder.is_dir()), None)


def _usual(name: str) -> bool:
    return name.lower().startswith(("train", "val", "dev", "test"))
