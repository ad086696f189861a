"""Keep the ONNX operators that CANN's parser registers, for the check of `fsaf export --for ascend`.

    git clone --depth 1 https://github.com/hicann/ops-nn      # and ops-math, ops-cv, ge
    python tools/cann_operators.py ops-nn ops-math ops-cv ge

ATC looks an operator up as ``ai.onnx::18::Conv``, 18 being the opset of the file; the repositories of
operators register such names one by one. ``Constant`` is no such name: ATC's own parser, in ge, reads it
(``kOnnxOpMap`` in ``parser/parser/onnx/onnx_parser.cc``). A registered operator can be read; whether it
compiles for a chip is for ATC to say.
"""

import argparse
import json
import re
import subprocess
from pathlib import Path

from fsaf.exporting.ascend import OPSET, TABLE

READ_BY_ATC = {"Constant"}


def git(folder: Path, *arguments: str) -> str:
    """Return what git prints."""
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def registered(folder: Path) -> set[str]:
    """Return the operators registered for ``OPSET`` in a clone."""
    names = git(folder, "grep", "-hoE", f"ai\\.onnx::{OPSET}::[A-Za-z0-9_]+", "HEAD", "--", "*.cpp", "*.cc")
    return {re.sub(".*::", "", name) for name in names.split()}


def main() -> None:
    """Read the clones and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("ops-nn", "ops-math", "ops-cv", "ge"):
        parser.add_argument(name, type=Path)
    clones = {name.replace("_", "-"): path for name, path in vars(parser.parse_args()).items()}
    names = set().union(READ_BY_ATC, *(registered(path) for name, path in clones.items() if name != "ge"))
    sources = {
        f"https://github.com/hicann/{name}": git(path, "log", "-1", "--format=%H %cs").strip()
        for name, path in clones.items()
    }
    TABLE.write_text(json.dumps({"opset": OPSET, "sources": sources, "operators": sorted(names)}, indent=1))
    print(f"written: {TABLE}: {len(names)} operators")


if __name__ == "__main__":
    main()
