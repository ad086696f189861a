"""The anchor-based branch against a plain loop and against torchvision's RetinaNet."""

from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import box_iou

from fsaf.config import ObjectiveConfig
from fsaf.data.batch import Boxes
from fsaf.model.anchors import KINDS, decode_deltas, make_anchors
from fsaf.model.outputs import AnchorOutputs
from fsaf.model.points import STRIDES
from fsaf.objective.anchor_based import AnchorMatches, anchor_losses, match_anchors
from fsaf.testing import Recorder, first_difference
from objective.scenes import NUM_CLASSES, SHAPES, as_batch, scene_boxes

ANCHORS = make_anchors(SHAPES, STRIDES, torch.device("cpu"))


def everywhere(batch: int) -> Tensor:
    return torch.ones(batch, ANCHORS.shape[1], dtype=torch.bool)


def by_loop(boxes: Boxes, row: int, part_n: Tensor) -> tuple[list[int | None], list[bool]]:
    """Return each anchor's box or None, and if it is background, as MaxIoUAssigner's documentation says."""
    real = [g for g in range(boxes.xyxy.shape[1]) if boxes.valid[row, g] and not boxes.crowd[row, g]]
    overlaps = box_iou(boxes.xyxy[row, real].double(), ANCHORS.T.double())
    owner: list[int | None] = []
    background = []
    for n in range(ANCHORS.shape[1]):
        best = float(overlaps[:, n].max()) if real else 0.0
        mine = real[int(overlaps[:, n].argmax())] if best >= 0.5 and part_n[n] else None
        owner.append(mine)
        background.append(bool(part_n[n]) and best < 0.4)
    for i, g in enumerate(real):
        inside = torch.where(part_n, overlaps[i], -1.0)
        if inside.max() > 0:
            for n in (inside >= inside.max() * (1 - 1e-5)).nonzero()[:, 0].tolist():
                owner[n], background[n] = g, False
    return owner, background


@settings(max_examples=20)
@given(st.integers(0, 10), st.integers(0, 1000), st.booleans())
def test_matches_are_those_of_a_loop(count: int, seed: int, edge: bool) -> None:
    boxes = as_batch(scene_boxes(count, seed), scene_boxes(3, seed + 1))
    boxes.crowd[:, 2] = boxes.valid[:, 2]
    part_bn = everywhere(2)
    if edge:
        part_bn &= (ANCHORS[0] + ANCHORS[2])[None] < 2 * 130
    found = match_anchors(ANCHORS, boxes, part_bn)
    for row in range(2):
        owner, background = by_loop(boxes, row, part_bn[row])
        expected = torch.tensor([-1 if g is None else g for g in owner])
        assert torch.equal(torch.where(found.positive_bn[row], found.box_bn[row], -1), expected)
        assert found.negative_bn[row].tolist() == background


def raw_outputs(batch: int, seed: int | None = None) -> AnchorOutputs:
    """Return outputs that collect gradients; all zero without a seed."""
    random = torch.Generator().manual_seed(seed or 0)

    def randn(channels: int, scale: float, shift: float) -> list[Tensor]:
        if seed is None:
            scale = shift = 0.0
        found = [torch.randn(batch, channels, *shape, generator=random) for shape in SHAPES]
        return [(scale * x + shift).requires_grad_() for x in found]

    return AnchorOutputs(randn(KINDS * NUM_CLASSES, 1.0, -2.0), randn(KINDS * 4, 0.3, 0.0))


def gradients_of(outputs: AnchorOutputs) -> list[Tensor | None]:
    return [x.grad for part in outputs for x in part]


