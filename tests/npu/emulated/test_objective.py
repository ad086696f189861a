"""The objective on the NPU gives the CPU's numbers on the twelve cases that MMDetection computed."""

from pathlib import Path
from typing import Any

import emulator
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from fsaf.objective.objective import objective
from scripts import load_script

oracle = load_script(Path(__file__).resolve().parents[2] / "objective" / "test_oracle.py")


def leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().to("npu").requires_grad_(tensor.requires_grad)


def tensors(tree: Any) -> list[Tensor]:
    return [each for each in tree_leaves(tree) if isinstance(each, Tensor)]


@pytest.mark.parametrize("case", oracle.CASES)
def test_terms_and_gradients_equal_the_cpus(case: str) -> None:
    arrays = oracle.load(case)
    config, _ = oracle.settings_of(arrays)
    boxes, outputs = oracle.boxes_of(arrays), oracle.outputs_of(arrays)
    boxes_npu, outputs_npu = boxes.to("npu"), tree_map_only(Tensor, leaf, outputs)
    expected = objective(outputs, boxes, config)
    with emulator.recording() as lines:
        found = objective(outputs_npu, boxes_npu, config)
    assert (emulator.count(lines)["waits"], emulator.count(lines)["ai cpu"]) == (0, 0)
    expected.loss.backward()
    found.loss.backward()
    for a, b in zip(tensors(found), tensors(expected), strict=True):
        assert torch.equal(a.detach().cpu(), b.detach())
    gradients = 0
    for a, b in zip(tensors(outputs_npu), tensors(outputs), strict=True):
        if b.grad is not None:
            gradients += 1
            torch.testing.assert_close(a.grad.cpu(), b.grad, rtol=1e-5, atol=1e-7 * b.grad.abs().max().item())
    assert gradients == 10
