"""``fsaf train --device npu`` computes what ``fsaf train --device cpu`` does."""

import emulator
import pytest
import torch
from running import Trainer

SGD = ("--optim.name=sgd", "--optim.lr=0.01")
DYNAMIC = ("--train.precision=fp16", "--train.loss_scale=dynamic")
R50 = "fsaf_r50_fpn_1x_coco"


@pytest.mark.usefixtures("same_program")
@pytest.mark.parametrize(
    ("recipe", "options"),
    {
        "lite0, AdamW": ("lite0", ()),
        "lite0, SGD": ("lite0", SGD),
        "SGD without momentum": ("lite0", (*SGD, "--optim.momentum=0")),
        "R-50, SGD": (R50, ()),
        "both branches": ("lite0", ("--model.branches=[anchor_free,anchor_based]",)),
        "average and parts": ("lite0", ("--train.ema=0.9", "--train.accumulate=2", "--data.batch_size=1")),
        "learning batch norm": ("lite0", ("--model.frozen_norm=false", "--objective.box_loss=ciou")),
        "rate of the backbone": ("lite0", ("--optim.backbone_rate=0.3",)),
    }.values(),
)
def test_float32_is_equal_to_the_last_bit(train: Trainer, recipe: str, options: tuple[str, ...]) -> None:
    on_cpu = train("cpu", *options, recipe=recipe)
    with emulator.recording() as lines:
        on_npu = train("npu", *options, recipe=recipe)
    assert emulator.count(lines)["launches"] > 1000
    assert not [line for line in lines if line.startswith("REFUSED")]
    assert len(on_npu) == len(on_cpu) == 3
    for a, b in zip(on_npu, on_cpu, strict=True):
        assert (a["loss"], a["grad_norm"]) == (b["loss"], b["grad_norm"])
        assert a["level_share"] == b["level_share"]
    for one, other in zip(train.tensors("npu"), train.tensors("cpu"), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("options", [(), SGD], ids=["AdamW", "SGD"])
def test_float32_is_close_to_the_cpus_own_program(train: Trainer, options: tuple[str, ...]) -> None:
    """On the CPU, convolutions are channels last and optimizers fused, which rounds differently."""
    on_cpu, on_npu = (train(device, *options) for device in ("cpu", "npu"))
    for a, b in zip(on_npu, on_cpu, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)


# Autocast keeps other operators in float32 than on a CPU, group norm among them.
@pytest.mark.parametrize(
    ("options", "recipe", "tolerance"),
    {
        "bf16": (("--train.precision=bf16",), "lite0", 1e-2),
        "fp16, 32": (("--train.precision=fp16", "--train.loss_scale=32", *SGD), "lite0", 2e-3),
        "R-50, fp16, 32": (("--train.precision=fp16", "--train.loss_scale=32"), R50, 2e-3),
        "R-50, bf16": (("--train.precision=bf16",), R50, 1e-2),
    }.values(),
)
def test_half_precision_is_close(
    train: Trainer, options: tuple[str, ...], recipe: str, tolerance: float
) -> None:
    on_cpu, on_npu = (train(device, *options, recipe=recipe) for device in ("cpu", "npu"))
    for a, b in zip(on_npu, on_cpu, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=tolerance)
        assert a["loss_scale"] == b["loss_scale"] == (32 if "fp16" in options[0] else 1)
    assert on_npu[-1]["loss"] != on_npu[0]["loss"]


@pytest.mark.parametrize("options", [(), SGD], ids=["AdamW", "SGD"])
def test_steps_that_overflow_are_skipped_as_on_the_cpu(train: Trainer, options: tuple[str, ...]) -> None:
    on_cpu, on_npu = (train(device, *options, *DYNAMIC, steps=5) for device in ("cpu", "npu"))
    skipped = [record["grad_norm"] is None for record in on_npu]
    assert skipped == [record["grad_norm"] is None for record in on_cpu]
    assert 2 <= sum(skipped) <= 4, "some steps overflow and some do not"
    assert [record["loss_scale"] for record in on_npu] == [record["loss_scale"] for record in on_cpu]
    for a, b in zip(on_npu, on_cpu, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-2)
    assert all(tensor.isfinite().all() for tensor in train.tensors("npu"))


def test_a_skipped_step_leaves_every_tensor_as_it_is(train: Trainer) -> None:
    train("npu", *DYNAMIC, "--train.ema=0.9", steps=1, out="one")
    train("npu", *DYNAMIC, "--train.ema=0.9", steps=2, out="two")
    one, two = train.tensors("one"), train.tensors("two")
    changed = [a for a, b in zip(one, two, strict=True) if not torch.equal(a, b)]
    # The loss scale halves. The average counts an update and averages the same weights.
    assert [tensor.shape for tensor in changed] == [torch.Size([])]


@pytest.mark.usefixtures("same_program", "lazy")
def test_nothing_is_read_before_it_is_there(train: Trainer) -> None:
    """The result is the same, bit by bit, if launches and copies are delayed until the host waits."""
    on_cpu, on_npu = (train(device, "--train.ema=0.9") for device in ("cpu", "npu"))
    assert [record["loss"] for record in on_npu] == [record["loss"] for record in on_cpu]
    for one, other in zip(train.tensors("npu"), train.tensors("cpu"), strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("same_program")
@pytest.mark.parametrize("options", [(), SGD], ids=["AdamW", "SGD"])
def test_a_captured_step_is_the_plain_one(train: Trainer, options: tuple[str, ...]) -> None:
    options = (*options, "--train.ema=0.9", "--optim.schedule=one_cycle")
    on_cpu = train("cpu", *options, steps=7)
    with emulator.recording() as lines:
        on_npu = train("npu", *options, "--train.graphs=true", steps=7)
    assert emulator.count(lines)["graphs"] == 4, "three steps run as they are, the fourth is captured"
    assert not [line for line in lines if line.startswith("OUTSIDE")]
    rates = [record["lr"] for record in on_npu]
    assert len(set(rates)) == 7
    for a, b in zip(on_npu, on_cpu, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5)
    for one, other in zip(train.tensors("npu"), train.tensors("cpu"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_captured_steps_skip_overflows(train: Trainer) -> None:
    plain = train("npu", *DYNAMIC, steps=7, out="plain")
    captured = train("npu", *DYNAMIC, "--train.graphs=true", steps=7, out="captured")
    assert [record["loss_scale"] for record in captured] == [record["loss_scale"] for record in plain]
    assert sum(record["grad_norm"] is None for record in captured) >= 3
    for a, b in zip(captured, plain, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


@pytest.mark.usefixtures("same_program")
@pytest.mark.parametrize(("first", "second"), [("npu", "npu"), ("npu", "cpu"), ("cpu", "npu")])
def test_a_run_goes_on_where_it_stopped_also_on_the_other_device(
    train: Trainer, first: str, second: str
) -> None:
    # The schedule must not depend on where the run stops.
    options = ("--optim.schedule=constant", "--train.ema=0.9")
    whole = train("cpu", *options, steps=4, out="whole")
    train(first, *options, steps=2, out="parts")
    resumed = train(second, *options, "--resume=true", steps=4, out="parts")
    assert [record["loss"] for record in resumed] == [record["loss"] for record in whole]
    for one, other in zip(train.tensors("parts"), train.tensors("whole"), strict=True):
        assert torch.equal(one, other)
