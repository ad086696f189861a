"""Greedy suppression: kernel, fixed-shape rounds and a plain loop give the same indices."""

import numpy as np
import pytest
import torch
from torch import Tensor

import fsaf.detection.nms as nms_module
from fsaf.detection.nms import has_kernel, nms, nms_by_image, nms_by_rounds

M = 20


def plain_loop(boxes: np.ndarray, scores: np.ndarray, threshold: float, count: int) -> list[int]:
    """Suppress the boxes of one image greedily, as the definition says, in float32."""
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        if scores[i] <= 0 or len(kept) == count:
            break
        if not any(overlap(boxes[i], boxes[j]) > np.float32(threshold) for j in kept):
            kept.append(i)
    return kept + [-1] * (count - len(kept))


def overlap(a: np.ndarray, b: np.ndarray) -> np.float32:
    def area(box: np.ndarray) -> np.float32:
        return max(box[2] - box[0], np.float32(0)) * max(box[3] - box[1], np.float32(0))

    common = area(np.concatenate([np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])]))
    union = area(a) + area(b) - common
    return common / union if union > 0 else np.float32(0)


def random_cases(count: int, candidates: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return hard cases: boxes on a coarse grid (equal, exact IoUs, no area), equal scores, padding."""
    rng = np.random.default_rng(seed)
    grid = rng.integers(0, 9, (count, candidates, 4)).astype(np.float32)
    fine = rng.uniform(0, 60, (count, candidates, 4)).astype(np.float32)
    on_grid = np.arange(count)[:, None, None] % 2 == 0
    corners = np.where(on_grid, grid, fine)
    boxes = np.concatenate(
        [np.minimum(corners[..., :2], corners[..., 2:]), np.maximum(corners[..., :2], corners[..., 2:])], 2
    )
    scores = rng.uniform(0, 1, (count, candidates)).astype(np.float32)
    tied = np.arange(count)[:, None] % 4 < 2
    scores = np.where(tied, np.round(scores * 4) / 4, scores).astype(np.float32)
    scores[rng.uniform(size=scores.shape) < 0.2] = 0
    scores[rng.uniform(size=scores.shape) < 0.05] = -1
    return torch.from_numpy(boxes), torch.from_numpy(scores)


@pytest.mark.parametrize("threshold", [0.25, 0.3, 0.5, 0.7, 1.0])
def test_kernel_rounds_and_plain_loop_agree(threshold: float) -> None:
    threshold = float(np.float32(threshold))
    boxes, scores = random_cases(240, 40, seed=int(threshold * 100))
    expected = torch.tensor(
        [plain_loop(b.numpy(), s.numpy(), threshold, M) for b, s in zip(boxes, scores, strict=True)]
    )
    assert torch.equal(nms_by_image(boxes, scores, threshold, M), expected)
    assert torch.equal(nms_by_rounds(boxes, scores, threshold, M), expected)


def case(boxes: list[list[float]], scores: list[float], labels: list[int] | None = None) -> list[Tensor]:
    labels = [0] * len(scores) if labels is None else labels
    return [torch.tensor(boxes)[None], torch.tensor(scores)[None], torch.tensor(labels)[None]]


ADVERSARIAL = {
    # name: (boxes, scores, IoU threshold, kept)
    "equal boxes and scores": ([[0, 0, 4, 4]] * 3, [0.5, 0.5, 0.5], 0.5, [0]),
    "equal scores apart": ([[20, 0, 24, 4], [0, 0, 4, 4]], [0.5, 0.5], 0.5, [0, 1]),
    "the lower of equal scores wins": ([[1, 0, 5, 4], [0, 0, 4, 4]], [0.5, 0.5], 0.5, [0]),
    "exactly at the threshold stays": ([[0, 0, 2, 1], [0, 0, 1, 1]], [0.9, 0.8], 0.5, [0, 1]),
    "just above the threshold goes": ([[0, 0, 2, 1], [0, 0, 1.0001, 1]], [0.9, 0.8], 0.5, [0]),
    # 3/10 as float32 lies above 0.3: only kernels that compare in float64 would remove it
    "at a threshold float32 cannot hold": ([[0, 0, 10, 1], [0, 0, 3, 1]], [0.9, 0.8], 0.3, [0, 1]),
    "no area": ([[3, 3, 3, 3], [3, 3, 3, 3], [0, 0, 8, 8]], [0.9, 0.8, 0.7], 0.5, [0, 1, 2]),
    "removed boxes remove nothing": (
        [[0, 0, 10, 1], [4, 0, 14, 1], [8, 0, 18, 1]],
        [0.9, 0.8, 0.7],
        0.4,
        [0, 2],
    ),
    "padding only": ([[0, 0, 4, 4]] * 2, [0.0, -1.0], 0.5, []),
    "padding removes nothing": ([[0, 0, 4, 4], [0, 0, 4, 4]], [0.0, 0.3], 0.5, [1]),
}


@pytest.mark.parametrize("rounds", [False, True], ids=["kernel", "rounds"])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial(name: str, rounds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, scores, threshold, kept = ADVERSARIAL[name]
    if rounds:
        monkeypatch.setattr(nms_module, "has_kernel", lambda device_type: False)
    index = nms(*case(boxes, scores), threshold, 5)
    assert index.tolist() == [kept + [-1] * (5 - len(kept))]


def test_classes_do_not_remove_each_other() -> None:
    boxes, scores, labels = case([[0, 0, 9, 9]] * 4, [0.9, 0.8, 0.7, 0.6], [3, 0, 3, 79])
    assert nms(boxes, scores, labels, 0.5, 4).tolist() == [[0, 1, 3, -1]]


def test_far_padding_does_not_blur_the_classes() -> None:
    """Padding with huge coordinates would move classes so far apart that float32 loses the boxes."""
    boxes, scores, labels = case([[0, 0, 9, 9], [0.5, 0, 9, 9], [0, 0, 1e9, 1e9]], [0.9, 0.8, 0.0], [7, 7, 0])
    assert nms(boxes, scores, labels, 0.5, 3).tolist() == [[0, -1, -1]]


def test_each_class_alone_gives_the_same() -> None:
    boxes, scores = random_cases(12, 60, seed=1)
    labels = torch.randint(0, 5, scores.shape, generator=torch.Generator().manual_seed(0))
    index = nms(boxes, scores, labels, 0.5, 60)
    for b in range(12):
        expected: list[int] = []
        for label in range(5):
            own = scores[b].where(labels[b] == label, torch.tensor(0.0))
            expected += [i for i in plain_loop(boxes[b].numpy(), own.numpy(), 0.5, 60) if i >= 0]
        expected.sort(key=lambda i: (-float(scores[b, i]), i))
        assert [i for i in index[b].tolist() if i >= 0] == expected


def test_fewer_candidates_than_results() -> None:
    index = nms(*case([[0, 0, 4, 4]], [0.5]), 0.5, 7)
    assert index.dtype == torch.int64 and index.tolist() == [[0] + [-1] * 6]


def test_operator_is_registered_correctly() -> None:
    """PyTorch checks custom operators: schema, autograd, shape inference, torch.compile."""
    boxes, scores = random_cases(2, 10, seed=2)
    torch.library.opcheck(torch.ops.fsaf.nms.default, (boxes, scores, 0.5, 6))


def test_compiles_to_one_graph_of_fixed_shape() -> None:
    boxes, scores = random_cases(2, 12, seed=3)
    labels = torch.zeros(2, 12, dtype=torch.int64)
    exported = torch.export.export(Wrapped(), (boxes, scores, labels))
    operators = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert operators.count("fsaf.nms.default") == 1
    assert torch.equal(exported.module()(boxes, scores, labels), nms(boxes, scores, labels, 0.5, 8))


class Wrapped(torch.nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        return nms(boxes, scores, labels, 0.5, 8)


def test_kernel_is_looked_up_by_device_type() -> None:
    assert has_kernel("cpu") and not has_kernel("privateuseone")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_cpu() -> None:
    boxes, scores = random_cases(60, 40, seed=4)
    expected = nms_by_rounds(boxes, scores, 0.5, M)
    assert torch.equal(nms_by_image(boxes.cuda(), scores.cuda(), 0.5, M).cpu(), expected)
    assert torch.equal(nms_by_rounds(boxes.cuda(), scores.cuda(), 0.5, M).cpu(), expected)
