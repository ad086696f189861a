"""What is known of torch_npu and of the hardware holds on the emulator.

Each of these once stopped or corrupted a training run.
"""

from collections import Counter

import emulator
import pytest
import torch
from torch import nn

from fsaf.device import use_exact_fp32


def launched(lines: list[str]) -> Counter[str]:
    return Counter(line.removeprefix("LAUNCH aclnn") for line in lines if line.startswith("LAUNCH"))


def test_channels_last_is_refused() -> None:
    with pytest.raises(RuntimeError, match="Only contiguous_format or preserve_format is supported"):
        nn.Conv2d(3, 4, 3).to("npu").to(memory_format=torch.channels_last)


def test_fused_adamw_ignores_found_inf() -> None:
    weight = nn.Parameter(torch.ones(4, device="npu"))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    weight.grad = torch.full_like(weight, torch.inf)
    optimizer.found_inf = torch.ones((), device="npu")  # type: ignore[attr-defined]
    optimizer.step()
    assert not weight.detach().cpu().isfinite().any()


def test_fused_sgd_refuses_momentum_0_and_reads_its_rate_on_the_host() -> None:
    weight = nn.Parameter(torch.ones(4, device="npu"))
    weight.grad = torch.ones_like(weight)
    with pytest.raises(RuntimeError, match="momentum must be positive"):
        torch.optim.SGD([weight], lr=0.1, fused=True).step()
    waits = []
    for rate in (0.1, torch.tensor(0.1, device="npu")):
        optimizer = torch.optim.SGD([weight], lr=rate, momentum=0.9, fused=True)
        optimizer.step()
        with emulator.recording() as lines:
            optimizer.step()
        waits.append(emulator.count(lines)["waits"])
    assert waits[0] == 0 < waits[1]


def test_a_list_times_a_tensor_is_one_launch_for_each_tensor() -> None:
    tensors = [torch.ones(3, device="npu") for _ in range(5)]
    with emulator.recording() as lines:
        torch._foreach_mul_(tensors, torch.tensor(2.0, device="npu"))
    assert launched(lines) == {"InplaceMul": 5}
    with emulator.recording() as lines:
        torch._foreach_mul_(tensors, 2.0)
    assert sum(launched(lines).values()) == 1


def test_copying_a_view_that_is_not_contiguous_waits() -> None:
    images = torch.zeros(2, 4, 5, 3, dtype=torch.uint8).pin_memory().permute(0, 3, 1, 2)
    with emulator.recording() as lines:
        images.to("npu", non_blocking=True)
    assert emulator.count(lines)["waits"] == 1
    with emulator.recording() as lines:
        images.permute(0, 2, 3, 1).to("npu", non_blocking=True)
    assert emulator.count(lines)["waits"] == 0


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_types_that_the_ai_core_does_not_scatter_are_counted(dtype: torch.dtype) -> None:
    index = torch.tensor([[1, 0]], device="npu")
    with emulator.recording() as lines:
        torch.zeros(1, 3, dtype=dtype, device="npu").scatter(1, index, 1)
    assert emulator.count(lines)["ai cpu"] == 1
    with emulator.recording() as lines:
        torch.zeros(1, 3, device="npu").scatter(1, index, 1.0)
    assert emulator.count(lines)["ai cpu"] == 0


def test_results_of_half_precision_are_rounded() -> None:
    ones = torch.ones(1, 1, 40, 60)
    expected = torch.nn.functional.conv2d(ones, ones * 1.001)
    found = torch.nn.functional.conv2d(ones.half().npu(), (ones * 1.001).half().npu())
    assert found.dtype is torch.float16
    assert found.item() == pytest.approx(expected.item(), rel=1e-3) and found.item() != expected.item()


def test_what_is_read_too_early_is_wrong_if_the_device_is_lazy(lazy: None) -> None:
    numbers = torch.arange(6.0, device="npu")
    early = (numbers * 2 + 1).to("cpu", non_blocking=True)
    assert early.tolist() != [1, 3, 5, 7, 9, 11]
    torch.npu.synchronize()
    assert early.tolist() == [1, 3, 5, 7, 9, 11]
    pinned = torch.ones(4).pin_memory()
    on_device = pinned.to("npu", non_blocking=True)
    pinned.fill_(7)
    assert on_device.cpu().tolist() == [7, 7, 7, 7]


def test_graphs_record_and_replay_on_the_same_memory() -> None:
    numbers = torch.zeros(3, device="npu")
    graph = torch.npu.NPUGraph()
    with torch.npu.graph(graph):
        numbers.mul_(2).add_(1)
    assert numbers.tolist() == [0, 0, 0]
    graph.replay()
    graph.replay()
    assert numbers.tolist() == [3, 3, 3]


def test_a_capture_refuses_to_wait() -> None:
    numbers = torch.zeros(3, device="npu")
    with (
        pytest.raises(RuntimeError, match="host waits while a graph is captured"),
        torch.npu.graph(torch.npu.NPUGraph()),
    ):
        numbers.sum().item()


def test_unknown_operators_refuse_instead_of_answering() -> None:
    with pytest.raises(RuntimeError, match="aclnnErfinv is not emulated"):
        torch.ones(3, device="npu").erfinv()


def test_fresh_memory_is_not_zero() -> None:
    assert torch.empty(10_000_000, device="npu").isnan().all()


def test_exact_fp32_turns_hf32_off() -> None:
    try:
        assert torch.npu.conv.allow_hf32, "convolutions round their operands by default"
        use_exact_fp32(torch.device("npu"))
        assert not torch.npu.conv.allow_hf32 and not torch.npu.matmul.allow_hf32
    finally:
        torch.npu.conv.allow_hf32 = True
