"""The table of timm's families agrees with ``find_features``."""

import re

import pytest
import timm

from documents import ROOT
from fsaf.errors import UserError
from fsaf.model.backbone import find_features

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "backbones.md").read_text()
ROWS = re.findall(r"^\| [\w]+ \| `(\w+)` \| (works|no): (.*) \|$", PAGE, re.MULTILINE)


@pytest.mark.skipif(f"timm {timm.__version__}" not in PAGE, reason="the table is of another version of timm")
@pytest.mark.parametrize(("name", "verdict", "text"), ROWS[::9])
def test_rows_are_true(name: str, verdict: str, text: str) -> None:
    try:
        channels = ", ".join(map(str, find_features(name).channels))
        assert (verdict, text) == ("works", f"{channels} channels")
    except UserError as error:
        assert verdict == "no" and text.removesuffix(" ...") in str(error)


def test_the_counts_are_those_of_the_table() -> None:
    works = sum(verdict == "works" for _, verdict, _ in ROWS)
    assert works > 100 and f"{works} of {len(ROWS)} work." in PAGE
