"""Quantise an exported file to 8 bits with onnxruntime.

Static quantisation: the ranges of activations are those that calibration pictures reach. Only convolutions
are quantised, each output channel with its own scale, and not the last ones of the head: their errors are
errors of scores and boxes.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from fsaf.config import Config
from fsaf.detection.exported import Session, prepare_inputs
from fsaf.detection.onnx import OnnxSession
from fsaf.errors import UserError, import_extra

CALIBRATED_ON = 64
"""Pictures at most."""
QUANTISED = ["Conv", "Clip", "Relu"]
"""Types of nodes. A ReLU becomes part of the convolution before it: only what it leaves has to fit 8 bits."""
FLOAT_LAYERS = ("classes", "distances", "anchor_classes", "anchor_deltas")
"""Output convolutions of the head."""

Batches = Sequence[tuple[Tensor, Tensor]]
"""Images (n, 3, H, W) uint8, and their sizes inside the padding (n, 2)."""


def quantise(source: Path, target: Path, calibration: Batches, config: Config) -> None:
    """Write the 8-bit version of an exported file. Raises UserError if onnxruntime cannot."""
    onnx = import_extra("onnx", need="--int8 needs")
    tools = import_extra("onnxruntime.quantization", need="--int8 needs")
    convolutions = [node for node in onnx.load(source).graph.node if node.op_type == "Conv"]
    kept = [
        node.name
        for node in convolutions
        if node.input[1].split(".")[-2:-1] in [[name] for name in FLOAT_LAYERS]
    ]
    if not kept:
        raise UserError("int8: the convolutions that must stay in float are not found in the exported graph")
    feeds = _feeds(OnnxSession(source, "cpu"), calibration, config)

    class Reader(tools.CalibrationDataReader):  # type: ignore[name-defined]
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(feeds, None)

    with _quiet():
        tools.quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=tools.QuantFormat.QDQ,
            activation_type=tools.QuantType.QUInt8,  # on x86 onnxruntime leaves signed ones in float
            op_types_to_quantize=QUANTISED,
            per_channel=True,
            nodes_to_exclude=kept,
        )


def _feeds(session: Session, batches: Batches, config: Config) -> Iterator[dict[str, np.ndarray]]:
    """Yield the inputs of each run of the file; a last batch that is not full is filled up with copies."""
    for images, sizes_b2 in batches:
        inputs = prepare_inputs(session, images, sizes_b2, config.model.mean_colour)
        count = session.input_shape[0] or 1
        for start in range(0, len(images), count):
            index = [min(i, len(images) - 1) for i in range(start, start + count)]
            parts = [np.ascontiguousarray(x[index]) for x in inputs]
            yield dict(zip(("images", "sizes"), parts, strict=False))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence onnxruntime's advice to preprocess: our graphs are optimised already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
