"""Properties of the objective that hold for any weights: independence, selection, finite numbers."""

from operator import itemgetter
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

from fsaf.config import ObjectiveConfig
from fsaf.data.batch import Boxes
from fsaf.model.outputs import FreeOutputs, RawOutputs
from fsaf.model.points import STRIDES, make_points
from fsaf.objective.assign import assign
from fsaf.objective.objective import LossTerms, objective
from fsaf.objective.select import levels_by_size
from objective.scenes import (
    NUM_CLASSES,
    SHAPES,
    SIZE,
    as_batch,
    free_of,
    gradients,
    scene_boxes,
    scene_outputs,
    with_grad,
)

CONFIG = ObjectiveConfig()


def run(
    outputs: RawOutputs, boxes: Boxes, config: ObjectiveConfig = CONFIG
) -> tuple[LossTerms, list[torch.Tensor]]:
    """Return the loss terms and the gradients of all outputs."""
    outputs = with_grad(outputs)
    terms = objective(outputs, boxes, config)
    terms.loss.backward()
    return tree_map(torch.Tensor.detach, terms), gradients(outputs)


def assert_same(a: Any, b: Any) -> None:
    """Assert that all tensors in nested lists and tuples are equal bit by bit."""
    for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("config", [CONFIG, ObjectiveConfig(neg_scale=0.5), ObjectiveConfig(pos_scale=0.1)])
def test_the_order_of_the_boxes_does_not_matter(config: ObjectiveConfig) -> None:
    xyxy, labels, crowd = scene_boxes(10)
    crowd[3] = True
    order = torch.randperm(10)
    terms, grads = run(scene_outputs(), as_batch((xyxy, labels, crowd)), config)
    other, other_grads = run(scene_outputs(), as_batch((xyxy[order], labels[order], crowd[order])), config)
    assert torch.equal(other.level_bg[0, :10], terms.level_bg[0, order])
    assert_same(other._replace(level_bg=terms.level_bg), terms)
    assert_same(other_grads, grads)


@pytest.mark.parametrize("count", [0, 1, 9])
def test_padding_boxes_change_nothing(count: int) -> None:
    terms, grads = run(scene_outputs(), as_batch(scene_boxes(count), count=max(count, 1)))
    other, other_grads = run(scene_outputs(), as_batch(scene_boxes(count), count=50))
    assert (other.level_bg[0, count:] == -1).all()
    assert_same(
        other._replace(level_bg=other.level_bg[:, :count]),
        terms._replace(level_bg=terms.level_bg[:, :count]),
    )
    assert_same(other_grads, grads)


def test_what_padding_rows_hold_is_not_looked_at() -> None:
    clean = as_batch(scene_boxes(5))
    dirty = clean._replace(
        xyxy=torch.where(clean.valid[..., None], clean.xyxy, torch.tensor([20.0, 20.0, 90.0, 90.0])),
        labels=torch.where(clean.valid, clean.labels, 2),
        crowd=clean.crowd | ~clean.valid,
    )
    terms, grads = run(scene_outputs(), clean)
    other, other_grads = run(scene_outputs(), dirty)
    assert_same(other, terms)
    assert_same(other_grads, grads)


def test_a_blank_row_of_the_batch_contributes_nothing() -> None:
    both = scene_outputs(2)
    alone = both.map(lambda x: x[:1])
    terms, grads = run(alone, as_batch(scene_boxes(8)))
    other, other_grads = run(both, as_batch(scene_boxes(8), scene_boxes(0), sizes=[SIZE, (0, 0)]))
    torch.testing.assert_close(other.loss_cls_l, terms.loss_cls_l, rtol=1e-6, atol=0)
    torch.testing.assert_close(other.loss_box_l, terms.loss_box_l, rtol=1e-6, atol=0)
    assert torch.equal(other.statistics.num_pos, terms.statistics.num_pos) and torch.equal(
        other.statistics.pos_recall, terms.statistics.pos_recall
    )
    assert torch.equal(other.statistics.level_share_l, terms.statistics.level_share_l)
    assert_same([x[:1] for x in other_grads], grads)
    assert all((x[1] == 0).all() for x in other_grads)


def test_a_batch_of_blank_rows_has_no_loss() -> None:
    terms, grads = run(scene_outputs(2), as_batch(scene_boxes(0), scene_boxes(0), sizes=[(0, 0), (0, 0)]))
    assert terms.loss == 0 and terms.statistics.num_pos == 0
    assert all((x == 0).all() for x in grads)


