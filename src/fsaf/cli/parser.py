"""The parser of the command line: errors on one line, verbs in groups, keys of a recipe as options."""

import argparse
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from fsaf.cli.verb import Verb
from fsaf.keys import Key, section_titles
from fsaf.text import nearest

EXAMPLES = (
    "fsaf quickstart",
    "fsaf train lite0 --data.root DATA --out runs/mine",
    "fsaf predict runs/mine/checkpoints/best.pt photos/",
    "fsaf VERB --help",
)
"""Commands shown by ``fsaf --help``."""

_INVALID = re.compile(r"invalid choice: '?(.*?)'? \(choose from (.*)\)$", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """An argparse parser with errors on one line, which name the nearest choice, and without abbreviations.

    groups: the verbs by purpose, for the parser that holds those of all verbs.
    """

    def __init__(self, *, groups: Mapping[str, Sequence[Verb]] | None = None, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        super().__init__(formatter_class=_Formatter, **options)
        self.groups = groups or {}

    def error(self, message: str) -> NoReturn:
        """Print one line to standard error and exit with status 2."""
        match = _INVALID.search(message)
        near = nearest(match[1], re.findall(r"[\w.-]+", match[2])) if match else ""
        self.exit(2, f"{self.prog}: {message}{near} (usage: {self.short_usage()}; --help explains)\n")

    def short_usage(self) -> str:
        """Return the usage without the options."""
        words = []
        for action in self._actions:
            if action.option_strings:
                continue
            name = str(action.metavar or action.dest)
            many = {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]"}
            words.append(many.get(str(action.nargs), name))
        return " ".join([self.prog, *words, "[options]"])

    def format_help(self) -> str:
        """Return the help: of ``fsaf`` itself the verbs in groups, of a verb its options."""
        self.usage = self.short_usage()
        if not self.groups:
            return super().format_help()
        wide = max(len(verb.name) for verbs in self.groups.values() for verb in verbs)
        lines = [f"usage: {self.prog} VERB [options]", "", self.description or ""]
        for title, verbs in self.groups.items():
            lines += ["", f"{title}:", *(f"  {verb.name:<{wide}}  {verb.text}" for verb in verbs)]
        lines += ["", "options:", f"  {'--help':<{wide}}  show this help; for a verb: fsaf VERB --help"]
        lines += [f"  {'--version':<{wide}}  show the version"]
        return "\n".join([*lines, "", epilog(EXAMPLES), ""])


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # One spelling: `--tile N`. Its other one, `--predict.tile`, follows from the key in a recipe.
        if len(action.option_strings) < 2 or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{action.option_strings[0]} {value}"


def epilog(examples: Sequence[str], note: str = "") -> str:
    """Return the text below the options: a note, and examples."""
    lines = textwrap.wrap(note, 78)
    lines += ["", "examples:", *(f"  {example}" for example in examples)]
    return "\n".join(lines).strip("\n")


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the verbs, by name."""
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def options_of(parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    """Return the options of each verb, by its name."""
    return {
        name: [option for action in child._actions for option in action.option_strings]
        for name, child in verbs_of(parser).items()
    }


class Override(argparse.Action):
    """Append ``--key.sub=value`` to ``overrides``, in order. The schema of the recipe checks the values.

    A list may be written without brackets: ``cat,dog`` is ``[cat,dog]``. key: the key that the option sets.
    """

    def __init__(self, key: Key, **options: Any) -> None:
        super().__init__(**options)
        self.key = key

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, value: Any, option_string: str | None = None
    ) -> None:
        if self.key.metavar == "LIST" and value != "null" and not value.lstrip().startswith("["):
            value = f"[{value}]"
        namespace.overrides = [*namespace.overrides, f"--{self.key.name}={value}"]


def add_keys(parser: argparse.ArgumentParser, verb: Verb, keys: Sequence[Key]) -> None:
    """Add an option for each key, in groups by section of the recipe.

    Keys with a short option are listed among the options of the verb instead.
    """
    titles = section_titles()
    groups: dict[str, Any] = {}
    for key in keys:
        options = [*filter(None, [verb.short.get(key.name)]), f"--{key.name}"]
        group: Any = parser
        if len(options) == 1:
            if key.section not in groups:
                title = f"recipe, {key.section}" if key.section else "recipe"
                if verb.from_checkpoint:
                    title += " (default: as in CHECKPOINT)"
                groups[key.section] = parser.add_argument_group(title, titles.get(key.section))
            group = groups[key.section]
        group.add_argument(
            *options,
            action=Override,
            key=key,
            dest="overrides",
            default=argparse.SUPPRESS,
            metavar=key.metavar,
            help=_text(verb, key).replace("%", "%%"),
        )


def _text(verb: Verb, key: Key) -> str:
    """Return the text of a key with the verb's default, if any, at its end."""
    default = verb.defaults.get(key.name)
    if default is None and key.default is not None and not verb.from_checkpoint:
        default = str(key.default).lower() if isinstance(key.default, bool) else str(key.default)
    text = key.text.replace("`", "").rstrip(".")
    return text if default is None else f"{text} ({default})"
