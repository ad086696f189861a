"""Compare the captured step with the plain one, for several batch shapes, rates and numbers of boxes."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from fsaf.cli import main
from fsaf.config import Config, ObjectiveConfig, OptimConfig, TrainConfig
from fsaf.data.batch import Boxes
from fsaf.data.records import Classes
from fsaf.device import GRAPHS, GraphTools
from fsaf.errors import UserError
from fsaf.training.graphs import WARM_UP, CapturedStep, open_tools
from fsaf.training.run import Run
from fsaf.training.start import start_run
from fsaf.training.step import ForwardLoss, train_step
from objective.scenes import NUM_CLASSES, as_batch, scene_boxes
from synthetic import Picture, recipe, tiny_model, write_coco
from training import simulated_graph

pytestmark = pytest.mark.slow

CLASSES = Classes(names=tuple("abcd"), ids=tuple(range(NUM_CLASSES)))
SHAPES = ((128, 192), (192, 128))


def start(out: Path, device: torch.device, optimizer: Any, precision: Any, scale: Any) -> Run:
    config = Config(
        out=str(out),
        model=tiny_model(frozen_stages=0),
        optim=OptimConfig(name=optimizer, weight_decay=0.05),
        train=TrainConfig(precision=precision, loss_scale=scale, ema=0.9, graphs=True),
    )
    return start_run(config, CLASSES, device)


def batches(count: int, device: torch.device) -> list[tuple[Tensor, Boxes, float]]:
    """Return batches of two shapes in turn, with 0 to 9 boxes and a rate that changes each step."""
    found = []
    for i in range(count):
        height, width = SHAPES[i % 2]
        random = torch.Generator().manual_seed(i)
        images = torch.randint(0, 256, (2, 3, height, width), generator=random, dtype=torch.uint8)
        scenes = [scene_boxes((3 * i) % 10, i), scene_boxes(i % 4, i + 1)]
        boxes = as_batch(*scenes, sizes=[(height - 3, width), (height, width - 9)], count=10)
        found.append((images.to(device), boxes.to(device), 0.002 / (i + 1)))
    return found


def results(
    run: Run, count: int, tools: GraphTools | None, device: torch.device
) -> tuple[list[list[float]], dict[str, Tensor], list[str]]:
    said: list[str] = []
    forward_loss = ForwardLoss(run.model.train(), ObjectiveConfig(), run.precision)
    captured = CapturedStep(run, forward_loss, tools, said.append) if tools else None
    rows = []
    for images, boxes, rate in batches(count, device):
        terms, norm = (
            captured(images, boxes, rate) if captured else train_step(run, forward_loss, images, boxes, rate)
        )
        rows.append([terms.loss.item(), *terms.loss_cls_l.tolist(), *terms.loss_box_l.tolist(), norm.item()])
    assert run.average is not None and run.step == run.average.updates == count
    weights = copy.deepcopy(run.model.state_dict())
    weights |= {f"average.{name}": value for name, value in run.average.model.state_dict().items()}
    return rows, weights, said


KINDS = [
    ("sgd", "fp32", "dynamic"),
    ("adamw", "fp32", "dynamic"),
    ("adamw", "bf16", "dynamic"),
    ("sgd", "fp16", 32.0),
    ("adamw", "fp16", "dynamic"),
]


def compare(out: Path, device: torch.device, kind: tuple[Any, Any, Any], tools: GraphTools) -> None:
    count = 2 * WARM_UP + 4  # both shapes warm up and are captured, and replayed with another batch
    plain = results(start(out, device, *kind), count, None, device)
    captured = results(start(out, device, *kind), count, tools, device)
    torch.testing.assert_close(
        torch.tensor(captured[0]), torch.tensor(plain[0]), rtol=1e-5, atol=1e-6, equal_nan=True
    )
    for name, value in plain[1].items():
        torch.testing.assert_close(captured[1][name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert captured[2] == [
        f"captured the step for batches of 2 x 3 x {height} x {width} as one graph"
        for height, width in SHAPES
    ]


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> GraphTools:
    """Capture graphs on the CPU."""
    with monkeypatch.context() as patch:
        patch.setitem(GRAPHS, "cpu", "CUDAGraph")
        patch.setattr("fsaf.device.programs.is_accelerator", lambda device: True)
        patch.setattr(torch, "get_device_module", lambda device: simulated_graph.MODULE)
        return GraphTools(torch.device("cpu"))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_replayed_step_is_the_step(
    tmp_path: Path, simulated: GraphTools, kind: tuple[Any, Any, Any]
) -> None:
    compare(tmp_path, torch.device("cpu"), kind, simulated)


def test_a_rate_fixed_on_the_host_would_be_noticed(
    tmp_path: Path, simulated: GraphTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_the_host(optimizer: torch.optim.Optimizer, rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate

    monkeypatch.setattr("fsaf.training.graphs.set_rate", on_the_host)
    with pytest.raises(AssertionError, match="not close"):
        compare(tmp_path, torch.device("cpu"), KINDS[0], simulated)


def test_a_graph_cannot_change_the_choice_of_levels() -> None:
    config = Config(train=TrainConfig(graphs=True), objective=ObjectiveConfig(online_after=2))
    with pytest.raises(UserError, match=r"objective\.online_after"):
        open_tools(config, torch.device("cpu"))


def test_where_there_are_no_graphs_training_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_coco(tmp_path, [Picture(height=64, width=96, objects=[(5, 5, 30, 30, 7)])])
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe(tmp_path, tmp_path / "run")))
    status = main(["train", str(tmp_path / "tiny.yaml"), "--train.graphs=true", "--train.evaluate_every=0"])
    assert status == 2
    message = capsys.readouterr().err
    assert "train.graphs = true: device cpu does not support graphs; leave it false" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_captured_step_is_the_step_on_a_gpu(tmp_path: Path, kind: tuple[Any, Any, Any]) -> None:
    device = torch.device("cuda")
    compare(tmp_path, device, kind, GraphTools(device))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_step_waits_for_a_gpu(tmp_path: Path, kind: tuple[Any, Any, Any]) -> None:
    device = torch.device("cuda")
    run = start(tmp_path, device, *kind)
    forward_loss = ForwardLoss(run.model.train(), ObjectiveConfig(), run.precision)
    steps = batches(6, device)
    train_step(run, forward_loss, *steps[0])  # libraries set themselves up
    train_step(run, forward_loss, *steps[1])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in steps[2:]:
            train_step(run, forward_loss, *step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
