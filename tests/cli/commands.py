"""Recipes and refusals that several tests of the command line share."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fsaf.cli import main
from synthetic import recipe

TINY: dict[str, Any] = {"model__backbone": "test_efficientnet"}


def write_recipe(folder: Path, data: Path, **overrides: Any) -> str:
    path = folder / "recipe.yaml"
    values = recipe(data, folder / "out", **{**TINY, **overrides})
    path.write_text(yaml.safe_dump(values))
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], argv: list[str], *parts: str) -> None:
    """Assert exit status 2 and one line on stderr that contains all parts."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"fsaf {argv[0]}: ") and err.endswith("\n")
    assert err.count("\n") == 1 and "Traceback" not in err, err
    for part in parts:
        assert part in err
    assert "Traceback" not in out
