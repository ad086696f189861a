"""ONNX files for ATC, the compiler of Ascend's offline models (OM): settings, operators, commands."""

import functools
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fsaf.errors import UserError

OPSET = 18
"""Highest opset that ATC reads (hicann/ge, ``docs/zh/user_guides/atc_tools/CLI_options/--framework.md``)."""

TABLE = Path(__file__).with_name("cann_operators.json")
"""ONNX operators that CANN registers at ``OPSET``, and where they are from; ``tools/cann_operators.py``."""

CHIP = "Ascend310P3"
"""Example of a value for ``--soc_version``."""


def ascend_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of ``export_onnx`` that make a file for ATC, from those a user gave.

    Opset 18; one input of one shape; the head's outputs, so that boxes are decoded and suppressed on the host
    in float32: ATC computes in float16 by default, which rounds coordinates above 1024 to whole pixels.
    Images are float32 unless the user says otherwise: only then can the padding be the mean colour exactly,
    which the network sees as 0. Raises UserError for options that contradict this.
    """
    if options.get("opset") not in (None, OPSET):
        raise UserError(f"for ascend: opset {options['opset']}: ATC reads opset {OPSET}; leave it out")
    if options.get("outputs", "detections") == "raw":
        raise UserError("for ascend: raw: the outputs of the head are written, before decoding; leave it out")
    if options.get("dynamic_batch"):
        raise UserError("for ascend: batch 0: the number of images is fixed; give --batch 1 or more")
    float_images = options.get("float_images") in (None, True)
    fixed = {"opset": OPSET, "outputs": "head", "fixed_size": True, "float_images": float_images}
    return {**options, **fixed}


def check_operators(graph: Any) -> None:
    """Raise UserError, naming them, if a graph of onnx_ir has operators that CANN's ONNX parser lacks."""
    known = known_operators()
    used = {(node.domain, node.op_type) for node in graph.all_nodes()}
    names = {name if domain in ("", "ai.onnx") else f"{domain}::{name}" for domain, name in used}
    missing = sorted(names - known)
    if missing:
        raise UserError(
            f"for ascend: CANN's ONNX parser has no operator {', '.join(missing)} at opset {OPSET}; "
            "export another backbone or without --for ascend"
        )


@functools.cache
def known_operators() -> frozenset[str]:
    """Return the names of the kept table."""
    return frozenset(json.loads(TABLE.read_text(encoding="utf-8"))["operators"])


def ascend_commands(path: Path, shape: Sequence[int | None]) -> str:
    """Return the commands that make an OM file of an exported ONNX file, time it and score it.

    shape: (N, 3, H, W) of its images.
    """
    target = path.with_suffix("")
    onnx, om, out = (shlex.quote(str(x)) for x in (path, path.with_suffix(".om"), target))
    sides = ",".join(map(str, shape))
    return f"""\
for an OM file, where CANN is installed (--soc_version: Ascend and the chip's name in `npu-smi info`):
  atc --framework=5 --model={onnx} --output={out} --input_format=NCHW \\
    --input_shape="images:{sides}" --soc_version={CHIP} --log=error
to time it:
  python3 -m ais_bench --model {om} --loop 100
to score it, with {path.with_suffix(".json").name} beside it:
  fsaf evaluate {om} --data.root DATA --out scores"""
