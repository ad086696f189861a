"""Which of timm's models serve as a backbone: tries one of each family, and prints docs/backbones.md's table.

    python tools/backbones.py                # one model of each family: under a minute on one core
    python tools/backbones.py swin_ resnet   # all models whose names start so

Models are built and run on the ``meta`` device: nothing is downloaded, and nothing computed.
"""

import re
import sys
import warnings
from textwrap import shorten

import timm

from fsaf.errors import UserError
from fsaf.model.backbone import find_features

SEVERAL = ("legacy", "tf")
"""First words that families share: there the second one belongs to the family's name."""


def families(names: list[str]) -> dict[str, str]:
    """Return the families of timm's models, and the alphabetically first model of each.

    A family is the first word of a name without its size: resnet of resnet50, resnetv2 of resnetv2_101.
    """
    found: dict[str, str] = {}
    for name in names:
        words = name.split("_")
        family = "_".join(words[:2]) if words[0] in SEVERAL else words[0]
        family = re.sub(r"(?<![v\d])\d+[a-z]{0,2}\d*$", "", family)
        if family != "test":  # timm's own, for tests
            found.setdefault(family, name)
    return found


def row(family: str, name: str) -> str:
    """Try the model ``name`` and return its row of the table."""
    try:
        channels = find_features(name).channels
        return f"| {family} | `{name}` | works: {', '.join(map(str, channels))} channels |"
    except UserError as error:
        reason = str(error).split(": ", 1)[1].rpartition("; ")[0]
        return f"| {family} | `{name}` | no: {shorten(reason, 160, placeholder=' ...')} |"


def main() -> None:
    warnings.simplefilter("ignore")
    prefixes = tuple(sys.argv[1:])
    names = timm.list_models()
    chosen = {n: n for n in names if n.startswith(prefixes)} if prefixes else families(names)
    print(f"timm {timm.__version__}\n\n| Family | Model tried | C3, C4, C5 |\n|---|---|---|")
    works = 0
    for family, name in chosen.items():
        line = row(family, name)
        works += "| works: " in line
        print(line, flush=True)
    print(f"\n{works} of {len(chosen)} work.")


if __name__ == "__main__":
    main()
