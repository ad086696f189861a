"""Tiles and test-time augmentation: each object is found once and in its place."""

import types
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detection.comparing import noise, same
from fsaf.config import Config, DataConfig, ModelConfig, PredictConfig
from fsaf.data.records import Classes
from fsaf.detection.detector import Detector, Result
from fsaf.detection.found import Found
from fsaf.detection.postprocess import Detections
from fsaf.detection.torch_network import TorchNetwork
from fsaf.detection.views import merge, plan_tiles, plan_views
from fsaf.errors import UserError
from fsaf.model.detector import FSAF

pytestmark = pytest.mark.slow

CLASSES = Classes(names=("a", "b"), ids=(1, 2))
MARK = 77
"""Blue value of every object. Red is the class, green three times the number of the object."""
GROUND = 128

Scene = list[tuple[int, int, int, int, int]]
"""x, y, width, height, label of each object."""


def paint(height: int, width: int, scene: Scene) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 in which each object has its own colour."""
    pixels = np.full((height, width, 3), GROUND, np.uint8)
    for number, (x, y, w, h, label) in enumerate(scene):
        pixels[y : y + h, x : x + w] = label, 3 * number, MARK
    return pixels


class SeesMarks(Detector):
    """Finds every object of a view, or what is left of it there, that ``sees`` lets it see.

    sees: of (x1, y1, x2, y2) in the view and its (height, width). Larger parts are surer.
    """

    def __init__(self, data: DataConfig, sees: Callable[..., bool] = lambda *_: True, **predict: Any) -> None:
        super().__init__(
            TorchNetwork(FSAF.__new__(FSAF)),  # never run
            CLASSES,
            Config(data=data, predict=PredictConfig(**predict)),
        )
        self.sees = sees
        self.shapes: list[tuple[int, ...]] = []

    def _find(self, images: np.ndarray, sizes_b2: np.ndarray, settings: PredictConfig) -> list[Found]:
        return self.detect(torch.from_numpy(images), torch.from_numpy(sizes_b2), settings).rows()

    def detect(self, images: Tensor, sizes_b2: Tensor, config: PredictConfig | None = None) -> Detections:
        self.shapes.append(tuple(images.shape))
        count = (config or self.config.predict).max_detections
        boxes = torch.zeros(len(images), count, 4)
        scores, labels = torch.zeros(len(images), count), torch.full((len(images), count), -1)
        for row, (image, (height, width)) in enumerate(zip(images, sizes_b2.tolist(), strict=True)):
            pixels = image[:, :height, :width].permute(1, 2, 0).numpy()
            found = []
            for color in np.unique(pixels[pixels[:, :, 2] == MARK].reshape(-1, 3), axis=0):
                if color[0] > 1 or color[1] % 3:  # pixels of an edge that resizing has blurred
                    continue
                y, x = (pixels == color).all(2).nonzero()
                box = (int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
                if len(x) >= 12 and self.sees(box, (height, width)):
                    found.append((0.5 + len(x) / (4 * height * width), box, int(color[0])))
            for place, (score, box, label) in enumerate(sorted(found, reverse=True)[:count]):
                boxes[row, place], scores[row, place] = torch.tensor(box, dtype=torch.float32), score
                labels[row, place] = label
        return Detections(boxes, scores, labels, torch.where(labels >= 0, 0, -1))


def boxes_of(scene: Scene) -> list[tuple[list[float], int]]:
    return sorted(([x, y, x + w, y + h], label) for x, y, w, h, label in scene)


def found_in(result: Result) -> list[tuple[list[float], int]]:
    return sorted((box, label) for box, label in zip(result.boxes.tolist(), result.labels, strict=True))


# Tiles.

SQUARE = DataConfig(short_side=128, long_side=128)
"""Tiles of 128 are not resized; the whole picture is shrunk."""


def random_scene(rng: np.random.Generator, height: int, width: int, sides: tuple[int, int]) -> Scene:
    """Return objects that do not overlap, some of them at the edges of tiles."""
    taken, scene = np.zeros((height, width), bool), []
    for _ in range(80):
        w, h = (int(v) for v in rng.integers(*sides, 2))
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        if not taken[max(y - 4, 0) : y + h + 4, max(x - 4, 0) : x + w + 4].any():
            taken[y : y + h, x : x + w] = True
            scene.append((x, y, w, h, int(rng.integers(2))))
    return scene


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_every_object_of_a_mosaic_once_and_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(129, 320, 2))
    scene = random_scene(rng, height, width, (6, 36))
    detector = SeesMarks(SQUARE)
    result = detector.predict(paint(height, width, scene), tile=128, tile_overlap=0.42, batch_size=7)
    assert found_in(result) == boxes_of(scene)
    assert result.scores.tolist() == sorted(result.scores, reverse=True)


def test_objects_on_every_inner_edge() -> None:
    size = (320, 320)
    tiles = plan_tiles(size, PredictConfig(tile=128, tile_overlap=0.25))
    inner = sorted({edge for _, x, _, w in tiles for edge in (x, x + w)} - {0, 320})
    scene = [(edge - 12, 20 + 50 * k, 24, 16, k % 2) for k, edge in enumerate(inner)]
    scene += [(20 + 60 * k, edge - 7, 10, 14, k % 2) for k, edge in enumerate(inner) if 20 + 60 * k < 300]
    scene = [box for box in scene if box[1] + box[3] <= 320]
    scene = [box for i, box in enumerate(scene) if not any(_touch(box, other) for other in scene[:i])]
    assert len(inner) == 4 and len(scene) >= 6
    detector = SeesMarks(SQUARE)
    picture = paint(*size, scene)
    assert found_in(detector.predict(picture, tile=128, tile_overlap=0.25)) == boxes_of(scene)
    # Suppression alone would keep the parts: tiles do cut objects of this scene.
    parts = 0
    for top, left, h, w in tiles:
        parts += len(detector.predict(picture[top : top + h, left : left + w]))
    assert parts > len(scene) * 1.5


def _touch(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return abs(a[0] - b[0]) < 30 and abs(a[1] - b[1]) < 30


@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_an_object_larger_than_a_tile_comes_from_the_whole_picture(overlap: float) -> None:
    big = (30, 40, 260, 230, 1)
    small = [(300, 20, 20, 20, 1), (10, 290, 20, 20, 0), (340, 250, 20, 30, 0)]
    result = SeesMarks(SQUARE).predict(paint(320, 384, [big, *small]), tile=128, tile_overlap=overlap)
    assert len(result) == 4
    largest = int(np.argmax(np.prod(result.boxes[:, 2:] - result.boxes[:, :2], axis=1)))
    np.testing.assert_allclose(result.boxes[largest], [30, 40, 290, 270], atol=2 * 384 / 128)


def test_a_mistake_about_a_cut_object_is_left_to_the_tile_that_sees_it_whole() -> None:
    scene: Scene = [(100, 40, 40, 40, 0)]  # the first tile ends inside the object

    class Mistakes(SeesMarks):
        def detect(self, *args: Any) -> Detections:
            boxes, scores, labels, levels = super().detect(*args)
            cut = (labels >= 0) & (boxes[:, :, 2] - boxes[:, :, 0] < 35)
            return Detections(boxes, scores, torch.where(cut, 1, labels), levels)

    data = DataConfig(short_side=128, long_side=128)
    result = Mistakes(data).predict(paint(128, 230, scene), tile=128, tile_overlap=0.5)
    assert found_in(result) == boxes_of(scene)


def test_the_limit_of_detections_is_of_a_tile() -> None:
    scene: Scene = [(8 + 27 * i, 8 + 27 * j, 12, 12, 0) for i in range(9) for j in range(9)]
    picture = paint(256, 256, scene)
    detector = SeesMarks(SQUARE, max_detections=40)
    assert found_in(detector.predict(picture, tile=128, tile_overlap=0.3)) == boxes_of(scene)
    assert len(detector.predict(picture, tile=128, tile_overlap=0.3, max_detections=3)) <= 9 * 3


def test_small_boxes_of_many_classes_in_a_huge_picture() -> None:
    """Suppression moves classes apart by the picture's size: at 2e7 float32 is exact to 2 pixels only."""
    side = 20_000
    views = plan_views((side, side), DataConfig(), PredictConfig(flip=True))
    for x in range(side - 24, side - 16):
        for shift, count in ((3, 1), (4, 2)):  # an IoU of 0.54, and one of 0.43
            boxes = np.array([[x, x, x + 10, x + 10], [x + shift, x, x + shift + 10, x + 10]], np.float32)
            found = Found(boxes, np.array([0.9, 0.8], np.float32), np.array([1202, 1202]), None)
            nothing = Found(boxes[:0], found.scores[:0], found.labels[:0], None)
            merged = merge(list(zip(views, (found, nothing), strict=True)), (side, side), PredictConfig())
            np.testing.assert_array_equal(merged.boxes, boxes[:count])
            assert merged.boxes.dtype == merged.scores.dtype == np.float32


