"""COCO JSON: read the list of images, and find their files."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path, PureWindowsPath
from typing import Any

from fsaf.config import DataConfig
from fsaf.data.decode import fault_kind, is_file, read_header
from fsaf.data.exif import turned_size
from fsaf.data.faults import Faults
from fsaf.data.readers.coco_json import whole
from fsaf.data.readers.image_files import walk
from fsaf.data.readers.layout import DEEPEST
from fsaf.data.records import ImageRecord, inside
from fsaf.errors import DataError, UserError


class ImageList:
    """Reads the images of one file. ``folder`` is the folder that their names start from."""

    def __init__(
        self, file: Path, faults: Faults, data: DataConfig, folders: Sequence[Path], root: Path | None
    ) -> None:
        self.file, self.faults, self.data, self.folders = file, faults, data, folders
        self.root = root or (folders[0] if folders else file.parent)
        self.set_name = self.root.resolve().name
        self.turned = data.exif_rotation is not False
        self.measured = 0
        self.by_last_part = False
        """Images are found by the last part of ``file_name``, since none is by the whole."""
        self.lost: dict[int | str, int] = {}
        """Images that a fault leaves out, with their boxes: their id by the one that the file gives."""
        self.folder = folders[0] if folders else file.parent

    def choose_folder(self, entries: list[Any]) -> None:
        """Take the first folder that holds one of the first images, else any folder below the data set's.

        Raises UserError if none does.
        """
        given = [entry.get("file_name") for entry in entries[:20] if isinstance(entry, dict)]
        names = [name for name in given if isinstance(name, str)]
        below = (folder for folder, _ in walk(self.root, DEEPEST))
        for folder in chain(self.folders, below):
            if any((path := self._locate(name, folder)) and is_file(path) for name in names):
                self.folder = folder
                return
        below = (folder for folder, _ in walk(self.root, DEEPEST))
        for folder in chain(self.folders, below):  # paths of the machine where the images were labelled
            if any(last and is_file(folder / last) for last in map(_last, names)):
                self.folder, self.by_last_part = folder, True
                return
        if self.faults.refuse and any(map(inside, names)):
            raise DataError(
                f"{self.file}: none of its first images ({names[0]!r:.80} ...) is in any of "
                f"{', '.join(map(str, self.folders)) or 'the usual folders'}; give annotations and images of "
                "the split"
            )

    def _locate(self, name: str, folder: Path) -> Path | None:
        """Return the path that a ``file_name`` means; None if it leaves the folder of the data set."""
        if self.by_last_part:
            return folder / _last(name) if _last(name) else None
        if (relative := inside(name)) is not None:
            path = folder / relative
            first, _, rest = relative.partition("/")
            if rest and first == self.set_name and not is_file(path) and is_file(folder / rest):
                return folder / rest
            return path
        if "\0" not in name and ".." not in Path(name).parts:
            for base in (folder, self.root):
                for real in (base.absolute(), base.resolve()):
                    if Path(name).is_relative_to(real):
                        return base / Path(name).relative_to(real)
        return None

    def read(self, entries: list[Any]) -> tuple[list[ImageRecord], dict[int | str, int]]:
        """Return the images, and their positions by the id that the file gives them."""
        images: list[ImageRecord] = []
        position: dict[int | str, int] = {}
        ambiguous: set[int | str] = set()
        seen: set[Path] = set()
        largest = max((whole(each.get("id")) or 0 for each in entries if isinstance(each, dict)), default=0)
        text_ids = 0
        for number, entry in enumerate(entries):
            name = entry.get("file_name") if isinstance(entry, dict) else None
            given = image_key(entry.get("id")) if isinstance(entry, dict) else None
            if given is None or not isinstance(name, str):
                text = f"image {entry!r:.120}: needs 'id', 'file_name', 'width' and 'height'"
                self.faults.add("entry", self.file, text)
                continue
            id_ = given
            if isinstance(id_, str):
                text_ids += 1
                id_ = largest + text_ids
                text = f"image id {given!r:.80} is numbered {id_}"
                self.faults.add("image-id-text", self.file, text, image=id_)
            path = self._locate(name, self.folder)
            if path is None or (self.by_last_part and path in seen):
                text = f"image {given!r}: file_name {name!r:.120} leaves {self.folder}"
                if path is not None:
                    text = f"image {given!r}: another file_name ends in {path.name!r:.120} too"
                self.faults.add("path-leaves", self.file, text, image=id_)
                self.lost[given] = id_
                continue
            if given in position:
                same = images[position[given]].path == path
                text = f"image id {given!r} appears twice" + (
                    "" if same else f", the second time for {name!r:.80}"
                )
                self.faults.add("image-id-twice", self.file, text, image=id_)
                if not same:
                    ambiguous.add(given)
                continue
            seen.add(path)
            size = self._size(entry, path, id_)
            if size is None:
                self.lost[given] = id_
                continue
            position[given] = len(images)
            images.append(ImageRecord(id=id_, path=path, width=size[1], height=size[0], entry=number))
        if ambiguous:  # it is unknown which of the images their boxes belong to
            self.lost |= {id_: images[position[id_]].id for id_ in ambiguous}
            gone = {position.pop(id_) for id_ in ambiguous}
            kept = [place for place in range(len(images)) if place not in gone]
            new = {place: i for i, place in enumerate(kept)}
            return [images[place] for place in kept], {id_: new[place] for id_, place in position.items()}
        return images, position

    def _size(self, entry: dict[str, Any], path: Path, id_: int) -> tuple[int, int] | None:
        """Return height and width of an entry, else of its image; None, with a fault, if neither has any."""
        given = entry.get("height"), entry.get("width")
        height, width = map(whole, given)
        if height is not None and width is not None and min(height, width) > 0 and max(height, width) < 2**31:
            if type(given[0]) is int and type(given[1]) is int:
                return height, width
            text = f"image {id_}: width {given[1]!r:.40}, height {given[0]!r:.40}"
            self.faults.add("loose-number", self.file, text, image=id_)
            return height, width
        if any(isinstance(value, (int, float)) and value > 2**31 for value in given):
            text = f"image {id_}: 'width' {given[1]!r:.40}, 'height' {given[0]!r:.40} are too large"
            self.faults.add("entry", self.file, text, image=id_)
            return None
        try:
            stored, tag = read_header(path, self.data.max_pixels)
        except UserError as error:
            kind = fault_kind(path, error, self.data.on_bad_image == "skip")
            text = str(error).removeprefix(f"{path}: ")
            self.faults.add(kind, path, f"{text}, and {self.file} gives no size", image=id_)
            return None
        text = f"image {id_}: 'width' is {given[1]!r:.40}, 'height' is {given[0]!r:.40}; read from the file"
        self.faults.add("size-missing", self.file, text, image=id_)
        self.measured += 1
        return turned_size(stored, tag) if self.turned else stored


def _last(name: str) -> str:
    """Return the last part of a path in the notation of any system."""
    return PureWindowsPath(name).name.replace("\0", "")


def image_key(value: object) -> int | str | None:
    """Return an image id as a whole number if it means one, else as text; None if it is neither."""
    number = whole(value)
    return number if number is not None else value if isinstance(value, str) else None
