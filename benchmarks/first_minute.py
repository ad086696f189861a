"""The first minute: ``fsaf predict fsaf_r50_coco PICTURE`` with a download from this machine.

    python benchmarks/first_minute.py [--repeat 3] [--install all]

A file of the published size and layout, with random weights, is served on 127.0.0.1 in place of the
published one. Each call is a process of its own, from the start of Python to the written picture: the first
one downloads, the second one finds the file in the cache. Before them, ``fsaf --help`` and ``fsaf models``.

With --install EXTRAS all of them run in an environment that is made first: ``python -m venv`` and
``pip install '.[EXTRAS]'`` of this checkout, whose time is printed too. pip takes packages from its index, or
from its cache if they are there (PIP_NO_CACHE_DIR=1 leaves the cache out).
"""

import argparse
import functools
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from fsaf.checkpoints.any_format import write_checkpoint
from fsaf.checkpoints.coco_classes import COCO
from fsaf.checkpoints.format import Checkpoint
from fsaf.checkpoints.published import PUBLISHED
from fsaf.model.detector import FSAF
from fsaf.recipe import load_recipe

ROOT = Path(__file__).parents[1]
NAME = "fsaf_r50_coco"
CALL = f"""
import sys
from dataclasses import replace
from fsaf.checkpoints import published
from fsaf.cli import main
published.SERVER = sys.argv[1]
published.PUBLISHED[{NAME!r}] = replace(published.PUBLISHED[{NAME!r}], sha256=sys.argv[2])
sys.exit(main(["predict", {NAME!r}, "street.png", "--device", "cpu", "--out", "found"]))
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="first and second calls (3)")
    parser.add_argument("--install", metavar="EXTRAS", help="install this checkout with these extras first")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = PUBLISHED[NAME]
        file = folder / "server" / one.folder / one.file
        file.parent.mkdir(parents=True)
        torch.manual_seed(0)
        config = load_recipe(one.recipe)
        weights = FSAF(config.model, len(COCO)).state_dict()
        write_checkpoint(file, Checkpoint(config=config, classes=COCO, weights=weights), "mmdetection")
        pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "street.png")
        handler = functools.partial(Quiet, directory=str(folder / "server"))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address, total = (
                f"http://127.0.0.1:{server.server_port}",
                hashlib.sha256(file.read_bytes()).hexdigest(),
            )
            python, times = sys.executable, dict[str, list[tuple[float, float]]]()
            if args.install is not None:
                python, times["pip install"] = install(folder, args.install)
            call = [python, "-c", CALL, address, total]
            commands = {
                "fsaf --help": [python, "-m", "fsaf", "--help"],
                "fsaf models": [python, "-m", "fsaf", "models"],
                "first call": call,
                "second call": call,
            }
            for i in range(args.repeat):
                for what, command in commands.items():
                    times.setdefault(what, []).append(timed(command, folder, folder / f"home{i}"))
            server.shutdown()
        print(f"{file.stat().st_size / 1e6:.0f} MB, a picture of 480 x 640, {os.cpu_count()} CPUs")
        for what, calls in times.items():
            seconds, cpu = (median(values) for values in zip(*calls, strict=True))
            print(f"{what:<12} {seconds:6.1f} s, {cpu:6.1f} s of CPU time")


def install(folder: Path, extras: str) -> tuple[str, list[tuple[float, float]]]:
    """Install this checkout into an empty environment; return its Python, and the time as ``timed`` does."""
    place = folder / "environment"
    python = str(place / ("Scripts" if os.name == "nt" else "bin") / "python")
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    os.environ.pop("PYTHONPATH", None)  # the environment alone counts
    command = [python, "-m", "pip", "install", "--quiet", f"{ROOT}[{extras}]"]
    return python, [timed(command, folder, folder)]


def timed(command: list[str], folder: Path, home: Path) -> tuple[float, float]:
    """Return the seconds of a command in ``folder``, and its seconds of CPU time."""
    before, start = os.times(), time.perf_counter()
    environment = {**os.environ, "FSAF_HOME": str(home)}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used


if __name__ == "__main__":
    main()
