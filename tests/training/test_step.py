"""The training step is one fixed program: same operators, shapes and types for any content of a batch."""

import copy
import math
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from fsaf.config import Config, ObjectiveConfig, OptimConfig, TrainConfig
from fsaf.data.batch import Boxes
from fsaf.data.records import Classes
from fsaf.testing import Recorder, first_difference
from fsaf.training.optim import MovingAverage, make_optimizer
from fsaf.training.precision import Precision
from fsaf.training.run import Run
from fsaf.training.session import make_step
from fsaf.training.start import start_run
from fsaf.training.step import FirstSteps, ForwardLoss, train_step
from objective.scenes import NUM_CLASSES, as_batch, scene_boxes
from synthetic import tiny_model

pytestmark = pytest.mark.slow

CLASSES = Classes(names=tuple("abcd"), ids=tuple(range(NUM_CLASSES)))


def start(
    out: Path, precision: str = "fp32", scale: Any = "dynamic", optimizer: Any = "sgd", **model: Any
) -> tuple[Run, ForwardLoss]:
    config = Config(
        out=str(out),
        model=tiny_model(**{"frozen_stages": 0, **model}),
        optim=OptimConfig(name=optimizer, weight_decay=0.05),
        train=TrainConfig(precision=precision, loss_scale=scale, ema=0.9),  # type: ignore[arg-type]
    )
    run = start_run(config, CLASSES, torch.device("cpu"))
    return run, ForwardLoss(run.model.train(), ObjectiveConfig(), run.precision)


def batch(first: int, second: int, seed: int = 0) -> tuple[Tensor, Boxes]:
    """Return two images of 128 x 192 pixels with so many boxes, every fifth a crowd region."""
    images = [scene_boxes(first, seed), scene_boxes(second, seed + 1)]
    for _, _, crowd in images:
        crowd[4::5] = True
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (2, 3, 128, 192), generator=random, dtype=torch.uint8)
    return pixels, as_batch(*images, sizes=[(120, 190), (128, 100)], count=16)


def record(run: Run, forward_loss: ForwardLoss, first: int, second: int) -> Recorder:
    images, boxes = batch(first, second)
    with Recorder() as recorder:
        train_step(run, forward_loss, images, boxes, 0.001)
    return recorder


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("precision", "scale"), [("fp32", "dynamic"), ("bf16", "dynamic"), ("fp16", 32.0), ("fp16", "dynamic")]
)
def test_the_step_is_one_program_for_any_number_of_boxes(
    tmp_path: Path, precision: str, scale: Any, optimizer: str
) -> None:
    run, forward_loss = start(tmp_path, precision, scale, optimizer)
    first = record(run, forward_loss, 3, 3)  # AdamW makes its state in the first step
    many = record(run, forward_loss, 16, 9)
    assert len(many.calls) > 1000
    assert "aten._fused_sgd_.default" in many.operators() or "aten._fused_adamw_.default" in many.operators()
    assert first.report() == many.report() == ""
    for counts in ((0, 0), (1, 0), (0, 7)):
        other = record(run, forward_loss, *counts)
        assert first_difference(many, other) is None
        assert other.report() == ""


@pytest.mark.parametrize("branches", [["anchor_based"], ["anchor_free", "anchor_based"]])
def test_with_anchors_the_step_is_a_fixed_program_too(tmp_path: Path, branches: list[str]) -> None:
    run, forward_loss = start(tmp_path, branches=branches)
    many = record(run, forward_loss, 16, 9)
    assert many.report() == ""
    for counts in ((0, 0), (1, 0)):
        assert first_difference(many, record(run, forward_loss, *counts)) is None


