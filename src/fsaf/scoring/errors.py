"""Kinds of wrong detections, and what each costs, after TIDE (Bolya et al., ECCV 2020)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco

from fsaf.data.records import Records, ground_truth

KINDS = {
    "Cls": ("wrong class", "the right place, and another class"),
    "Loc": ("wrong place", "the right class, and an IoU from 0.1 to 0.5"),
    "Both": ("wrong class and place", "another class, and an IoU from 0.1 to 0.5"),
    "Dupe": ("found twice", "a better detection has the box already"),
    "Bkg": ("background", "no box has an IoU of 0.1"),
    "Miss": ("missed", "boxes that none of the above would find"),
}
"""Short name and meaning of each kind, by TIDE's name."""


@dataclass(frozen=True, kw_only=True)
class ErrorKind:
    """A kind of error. cost: how much AP50 would gain if there were none of them."""

    name: str
    meaning: str
    count: int
    cost: float


def error_kinds(records: Records, predictions: Sequence[Mapping[str, Any]]) -> list[ErrorKind]:
    """Return the kinds of error in predictions (COCO's results format), the most costly first.

    An IoU from 0.5 on is the right place. Returns nothing if there are no boxes or no predictions.
    """
    content = dict(ground_truth(records))
    # Names of files and classes play no part, and may hold characters that hotcoco refuses.
    content["images"] = [{**image, "file_name": ""} for image in content["images"]]
    content["categories"] = [{"id": each["id"], "name": str(each["id"])} for each in content["categories"]]
    truth = hotcoco.COCO(content)
    if not predictions or not truth.dataset["annotations"]:
        return []
    evaluation = hotcoco.COCOeval(truth, truth.load_res([dict(entry) for entry in predictions]), "bbox")
    evaluation.evaluate()
    errors = evaluation.tide_errors()
    kinds = [
        ErrorKind(name=name, meaning=meaning, count=errors["counts"][key], cost=errors["delta_ap"][key])
        for key, (name, meaning) in KINDS.items()
    ]
    return sorted(kinds, key=lambda kind: -kind.cost)
