"""Find the splits of a data set, whatever its format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from fsaf.data.readers import coco, voc, yolo
from fsaf.data.records import Split
from fsaf.errors import UserError


class Reader(Protocol):
    """A format: a module of this folder."""

    NAME: str
    LAYOUT: str

    def find(self, data: Path) -> dict[str, Split]:
        """Return the splits of a folder or file by name; none if it holds no data of this format."""

    def at(self, annotations: Path, images: Path | None, role: str) -> Split | None:
        """Return the split of a file or folder that a config names; None if it is not of this format."""


READERS: tuple[Reader, ...] = (coco, voc, yolo)


def find_splits(data: Path) -> dict[str, Split]:
    """Return the splits of a data set by name, found by the layouts that docs/your-data.md lists.

    data: the folder of a data set; or one COCO JSON file, data.yaml, file of ImageSets/Main, folder of XML
    files or of YOLO labels. Raises UserError if it holds no data, or data of several formats.
    """
    if not data.exists():
        raise UserError(f"{data}: no such file or folder; give a COCO JSON file, or a folder of a data set")
    found = {reader.NAME: splits for reader in READERS if (splits := reader.find(data))}
    if len(found) > 1:
        raise UserError(
            f"{data}: holds data of {' and '.join(found)}; give the one meant itself: its JSON file, folder "
            "of XML files, or data.yaml (in training as --data.train.annotations)"
        )
    if found:
        (splits,) = found.values()
        return splits
    if data.is_file():
        raise UserError(f"{data}: names no split; needs 'train', 'val' or 'test'")
    if any(data.glob("*.xml")) or any(data.glob("*.txt")):
        return {"all": _at(data)}
    looked = ", no ".join(reader.LAYOUT for reader in READERS)
    raise UserError(f"{data}: no data set found: no {looked} in it; layouts: docs/your-data.md")


def choose_split(splits: Mapping[str, Split], role: str, data: Path) -> tuple[str, Split] | None:
    """Return the split to train on (role ``train``) or to evaluate on (``val``: else a test split), or None.

    Raises UserError if several could be meant.
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
    """Return the split of an annotation file or folder that a config names.

    annotations: a COCO JSON file; a folder of XML files or a file of ImageSets/Main; data.yaml (its split
    ``role``) or a folder of labels. images: the folder of the images; only COCO needs it.
    Raises UserError if it is none of these.
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
    return _at(annotations, images, role)


def _at(annotations: Path, images: Path | None = None, role: str = "all") -> Split:
    for reader in READERS:
        split = reader.at(annotations, images, role)
        if split is not None:
            return split
    raise UserError(f"{annotations}: holds neither XML files (Pascal VOC) nor .txt labels (YOLO)")