def test_batch_norm_that_learns_is_a_fixed_program_too(tmp_path: Path) -> None:
    run, forward_loss = start(tmp_path, backbone="test_resnet", norm="none", frozen_norm=False)
    many = record(run, forward_loss, 16, 9)
    assert many.report() == ""
    assert first_difference(many, record(run, forward_loss, 0, 0)) is None


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("scale", [32.0, "dynamic"])
def test_an_overflow_changes_nothing_but_a_dynamic_scale(tmp_path: Path, scale: Any, optimizer: str) -> None:
    run, forward_loss = start(tmp_path, "fp16", scale, optimizer)
    run.average = None
    run.precision.scale.fill_(32.0)  # small enough that the random network does not overflow
    images, boxes = batch(5, 5)
    for overflow in (False, True, True, False):
        model = copy.deepcopy(run.model.state_dict())
        state = copy.deepcopy(run.optimizer.state_dict()["state"])
        before = run.precision.loss_scale
        handle = run.model.head.classes.weight.register_hook(
            lambda grad, factor=torch.inf if overflow else 1.0: grad * factor
        )
        with Recorder() as recorder:
            _, norm = train_step(run, forward_loss, images, boxes, 0.001)
        handle.remove()
        assert recorder.report() == ""
        assert norm.isfinite().item() is not overflow
        if not overflow:
            assert not torch.equal(model["head.classes.weight"], run.model.head.classes.weight)
            assert run.precision.loss_scale == before
            continue
        assert run.precision.loss_scale == (before / 2 if scale == "dynamic" else before)
        assert all(torch.equal(value, run.model.state_dict()[name]) for name, value in model.items())
        now = run.optimizer.state_dict()["state"]
        assert state and state.keys() == now.keys()
        for number, tensors in state.items():
            assert all(torch.equal(value, now[number][key]) for key, value in tensors.items())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_step_stays_on_its_device(
    tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the device ``meta`` tensors have no values, so reading one, or leaving the device, would fail."""
    run, _ = start(tmp_path, precision, optimizer="adamw")  # fused SGD does not support meta
    device = torch.device("meta")
    run.model = run.model.to(device)
    run.optimizer = make_optimizer(run.model, run.config.optim)
    adam = import_module("torch.optim.adam")
    monkeypatch.setattr(adam, "_device_dtype_check_for_fused", lambda _: None)  # its list lacks meta
    run.precision = Precision(run.config.train, device)
    monkeypatch.setattr(run.precision, "autocast", nullcontext)  # autocast does not support meta
    run.average = MovingAverage(run.model, 0.9)
    forward_loss = ForwardLoss(run.model, ObjectiveConfig(), run.precision)
    images, boxes = batch(5, 2)
    images, boxes = images.to(device), boxes.to(device)
    with Recorder() as recorder:
        terms, norm = train_step(run, forward_loss, images, boxes, 0.001)
    assert recorder.report() == ""
    assert {form.device for call in recorder.calls for form in call.inputs} == {"meta"}
    assert terms.loss.device == norm.device == device
    with pytest.raises(RuntimeError):
        terms.loss.item()


def test_the_first_step_of_each_shape_is_told() -> None:
    told: list[str] = []
    first = FirstSteps(told.append)
    for shape in ((4, 3, 64, 96), (4, 3, 96, 64), (4, 3, 64, 96)):
        first.note(torch.zeros(shape), 12.34)
    expected = "compiled network and objective for batches of {} in 12.3 s"
    assert told == [expected.format("4 x 3 x 64 x 96"), expected.format("4 x 3 x 96 x 64")]


def four_images(seed: int = 0) -> tuple[Tensor, Boxes]:
    """With 1, 0, 9 and 12 boxes the halves of the batch have very different numbers of positives."""
    parts = [batch(1, 0, seed), batch(9, 12, seed + 2)]
    boxes = Boxes(*(torch.cat(fields) for fields in zip(*(part[1] for part in parts), strict=True)))
    return torch.cat([part[0] for part in parts]), boxes


@pytest.mark.parametrize("accumulate", [2, 4])
@pytest.mark.parametrize(("precision", "scale"), [("fp32", "dynamic"), ("fp16", 128.0)])
def test_accumulated_gradients_are_those_of_the_whole_batch(
    tmp_path: Path, accumulate: int, precision: str, scale: Any
) -> None:
    images, boxes = four_images()
    found = []
    for parts in (1, accumulate):
        run, forward_loss = start(tmp_path, precision, scale)
        run.config.train.accumulate = parts
        terms, norm = train_step(run, forward_loss, images, boxes, 0.001)
        gradients = {name: p.grad for name, p in run.model.named_parameters() if p.grad is not None}
        scalars = tree_leaves(terms._replace(level_bg=norm))  # of the last part only
        found.append((scalars, gradients))
    loose = {"rtol": 1e-2, "atol": 1e-3} if precision == "fp16" else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(found[1][0], found[0][0], **loose)
    assert found[0][1].keys() == found[1][1].keys() and len(found[0][1]) > 20
    share = 1e-2 if precision == "fp16" else 1e-4
    for name, whole in found[0][1].items():
        assert float((found[1][1][name] - whole).norm()) <= share * float(whole.norm()) + 1e-7, name


def test_parts_that_each_divide_by_their_own_positives_would_differ(tmp_path: Path) -> None:
    """With equal halves the test above would not notice a wrong divisor."""
    _, forward_loss = start(tmp_path)
    images, boxes = four_images()
    parts = [forward_loss(images[i : i + 2], Boxes(*(field[i : i + 2] for field in boxes))) for i in (0, 2)]
    whole = forward_loss(images, boxes)
    assert abs(sum(part.loss for part in parts) / 2 / whole.loss - 1) > 0.02
    total = sum(part.loss * part.divisor for part in parts) / sum(part.divisor for part in parts)
    torch.testing.assert_close(total, whole.loss)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_accumulating_step_is_one_program_for_any_number_of_boxes(tmp_path: Path, precision: str) -> None:
    run, forward_loss = start(tmp_path, precision)
    run.config.train.accumulate = 2
    many = record(run, forward_loss, 16, 9)
    assert many.report() == ""
    for counts in ((0, 0), (0, 7), (3, 0)):
        other = record(run, forward_loss, *counts)
        assert first_difference(many, other) is None
        assert other.report() == ""


def test_an_overflow_in_one_part_skips_the_step(tmp_path: Path) -> None:
    run, forward_loss = start(tmp_path, "fp16", 32.0)
    run.config.train.accumulate = 2
    run.average = None
    before = copy.deepcopy(run.model.state_dict())
    calls: list[int] = []

    def once(grad: Tensor) -> Tensor:
        calls.append(1)
        return grad * torch.inf if len(calls) == 1 else grad

    run.model.head.classes.weight.register_hook(once)
    _, norm = train_step(run, forward_loss, *batch(5, 5), 0.001)
    assert len(calls) == 2 and not norm.isfinite()
    assert all(torch.equal(value, run.model.state_dict()[name]) for name, value in before.items())


def test_levels_follow_the_size_in_the_first_steps_and_the_loss_afterwards(tmp_path: Path) -> None:
    run, _ = start(tmp_path)
    run.config = replace(run.config, objective=ObjectiveConfig(online_after=2))
    step = make_step(run, None, print)
    images, boxes = batch(8, 5)
    by_size = [[size_level(*box) for box in image] for image in boxes.xyxy.tolist()]
    for number in range(1, 4):
        run.model.zero_grad()
        online = ForwardLoss(run.model, ObjectiveConfig(), run.precision)(images, boxes).level_bg
        terms, _ = step(images, boxes, 0.001)
        expected = torch.tensor(by_size) if number <= 2 else online
        chosen = terms.level_bg >= 0
        assert chosen.sum() >= 8
        assert torch.equal(terms.level_bg[chosen], expected[chosen]), number
        assert (online[chosen] != torch.tensor(by_size)[chosen]).any()


def size_level(x1: float, y1: float, x2: float, y2: float) -> int:
    """Return the level of a box, 0 for P3, by the rule of feature pyramids."""
    side = math.sqrt((x2 - x1) * (y2 - y1))
    return min(max(math.floor(5 + math.log2(max(side, 1e-9) / 224)), 3), 7) - 3
