"""The losses equal torchvision's, in float64."""

import math
from typing import Any

import pytest
import torch
from torchvision.ops import box_iou, complete_box_iou_loss, generalized_box_iou_loss
from torchvision.ops import sigmoid_focal_loss as torchvision_focal_loss

from fsaf.objective.losses import MIN_IOU, box_loss, sigmoid_focal_loss


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 2.0, 4.0])
def test_focal_loss_and_gradient(alpha: float, gamma: float) -> None:
    logits = (torch.randn(2, 3, 50, dtype=torch.float64) * 5).requires_grad_()
    targets = (torch.rand(2, 3, 50) < 0.3).double()
    found = sigmoid_focal_loss(logits, targets, alpha, gamma)
    expected = torchvision_focal_loss(logits, targets, alpha, gamma, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)
    weight = torch.randn_like(logits)
    (found_grad,) = torch.autograd.grad(found, logits, weight, retain_graph=True)
    (expected_grad,) = torch.autograd.grad(expected, logits, weight)
    torch.testing.assert_close(found_grad, expected_grad, rtol=1e-10, atol=1e-15)


def test_focal_loss_without_discount_is_weighted_cross_entropy() -> None:
    found = sigmoid_focal_loss(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]), 0.25, 0.0)
    torch.testing.assert_close(found, torch.tensor([0.25, 0.75]) * math.log(2))


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
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # theirs adds 1e-7 to what divides
    (found_grad,) = torch.autograd.grad(found.sum(), boxes)
    (expected_grad,) = torch.autograd.grad(expected.sum(), boxes)
    torch.testing.assert_close(found_grad, expected_grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["giou", "ciou"])
def test_other_box_losses_of_equal_and_of_empty_boxes(kind: str) -> None:
    a = torch.tensor([[10.0, 10.0, 30.0, 40.0], [5.0, 5.0, 5.0, 5.0]]).mT[None].requires_grad_()
    loss = box_loss(a, a.detach().clone(), kind)
    loss.sum().backward()
    assert loss[0, 0] == 0 and loss.isfinite().all() and a.grad.isfinite().all()
