"""An ONNX file with suppression alone gives the same indices as torchvision's kernel."""

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from fsaf.detection.nms import nms
from fsaf.exporting.onnx import _quiet, _translate_nms

K, M = 30, 12
pytestmark = pytest.mark.slow

Run = Callable[[Tensor, Tensor, Tensor], Tensor]


class Suppression(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        return nms(boxes, scores, labels, 0.3, M)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A function that runs the file on (B, 30) candidates."""
    path = tmp_path_factory.mktemp("suppression") / "nms.onnx"
    example = (torch.zeros(2, K, 4), torch.zeros(2, K), torch.zeros(2, K, dtype=torch.int64))
    free = {0: torch.export.Dim("batch")}
    with _quiet():
        program = torch.onnx.export(
            Suppression().eval(),
            example,
            dynamo=True,
            verbose=False,
            dynamic_shapes=(free, free, free),
            custom_translation_table={torch.ops.fsaf.nms.default: _translate_nms},
        )
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]

    def run_file(*tensors: Tensor) -> Tensor:
        inputs = {name: x.numpy() for name, x in zip(names, tensors, strict=True)}
        return torch.from_numpy(session.run(None, inputs)[0])

    return run_file


@pytest.mark.parametrize("grid", [True, False], ids=["ties and exact overlaps", "random"])
def test_equals_pytorch(grid: bool, run: Run) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0, 10, (2, 300, K, 2)).astype(np.float32)
    scores = rng.uniform(-1.5, 1, (300, K)).astype(np.float32)
    if grid:
        first, second, scores = first.round(), second.round(), np.round(scores * 4) / 4
    boxes = torch.from_numpy(np.concatenate([np.minimum(first, second), np.maximum(first, second)], 2))
    labels = torch.from_numpy(rng.integers(0, 3, (300, K)))
    expected = nms(boxes, torch.from_numpy(scores), labels, 0.3, M)
    assert (expected >= 0).all(1).any() and (expected < 0).any()
    assert torch.equal(run(boxes, torch.from_numpy(scores), labels), expected)


def test_padding_only(run: Run) -> None:
    boxes, labels = torch.ones(3, K, 4), torch.zeros(3, K, dtype=torch.int64)
    assert (run(boxes, torch.zeros(3, K), labels) == -1).all()
