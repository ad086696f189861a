"""``fsaf completion``: scripts for shells, made by shtab, so that Tab starts no Python."""

import argparse
from typing import Any

from fsaf.cli.parser import Override, verbs_of
from fsaf.cli.verb import Verb
from fsaf.errors import UserError
from fsaf.recipe import recipe_names

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")

_FILES = ("CHECKPOINT", "DATA", "IMAGE", "RUN", "IN", "OUT", "FILE", "FOLDER")
"""Placeholders of files and folders in help."""
_PATHS = ("init", "out", "data.root", "model.weights")
"""Keys that are paths, besides those that end in ``annotations`` and ``images``."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def run(args: argparse.Namespace) -> None:
    print(completion(args.parser, args.shell))


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script for ``shell``.

    parser: that of all verbs; it is changed for shtab and cannot parse afterwards. Raises UserError if the
    installed shtab does not know the shell.
    """
    import shtab

    if shell not in shtab.SUPPORTED_SHELLS:
        raise UserError(f"{shell}: this shtab knows {', '.join(shtab.SUPPORTED_SHELLS)}; upgrade shtab")
    for child in verbs_of(parser).values():
        for action in child._actions:
            if action.metavar == "CONFIG":
                action.complete = _recipes()  # type: ignore[attr-defined]
            elif isinstance(action, Override):
                if action.key.choices:
                    action.choices = action.key.choices
                elif _is_path(action.key.name):
                    action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.metavar in _FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(parser, shell)


def _is_path(key: str) -> bool:
    return key in _PATHS or key.endswith((".annotations", ".images"))


def _recipes() -> Any:
    """Return, for each shell, its command to complete names of shipped recipes and YAML files."""
    names = " ".join(recipe_names())
    bash = f"""
_fsaf_recipes() {{
  compgen -W "{names}" -- "$1"
  compgen -f -X '!*.yaml' -- "$1"
  compgen -f -X '!*.yml' -- "$1"
  compgen -d -- "$1"
}}
"""
    return {
        "bash": "_fsaf_recipes",
        "zsh": f"{{_alternative 'recipes:recipe:({names})' 'files:file:_files'}}",
        "fish": f"(string split ' ' '{names}'; __fish_complete_path (commandline -ct))",
        "tcsh": f"({names})",
        "powershell": "_shtab_powershell_compgen_files",
        "preamble": {"bash": bash},
    }


VERB = Verb(
    name="completion",
    text="Print a script that completes fsaf's commands in a shell.",
    options=options,
    run=run,
    examples=(
        'eval "$(fsaf completion bash)"',
        "fsaf completion fish > ~/.config/fish/completions/fsaf.fish",
    ),
)
