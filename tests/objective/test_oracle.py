"""The objective gives MMDetection 3.3.0's figures.

Arrays of a case: boxes_i, labels_i, ignore_i (crowd boxes) of image i; cls_l, reg_l the head's outputs of
level l; assigned_l and selected_level index all boxes of the batch, images in order.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from fsaf.config import ObjectiveConfig
from fsaf.data.batch import Boxes, pad_boxes
from fsaf.model.outputs import FreeOutputs, RawOutputs
from fsaf.objective.assign import assign
from fsaf.objective.objective import objective

FOLDER = Path(__file__).resolve().parents[1] / "data" / "oracle"
CASES = sorted(path.stem.removeprefix("objective_") for path in FOLDER.glob("objective_*.npz"))
LEVELS = range(5)


def load(case: str) -> Mapping[str, np.ndarray]:
    with np.load(FOLDER / f"objective_{case}.npz") as arrays:
        return dict(arrays)


def settings_of(arrays: Mapping[str, np.ndarray]) -> tuple[ObjectiveConfig, int]:
    settings = json.loads(str(arrays["settings"]))
    num_classes = settings.pop("num_classes")
    return ObjectiveConfig(**settings), num_classes


def boxes_of(arrays: Mapping[str, np.ndarray]) -> Boxes:
    """Return the boxes, crowd first, so that real boxes have other indices than in the oracle's arrays."""
    xyxy, labels, crowd = [], [], []
    for i in range(len(arrays["image_sizes"])):
        real, ignored = torch.tensor(arrays[f"boxes_{i}"]), torch.tensor(arrays[f"ignore_{i}"])
        xyxy.append(torch.cat([ignored, real]))
        labels.append(
            torch.cat([torch.zeros(len(ignored), dtype=torch.int64), torch.tensor(arrays[f"labels_{i}"])])
        )
        crowd.append(torch.arange(len(ignored) + len(real)) < len(ignored))
    sizes = [(int(h), int(w)) for h, w in arrays["image_sizes"]]
    boxes, cut = pad_boxes(xyxy, labels, crowd, sizes, 50)
    assert cut == 0
    return boxes


def outputs_of(arrays: Mapping[str, np.ndarray]) -> RawOutputs:
    free = FreeOutputs(
        [torch.tensor(arrays[f"cls_{level}"]).requires_grad_() for level in LEVELS],
        [torch.tensor(arrays[f"reg_{level}"]).requires_grad_() for level in LEVELS],
    )
    return RawOutputs(free)


def test_all_twelve_cases_are_here() -> None:
    assert len(CASES) == 12


@pytest.mark.parametrize("case", CASES)
def test_assignment_and_ignored_classes_are_equal(case: str) -> None:
    arrays = load(case)
    config, num_classes = settings_of(arrays)
    boxes = boxes_of(arrays)
    shapes = [arrays[f"cls_{level}"].shape[-2:] for level in LEVELS]
    found = assign(shapes, boxes, num_classes, config)

    # Turn an index into an image's rows into the oracle's index into all real boxes of the batch.
    real_bg = boxes.valid & ~boxes.crowd
    in_batch_bg = torch.cumsum(real_bg.flatten().int(), 0).reshape(real_bg.shape) - 1
    index_bp = torch.where(found.positive_bp, torch.gather(in_batch_bg, 1, found.box_bp), -1)
    sizes = [height * width for height, width in shapes]
    for level, (index, counts) in enumerate(
        zip(index_bp.split(sizes, 1), found.counts_bcp.split(sizes, 2), strict=True)
    ):
        np.testing.assert_array_equal(index.flatten(), arrays[f"assigned_{level}"])
        np.testing.assert_array_equal(counts.mT, arrays[f"label_weights_{level}"])
    label_bp = torch.gather(boxes.labels, 1, found.box_bp)
    assert torch.equal(found.label_bp[found.positive_bp], label_bp[found.positive_bp])


@pytest.mark.parametrize("case", CASES)
def test_selected_level_is_equal(case: str) -> None:
    arrays = load(case)
    boxes = boxes_of(arrays)
    config, _ = settings_of(arrays)
    found = objective(outputs_of(arrays), boxes, config).level_bg[boxes.valid & ~boxes.crowd]
    index = np.concatenate([arrays[f"assigned_{level}"] for level in LEVELS])
    has_level = np.isin(np.arange(len(found)), index)
    np.testing.assert_array_equal(found.numpy() >= 0, has_level)
    np.testing.assert_array_equal(found.numpy()[has_level], arrays["selected_level"][has_level])


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_agree(case: str) -> None:
    arrays = load(case)
    config, _ = settings_of(arrays)
    outputs = outputs_of(arrays)
    terms = objective(outputs, boxes_of(arrays), config)
    terms.loss.backward()

    def agrees(found: torch.Tensor, expected: np.ndarray) -> None:
        """Compare to 1e-5 of each element, or to 1e-8 of the array's largest for elements near zero."""
        largest = float(np.abs(expected).max(initial=0))
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-8 * largest)

    agrees(terms.loss_cls_l, arrays["loss_cls"])
    agrees(terms.loss_box_l, arrays["loss_bbox"])
    np.testing.assert_allclose(
        terms.loss.item(), float(arrays["loss_cls"].sum() + arrays["loss_bbox"].sum()), rtol=1e-5
    )
    assert outputs.free is not None
    for level in LEVELS:
        agrees(outputs.free.logits[level].grad, arrays[f"grad_cls_{level}"])
        agrees(outputs.free.distances[level].grad, arrays[f"grad_reg_{level}"])
    np.testing.assert_allclose(float(terms.statistics.num_pos), float(arrays["num_pos_per_image"]), rtol=1e-6)
    np.testing.assert_allclose(float(terms.statistics.pos_recall), arrays["pos_recall"].item(), rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_level_share_counts_the_selected_levels(case: str) -> None:
    arrays = load(case)
    config, _ = settings_of(arrays)
    share = objective(outputs_of(arrays), boxes_of(arrays), config).statistics.level_share_l.numpy()
    index = np.concatenate([arrays[f"assigned_{level}"] for level in LEVELS])
    chosen = arrays["selected_level"][np.isin(np.arange(len(arrays["selected_level"])), index)]
    count = np.bincount(chosen, minlength=len(LEVELS))
    np.testing.assert_allclose(share, count / max(count.sum(), 1), rtol=1e-6)