@pytest.mark.parametrize("kind", ["l1", "smooth_l1"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_losses_and_gradients_are_torchvisions(kind: Any, seed: int) -> None:
    boxes = as_batch(scene_boxes(6, seed))
    outputs, copy = raw_outputs(1, seed), raw_outputs(1, seed)
    sums = anchor_losses(outputs, boxes, ObjectiveConfig(anchor_box_loss=kind))
    (sums.cls + sums.box).backward()

    real = boxes.valid[0]
    truth = {"boxes": boxes.xyxy[0, real], "labels": boxes.labels[0, real]}
    head = RetinaNetHead(8, KINDS, NUM_CLASSES)
    head.regression_head._loss_type = "l1"
    matched = Matcher(0.5, 0.4, allow_low_quality_matches=True)(box_iou(truth["boxes"], ANCHORS.T))
    ours = match_anchors(ANCHORS, boxes, everywhere(1))
    # If a box's best anchor overlaps another box more, torchvision assigns it to the other box.
    matched = torch.where(ours.positive_bn[0], ours.box_bn[0], matched)
    assert torch.equal(matched == Matcher.BELOW_LOW_THRESHOLD, ours.negative_bn[0])
    logits_bcn, deltas_b4n, *_ = copy.flat()
    found = head.compute_loss(
        [truth], {"cls_logits": logits_bcn.mT, "bbox_regression": deltas_b4n.mT}, [ANCHORS.T], [matched]
    )
    count = sums.positives
    assert count > 20
    if kind == "smooth_l1":  # torchvision's smooth L1 has beta 1
        target = head.regression_head.box_coder.encode_single(truth["boxes"][ours.box_bn[0]], ANCHORS.T)
        each = torch.nn.functional.smooth_l1_loss(deltas_b4n[0].T, target, beta=1 / 9, reduction="none").sum(
            1
        )
        found["bbox_regression"] = each[ours.positive_bn[0]].sum() / count
    torch.testing.assert_close(sums.cls / count, found["classification"])
    torch.testing.assert_close(sums.box / count, found["bbox_regression"])
    (count * (found["classification"] + found["bbox_regression"])).backward()
    for mine, theirs in zip(gradients_of(outputs), gradients_of(copy), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_iou_loss_is_that_of_the_decoded_boxes() -> None:
    boxes, outputs = as_batch(scene_boxes(6, 0)), raw_outputs(1, 0)
    sums = anchor_losses(outputs, boxes, ObjectiveConfig(anchor_box_loss="iou"))
    matches: AnchorMatches = match_anchors(ANCHORS, boxes, everywhere(1))
    at = matches.positive_bn[0]
    predicted = decode_deltas(outputs.flat()[1], ANCHORS)[0].T[at]
    iou = torchvision.ops.box_iou(predicted, boxes.xyxy[0, matches.box_bn[0, at]]).diagonal()
    torch.testing.assert_close(sums.box, -iou.clamp(min=1e-6).log().sum())


@pytest.mark.parametrize("kind", ["l1", "smooth_l1", "iou"])
def test_no_boxes_no_positives_and_finite_gradients(kind: Any) -> None:
    outputs = raw_outputs(2)
    sums = anchor_losses(
        outputs, as_batch(scene_boxes(0), scene_boxes(0)), ObjectiveConfig(anchor_box_loss=kind)
    )
    (sums.cls + sums.box).backward()
    assert sums.positives == 0 and sums.box == 0 and sums.cls > 0
    for grad in gradients_of(outputs)[:5]:
        assert grad is not None and grad.isfinite().all() and (grad > 0).all()
    for grad in gradients_of(outputs)[5:]:
        assert grad is not None and (grad == 0).all()


def test_what_lies_outside_an_image_or_in_a_crowd_learns_nothing() -> None:
    boxes = as_batch(scene_boxes(4, 1), sizes=[(64, 60)], count=6)
    boxes.xyxy[0, 4], boxes.valid[0, 4], boxes.crowd[0, 4] = torch.tensor([0.0, 0, 40, 40]), True, True
    outputs = raw_outputs(1, 3)
    sums = anchor_losses(outputs, boxes, ObjectiveConfig())
    (sums.cls + sums.box).backward()
    grad = outputs.logits[0].grad
    assert grad is not None
    learns = (grad != 0).any(1)[0]
    rows, columns = torch.arange(16) * 8, torch.arange(24) * 8
    inside = (rows[:, None] < 64) & (columns < 64)
    crowd = (rows[:, None] > 10) & (rows[:, None] < 30) & (columns > 10) & (columns < 30)
    assert crowd.sum() == 4
    assert torch.equal(learns, inside & ~crowd)


@pytest.mark.parametrize("kind", ["l1", "smooth_l1", "iou"])
def test_one_program_for_any_number_of_boxes(kind: Any) -> None:
    def record(*counts: int) -> Recorder:
        outputs, boxes = raw_outputs(2, 0), as_batch(*(scene_boxes(count, count) for count in counts))
        with Recorder() as recorder:
            sums = anchor_losses(outputs, boxes, ObjectiveConfig(anchor_box_loss=kind))
            (sums.cls + sums.box).backward()
        return recorder

    many = record(9, 5)
    assert many.report() == ""
    for counts in ((0, 0), (1, 0)):
        assert first_difference(many, record(*counts)) is None
