"""``fsaf check``."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fsaf.cli.verb import RESIZING, Verb
from fsaf.errors import UserError
from fsaf.files import write_text
from fsaf.text import printable, printable_lines

KEYS = (
    *(f"data.{name}" for name in ("min_size", "max_boxes", "keep_empty", *RESIZING)),
    *(f"data.{split}.{name}" for split in ("train", "val") for name in ("annotations", "images")),
    *("data.val_share", "data.val_seed", "data.on_bad_image"),
    "objective.pos_scale",
    "model.branches",
)
"""Keys of a recipe that a check depends on."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", metavar="DATA", help="folder of a data set (COCO, Pascal VOC, YOLO), or its file"
    )
    parser.add_argument(
        "--recipe", default="lite0", metavar="CONFIG", help="recipe that the data is checked for (lite0)"
    )
    parser.add_argument("--shapes", type=int, metavar="N", help="plan N batch shapes and show their padding")
    parser.add_argument("--fix", metavar="OUT", help="write cleaned COCO JSON files into this folder")
    parser.add_argument(
        "--split", metavar="OUT", help="of an unsplit data set: write train.txt and val.txt into this folder"
    )
    parser.add_argument("--report", metavar="FILE", help="write all findings to this file, as JSON")
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="write a page with class balance, image sizes and pictures of the faults",
    )
    parser.add_argument("--json", action="store_true", help="print all findings as JSON")
    parser.add_argument("--details", action="store_true", help="print tables of box sizes and pyramid levels")
    parser.add_argument("--no-images", action="store_true", help="check annotations only; open no image")


def run(args: argparse.Namespace) -> int:
    """Return exit status 2 if training would refuse the data."""
    from fsaf.checking.fix import write_clean
    from fsaf.checking.lists import lists_command, write_lists
    from fsaf.checking.survey import open_survey, survey
    from fsaf.checking.text import (
        MOST_CLASSES,
        below,
        check_result,
        contents_text,
        faults_text,
        plan_text,
        sizes_text,
    )
    from fsaf.checking.verdict import next_command, verdict
    from fsaf.lock import FolderLock
    from fsaf.recipe import load_recipe

    if args.shapes is not None and args.shapes < 1:
        raise UserError(f"--shapes {args.shapes}: must be at least 1")
    if args.fix and args.no_images:
        raise UserError("--fix opens every image; leave --no-images out")
    recipe = [args.recipe, *_with_shapes(args.overrides)]
    config = load_recipe(args.recipe, recipe[1:])
    config.data = replace(config.data, root=args.data)
    if args.shapes is not None:
        sides = config.data.short_side, config.data.long_side
        print(printable_lines(plan_text(open_survey(config).read, args.shapes, *sides)))
        return 0
    found = survey(config, open_images=not args.no_images)
    if args.report:
        write_text(Path(args.report), json.dumps(check_result(found.read), indent=1))
    if args.html:
        from fsaf.reporting.data_page import write_data_page

        write_data_page(Path(args.html), found, config, verdict(found, recipe))
    if args.json:
        print(json.dumps(check_result(found.read), indent=1))
    else:
        formats = ", ".join(dict.fromkeys(records.format for records in found.read.values()))
        print(printable(f"{args.data}: {formats}, splits {', '.join(found.read)}"), end="\n\n")
        text = contents_text(found.read, None if args.details else MOST_CLASSES)
        print(printable_lines(text), end="\n\n")
        print(printable_lines(faults_text(found.read, found.root)), end="\n\n")
        for note in found.notes:
            print(f"note: {printable(below(note, found.root))}")
        if args.details:
            print(f"\n{sizes_text(found.read, config.data, config.objective)}", end="\n\n")
    stream = sys.stderr if args.json else sys.stdout
    if args.split:
        lists = write_lists(Path(args.split), found)
        for name, file in lists.items():
            print(f"{len(found.read[name].images):,} images listed in {printable(file)}", file=stream)
        print(f"to train on them: {printable(lists_command(found, lists, recipe))}", file=stream)
    if args.fix:
        with FolderLock(Path(args.fix), "check --fix"):
            written, changes = write_clean(Path(args.fix), found)
        place = printable(Path(args.fix) / "changes.json")
        print(f"{changes:,} changes, listed in {place}; written:", file=stream)
        for name, file in written.items():
            print(printable(f"  {file}  of images in {found.read[name].folder}"), file=stream)
        if found.roles.train:
            print(f"to train on them: {printable(next_command(found, written, recipe))}", file=stream)
    print(printable(verdict(found, recipe, fixed=bool(args.fix))), file=stream)
    return 2 if found.refused else 0


def _with_shapes(overrides: Sequence[str]) -> list[str]:
    """Return the overrides; other sides than the recipe's drop its batch shapes, unless shapes are given."""
    names = {word.partition("=")[0] for word in overrides}
    sides = names & {"--data.short_side", "--data.long_side"}
    return [*(["--data.shapes=null"] if sides and "--data.shapes" not in names else []), *overrides]


VERB = Verb(
    name="check",
    text="Read a data set and report every fault, or plan batch shapes for it.",
    options=options,
    run=run,
    keys=lambda key: key.name in KEYS,
    short={
        "data.short_side": "--short-side",
        "data.long_side": "--long-side",
        "data.max_pixels": "--max-pixels",
        "data.exif_rotation": "--exif-rotation",
    },
    note="Exit status: 0 if training would accept the data (it may leave out boxes or images, and says so), "
    "2 if it would refuse them. docs/your-data.md lists what is refused, left out or warned about.",
    examples=("fsaf check DATA", "fsaf check DATA --shapes 4", "fsaf check DATA --fix DATA_CLEAN"),
)