def test_a_picture_no_larger_than_a_tile_is_seen_plainly() -> None:
    picture = paint(100, 128, [(10, 10, 30, 20, 0)])
    detector = SeesMarks(SQUARE)
    detector.predict(picture, tile=128)
    assert len(detector.shapes) == 1


@given(
    st.integers(32, 700), st.integers(32, 700), st.integers(32, 300), st.sampled_from([0.0, 0.2, 0.5, 0.9])
)
def test_tiles_cover_the_picture_and_overlap(height: int, width: int, tile: int, overlap: float) -> None:
    tiles = plan_tiles((height, width), PredictConfig(tile=tile, tile_overlap=overlap))
    if max(height, width) <= tile:
        assert tiles == []
        return
    assert len({region[2:] for region in tiles}) == 1 and tiles[0][2:] == (
        min(tile, height),
        min(tile, width),
    )
    for axis, length in ((0, height), (1, width)):
        side = min(tile, length)
        starts = sorted({region[axis] for region in tiles})
        assert starts[0] == 0 and starts[-1] == length - side
        assert all(0 < b - a <= max(1, side * (1 - overlap)) + 1 for a, b in pairwise(starts))


# Scales and mirrors.

DATA = DataConfig(short_side=64, long_side=96, shapes=[(64, 96), (96, 64)])


