"""The generated pages of docs/reference are up to date."""

from pathlib import Path
from types import ModuleType

import pytest

import fsaf
from fsaf.cli.main import make_parser
from fsaf.config import Config, to_dict
from scripts import TOOLS, load_script
from settings import flat

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_script(TOOLS / "reference.py")


@pytest.mark.parametrize("name", ["configuration.md", "command-line.md", "python.md", "files.md"])
def test_the_committed_page_is_the_generated_one(tool: ModuleType, name: str) -> None:
    committed = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert tool.PAGES[name]() == committed, f"docs/reference/{name} is out of date: run `make reference`"


def test_every_key_is_there(tool: ModuleType) -> None:
    rows = [line.split("|") for line in tool.configuration().splitlines() if line.startswith("| `")]
    assert [row[1].strip(" `") for row in rows] == sorted(flat(to_dict(Config())), key=lambda key: "." in key)
    assert all(row[4].strip() for row in rows)


def test_every_verb_and_public_name_is_there(tool: ModuleType) -> None:
    page, parser = tool.command_line(), make_parser()
    verbs = next(action for action in parser._actions if action.dest == "verb").choices
    assert verbs and all(f"\n## fsaf {verb}\n" in page for verb in verbs)
    assert "| `--tile N` | Cut images larger than this" in page
    page = tool.python_api()
    assert all(f"\n### fsaf.{name}\n" in page for name in fsaf.__all__ if name != "__version__")
