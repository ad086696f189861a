"""Detections from raw tensors, against a loop over images, levels and candidates."""

import itertools
import math
import operator
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms
from torchvision.ops import nms as torchvision_nms

from fsaf.config import PredictConfig
from fsaf.detection.postprocess import Detections, postprocess
from fsaf.model.outputs import AnchorOutputs, FreeOutputs, RawOutputs

SHAPES = [(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)]
STRIDES = (8, 16, 32, 64, 128)


def random_outputs(
    batch: int, classes: int, seed: int, spread: float = 2.0, bias: float = -2.0, anchors: bool = False
) -> RawOutputs:
    generator = torch.Generator().manual_seed(seed)

    def randn(channels: int) -> list[Tensor]:
        return [torch.randn(batch, channels, *shape, generator=generator) for shape in SHAPES]

    logits = [x * spread + bias for x in randn(classes)]
    free = FreeOutputs(logits, [torch.relu(x * 0.5 + 0.5) for x in randn(4)])
    if not anchors:
        return RawOutputs(free)
    logits = [x * spread + bias for x in randn(9 * classes)]
    return RawOutputs(free, AnchorOutputs(logits, [0.3 * x for x in randn(36)]))


def pairs_of_levels(outputs: RawOutputs, image: int) -> Iterator[list[tuple[float, list[float], int]]]:
    """Return score, box and class of every (location, class) pair, for each level of each branch."""
    assert outputs.free is not None
    for logits, distances, stride in zip(*outputs.free, STRIDES, strict=True):
        found = []
        for c, i, j in itertools.product(*map(range, logits.shape[1:])):
            top, bottom, left, right = (distances[image, :, i, j] * 4 * stride).tolist()
            box = [j * stride - left, i * stride - top, j * stride + right, i * stride + bottom]
            found.append((logits[image, c, i, j].sigmoid().item(), box, c))
        yield found
    for logits, deltas, stride in zip(*(outputs.anchors or ([], [])), STRIDES, strict=False):
        found = []
        classes = logits.shape[1] // 9
        for kind, (ratio, step) in enumerate(itertools.product((0.5, 1, 2), range(3))):
            side = 4 * stride * 2 ** (step / 3)
            width, height = side / ratio**0.5, side * ratio**0.5
            for c, i, j in itertools.product(range(classes), *map(range, logits.shape[2:])):
                dx, dy, dw, dh = deltas[image, 4 * kind : 4 * kind + 4, i, j].tolist()
                x, y = j * stride + dx * width, i * stride + dy * height
                w, h = width * math.exp(dw), height * math.exp(dh)
                score = logits[image, kind * classes + c, i, j].sigmoid().item()
                found.append((score, [x - w / 2, y - h / 2, x + w / 2, y + h / 2], c))
        yield found


