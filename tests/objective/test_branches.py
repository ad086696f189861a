"""Both branches together, each alone, and levels chosen by size."""

import pytest
import torch

from fsaf.config import ObjectiveConfig
from fsaf.model.anchors import KINDS
from fsaf.model.outputs import AnchorOutputs, RawOutputs
from fsaf.objective import anchor_free
from fsaf.objective.objective import objective
from fsaf.objective.select import levels_by_size, without_lower_levels
from objective.scenes import (
    NUM_CLASSES,
    SHAPES,
    as_batch,
    free_of,
    gradients,
    scene_boxes,
    scene_outputs,
    with_grad,
)


def both(batch: int = 2, seed: int = 0) -> RawOutputs:
    free = scene_outputs(batch, seed).free
    random = torch.Generator().manual_seed(seed + 100)
    anchors = AnchorOutputs(
        [torch.randn(batch, KINDS * NUM_CLASSES, *shape, generator=random) - 2 for shape in SHAPES],
        [0.3 * torch.randn(batch, KINDS * 4, *shape, generator=random) for shape in SHAPES],
    )
    return RawOutputs(free, anchors)


BOXES = as_batch(scene_boxes(5, 1), scene_boxes(3, 2))


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_the_losses_of_both_are_the_weighted_sum_of_each(weight: float) -> None:
    config = ObjectiveConfig(anchor_free_weight=weight)
    together, alone = with_grad(both()), with_grad(both())
    free, based = RawOutputs(free=alone.free), RawOutputs(anchors=alone.anchors)
    terms = objective(together, BOXES, config)
    terms_free, terms_based = objective(free, BOXES, config), objective(based, BOXES, config)
    terms.loss.backward()
    (weight * terms_free.loss + terms_based.loss).backward()
    torch.testing.assert_close(terms.loss, weight * terms_free.loss + terms_based.loss)
    torch.testing.assert_close(terms.loss_cls_l, weight * terms_free.loss_cls_l)
    torch.testing.assert_close(terms.anchor_box, terms_based.anchor_box)
    assert terms_free.anchor_cls == terms_free.anchor_box == 0
    assert (terms_based.loss_cls_l == 0).all() and (terms_based.level_bg == -1).all()
    assert terms.statistics.num_pos == terms_free.statistics.num_pos and terms_based.statistics.num_pos > 0
    for mine, theirs in zip(gradients(together), gradients(alone), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_anchors_losses_are_divided_by_their_own_positives() -> None:
    based = RawOutputs(anchors=both().anchors)
    terms = objective(based, BOXES, ObjectiveConfig())
    assert terms.divisor == terms.sums.anchors.positives > 20
    torch.testing.assert_close(terms.anchor_box * terms.divisor, terms.sums.anchors.box)
    halved = objective(based, BOXES, ObjectiveConfig(), lambda counts: counts / 2)
    torch.testing.assert_close(halved.loss, 2 * terms.loss)


def test_by_size_a_box_learns_on_its_level_whatever_the_loss() -> None:
    outputs = with_grad(scene_outputs(2))
    terms = objective(outputs, BOXES, ObjectiveConfig(level_choice="size"))
    by_size = levels_by_size(BOXES.xyxy, 5)
    online = objective(scene_outputs(2), BOXES, ObjectiveConfig()).level_bg
    chosen = terms.level_bg >= 0
    assert chosen.sum() > 4
    assert torch.equal(terms.level_bg[chosen], by_size[chosen])
    assert (online[chosen] != by_size[chosen]).any()
    terms.loss.backward()
    levels = set(by_size[chosen].tolist())
    for level in range(5):
        grad = free_of(outputs).distances[level].grad
        assert grad is not None and bool((grad != 0).any()) <= (level in levels)


def test_at_least_size_no_box_learns_below_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    # The boxes of the scene are small; here their sizes suggest P4.
    monkeypatch.setattr(anchor_free, "levels_by_size", lambda boxes, levels: torch.ones(boxes.shape[:2]))
    online = objective(scene_outputs(2), BOXES, ObjectiveConfig()).level_bg
    chosen = objective(scene_outputs(2), BOXES, ObjectiveConfig(level_choice="at_least_size")).level_bg
    assert (online == 0).sum() == 5 and (online > 0).sum() > 1
    assert sorted(chosen[online == 0].tolist()) == [0, 1, 2, 2, 3]  # one has no positives above P3
    assert torch.equal(chosen[online != 0], online[online != 0])


def test_lower_levels_stay_if_a_box_has_positives_on_no_other() -> None:
    losses = torch.tensor([[[1.0, 2.0, 3.0], [1.0, 2.0, torch.inf], [torch.inf] * 3]])
    level = torch.tensor([[1, 2, 1]])
    expected = [[torch.inf, 2.0, 3.0], [1.0, 2.0, torch.inf], [torch.inf] * 3]
    assert without_lower_levels(losses, level)[0].tolist() == expected


def test_no_boxes() -> None:
    outputs = with_grad(both(1))
    terms = objective(outputs, as_batch(scene_boxes(0)), ObjectiveConfig())
    terms.loss.backward()
    assert terms.loss.isfinite() and terms.loss_box_l.sum() == terms.anchor_box == 0
    assert all(grad.isfinite().all() for grad in gradients(outputs))
