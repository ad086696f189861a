"""Scripts with which a shell completes verbs, options, recipes and keys; shtab makes them, no Python runs."""

import argparse
from typing import Any

from fsaf.cli.help import verbs_of
from fsaf.errors import UserError
from fsaf.keys import recipe_keys
from fsaf.recipe import recipe_names

_FILES = ("CHECKPOINT", "DATA", "IMAGE", "RUN", "IN", "OUT", "FILE", "FOLDER")
"""Arguments that are files or folders, by what help calls them."""
_PATHS = ("init", "out", "data.root", "model.weights")
"""Keys that are, besides those that end in ``annotations`` and ``images``."""


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for ``shell``, of ``help.SHELLS``. ``parser``, of all verbs, is marked for it and of no
    other use afterwards.

    Raises UserError where the package shtab is too old for the shell.
    """
    import shtab

    if shell not in shtab.SUPPORTED_SHELLS:
        raise UserError(f"{shell}: this shtab knows {', '.join(shtab.SUPPORTED_SHELLS)}; upgrade shtab")
    keys = {f"--{key.name}": key for key in recipe_keys()}
    for child in verbs_of(parser).choices.values():
        for action in child._actions:
            name = action.option_strings[-1] if action.option_strings else ""
            key = keys.get(name) if action.dest == "overrides" else None
            if action.metavar == "CONFIG":
                action.complete = _recipes()
            elif key and key.choices:
                action.choices = key.choices
            elif _is_path(key.name) if key else action.metavar in _FILES or name in ("--out", "--images"):
                action.complete = shtab.FILE
    return shtab.complete(parser, shell)


def _is_path(key: str) -> bool:
    return key in _PATHS or key.endswith((".annotations", ".images"))


def _recipes() -> Any:
    """Names of shipped recipes, and YAML files, as each shell is told to complete them."""
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
