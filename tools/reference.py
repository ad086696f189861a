"""The reference pages of docs/, written from the code: keys, options, public names, files.

python tools/reference.py            # write docs/reference/*.md; `make reference` does the same
"""

import argparse
import ast
import importlib
import inspect
import textwrap
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml

import fsaf
from fsaf.cli.main import make_parser
from fsaf.cli.parser import verbs_of
from fsaf.cli.verbs import VERBS
from fsaf.keys import recipe_keys, section_titles

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"

CONFIGURATION = """\
# Configuration

A recipe is one YAML file; `fsaf train --help` says the same as this page. What a recipe leaves out has the
default given here. On the command line a key is `--data.batch_size 8`; lists and shapes are YAML:
`--data.shapes "[[384, 512], [512, 384]]"`."""

COMMAND_LINE = """\
# Verbs and options

`fsaf VERB --help` says the same as this page. Which [keys of a recipe](configuration.md) a verb takes
besides, as `--key.sub value`, and completion in a shell: [command line](../command-line.md).

Exit status: 0 done, 2 a mistake of the user's (one message, nothing half written), 130 and 143 stopped by
Ctrl-C and SIGTERM, 1 anything else."""

PYTHON = """\
# Python

`import fsaf` has the names of the first section; the second lists what scripts take from further inside.

## fsaf"""

FILES = """\
# Files

What each file of `src/fsaf/` is for, as it says itself. How they hang together:
[architecture](../architecture.md)."""

PARTS = (
    "fsaf.recipe.load_recipe",
    "fsaf.scoring.evaluate.evaluate",
    "fsaf.detection.draw.draw_result",
    "fsaf.exporting.export.export_detector",
    "fsaf.data.digits.write_digits",
    "fsaf.testing.Recorder",
)
"""Shown after the public names: what scripts and notebooks take from further inside."""


def configuration() -> str:
    """Return the page of every key of a recipe, with type, default and meaning."""
    lines = [CONFIGURATION]
    titles = section_titles()
    for section in ("", *titles):
        title = f"`{section}`: {titles[section].lower()}" if section else "The run"
        lines += ["", f"## {title}", "", "| key | type | default | |", "|---|---|---|---|"]
        for key in recipe_keys():
            if key.section == section:
                cells = [f"`{key.name}`", _cell(_kind(key.kind)), f"`{_value(key.default)}`", _cell(key.text)]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _kind(kind: Any) -> str:
    """A type as a reader of YAML would say it."""
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_kind(part) for part in get_args(kind))
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        return f"list of {len(parts)} {_plural(_kind(parts[0]))}" if len(set(parts)) == 1 else "list"
    if get_origin(kind) is list:
        return f"list of {_plural(_kind(get_args(kind)[0]))}"
    names = {int: "integer", float: "number", str: "text", bool: "true or false", types.NoneType: "null"}
    return names.get(kind, str(kind))


def _plural(kind: str) -> str:
    return {"integer": "integers", "number": "numbers"}.get(kind, f"({kind})")


def _value(value: Any) -> str:
    """A default as YAML has it, on one line."""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=1000).strip().removesuffix("\n...")


def command_line() -> str:
    """The page of every verb with its arguments and options, from the parser."""
    verbs = verbs_of(make_parser())
    lines = [
        COMMAND_LINE,
        "",
        "| verb | |",
        "|---|---|",
        *(f"| [`fsaf {name}`](#fsaf-{name}) | {_cell(VERBS[name].text)} |" for name in verbs),
    ]
    for name, child in verbs.items():
        lines += ["", f"## fsaf {name}", "", _cell(child.description or "")]
        rows = _option_rows(child)
        if rows:
            lines += ["", "| argument | |", "|---|---|", *rows]
        note, _, examples = (child.epilog or "").partition("examples:")
        if note.strip():
            lines += ["", _cell(note)]
        if examples.strip():
            lines += ["", "```sh", *(line.strip() for line in examples.strip().splitlines()), "```"]
    return "\n".join([*lines, ""])


def _option_rows(child: argparse.ArgumentParser) -> list[str]:
    """The rows of a verb's table; without the keys of a recipe that have no short option."""
    formatter = child._get_formatter()
    keys = {a for g in child._action_groups if (g.title or "").startswith("recipe") for a in g._group_actions}
    rows = []
    for action in child._actions:
        if action.help == argparse.SUPPRESS or "--help" in action.option_strings or action in keys:
            continue
        shown = formatter._format_action_invocation(action)
        rows.append(f"| `{_cell(shown)}` | {_cell(formatter._expand_help(action))} |")
    return rows