def plain_loop(
    outputs: RawOutputs, sizes: list[tuple[int, int]], config: PredictConfig
) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return boxes, scores, labels and levels of each image, one candidate after the other."""
    results = []
    for image, (height, width) in enumerate(sizes):
        rows = []
        for place, pairs in enumerate(pairs_of_levels(outputs, image)):
            weight = config.anchor_weight if place >= 5 else 1.0
            weighted = ((score * weight, box, c) for score, box, c in pairs)
            good = [pair for pair in weighted if pair[0] > config.score_threshold]
            if config.classes is not None:
                good = [pair for pair in good if pair[2] in config.classes]
            good.sort(key=lambda pair: -pair[0])
            for score, box, c in good[: config.candidates]:
                x1, x2 = (min(max(x, 0), width) for x in box[::2])
                y1, y2 = (min(max(y, 0), height) for y in box[1::2])
                if x2 > x1 and y2 > y1:
                    rows.append((x1, y1, x2, y2, score, c, place % 5))
        table = torch.tensor(rows).reshape(-1, 7)
        boxes_k4, scores_k, labels_k, levels_k = (
            table[:, :4],
            table[:, 4],
            table[:, 5].long(),
            table[:, 6].long(),
        )
        if config.class_agnostic:
            keep = torchvision_nms(boxes_k4, scores_k, config.nms_iou)[: config.max_detections]
        else:
            keep = batched_nms(boxes_k4, scores_k, labels_k, config.nms_iou)[: config.max_detections]
        results.append((boxes_k4[keep], scores_k[keep], labels_k[keep], levels_k[keep]))
    return results


@pytest.mark.parametrize(
    ("classes", "config"),
    [
        (1, PredictConfig()),
        (3, PredictConfig(candidates=25, max_detections=30)),
        (7, PredictConfig(score_threshold=0.5, nms_iou=0.3)),
        (2, PredictConfig(max_detections=4)),
        (2, PredictConfig(score_threshold=0.3, anchor_weight=0.6)),
        (5, PredictConfig(classes=[1, 3], max_detections=30)),
        (5, PredictConfig(class_agnostic=True, nms_iou=0.3)),
        (5, PredictConfig(classes=[0, 4], class_agnostic=True, candidates=25)),
    ],
)
@pytest.mark.parametrize("anchors", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_a_plain_loop(classes: int, config: PredictConfig, seed: int, anchors: bool) -> None:
    sizes = [(96, 128), (70, 101)]
    outputs = random_outputs(2, classes, seed, anchors=anchors)
    detections = postprocess(outputs, torch.tensor(sizes), config)
    assert detections.boxes_bm4.shape == (2, config.max_detections, 4)
    for image, (boxes, scores, labels, levels) in enumerate(plain_loop(outputs, sizes, config)):
        count = len(scores)
        assert count > 0
        torch.testing.assert_close(detections.boxes_bm4[image, :count], boxes, rtol=1e-6, atol=1e-4)
        torch.testing.assert_close(detections.scores_bm[image, :count], scores, rtol=1e-6, atol=1e-7)
        assert torch.equal(detections.labels_bm[image, :count], labels)
        assert torch.equal(detections.levels_bm[image, :count], levels)
        assert (detections.labels_bm[image, count:] == -1).all()
        assert (detections.levels_bm[image, count:] == -1).all()
        assert (detections.scores_bm[image, count:] == 0).all()
        assert (detections.boxes_bm4[image, count:] == 0).all()


def test_anchors_alone_keep_their_scores() -> None:
    outputs = random_outputs(1, 2, 0, anchors=True)._replace(free=None)
    sizes = torch.tensor([[96, 128]])
    plain, weighted = (postprocess(outputs, sizes, PredictConfig(anchor_weight=w)) for w in (1.0, 0.5))
    assert torch.equal(plain.scores_bm, weighted.scores_bm)


def test_nothing_above_the_threshold() -> None:
    detections = postprocess(
        random_outputs(2, 3, 0, bias=-40.0), torch.tensor([[96, 128], [96, 128]]), PredictConfig()
    )
    assert (detections.labels_bm == -1).all() and (detections.scores_bm == 0).all()


def test_a_score_equal_to_the_threshold_does_not_count() -> None:
    outputs = random_outputs(1, 1, 0)
    for logits in outputs.tensors()[:5]:
        logits.fill_(0.0)  # score 0.5 everywhere
    sizes = torch.tensor([[96, 128]])
    assert (postprocess(outputs, sizes, PredictConfig(score_threshold=0.5)).labels_bm == -1).all()
    assert (postprocess(outputs, sizes, PredictConfig(score_threshold=0.4999)).labels_bm >= 0).any()


def test_boxes_without_area_are_dropped() -> None:
    """A box outside its image is empty after clipping; ``min_bbox_size=0`` of MMDetection drops it too."""
    outputs = random_outputs(1, 1, 0, bias=-40.0)
    assert outputs.free is not None
    logits, distances = outputs.free.logits[0], outputs.free.distances[0]
    logits[0, 0, 11, 15] = 5.0  # at (120, 88), outside an image of 40 x 40
    distances[0, :, 11, 15] = 0.1
    logits[0, 0, 2, 2] = 3.0
    distances[0, :, 2, 2] = torch.tensor([0.25, 0.5, 0.25, 0.125])
    detections = postprocess(outputs, torch.tensor([[40, 40]]), PredictConfig())
    assert (detections.labels_bm >= 0).sum() == 1
    assert detections.boxes_bm4[0, 0].tolist() == [8.0, 8.0, 20.0, 32.0]


def test_images_do_not_depend_on_their_batch() -> None:
    outputs = random_outputs(3, 4, 5)
    sizes = torch.tensor([[96, 128], [50, 128], [96, 33]])
    together = postprocess(outputs, sizes, PredictConfig())
    for b in range(3):
        alone = outputs.map(operator.itemgetter(slice(b, b + 1)))
        single = postprocess(alone, sizes[b : b + 1], PredictConfig())
        for whole, part in zip(together, single, strict=True):
            assert torch.equal(whole[b : b + 1], part)


class Wrapped(torch.nn.Module):
    def forward(self, *tensors: Tensor) -> Detections:
        outputs = RawOutputs(FreeOutputs(tensors[:5], tensors[5:10]))
        return postprocess(outputs, tensors[10], PredictConfig())


def test_exports_without_data_dependent_shapes() -> None:
    outputs = random_outputs(2, 3, 0)
    arguments = (*outputs.tensors(), torch.tensor([[96, 128], [70, 101]]))
    exported = torch.export.export(Wrapped(), arguments)
    for node in exported.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            assert torch.Tag.dynamic_output_shape not in node.target.tags, node.target
            assert torch.Tag.data_dependent_output not in node.target.tags, node.target
    for exported_one, eager_one in zip(exported.module()(*arguments), Wrapped()(*arguments), strict=True):
        assert torch.equal(exported_one, eager_one)
