"""Compare variants of a recipe, and torchvision's detectors, by a protocol file.

    python benchmarks/accuracy.py PROTOCOL.yaml choose [--root NAME=FOLDER] [--data NAME] [--runs NAME ...]
    python benchmarks/accuracy.py PROTOCOL.yaml report --runs NAME ...

``choose`` trains every variant with every seed and scores it on the validation part. ``report`` trains the
variant that was chosen, and any peers, and scores them on the test part. A protocol is described in
``protocol.py``; peers in ``torchvision_peers.py``.

Each run that has ended has a JSON file under ``--results``, and is not repeated; a run that was interrupted
resumes. Several processes may be started with the same command: they share the runs. Tables are written into
docs/lab/accuracy.md.
"""

import argparse
import functools
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timing
import torch
from accuracy_tables import PAGE, PHASES, RESULTS, fill, read_results
from protocol import PEERS, DataSet, Protocol, parts, read_protocol, words
from torchvision_peers import train_peer

from fsaf.config import Config
from fsaf.data.samples import Images
from fsaf.data.workers import make_loader
from fsaf.device import resolve_device
from fsaf.errors import Stopped, UserError, WriteError
from fsaf.files import write_text
from fsaf.lock import FolderLock
from fsaf.recipe import load_recipe
from fsaf.text import counted
from fsaf.training.fit import fit_to_data
from fsaf.training.prepare import for_training, open_split
from fsaf.training.trainer import train

