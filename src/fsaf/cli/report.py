"""``fsaf report``."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from fsaf.cli.verb import Verb
from fsaf.errors import UserError
from fsaf.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from fsaf.data.records import Records

FILES = ("config.yaml", "metrics.jsonl", "evaluation.json")
"""A run folder has at least one of these."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders; several are compared")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="page to write (RUN/report.html; for several runs report-comparison.html)",
    )


def run(args: argparse.Namespace) -> None:
    from rich.console import Console

    from fsaf.reporting.compare import write_comparison
    from fsaf.reporting.report import write_report

    runs = [Path(name) for name in args.runs]
    for folder in runs:
        if folder.is_dir() and not any((folder / name).is_file() for name in FILES):
            raise UserError(f"{folder}: is not a run folder; it has none of {', '.join(FILES)}")
    out = Path(args.out) if args.out else None
    if out and out.is_dir():
        raise UserError(f"--out {args.out}: is a folder; name the page to write, such as {out}/report.html")
    with Console(stderr=True).status("drawing the report"):
        if len(runs) == 1:
            page = write_report(runs[0], out)
        else:
            page = write_comparison(runs, out or Path("report-comparison.html"))
    print(printable(page))


def draw_report(folder: Path, validation: "Records | None" = None, console: "Console | None" = None) -> None:
    """Write the report.html of a run folder; if that fails, print a note, since the results are written.

    validation: the split of the evaluation, if it is open already. console: print there; by default the
    page's path on standard output, all else on standard error.
    """
    from rich.console import Console

    from fsaf.reporting.report import write_report

    def say(line: str, stream: TextIO) -> None:
        if console:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            print(line, file=stream)

    try:
        with (console or Console(stderr=True)).status("drawing the report"):
            page = write_report(folder, validation=validation)
        say(f"report: {printable(page)}", sys.stdout)
    except Exception as error:
        text = printable(f"{type(error).__name__}: {error}")
        say(f"note: report.html could not be written ({text})", sys.stderr)


VERB = Verb(
    name="report",
    text="Show a run on one page, or compare several runs.",
    options=options,
    run=run,
    examples=("fsaf report runs/mine", "fsaf report runs/mine runs/other --out both.html"),
)
