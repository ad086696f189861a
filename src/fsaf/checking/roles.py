"""The splits of a data set that training uses."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from fsaf.data.readers.formats import choose_split
from fsaf.data.records import Split


class Roles(NamedTuple):
    """Names of the splits that training uses."""

    train: str | None
    """The split to train on."""
    val: str | None
    """The split to evaluate on."""

    @property
    def used(self) -> Iterable[str]:
        """The names of both, as far as there are any."""
        return [name for name in self if name is not None]


def roles_of(splits: Mapping[str, Split], data: Path) -> Roles:
    """Return the splits that training would use. Raises UserError if several could be meant."""
    chosen = [choose_split(splits, role, data) for role in ("train", "val")]
    return Roles(*(each and each[0] for each in chosen))