TRAINERS: dict[str, Callable[[Config], Any]] = {
    name: functools.partial(train_peer, name.removeprefix("torchvision-")) for name in PEERS
}
"""What trains a peer in place of ``fsaf train``."""
TRIAL_STEPS = 12
"""Steps timed to find how many fit into the minutes of a protocol."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training."""

    protocol: Protocol
    data: str
    phase: str
    run: str
    seed: int

    @property
    def place(self) -> Path:
        """Relative folder of the run; its result has the same name with ``.json``."""
        return Path(self.protocol.name) / self.data / self.phase / f"{self.run}-seed{self.seed}"

    @property
    def command(self) -> str:
        """What runs this alone, but for the folders of data."""
        return (
            f"python benchmarks/accuracy.py benchmarks/protocols/{self.protocol.name}.yaml {self.phase} "
            f"--data {self.data} --runs {self.run} --seeds {self.seed}"
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result; stored with it."""
        data = self.protocol.data[self.data]
        own = {"options": {**data.options, **self.protocol.variants.get(self.run, {})}}
        return {key: value for key, value in vars(data).items() if value is not None} | own


def jobs(
    protocol: Protocol, phase: str, data: list[str], runs: list[str], seeds: list[int], results: Path
) -> list[Job]:
    """All trainings that were asked for; all first seeds come first.

    Raises UserError for a name that the protocol lacks, and if ``report`` would test a second variant.
    """
    runs = runs or (list(protocol.variants) if phase == "choose" else [])
    for kind, given, known in (
        ("data", data, list(protocol.data)),
        ("runs", runs, [*protocol.variants, *protocol.peers]),
    ):
        if unknown := [name for name in given if name not in known]:
            raise UserError(f"--{kind} {' '.join(unknown)}: the protocol has {', '.join(known)}")
    found = [
        Job(protocol=protocol, data=each, phase=phase, run=run, seed=seed)
        for seed in seeds or protocol.seeds
        for each in data or protocol.data
        for run in runs
    ]
    if phase == "report":
        for each in data or protocol.data:
            tested = {one["run"] for one in read_results(results / protocol.name / each / phase)}
            variants = {*runs, *tested} & set(protocol.variants)
            if len(variants) != 1:
                raise UserError(
                    f"report tests one variant, that which `choose` found best, not {len(variants)} "
                    f"({', '.join(sorted(variants)) or 'give --runs NAME'}) on {each}"
                )
    return found


def settle_length(config: Config, data: DataSet, trainer: Callable[[Config], Any], trial: list[str]) -> int:
    """The number of epochs that come closest to the steps of a protocol, or fit into its minutes.

    trial: options that train for a moment, to time it.
    """
    records, _ = for_training(open_split(config.data, "train"), config.data)
    config, _ = fit_to_data(config, len(records.images), 1)
    batch = config.data.batch_size * config.train.accumulate
    images = Images(records, config.data, augment=True, seed=0)
    _, sampler = make_loader(images, batch, workers=0, train=True, seed=0)
    if data.steps is not None:
        return max(1, round(data.steps / sampler.steps))
    assert data.minutes is not None
    short = load_recipe(data.recipe, trial)
    shutil.rmtree(str(short.out), ignore_errors=True)
    trainer(short)
    records_of_steps = (Path(str(short.out)) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    seconds = [json.loads(line).get("step_seconds") for line in records_of_steps]
    step = statistics.median([each for each in seconds if each is not None][2:])
    return max(1, int(60 * data.minutes / (step * sampler.steps)))


def run_job(job: Job, root: Path | None, out: Path, extra: list[str]) -> dict[str, Any]:
    """Train and score; returns the result. extra: options of this machine, such as ``--data.workers=0``."""
    data = job.protocol.data[job.data]
    trainer = TRAINERS.get(job.run, train)
    folder = out / job.place
    options = [
        *parts(job.data, data, job.phase, root, out / "data"),
        *words(job.settings["options"]),
        *extra,
        f"--train.seed={job.seed}",
    ]
    trial = [*options, f"--out={folder / 'trial'}", f"--train.max_steps={TRIAL_STEPS}", "--log.every=1"]
    length = folder / "epochs"  # a resumed run keeps it
    if not length.is_file():
        config = load_recipe(data.recipe, options)
        epochs = settle_length(
            config, data, trainer, [*trial, "--train.epochs=100", "--train.evaluate_every=0"]
        )
        length.write_text(str(epochs))
    epochs = int(length.read_text())
    # Only the last epoch is scored: nothing is chosen on the part that it is scored on.
    options += [f"--out={folder / 'train'}", f"--train.epochs={epochs}", f"--train.evaluate_every={epochs}"]
    resume = (folder / "train" / "checkpoints" / "last.pt").is_file()
    config = load_recipe(data.recipe, [*options, f"--resume={str(resume).lower()}"])
    start = time.perf_counter()
    trainer(config)
    minutes = (time.perf_counter() - start) / 60
    scores = json.loads((folder / "train" / "evaluation.json").read_text(encoding="utf-8"))
    lines = (folder / "train" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = max(json.loads(line).get("step", 0) for line in lines)
    where = timing.machine(resolve_device(config.device))
    names = [*job.protocol.variants, *job.protocol.peers]
    return {
        "protocol": job.protocol.name,
        "data": job.data,
        "phase": job.phase,
        "run": job.run,
        "order": names.index(job.run),
        "seed": job.seed,
        "AP": round(scores["AP"], 5),
        "AP50": round(scores["AP50"], 5),
        "per_class": {name: row["AP"] and round(row["AP"], 5) for name, row in scores["per_class"].items()},
        "images": scores["images"],
        "epochs": epochs,
        "steps": steps,
        "minutes": None if resume else round(minutes, 1),
        "settings": job.settings,
        **{key: where[key] for key in ("date", "machine", "cores", "threads", "load", "device", "versions")},
        "command": job.command,
    }


def is_done(file: Path, job: Job) -> bool:
    """Whether there is a result. Raises UserError if it is of other settings."""
    if not file.is_file():
        return False
    if json.loads(file.read_text(encoding="utf-8"))["settings"] != json.loads(json.dumps(job.settings)):
        raise UserError(
            f"{file}: is of other settings than the protocol has now; delete it, or name the run anew"
        )
    return True


def work(found: list[Job], roots: dict[str, Path], out: Path, results: Path, extra: list[str]) -> int:
    """Do the jobs that are not done and that no other process does now; returns the number of the latter."""
    taken = 0
    for job in found:
        file = results / job.place.with_name(job.place.name + ".json")
        if is_done(file, job):
            continue
        lock = FolderLock(out / job.place, "accuracy")
        try:
            lock.acquire()
        except WriteError as error:
            if "writes this folder" not in str(error):
                raise
            taken += 1
            continue
        try:
            if not is_done(file, job):
                print(f"\n{job.command}", flush=True)
                result = run_job(job, roots.get(job.data), out, extra)
                file.parent.mkdir(parents=True, exist_ok=True)
                write_text(file, json.dumps(result, indent=1) + "\n")
                print(f"{job.place}: AP {result['AP']:.3f}, AP50 {result['AP50']:.3f}", flush=True)
        finally:
            lock.release()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("protocol", type=Path)
    parser.add_argument("phase", choices=list(PHASES))
    parser.add_argument(
        "--root", nargs="+", default=[], metavar="NAME=FOLDER", help="folders of the data sets"
    )
    parser.add_argument("--data", nargs="+", default=[], help="only these data sets")
    parser.add_argument("--runs", nargs="+", default=[], help="only these variants and peers")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="only these")
    parser.add_argument("--threads", type=int, help="threads of PyTorch")
    parser.add_argument("--workers", type=int, default=0, help="loader processes (0)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--page", type=Path, default=PAGE, help="page of the tables")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        roots = {name: Path(folder) for name, _, folder in (word.partition("=") for word in args.root)}
        protocol = read_protocol(args.protocol)
        found = jobs(protocol, args.phase, args.data, args.runs, args.seeds, args.results)
        extra = [f"--data.workers={args.workers}", f"--device={args.device}"]
        taken = work(found, roots, args.out, args.results, extra)
    except UserError as error:
        sys.exit(f"accuracy.py: {error}")
    except Stopped as stopped:
        sys.exit(f"accuracy.py: stopped by {stopped.signal.name}; the same command goes on")
    page = args.page.read_text(encoding="utf-8") if args.page.is_file() else "# Accuracy\n"
    page = fill(page, read_results(args.results))
    write_text(args.page, page)
    print(f"\n{args.page}: written; other processes have {counted(taken, 'run')}")


if __name__ == "__main__":
    main()
