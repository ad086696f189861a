"""Random scenes with fixed seeds, shared by the tests of the objective."""

import math

import torch

from fsaf.data.batch import Boxes, pad_boxes
from fsaf.model.outputs import FreeOutputs, RawOutputs
from fsaf.model.points import STRIDES

NUM_CLASSES = 4
SIZE = (120, 190)
SHAPES = [(math.ceil(128 / stride), math.ceil(192 / stride)) for stride in STRIDES]


def scene_outputs(batch: int = 1, seed: int = 0, num_classes: int = NUM_CLASSES) -> RawOutputs:
    """Return head outputs for images of 128 x 192 pixels; half of the distances are zero, as after ReLU."""
    random = torch.Generator().manual_seed(seed)
    free = FreeOutputs(
        [torch.randn(batch, num_classes, *shape, generator=random) - 2 for shape in SHAPES],
        [torch.randn(batch, 4, *shape, generator=random).relu() for shape in SHAPES],
    )
    return RawOutputs(free)


def free_of(outputs: RawOutputs) -> FreeOutputs:
    """Return the outputs of the anchor-free branch."""
    assert outputs.free is not None
    return outputs.free


def scene_boxes(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return xyxy, labels and crowd of an image of ``SIZE``: overlapping boxes of all sizes, no crowd."""
    random = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=random) * torch.tensor([SIZE[1], SIZE[0]])
    half = 4 * 16 ** torch.rand(count, 2, generator=random)
    xyxy = torch.cat([centre - half, centre + half], 1)
    labels = torch.randint(NUM_CLASSES, (count,), generator=random)
    return xyxy, labels, torch.zeros(count, dtype=torch.bool)


def as_batch(
    *images: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    sizes: list[tuple[int, int]] | None = None,
    count: int = 12,
) -> Boxes:
    """Return the boxes of the images as a batch."""
    xyxy, labels, crowd = (list(part) for part in zip(*images, strict=True))
    boxes, cut = pad_boxes(xyxy, labels, crowd, sizes or [SIZE] * len(images), count)
    assert cut == 0
    return boxes


def with_grad(outputs: RawOutputs) -> RawOutputs:
    """Return a copy whose tensors collect gradients."""
    return outputs.map(lambda x: x.clone().requires_grad_())


def gradients(outputs: RawOutputs) -> list[torch.Tensor]:
    """Return the gradients of the logits of all levels, then of the distances."""
    return [x.grad for x in outputs.tensors()]
