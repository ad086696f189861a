"""The losses equal torchvision's in float64, and are accurate to float32's digits."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_iou, complete_box_iou_loss, generalized_box_iou_loss
from torchvision.ops import sigmoid_focal_loss as torchvision_focal_loss

from fsaf.objective.losses import MIN_IOU, box_loss, focal_losses


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 2.0, 4.0])
def test_focal_losses_and_gradient(alpha: float, gamma: float) -> None:
    logits = (torch.randn(2, 3, 50, dtype=torch.float64) * 5).requires_grad_()
    label, positive, counts = torch.randint(3, (2, 50)), torch.rand(2, 50) < 0.3, torch.rand(2, 3, 50) < 0.8
    found = focal_losses(logits, label, positive, counts, alpha, gamma)
    own = F.one_hot(label, 3).mT.bool() & positive[:, None]
    every = torchvision_focal_loss(logits, own.double(), alpha, gamma, reduction="none")
    expected = (every * (counts & ~own)).sum(1), (every * own).sum(1)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)
    weights = [torch.randn(2, 50, dtype=torch.float64) for _ in range(2)]
    (found_grad,) = torch.autograd.grad(found, logits, weights)
    (expected_grad,) = torch.autograd.grad(expected, logits, weights)
    torch.testing.assert_close(found_grad, expected_grad, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("positive", [False, True])
def test_focal_losses_keep_the_digits_of_float32(gamma: float, positive: bool) -> None:
    logits = torch.linspace(-80, 80, 16001)[None, None].requires_grad_()
    label, own = torch.zeros(1, 16001, dtype=torch.int64), torch.full((1, 16001), positive)
    exact = logits.detach().double().requires_grad_()
    found = sum(focal_losses(logits, label, own, ~own[None], 0.25, gamma))
    targets = torch.full_like(exact, float(positive))
    # Not torchvision's loss: its 1 - score loses all digits of small scores, even in float64.
    right = exact * (2 * targets - 1)
    alpha = 0.25 if positive else 0.75
    expected = -(alpha * (-right).sigmoid().pow(gamma) * F.logsigmoid(right))[0]
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=1e-37)
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=4e-6, atol=1e-37)


def test_focal_losses_of_huge_logits_stay_finite_and_nan_stays_nan() -> None:
    huge = [-torch.inf, -1e30, -1000.0, 1000.0, 1e30, torch.inf, torch.nan]
    logits = torch.tensor([[huge]]).requires_grad_()
    label = torch.zeros(1, 7, dtype=torch.int64)
    everywhere = torch.ones(1, 1, 7, dtype=torch.bool)
    other, _ = focal_losses(logits, label, ~everywhere[0], everywhere, 0.25, 2.0)
    losses = 0.75 * torch.tensor([[0.0, 0.0, 0.0, 87.3365, 87.3365, 87.3365, torch.nan]])
    torch.testing.assert_close(other, losses, equal_nan=True)
    other.sum().backward()
    slopes = torch.tensor([[[0.0, 0.0, 0.0, 0.75, 0.75, 0.75, torch.nan]]])
    torch.testing.assert_close(logits.grad, slopes, equal_nan=True)


def test_focal_losses_without_discount_are_weighted_cross_entropy() -> None:
    label, positive = torch.zeros(1, 2, dtype=torch.int64), torch.tensor([[True, False]])
    other, own = focal_losses(torch.zeros(1, 1, 2), label, positive, ~positive[None], 0.25, 0.0)
    torch.testing.assert_close(other + own, torch.tensor([[0.25, 0.75]]) * math.log(2))


def random_boxes(count: int) -> torch.Tensor:
    corner = torch.rand(count, 2, dtype=torch.float64) * 50
    return torch.cat([corner, corner + 20 + torch.rand(count, 2, dtype=torch.float64) * 60], 1)


def test_iou_loss_and_gradient() -> None:
    boxes, targets = random_boxes(200).requires_grad_(), random_boxes(200)
    found = box_loss(boxes.mT[None], targets.mT[None])[0]
    expected = -box_iou(boxes, targets).diagonal().clamp(min=MIN_IOU).log()
    disjoint = int((expected >= -math.log(MIN_IOU)).sum())
    assert 0 < disjoint < 100, "both kinds should be among them"
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    (found_grad,) = torch.autograd.grad(found.sum(), boxes, retain_graph=True)
    (expected_grad,) = torch.autograd.grad(expected.sum(), boxes)
    torch.testing.assert_close(found_grad, expected_grad, rtol=1e-10, atol=1e-13)


def test_iou_loss_of_equal_and_of_disjoint_boxes() -> None:
    a = torch.tensor([[10.0, 10.0, 30.0, 40.0], [0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 5.0, 5.0]]).mT[None]
    b = torch.tensor([[10.0, 10.0, 30.0, 40.0], [20.0, 20.0, 30.0, 30.0], [5.0, 5.0, 5.0, 5.0]]).mT[None]
    a.requires_grad_()
    loss = box_loss(a, b)
    loss.sum().backward()
    worst = -math.log(1e-6)
    torch.testing.assert_close(loss.detach(), torch.tensor([[0.0, worst, worst]]))
    assert a.grad.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "reference"), [("giou", generalized_box_iou_loss), ("ciou", complete_box_iou_loss)]
)
def test_other_box_losses_and_gradients(kind: str, reference: Any) -> None:
    boxes, targets = random_boxes(200).requires_grad_(), random_boxes(200)
    found = box_loss(boxes.mT[None], targets.mT[None], kind)[0]
    expected = reference(boxes, targets)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # torchvision adds 1e-7 to the divisor
    (found_grad,) = torch.autograd.grad(found.sum(), boxes)
    (expected_grad,) = torch.autograd.grad(expected.sum(), boxes)
    torch.testing.assert_close(found_grad, expected_grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["giou", "ciou"])
def test_other_box_losses_of_equal_and_of_empty_boxes(kind: str) -> None:
    a = torch.tensor([[10.0, 10.0, 30.0, 40.0], [5.0, 5.0, 5.0, 5.0]]).mT[None].requires_grad_()
    loss = box_loss(a, a.detach().clone(), kind)
    loss.sum().backward()
    assert loss[0, 0] == 0 and loss.isfinite().all() and a.grad.isfinite().all()


def test_an_unknown_box_loss_is_refused() -> None:
    boxes = random_boxes(2).mT[None]
    with pytest.raises(ValueError, match="'diou': must be iou, giou or ciou"):
        box_loss(boxes, boxes, "diou")
