"""Random changes of an image: boxes and classes follow their pixels, and the seed determines everything."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsaf.config import DataConfig
from fsaf.data.augment import MIN_VISIBLE
from fsaf.data.distort import (
    FIRST,
    GREY,
    LAST,
    Picture,
    Step,
    apply,
    crop,
    erase,
    move,
    seeded,
    turn,
    zoom_out,
)
from fsaf.data.pipeline import mosaic

STEPS = {**FIRST, **LAST}
seeds = st.integers(0, 10**6)
sizes = st.tuples(st.integers(48, 160), st.integers(48, 160))


def painted(size: tuple[int, int], seed: int = 0) -> Picture:
    """Return a dark image with a red, a green and a blue rectangle; label i has only channel i bright."""
    rng = np.random.default_rng(seed)
    height, width = size
    image = torch.full((height, width, 3), 20, dtype=torch.uint8).permute(2, 0, 1)
    boxes = []
    for label in range(3):  # side by side, so that none covers another
        left, right = label * width // 3, (label + 1) * width // 3
        w, h = int(rng.integers(10, right - left + 1)), int(rng.integers(10, height // 2))
        x, y = int(rng.integers(left, right - w + 1)), int(rng.integers(0, height - h + 1))
        image[label, y : y + h, x : x + w] = 230
        boxes.append((x, y, x + w, y + h))
    return Picture(image, np.array(boxes, np.float32), np.arange(3), np.zeros(3, bool))


def seen(image: torch.Tensor, label: int, contrast: int = 110) -> list[int] | None:
    """Return the box around the pixels of a label's colour; None if there are none.

    contrast: least difference to the other two channels.
    """
    values = image.float()
    others = values[[c for c in range(3) if c != label]].amax(0)
    ys, xs = torch.nonzero(values[label] - others > contrast, as_tuple=True)
    if not len(ys):
        return None
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


def assert_markers_are_in_their_boxes(picture: Picture, margin: float, contrast: int) -> None:
    """Assert that the pixels of every label are inside the box of that label."""
    height, width = picture.size
    assert len(picture.boxes) == len(picture.labels) == len(picture.crowd)
    assert len(set(picture.labels.tolist())) == len(picture.labels)
    assert (picture.boxes >= 0).all() and (picture.boxes <= [width, height, width, height]).all()
    boxes = dict(zip(picture.labels.tolist(), picture.boxes, strict=True))
    for label in range(3):
        if (found := seen(picture.image, label, contrast)) is None:
            continue
        if label not in boxes:  # a sliver at the edge that interpolation brought in
            assert min(found[2] - found[0], found[3] - found[1]) <= 1
            continue
        assert (np.array(found[:2]) >= boxes[label][:2] - margin).all()
        assert (np.array(found[2:]) <= boxes[label][2:] + margin).all()


@pytest.mark.parametrize("name", [name for name in STEPS if name != "erase"])
@given(seed=seeds, size=sizes)
def test_a_marker_stays_in_its_box_and_keeps_its_class(name: str, seed: int, size: tuple[int, int]) -> None:
    before = painted(size, seed)
    with seeded(seed):
        after = STEPS[name](before)
    assert after.image.dtype == torch.uint8 and after.boxes.dtype == np.float32
    if name in LAST:
        assert after.size == size
    # JPEG stores colours in blocks of 2 x 2, a blur of 5 x 5 reaches 2 pixels.
    assert_markers_are_in_their_boxes(after, {"jpeg": 2.0, "blur": 2.0}.get(name, 1.0), contrast_after(name))


@pytest.mark.parametrize("name", ["turn", "zoom_out", "photometric", "noise"])
@given(seed=seeds)
def test_a_step_that_cuts_nothing_keeps_tight_boxes(name: str, seed: int) -> None:
    with seeded(seed):
        after = STEPS[name](painted((96, 128), seed))
    assert after.labels.tolist() == [0, 1, 2] and not after.crowd.any()
    for label, box in enumerate(after.boxes):
        np.testing.assert_allclose(seen(after.image, label, contrast_after(name)), box, atol=1.01)


def contrast_after(name: str) -> int:
    return 30 if name == "photometric" else 110


@given(
    seed=seeds,
    size=sizes,
    angle=st.floats(-180, 180),
    translate=st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
    scale=st.floats(0.3, 3),
    shear=st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
)
def test_an_affine_box_is_the_hull_of_its_moved_corners(
    seed: int,
    size: tuple[int, int],
    angle: float,
    translate: tuple[float, float],
    scale: float,
    shear: tuple[float, float],
) -> None:
    """Compare with a matrix put together from rotation and shears, in float64."""
    before = painted(size, seed)
    a, sx, sy = np.radians([angle, *shear])
    rotation = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    matrix = scale * rotation @ [[1, 0], [-np.tan(sy), 1]] @ [[1, -np.tan(sx)], [0, 1]]
    limit = np.array([size[1], size[0]], float)
    expected = []
    for label, (x1, y1, x2, y2) in enumerate(before.boxes.astype(float)):
        corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]) - limit / 2
        moved = corners @ matrix.T + limit / 2 + translate
        low, high = moved.min(0), moved.max(0)
        clipped = np.concatenate([low.clip(0, limit), high.clip(0, limit)])
        visible = np.prod(clipped[2:] - clipped[:2]) / np.prod(high - low)
        expected.append((label, clipped, visible))
    after = move(before, angle, translate, scale, shear)
    found = dict(zip(after.labels.tolist(), zip(after.boxes, after.crowd, strict=True), strict=True))
    for label, box, visible in expected:
        if visible < 1e-3:
            continue  # float32 may drop it
        np.testing.assert_allclose(found[label][0], box, atol=2e-2)
        if abs(visible - MIN_VISIBLE) > 1e-3:
            assert found[label][1] == (visible < MIN_VISIBLE)


@given(seed=seeds)
def test_a_crop_keeps_the_centre_of_an_object_and_its_ratio_limits(seed: int) -> None:
    before = painted((96, 128), seed)
    with seeded(seed):
        after = crop(before)
    height, width = after.size
    assert height <= 96 and width <= 128 and 0.5 <= (width / height) <= 2
    assert len(after.boxes) >= 1


def test_a_crop_of_an_image_without_objects_is_the_image() -> None:
    before = painted((64, 64))
    before = before._replace(crowd=np.ones(3, bool))
    assert crop(before) is before
    none = Picture(before.image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    for step in STEPS.values():
        after = step(none)
        assert after.boxes.shape == (0, 4) and len(after.labels) == len(after.crowd) == 0


def test_turns_are_those_of_the_pixels() -> None:
    turned = set()
    for seed in range(20):
        with seeded(seed):
            after = turn(painted((60, 90)))
        turned.add((after.size, tuple(after.boxes[0].tolist())))
        for label, box in zip(after.labels, after.boxes, strict=True):
            assert seen(after.image, label) == box.tolist()
    assert len(turned) == 3 and {size for size, _ in turned} == {(60, 90), (90, 60)}


def test_zoom_out_shrinks_to_half_at_most_and_lays_the_image_anywhere() -> None:
    shares, corners = [], []
    for seed in range(200):
        with seeded(seed):
            after = zoom_out(Picture(torch.zeros(3, 96, 96, dtype=torch.uint8), *nothing()))
        inside = (after.image[0] != GREY).nonzero()
        shares.append(float(inside[:, 0].max() - inside[:, 0].min() + 1) / 96)
        corners.append(inside.min(0).values.tolist())
    assert 0.5 <= min(shares) < 0.53 and 0.95 < max(shares) <= 1
    assert np.max(corners, 0).min() > 30 and np.min(corners, 0).max() == 0


def nothing() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)


@given(seed=seeds)
def test_what_is_erased_is_no_object(seed: int) -> None:
    """Count the changed pixels of boxes all over a noisy image."""
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 256, (3, 80, 100), np.uint8))
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(0, 100, 10), np.arange(0, 80, 10)))
    boxes = np.stack((x, y, x + 10, y + 10), 1).astype(np.float32)
    before = Picture(image, boxes, np.arange(len(boxes)), np.zeros(len(boxes), bool))
    with seeded(seed):
        after = erase(before)
    np.testing.assert_array_equal(after.boxes, boxes)
    changed = (after.image != image).any(0)
    ys, xs = changed.nonzero(as_tuple=True)
    assert len(ys) <= 0.12 * 80 * 100
    rectangle = after.image[:, ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    assert (rectangle == rectangle[:, :1, :1]).all()
    for (x1, y1, x2, y2), crowd in zip(boxes.astype(int).tolist(), after.crowd, strict=True):
        hidden = changed[y1:y2, x1:x2].float().mean()
        assert crowd == (hidden > 1 - MIN_VISIBLE) or abs(hidden - (1 - MIN_VISIBLE)) < 0.03
    assert torch.equal(before.image, image)  # the input stays


@pytest.mark.parametrize("name", STEPS)
def test_the_seed_decides_and_the_global_generator_stays(name: str) -> None:
    step, before = STEPS[name], painted((64, 96))

    def after(seed: int) -> tuple[bytes, bytes]:
        with seeded(seed):
            found = step(before)
        return found.image.contiguous().numpy().tobytes(), found.boxes.tobytes()

    state = torch.get_rng_state()
    first = after(5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert after(5) == first
    assert len({after(seed) for seed in range(8)}) >= 3


@pytest.mark.parametrize("name", STEPS)
def test_threads_do_not_change_a_pixel(name: str) -> None:
    """Workers of a loader have one thread, the training process has several."""
    before, threads = painted((300, 400)), torch.get_num_threads()

    def after(count: int) -> torch.Tensor:
        torch.set_num_threads(count)
        with seeded(3):
            return STEPS[name](before).image

    try:
        assert torch.equal(after(1), after(4))
    finally:
        torch.set_num_threads(threads)


def test_steps_come_as_often_as_their_chances_say() -> None:
    counts = dict.fromkeys(STEPS, 0)

    def counting(name: str) -> Step:
        def step(picture: Picture) -> Picture:
            counts[name] += 1
            return picture

        return step

    steps: dict[str, Callable[[Picture], Picture]] = {name: counting(name) for name in STEPS}
    chances = {name: i / (len(STEPS) - 1) for i, name in enumerate(STEPS)}
    picture = painted((48, 48))
    with seeded(0):
        for _ in range(1000):
            apply(steps, chances, picture)
    for name, chance in chances.items():
        assert abs(counts[name] - 1000 * chance) <= 4 * (1000 * chance * (1 - chance)) ** 0.5


@given(seed=seeds, size=sizes, target=sizes)
def test_a_mosaic_holds_four_images_with_their_boxes(
    seed: int, size: tuple[int, int], target: tuple[int, int]
) -> None:
    """Part i has the label i + 3 of its own, and is plain with the grey value 40 * (i + 1)."""
    parts = []
    for i in range(4):
        image = torch.full((3, *size), 40 * (i + 1), dtype=torch.uint8)
        whole = np.array([[0, 0, size[1], size[0]]], np.float32)
        parts.append(Picture(image, whole, np.array([i + 3]), np.zeros(1, bool)))
    data = DataConfig(short_side=64, long_side=96, flip=0.5)
    after = mosaic(iter(parts), target, np.random.default_rng(seed), data)
    assert after.size == target and after.labels.tolist() == [3, 4, 5, 6]
    for i, box in enumerate(after.boxes):
        ys, xs = (after.image[0] == 40 * (i + 1)).nonzero(as_tuple=True)
        expected = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
        np.testing.assert_allclose(box, expected, atol=1e-4)
    corner = after.boxes[0, 2:]
    np.testing.assert_allclose(after.boxes[3, :2], corner, atol=1e-4)
    assert (np.abs(corner / [target[1], target[0]] - 0.5) <= 0.26).all()
