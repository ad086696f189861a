"""Classes as files list them."""

from typing import Any

from fsaf.checkpoints.structure import fits
from fsaf.config import limits
from fsaf.data.records import Classes
from fsaf.errors import CheckpointError


def read_classes(names: Any, ids: Any, where: str) -> Classes:
    """Return the classes that ``where`` lists as names and ids; raise CheckpointError if they are damaged."""
    if not fits(names, list[str]) or not fits(ids, list[int]) or len(names) != len(ids):
        raise CheckpointError(
            f"{where}: its classes are damaged; they must be two lists of one length, of names and of whole "
            "numbers"
        )
    check_count(len(names), where)
    if len(set(ids)) < len(ids) or not all(abs(id_) < 2**63 for id_ in ids):
        raise CheckpointError(f"{where}: its category ids are damaged; each must occur once, within 64 bits")
    return Classes(names=tuple(names), ids=tuple(ids))


def check_count(classes: int, where: str) -> None:
    """Raise CheckpointError unless the number of classes in ``where`` is between 1 and ``limits.CLASSES``."""
    if not 1 <= classes <= limits.CLASSES:
        raise CheckpointError(f"{where}: has {classes:,} classes; 1 to {limits.CLASSES:,} are possible")