def python_api() -> str:
    """The page of the public names, from their docstrings."""
    lines = [PYTHON]
    for name in sorted(set(fsaf.__all__) - {"__version__"}, key=str.lower):
        lines += _describe(getattr(fsaf, name), f"fsaf.{name}")
    lines += ["", "## Parts"]
    for path in PARTS:
        module, name = path.rsplit(".", 1)
        lines += _describe(getattr(importlib.import_module(module), name), path)
    return "\n".join([*lines, ""])


def _describe(thing: Any, path: str) -> list[str]:
    node = _node(thing)
    lines = ["", f"### {path}", ""]
    if isinstance(node, ast.FunctionDef):
        return [*lines, *_signature(node), "", *_docstring(thing)]
    bases = [_node(base) for base in thing.__mro__[1:] if base.__module__.startswith("fsaf.")]
    methods = [n for each in (*bases, node) for n in each.body if isinstance(n, ast.FunctionDef)]
    inits = [n for n in methods if n.name == "__init__"]
    lines += _signature(inits[0], node.name) if inits else ["```python", f"class {node.name}", "```"]
    lines += ["", *_docstring(thing)]
    for method in methods:
        if not method.name.startswith("_") and ast.get_docstring(method):
            lines += ["", f"#### {path.rpartition('.')[2]}.{method.name}", ""]
            lines += [*_signature(method), "", *_docstring(inspect.getattr_static(thing, method.name))]
    return lines


def _node(thing: Any) -> ast.FunctionDef | ast.ClassDef:
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))
    node = ast.parse(source).body[0]
    assert isinstance(node, (ast.FunctionDef, ast.ClassDef))
    return node


def _signature(node: ast.FunctionDef, name: str = "") -> list[str]:
    """How it is called, as a code block; one argument a line where one line is too short."""
    args = _arguments(node.args)
    told = "" if name or node.returns is None else f" -> {_type(node.returns)}"
    whole = f"{name or node.name}({', '.join(args)}){told}"
    if len(whole) > 100:
        whole = "\n".join([f"{name or node.name}(", *(f"    {arg}," for arg in args), f"){told}"])
    return ["```python", *whole.splitlines(), "```"]


def _arguments(args: ast.arguments) -> list[str]:
    """Each argument with type and default; ``self`` left out."""

    def one(arg: ast.arg, default: ast.expr | None, stars: str = "") -> str:
        kind = f": {_type(arg.annotation)}" if arg.annotation else ""
        return f"{stars}{arg.arg}{kind}" + (f" = {ast.unparse(default)}" if default else "")

    padding: list[ast.expr | None] = [None] * (len(args.args) - len(args.defaults))
    plain = zip(args.args, [*padding, *args.defaults], strict=True)
    shown = [one(arg, default) for arg, default in plain if arg.arg not in ("self", "cls")]
    if args.vararg or args.kwonlyargs:
        shown.append(one(args.vararg, None, "*") if args.vararg else "*")
    shown += [one(arg, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    return shown + ([one(args.kwarg, None, "**")] if args.kwarg else [])


def _type(annotation: ast.expr) -> str:
    """An annotation without the quotation marks of names that are imported later."""
    return ast.unparse(annotation).strip("'")


def _docstring(thing: Any) -> list[str]:
    return (inspect.getdoc(thing) or "").replace("``", "`").splitlines()


def files() -> str:
    """The page of every file of the package, with the first paragraph of its docstring."""
    root = Path(str(fsaf.__file__)).parent
    lines = [FILES]
    for folder in (root, *sorted(path.parent for path in root.glob("**/__init__.py") if path.parent != root)):
        name = folder.relative_to(root.parent).as_posix().removeprefix("fsaf/")
        lines += ["", f"## {name}/", "", "| file | |", "|---|---|"]
        for path in sorted(folder.glob("*.py")):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            lines.append(f"| `{path.name}` | {_cell(text.split(chr(10) * 2)[0])} |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table, on one line."""
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


PAGES = {
    "configuration.md": configuration,
    "command-line.md": command_line,
    "python.md": python_api,
    "files.md": files,
}
"""File names in docs/reference and what writes them."""


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
        print(f"written: {(FOLDER / name).relative_to(FOLDER.parents[1])}")


if __name__ == "__main__":
    main()