@pytest.fixture
def random_detector(tiny_model_config: ModelConfig) -> Detector:
    """Untrained; every location is a detection."""
    predict = PredictConfig(score_threshold=0.0, max_detections=20, nms_iou=0.3)
    config = Config(data=DATA, model=tiny_model_config, predict=predict)
    model = FSAF(config.model, len(CLASSES)).eval().to(memory_format=torch.channels_last)
    for layer, std in ((model.head.classes, 0.5), (model.head.distances, 0.05)):
        torch.nn.init.normal_(layer.weight, std=std)
    return Detector(model, CLASSES, config)


def test_the_same_view_twice_adds_nothing(random_detector: Detector) -> None:
    plain = random_detector.predict(noise(64, 96), score_threshold=0)
    assert len(plain) > 5
    same(random_detector.predict(noise(64, 96), scales=[1.0], flip=False, score_threshold=0), plain)
    same(random_detector.predict(noise(64, 96), scales=[1.0, 1.0], score_threshold=0), plain)


def test_a_mirrored_picture_gives_the_mirrored_result(random_detector: Detector) -> None:
    picture = noise(96, 64)
    result = random_detector.predict(picture, flip=True, scales=[1.0, 1.5], score_threshold=0)
    mirrored = random_detector.predict(
        picture[:, ::-1].copy(), flip=True, scales=[1.0, 1.5], score_threshold=0
    )
    boxes = result.boxes.copy()
    boxes[:, [0, 2]] = 64 - result.boxes[:, [2, 0]]
    same(replace(result, boxes=boxes), mirrored, atol=1e-3)
    plain = random_detector.predict(picture, score_threshold=0)
    assert plain.boxes.tolist() != result.boxes.tolist()  # the mirrored view changes the result


def test_what_only_the_mirrored_view_shows_is_where_it_is() -> None:
    scene: Scene = [(4, 10, 20, 12, 0), (62, 30, 25, 20, 1)]
    detector = SeesMarks(DATA, sees=lambda box, size: box[2] < size[1] / 2)  # sees only the left half
    picture = paint(64, 96, scene)
    assert found_in(detector.predict(picture)) == boxes_of(scene[:1])
    assert found_in(detector.predict(picture, flip=True)) == boxes_of(scene)


def test_what_only_one_scale_shows_is_where_it_is() -> None:
    scene: Scene = [(4, 10, 12, 12, 0), (40, 10, 50, 48, 1)]
    detector = SeesMarks(DATA, sees=lambda box, _: 20 <= box[2] - box[0] <= 30)
    picture = paint(64, 96, scene)
    assert len(detector.predict(picture)) == 0
    result = detector.predict(picture, scales=[0.5, 2.0])
    assert result.labels.tolist() == [1, 0]
    np.testing.assert_allclose(result.boxes, [[40, 10, 90, 58], [4, 10, 16, 22]], atol=2)


def test_batches_have_the_shapes_of_the_recipe_scaled() -> None:
    detector = SeesMarks(DATA, scales=[1.0, 1.5], flip=True)
    detector.predict([paint(64, 96, []), paint(100, 50, []), paint(30, 40, [])], batch_size=4)
    assert sorted(detector.shapes) == [(2, 3, 96, 64), (2, 3, 160, 96), (4, 3, 64, 96), (4, 3, 96, 160)]


def test_an_exported_file_refuses_scales() -> None:
    detector = SeesMarks(DATA)
    detector.network = types.SimpleNamespace(name="a.onnx", fixed_size=(64, 96))  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"a\.onnx.*predict\.scales.*\[0\.5, 1\.0\]"):
        detector.predict(paint(64, 96, []), scales=[0.5, 1.0])
    scene: Scene = [(4, 10, 20, 12, 0)]
    assert found_in(detector.predict(paint(64, 96, scene), flip=True, tile=64)) == boxes_of(scene)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scales": []}, r"predict\.scales = \[\]"),
        ({"scales": [1.0, 0.0]}, r"predict\.scales"),
        ({"scales": [0.1]}, r"predict\.scales: 0\.1 of data\.short_side = 64"),
        ({"tile": 8}, r"predict\.tile = 8"),
        ({"tile": 64, "tile_overlap": 1.0}, r"predict\.tile_overlap = 1\.0"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        SeesMarks(DATA).predict(paint(64, 96, []), **options)
