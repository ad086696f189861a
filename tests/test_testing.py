"""The recorder finds and names every breach of its rules, and none in a fixed program."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fsaf.testing import Recorder, first_difference

THREE = torch.tensor([1.0, -1.0, 2.0])


@pytest.mark.parametrize(
    ("rule", "operator", "offend"),
    [
        ("dynamic shape", "aten.nonzero.default", lambda x: x.nonzero()),
        ("dynamic shape", "aten.masked_select.default", lambda x: x.masked_select(x > 0)),
        ("dynamic shape", "aten._unique2.default", lambda x: x.unique()),
        ("dynamic shape", "aten.bincount.default", lambda x: x.abs().int().bincount()),
        ("dynamic shape", "aten.repeat_interleave.Tensor", lambda x: torch.repeat_interleave(x.abs().int())),
        ("host read", "aten._local_scalar_dense.default", lambda x: x.sum().item()),
        ("host read", "aten._local_scalar_dense.default", lambda x: float(x[0])),
        ("host read", "aten._local_scalar_dense.default", lambda x: 1 if x[0] > 0 else 2),
        ("host read", "aten._local_scalar_dense.default", lambda x: list(range(10))[x[0].int()]),
        ("host read", "aten.equal.default", lambda x: torch.equal(x, x)),
        ("host read", "Tensor.tolist", lambda x: x.tolist()),
        ("host read", "Tensor.numpy", lambda x: x.numpy()),
        ("host read", "Tensor.__array__", np.asarray),
        ("host read", "Tensor.cpu", lambda x: x.cpu()),
        ("device copy", "aten._to_copy.default", lambda x: x.to("meta")),
        ("device copy", "aten.copy_.default", lambda x: torch.empty(3, device="meta").copy_(x)),
        ("mask index", "aten.index.Tensor", lambda x: x[x > 0]),
        ("mask index", "aten.index_put_.default", lambda x: x.clone().__setitem__(x > 0, THREE[:2])),
        ("mask index", "aten.index.Tensor", lambda x: x[(x > 0).byte()]),
        ("int64 reduction", "aten.sum.default", lambda x: x.long().sum()),
        ("int64 reduction", "aten.sum.dim_IntList", lambda x: (x > 0).sum(0)),
        ("int64 reduction", "aten.cumsum.default", lambda x: x.long().cumsum(0)),
        ("int64 reduction", "aten.mean.default", lambda x: x.long().mean(dtype=torch.float32)),
        ("int64 reduction", "aten.max.dim", lambda x: x.long().max(0)),
        ("int64 reduction", "aten.amax.default", lambda x: x.long().amax(0)),
        ("int64 reduction", "aten.argmax.default", lambda x: x.long().argmax()),
        ("int64 reduction", "aten.sort.default", lambda x: x.long().sort()),
        ("int64 reduction", "aten.topk.default", lambda x: x.long().topk(2)),
        ("float64", "aten._to_copy.default", lambda x: x.double()),
        ("float64", "aten.arange.default", lambda _: torch.arange(3, dtype=torch.float64)),
    ],
)
@pytest.mark.filterwarnings("ignore:indexing with dtype torch.uint8")
def test_each_breach_is_named(rule: str, operator: str, offend: Callable[[Tensor], object]) -> None:
    with Recorder() as recorder:
        offend(THREE)
    assert (rule, operator) in [(v.rule, v.operator) for v in recorder.violations]
    assert f"{rule}: {operator}, " in recorder.report()


def test_a_breach_comes_with_its_tensor_and_its_line() -> None:
    x = torch.zeros(2, 5)
    with Recorder() as recorder:
        (x > 0).nonzero()  # this line
    (breach,) = recorder.violations
    assert breach.tensor == "input 0 bool[2, 5] on cpu"
    assert __file__ in breach.source
    assert breach.source.endswith("(x > 0).nonzero()  # this line")


def test_a_breach_of_the_backward_pass_comes_with_the_line_of_the_forward_pass() -> None:
    x = torch.zeros(4, requires_grad=True)
    y = torch.zeros(4, requires_grad=True)
    with Recorder() as recorder:
        gathered = x[torch.tensor([True, False, True, True])]  # forward line
        (gathered.sum() + y.sum()).backward()
    backward = [v for v in recorder.violations if "index_put" in v.operator]
    assert backward
    assert all("# forward line" in v.source for v in backward)


def test_a_fixed_program_is_not_reported() -> None:
    x = torch.randn(4, 6, requires_grad=True)
    with Recorder() as recorder:
        best, index = x.max(1)
        picked = x.gather(1, index[:, None])[:, 0]
        counted = torch.zeros(6).scatter_add(0, index, best.detach())
        total = torch.where(best > 0, best * picked, 0.0).sum() + counted.topk(2).values.sum()
        ((x > 0).float().sum() * total / torch.arange(6).float().mean()).backward()
    assert recorder.report() == ""
    assert recorder.operators()["aten.max.dim"] == 1


def program(x: Tensor, more: bool = False) -> Recorder:
    with Recorder() as recorder:
        y = x * 2
        if more:
            y.relu()
    return recorder


def test_recordings_are_compared_by_operator_shape_and_type() -> None:
    same = first_difference(program(torch.ones(3)), program(torch.zeros(3)))
    assert same is None
    for other in (torch.ones(4), torch.ones(3, dtype=torch.int32)):
        difference = first_difference(program(torch.ones(3)), program(other))
        assert difference is not None and "call 0" in difference and "mul" in difference
    assert first_difference(program(torch.ones(3)), program(torch.ones(3), more=True)) == "1 / 2 calls"


def test_anomaly_mode_is_left_as_it_was() -> None:
    for before in (False, True):
        with torch.autograd.set_detect_anomaly(before):
            program(torch.ones(3))
            assert torch.is_anomaly_enabled() is before
