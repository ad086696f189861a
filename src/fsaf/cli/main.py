"""The entry point: parse a command line, run its verb, turn errors into messages and exit statuses.

Exit status: 0 success, 2 a user's mistake (one message, no traceback), 128 + n stopped by signal n (130 by
Ctrl-C, 143 by SIGTERM; ``fsaf train`` has saved everything then), 1 anything else.
"""

import argparse
import errno
import os
import shlex
import sys
from collections.abc import Sequence

from fsaf._version import __version__
from fsaf.cli.parser import Parser, add_keys, epilog, options_of
from fsaf.cli.verbs import GROUPS, VERBS
from fsaf.cli.words import translate
from fsaf.console import guarded_output
from fsaf.environment import check_builds, explain, set_environment
from fsaf.errors import Stopped, UserError
from fsaf.keys import nearest_key, recipe_keys
from fsaf.text import printable


def make_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all verbs, which collects overrides of the recipe in ``overrides``.

    only: add the keys of a recipe, which are many and take a while, to the parser of this verb alone.
    """
    parser = Parser(prog="fsaf", description="FSAF, an anchor-free object detector.", groups=GROUPS)
    parser.add_argument("--version", action="version", version=f"fsaf {__version__}")
    children = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    for verb in VERBS.values():
        child = children.add_parser(
            verb.name, help=verb.text, description=verb.text, epilog=epilog(verb.examples, verb.note)
        )
        verb.options(child)
        child.set_defaults(overrides=[])
        if only in (None, verb.name):
            add_keys(child, verb, [key for key in recipe_keys() if verb.keys(key)])
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit status."""
    with guarded_output():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    try:
        words = translate(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"fsaf: {printable(error)}", file=sys.stderr)
        return 2
    set_environment()
    verb = next((word for word in words if not word.startswith("-")), "")
    name = f"fsaf {verb}" if verb in VERBS else "fsaf"
    try:
        try:
            parser = make_parser(None if verb == "completion" else verb)
            args, unknown = parser.parse_known_args(words)
            args.parser, args.command = parser, shlex.join(["fsaf", *words])
            if unknown:
                _refuse(args.verb, unknown)
            check_builds()
            return VERBS[args.verb].run(args) or 0
        finally:
            sys.stdout.flush()  # here a full disk gets a message
    except UserError as error:
        if _prints():
            print(f"{name}: {printable(error)}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if (text := explain(error)) is None:
            raise
        print(f"{name}: {printable(text)}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        if _prints():
            print(f"{name}: {printable(stopped)}", file=sys.stderr)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        return 1
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        if _prints():
            print(f"{name}: {printable(error.filename)}: {error.strerror}", file=sys.stderr)
        return 2


def _refuse(verb: str, unknown: Sequence[str]) -> None:
    """Raise UserError for the first option among arguments that ``verb`` does not know."""
    given = next((word for word in unknown if word.startswith("-")), unknown[0])
    option = given.split("=")[0]
    if not option.startswith("-"):
        raise UserError(f"unexpected argument {given!r}; see fsaf {verb} --help")
    known = options_of(make_parser())
    if others := [name for name, options in known.items() if option in options]:
        raise UserError(
            f"unrecognized option {option}: it belongs to fsaf {', '.join(others)}; fsaf {verb} --help lists "
            "its own"
        )
    near = nearest_key(option, known[verb])
    raise UserError(f"unrecognized option {option}{near}; fsaf {verb} --help lists all")


def _prints() -> bool:
    """Return True in the process that prints the error: of several that stop at it, exactly one."""
    if "LOCAL_RANK" not in os.environ:
        return True
    from fsaf.processes.join import prints_error

    return prints_error()
