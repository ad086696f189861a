"""``fsaf publish``."""

import argparse
from pathlib import Path

from fsaf.cli.detectors import add_checkpoint, choose
from fsaf.cli.verb import Verb
from fsaf.errors import UserError
from fsaf.text import printable


def options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument(
        "--out", metavar="FOLDER", help="folder to write (RUN/hub, or the checkpoint's name with -hub)"
    )
    parser.add_argument("--name", help="name of the detector in the card (the name of the run folder)")
    parser.add_argument("--dataset", metavar="NAME", help="name of the data in the card (that of its folder)")
    parser.add_argument(
        "--license", metavar="ID", help="licence of the weights, as the hub abbreviates it: apache-2.0"
    )
    parser.add_argument(
        "--evaluation", metavar="FILE", help="figures for the card (evaluation.json of the run)"
    )
    parser.add_argument(
        "--upload", metavar="USER/NAME", help="upload the folder to this repository (no upload)"
    )
    parser.add_argument("--private", action="store_true", help="with --upload: make the repository private")


def run(args: argparse.Namespace) -> None:
    from fsaf.checkpoints.any_format import read_checkpoint
    from fsaf.checkpoints.hub import check_free, upload, write_folder
    from fsaf.reporting.card import read_figures, write_card
    from fsaf.run_folder.paths import beside, in_run_folder, run_folder

    if args.private and not args.upload:
        raise UserError("--private: needs --upload USER/NAME")
    path = Path(choose(args.checkpoint))
    checkpoint = read_checkpoint(path)
    folder = run_folder(path)
    default = folder / "hub" if in_run_folder(path) else beside(path, "-hub")
    out = Path(args.out) if args.out else default
    check_free(out)
    figures = read_figures(folder, checkpoint, Path(args.evaluation) if args.evaluation else None)
    card = write_card(
        checkpoint,
        figures,
        name=args.name or (folder.resolve().name if in_run_folder(path) else path.stem),
        folder=out.resolve().name,
        dataset=args.dataset,
        repository=args.upload,
        license=args.license,
    )
    write_folder(out, checkpoint, card)
    print(f"written: {printable(out)}: weights, config.json, and README.md, the model card to read through")
    if args.upload:
        print(f"uploaded: {upload(out, args.upload, private=args.private)}")
    else:
        print(f"to upload it: hf upload USER/NAME {printable(out)}")


VERB = Verb(
    name="publish",
    text="Write a folder for the Hugging Face hub, with a model card.",
    options=options,
    run=run,
    examples=(
        "fsaf publish runs/mine --license apache-2.0",
        "fsaf publish runs/mine --upload USER/NAME --private",
    ),
)
