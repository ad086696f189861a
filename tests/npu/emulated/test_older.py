"""Training needs neither the fused optimizers, which older torch-npu and CANN lack, nor a newer chip.

This file runs with an emulated CANN without ``aclnnFusedSgd`` and ``aclnnApplyAdamWV2``, on an Ascend 910A.
"""

import pytest
import torch
from running import Trainer
from torch import nn

from fsaf.device import resolve_device


def test_the_fused_optimizers_are_missing() -> None:
    device = resolve_device("npu")  # this also keeps torch_npu from compiling operators one by one
    weight = nn.Parameter(torch.ones(4, device=device))
    weight.grad = torch.ones_like(weight)
    for optimizer in (
        torch.optim.SGD([weight], lr=0.1, momentum=0.9, fused=True),
        torch.optim.AdamW([weight], lr=0.1, fused=True),
    ):
        with pytest.raises(RuntimeError, match=r"aclnn(FusedSgd|ApplyAdamWV2).*not in"):
            optimizer.step()


@pytest.mark.usefixtures("same_program")
@pytest.mark.parametrize("options", [(), ("--optim.name=sgd", "--optim.lr=0.01")], ids=["AdamW", "SGD"])
def test_training_is_the_cpus(train: Trainer, options: tuple[str, ...]) -> None:
    on_cpu, on_npu = (train(device, *options) for device in ("cpu", "npu"))
    assert [record["loss"] for record in on_npu] == [record["loss"] for record in on_cpu]


def test_overflows_are_skipped(train: Trainer) -> None:
    records = train("npu", "--train.precision=fp16", "--train.loss_scale=dynamic", steps=5)
    assert 2 <= sum(record["grad_norm"] is None for record in records) <= 4
    assert all(tensor.isfinite().all() for tensor in train.tensors("npu"))