@pytest.mark.parametrize("counts", [(9, 4), (7, 0)])
def test_a_batch_of_two_is_its_images_over_one_divisor(counts: tuple[int, int]) -> None:
    both = scene_outputs(2)
    images = [scene_boxes(count, seed=i) for i, count in enumerate(counts)]
    total_cls = total_box = positives = 0
    for i, image in enumerate(images):
        terms, _ = run(both.map(itemgetter(slice(i, i + 1))), as_batch(image))
        # An image without positives is divided by its background locations: here, all of them.
        divisor = terms.statistics.num_pos if terms.statistics.num_pos > 0 else sum(h * w for h, w in SHAPES)
        total_cls, total_box = total_cls + terms.loss_cls_l * divisor, total_box + terms.loss_box_l * divisor
        positives += terms.statistics.num_pos
    terms, _ = run(both, as_batch(*images))
    torch.testing.assert_close(terms.loss_cls_l, total_cls / positives, rtol=1e-5, atol=0)
    torch.testing.assert_close(terms.loss_box_l, total_box / positives, rtol=1e-5, atol=0)
    assert terms.statistics.num_pos == positives / 2


def test_classes_are_interchangeable() -> None:
    xyxy, labels, crowd = scene_boxes(10)
    new = torch.tensor([2, 0, 3, 1])
    outputs = scene_outputs()
    logits, distances = free_of(outputs)
    renamed = RawOutputs(FreeOutputs([x[:, torch.argsort(new)] for x in logits], distances))
    terms, _ = run(outputs, as_batch((xyxy, labels, crowd)))
    other, _ = run(renamed, as_batch((xyxy, new[labels], crowd)))
    assert torch.equal(other.level_bg, terms.level_bg)
    torch.testing.assert_close(other.loss, terms.loss, rtol=1e-6, atol=0)
    assert torch.equal(other.statistics.pos_recall, terms.statistics.pos_recall)


@pytest.mark.parametrize("num_classes", [1, 91])
def test_any_number_of_classes(num_classes: int) -> None:
    xyxy, labels, crowd = scene_boxes(6)
    terms, grads = run(
        scene_outputs(num_classes=num_classes), as_batch((xyxy, labels.clamp(max=num_classes - 1), crowd))
    )
    assert terms.statistics.num_pos > 0 and terms.loss.isfinite()
    assert grads[0].shape[1] == num_classes and all(x.isfinite().all() for x in grads)


def perfect(boxes: Boxes, config: ObjectiveConfig) -> FreeOutputs:
    """Return exact boxes, with certainty of the right class at positives and of no class elsewhere."""
    found = assign(SHAPES, boxes, NUM_CLASSES, config)
    points = make_points(SHAPES, STRIDES, torch.device("cpu"))
    x1, y1, x2, y2 = torch.gather(boxes.xyxy, 1, found.box_bp[..., None].expand(-1, -1, 4)).unbind(2)
    edges = (points.y - y1, y2 - points.y, points.x - x1, x2 - points.x)
    distances_b4p = torch.stack(edges, 1) / (4 * points.stride)
    hot_bpc = torch.nn.functional.one_hot(found.label_bp, NUM_CLASSES) * found.positive_bp[..., None]
    logits_bcp = (hot_bpc.mT * 24 - 12).float()
    return FreeOutputs(
        [x.unflatten(2, s) for x, s in zip(logits_bcp.split(points.level_sizes, 2), SHAPES, strict=True)],
        [x.unflatten(2, s) for x, s in zip(distances_b4p.split(points.level_sizes, 2), SHAPES, strict=True)],
    )


@pytest.mark.parametrize("config", [CONFIG, ObjectiveConfig(neg_scale=0.5, foreground_dominate=True)])
def test_a_perfect_prediction_costs_almost_nothing(config: ObjectiveConfig) -> None:
    boxes = as_batch(scene_boxes(6, seed=1), scene_boxes(6, seed=2))
    terms, _ = run(RawOutputs(perfect(boxes, config)), boxes, config)
    assert terms.statistics.num_pos > 0 and terms.statistics.pos_recall == 100
    assert 0 <= terms.loss_cls_l.sum() < 1e-5
    assert 0 <= terms.loss_box_l.sum() < 1e-4
    random, _ = run(scene_outputs(2), boxes, config)
    assert random.loss > 1


def one_big_box() -> Boxes:
    """Return a box whose core touches locations of every level."""
    return as_batch((torch.tensor([[60.0, -20.0, 188.0, 100.0]]), torch.tensor([1]), torch.tensor([False])))


@pytest.mark.parametrize("level", range(5))
def test_a_box_chooses_the_level_that_predicts_it_best(level: int) -> None:
    boxes = one_big_box()
    good, outputs = perfect(boxes, CONFIG), free_of(scene_outputs())
    for part, better in zip(outputs, good, strict=True):
        part[level] = better[level]
    terms, grads = run(RawOutputs(outputs), boxes)
    assert terms.level_bg[0, 0] == level
    assert terms.statistics.level_share_l.tolist() == [float(i == level) for i in range(5)]

    # On other levels its locations learn neither the box nor its class, but do learn the other classes.
    found = assign(SHAPES, boxes, NUM_CLASSES, CONFIG)
    sizes = [h * w for h, w in SHAPES]
    for other, (height, width) in enumerate(SHAPES):
        here = found.positive_bp.split(sizes, 1)[other].reshape(1, height, width)
        assert here.any()
        if other != level:
            assert (grads[5 + other] == 0).all()
            assert (grads[other][:, 1][here] == 0).all()
            assert (grads[other][:, [0, 2, 3]].movedim(1, -1)[here] > 0).all()


