"""Imports and sizes of the parts of the package."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fsaf

SOURCE = Path(fsaf.__file__).parent

GROUND = (
    "_version",
    "environment",
    "errors",
    "files",
    "lock",
    "console",
    "text",
    "boxes",
    "device",
    "config",
    "keys",
    "recipe",
)
"""Files at the top that every part may import."""
PARTS = (
    "processes",
    "data",
    "data.readers",
    "model",
    "objective",
    "checking",
    "checkpoints",
    "detection",
    "scoring",
    "annotation",
    "run_folder",
    "training",
    "exporting",
    "reporting",
    "measuring",
    "demo",
    "cli",
)
"""Folders, the lowest first: each may import those before it."""
ROOF = ("testing", "api", "__main__", "__init__")
"""Files at the top that no part may import."""

LONGEST = 300
LARGEST = 0.15
"""Share of all lines that one folder may hold."""

FILES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in sorted(SOURCE.rglob("*.py"))
}
"""Return every file by its dotted name below ``fsaf``; that of a folder is ``folder.__init__``."""


def part_of(name: str) -> str:
    """Return the folder of a file, or the file itself if it is at the top."""
    return name.rpartition(".")[0] or name


def imported(tree: ast.AST) -> Iterator[str]:
    """Return the files of the package that a file imports, in functions and for type checkers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            base, names = "", [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            yield from (found for found in [file_of(name) or file_of(base)] if found)


def file_of(name: str) -> str | None:
    """Return the file of a module by its full name; None if the module is not of the package."""
    if name != "fsaf" and not name.startswith("fsaf."):
        return None
    below = name.removeprefix("fsaf").removeprefix(".")
    return next((file for file in (below, f"{below}.__init__".lstrip(".")) if file in FILES), None)


IMPORTS = {name: set(imported(ast.parse(path.read_text(encoding="utf-8")))) for name, path in FILES.items()}


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the nodes of a cycle; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_part_is_listed() -> None:
    assert {part_of(name) for name in FILES} <= {*GROUND, *PARTS, *ROOF}
    assert {part_of(name) for name in FILES} >= set(PARTS)


@pytest.mark.parametrize("name", FILES)
def test_imports_run_downwards(name: str) -> None:
    order = {part: i for i, part in enumerate(PARTS, len(GROUND))} | dict.fromkeys(GROUND, 0)
    order |= dict.fromkeys(ROOF, 99)
    mine = order[part_of(name)]
    upwards = [other for other in IMPORTS[name] if order[part_of(other)] > mine]
    assert not upwards, f"{name} imports {', '.join(upwards)}, of a part above its own"
    if name not in ROOF:
        assert not [other for other in IMPORTS[name] if part_of(other) in ROOF]


def test_there_are_no_circles() -> None:
    assert circle(IMPORTS) == []
    parts: dict[str, set[str]] = {}
    for name, others in IMPORTS.items():
        parts.setdefault(part_of(name), set()).update(
            part_of(other) for other in others if part_of(other) != part_of(name)
        )
    assert circle(parts) == []
    assert circle({"a": ["b"], "b": ["c"], "c": ["a"]})


def test_imports_are_found_wherever_they_stand() -> None:
    code = "from fsaf.data import batch\nfrom fsaf.errors import UserError\nimport fsaf.keys, torch\n"
    code += "def one():\n    from fsaf.data.batch import Boxes\n"
    code += "if TYPE_CHECKING:\n    from fsaf import load\n"
    found = sorted(imported(ast.parse(code)))
    assert found == ["__init__", "data.batch", "data.batch", "errors", "keys"]


def test_files_are_short() -> None:
    lengths = {
        path.relative_to(SOURCE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in FILES.values()
    }
    assert not [name for name, length in lengths.items() if length > LONGEST]


def test_no_part_is_most_of_it() -> None:
    sizes: dict[str, int] = {}
    for name, path in FILES.items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        sizes[part_of(name)] = sizes.get(part_of(name), 0) + lines
    largest = max(sizes, key=lambda part: sizes[part])
    assert sizes[largest] < LARGEST * sum(sizes.values()), f"{largest} has {sizes[largest]} lines"


@pytest.mark.parametrize("part", PARTS)
def test_every_part_says_what_it_is_for(part: str) -> None:
    text = ast.get_docstring(ast.parse(FILES[f"{part}.__init__"].read_text(encoding="utf-8"))) or ""
    assert len(text.split("\n\n")) >= 2, "what comes in and goes out, and in which order to read it"
