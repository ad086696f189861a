"""Survey a data set: read its splits, then check annotations, images and doubles."""

from dataclasses import dataclass, field
from pathlib import Path

from fsaf.checking.annotations import check_annotations, check_left, read_splits
from fsaf.checking.doubles import add_doubles
from fsaf.checking.images import ImageFile, decode_images
from fsaf.checking.roles import Roles, roles_of
from fsaf.config import Config
from fsaf.data.readers.holdout import HeldOut
from fsaf.data.readers.splits import splits_of
from fsaf.data.records import Records, Split
from fsaf.errors import DataError


@dataclass(kw_only=True)
class Survey:
    """Everything that is known of a data set."""

    root: Path
    """The folder, or file, that was surveyed."""
    splits: dict[str, Split]
    """The splits by name, also those that are named but missing."""
    read: dict[str, Records]
    """Contents and faults of each split that exists."""
    roles: Roles
    """The splits that training uses."""
    files: dict[str, list[ImageFile]] | None = None
    """Results of opening the images; None if they were not opened."""
    notes: list[str] = field(default_factory=list)
    """Sentences on how the data set was read."""

    @property
    def used(self) -> dict[str, Records]:
        """The splits that training uses; all, if it uses none."""
        return {name: self.read[name] for name in self.roles.used} or self.read

    @property
    def refused(self) -> bool:
        """True if training would refuse the data: no split to train on, or a refused fault.

        A single file of another split, such as val.json, is judged by its faults alone.
        """
        if not self.read or (self.roles.train is None and self.root.is_dir()):
            return True
        return any(records.faults.refused for records in self.used.values())


def open_survey(config: Config) -> Survey:
    """Read the splits of ``config.data``, without checking them. Raises UserError if a file is unreadable."""
    root = Path(config.data.root or ".")
    splits = splits_of(config.data)
    roles = roles_of(splits, root)
    read = read_splits(splits, config.data)
    notes = [split.missing for split in splits.values() if split.missing]
    if roles.val and isinstance(splits[roles.val], HeldOut) and not read[roles.val].images:
        del splits[roles.val], read[roles.val]
        roles = Roles(roles.train, None)
        notes.append("too few images to hold one out, so nothing is evaluated")
    notes += [f"{name}: {note}" for name, records in read.items() for note in records.notes]
    return Survey(root=root, splits=splits, read=read, roles=roles, notes=notes)


def survey(config: Config, *, open_images: bool = True) -> Survey:
    """Read and check the data of ``config`` as training with it would use them.

    open_images: decode every image too. Raises UserError if an annotation file is unreadable.
    """
    found = open_survey(config)
    if not found.read:
        raise DataError(found.notes[0])
    check_annotations(found.read, config, found.roles)
    if open_images:
        found.files = decode_images(found.read, config.data, found.roles)
        if config.data.on_bad_image == "skip":
            check_left(found.used)
        note = add_doubles(found.read, found.files, found.roles)
        found.notes += [note] if note else []
    return found
