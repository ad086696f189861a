"""torch.compile: one graph, without a break, for each batch shape and any number of boxes; torch.export."""

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from fsaf.config import ModelConfig, ObjectiveConfig, OptimConfig, PredictConfig, TrainConfig
from fsaf.data.batch import Boxes, pad_boxes
from fsaf.exporting.modules import WithDetections, WithRawOutputs
from fsaf.model.detector import FSAF
from fsaf.training.optim import make_optimizer
from fsaf.training.precision import Precision
from fsaf.training.step import ForwardLoss

pytestmark = pytest.mark.slow

CONFIG = ModelConfig(backbone="test_resnet", channels=16, convs=0, frozen_stages=0)
CLASSES = 3


def network() -> FSAF:
    torch.manual_seed(0)
    return FSAF(CONFIG, CLASSES).to(memory_format=torch.channels_last).train()


def batch(shape: tuple[int, int], boxes: int, seed: int) -> tuple[Tensor, Boxes]:
    """Return two images of a batch shape: one with that many boxes, one with half as many."""
    random = torch.Generator().manual_seed(seed)
    xyxy, labels, crowd = [], [], []
    for count in (boxes, boxes // 2):
        centre = torch.rand(count, 2, generator=random) * torch.tensor([shape[1], shape[0]])
        half = 8 * 8 ** torch.rand(count, 2, generator=random)
        xyxy.append(torch.cat([centre - half, centre + half], 1))
        labels.append(torch.randint(CLASSES, (count,), generator=random))
        crowd.append(torch.arange(count) % 5 == 4)
    sizes = [(shape[0] - seed % 9, shape[1] - seed % 17), shape]
    padded, _ = pad_boxes(xyxy, labels, crowd, sizes, 20)
    return torch.randint(0, 256, (2, 3, *shape), generator=random, dtype=torch.uint8), padded


def forward_loss(precision: str = "fp32") -> ForwardLoss:
    settings = Precision(TrainConfig(precision=precision), torch.device("cpu"))  # type: ignore[arg-type]
    return ForwardLoss(network(), ObjectiveConfig(), settings)


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


def counted(module: nn.Module, backend: str) -> CompileCounterWithBackend:
    counter = CompileCounterWithBackend(backend)
    module.compile(backend=counter, fullgraph=True, dynamic=False)
    return counter


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_graph_a_batch_shape_over_twenty_batches(precision: str) -> None:
    """All back ends compile graphs at the same points. This one needs no C++ compiler."""
    compiled, eager = forward_loss(precision), forward_loss(precision)
    counter = counted(compiled, "aot_eager")
    optimizer = make_optimizer(compiled, OptimConfig(lr=0.001))
    shapes = [(64, 96), (96, 64)]
    for i in range(20):
        images, boxes = batch(shapes[i % 2], boxes=i, seed=i)
        eager.load_state_dict(compiled.state_dict())
        found, expected = compiled(images, boxes), eager(images, boxes)
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
        optimizer.zero_grad(set_to_none=True)
        compiled.precision.backward(found.loss)
        compiled.precision.step(optimizer, compiled.parameters(), 10.0)
        assert counter.frame_count == min(i + 1, 2)


def test_the_compiled_loss_equals_the_eager_one() -> None:
    """Compile with PyTorch's own compiler, which writes C++ code."""
    compiled, eager = forward_loss(), forward_loss()
    counter = counted(compiled, "inductor")
    for count in (0, 1, 20):
        images, boxes = batch((64, 96), count, seed=count)
        with torch.no_grad():  # its backward pass takes a minute to compile
            for mine, theirs in zip(compiled(images, boxes), eager(images, boxes), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    assert counter.frame_count == 1


@pytest.mark.parametrize("raw", [True, False])
def test_inference_exports(raw: bool) -> None:
    model = network().eval()
    settings = PredictConfig(score_threshold=0.001, max_detections=20)
    module = WithRawOutputs(model) if raw else WithDetections(model, settings, (64, 96))
    images, boxes = batch((64, 96), 3, seed=1)
    again = torch.export.export(module.eval(), (images, boxes.sizes)).module()
    other, moved = batch((64, 96), 5, seed=2)
    with torch.no_grad():
        for found, expected in zip(again(other, moved.sizes), module(other, moved.sizes), strict=True):
            torch.testing.assert_close(found, expected)
        if not raw:
            assert (module(other, moved.sizes)[1] > 0).any()