def test_selection_follows_the_mean_not_the_sum() -> None:
    # P3 is better at each location, but has so many locations that the sum of its losses is larger.
    boxes = one_big_box()
    outputs = perfect(boxes, CONFIG)
    for level, logits in enumerate(outputs.logits):
        logits[logits > 0] = 0.5 if level == 0 else 0.0
    counts = [int((x > -12).sum()) for x in outputs.logits]
    assert counts[0] > 3 * counts[4] > 0
    terms, _ = run(RawOutputs(outputs), boxes)
    assert terms.level_bg[0, 0] == 0


def test_crowd_regions_are_neither_object_nor_background() -> None:
    xyxy, labels, crowd = scene_boxes(6)
    region = torch.tensor([[40.0, 20.0, 140.0, 100.0]])
    boxes = as_batch((torch.cat([xyxy, region]), torch.cat([labels, labels[:1]]), torch.arange(7) == 6))
    outputs = scene_outputs()
    terms, grads = run(outputs, boxes)
    points = make_points(SHAPES, STRIDES, torch.device("cpu"))
    inside = (points.x > 65) & (points.x < 115) & (points.y > 40) & (points.y < 80)
    sizes = points.level_sizes
    assert inside.split(sizes)[0].sum() > 10
    for level, (within, shape) in enumerate(zip(inside.split(sizes), SHAPES, strict=True)):
        mask = within.reshape(shape)
        assert (grads[level][..., mask] == 0).all() and (grads[5 + level][..., mask] == 0).all()
        assert (grads[level][..., ~mask] != 0).any()
    plain, _ = run(outputs, as_batch((xyxy, labels, crowd)))
    assert terms.loss != plain.loss


def test_padding_of_the_image_carries_no_loss() -> None:
    # 70 x 97 pixels are rounded up to 96 x 128; locations from there on are padding.
    boxes = as_batch(scene_boxes(6), sizes=[(70, 97)])
    terms, grads = run(scene_outputs(), boxes)
    outputs = scene_outputs()
    for (height, width), stride, logits in zip(SHAPES, STRIDES, free_of(outputs).logits, strict=True):
        padding = (torch.arange(height)[:, None] * stride >= 96) | (torch.arange(width) * stride >= 128)
        logits[..., padding] = 50.0
    other, other_grads = run(outputs, boxes)
    assert_same(other, terms)
    assert_same(other_grads, grads)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("size", [30.0, 1e4])
@pytest.mark.parametrize("distance", [0.0, 1e6])
def test_gradients_are_finite_for_extreme_outputs(gamma: float, size: float, distance: float) -> None:
    logits, distances = free_of(scene_outputs(2))
    free = FreeOutputs([x.sign() * size for x in logits], [torch.full_like(x, distance) for x in distances])
    boxes = as_batch(scene_boxes(10), scene_boxes(0))
    terms, grads = run(RawOutputs(free), boxes, ObjectiveConfig(gamma=gamma))
    assert terms.statistics.num_pos > 0 and terms.loss.isfinite()
    assert all(x.isfinite().all() for x in grads)


@pytest.mark.parametrize(
    "xyxy",
    [
        pytest.param([50.0, 50.0, 50.0, 50.0], id="a point"),
        pytest.param([10.0, 40.0, 90.0, 40.0], id="a line"),
        pytest.param([500.0, 500.0, 600.0, 600.0], id="outside"),
        pytest.param([-1e5, -1e5, 1e5, 1e5], id="far larger than the image"),
    ],
)
def test_odd_boxes_give_finite_numbers(xyxy: list[float]) -> None:
    boxes = as_batch((torch.tensor([xyxy]), torch.tensor([0]), torch.tensor([False])))
    terms, grads = run(scene_outputs(), boxes)
    assert terms.loss.isfinite() and all(x.isfinite().all() for x in grads)


def test_without_positives_background_divides() -> None:
    free = FreeOutputs(
        [torch.zeros(1, NUM_CLASSES, *s) for s in SHAPES], [torch.zeros(1, 4, *s) for s in SHAPES]
    )
    terms, _ = run(RawOutputs(free), as_batch(scene_boxes(0)))
    # Focal loss of score 0.5 as background, for every class of a location.
    expected = NUM_CLASSES * 0.75 * 0.5**2 * torch.tensor(2.0).log()
    torch.testing.assert_close(terms.loss, expected)
    assert terms.statistics.num_pos == 0 and terms.statistics.pos_recall == 0


def test_the_level_by_size_is_that_of_feature_pyramids() -> None:
    sides = [
        (4, 4),
        (56, 56),
        (111, 111),
        (112, 112),
        (112, 28),
        (224, 223),
        (224, 224),
        (448, 448),
        (2000, 900),
    ]
    boxes = torch.tensor([[10.0, 20.0, 10.0 + w, 20.0 + h] for w, h in sides])
    assert (levels_by_size(boxes[None], 5)[0] + 3).tolist() == [3, 3, 3, 4, 3, 4, 5, 6, 7]
