"""Predictions for all kinds of pictures, with boxes in their own pixels; saving and loading."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor

import fsaf
from detection.comparing import noise, same
from fsaf.checkpoints.any_format import read_checkpoint
from fsaf.config import Config, DataConfig, ModelConfig, PredictConfig, to_dict
from fsaf.detection.detector import Detector, Result, load
from fsaf.device import has_winograd
from fsaf.errors import UserError
from fsaf.model import backbone
from fsaf.model.backbone import find_features
from fsaf.model.convolution import Conv3x3
from fsaf.model.detector import FSAF
from synthetic import CLASSES, COLORS, NAMES, Picture, SeesColours, paint

DATA = DataConfig(short_side=64, long_side=96, shapes=[(64, 96), (96, 64)])
SCENE = Picture(height=128, width=192, objects=[(20, 30, 60, 40, 7), (100, 64, 80, 60, 3)])


@pytest.fixture
def sees() -> Detector:
    """A detector that detects coloured rectangles."""
    return Detector(SeesColours().eval(), CLASSES, Config(data=DATA))


@pytest.fixture
def random_detector(tiny_model_config: ModelConfig) -> Detector:
    """Untrained; every location is a detection."""
    config = Config(
        data=DATA,
        model=tiny_model_config,
        predict=PredictConfig(score_threshold=0.0, max_detections=20, nms_iou=0.3),
    )
    model = FSAF(config.model, len(CLASSES)).eval().to(memory_format=torch.channels_last)
    return Detector(model, CLASSES, config)


def test_boxes_are_in_pixels_of_the_original(sees: Detector) -> None:
    for scale in (1, 2, 4):  # of 64 x 96, the size the network sees
        objects = [
            (10 * scale, 15 * scale, 30 * scale, 20 * scale, 7),
            (50 * scale, 32 * scale, 40 * scale, 30 * scale, 3),
        ]
        result = sees.predict(paint(Picture(height=64 * scale, width=96 * scale, objects=objects)))
        assert result.size == (64 * scale, 96 * scale) and result.path is None
        found = dict(zip(result.names, result.boxes.tolist(), strict=True))
        assert found == {NAMES[c]: pytest.approx([x, y, x + w, y + h], abs=1e-3) for x, y, w, h, c in objects}
        labels = dict(zip(result.names, result.labels.tolist(), strict=True))
        assert labels == {"red": 1, "green": 0}
        assert result.scores.tolist() == sorted(result.scores, reverse=True) and len(result) == 2


def test_types_of_a_result(sees: Detector) -> None:
    for picture in (paint(SCENE), np.full((64, 96, 3), 128, np.uint8)):
        result = sees.predict(picture)
        n = len(result)
        assert result.boxes.shape == (n, 4) and result.scores.shape == result.labels.shape == (n,)
        assert (result.boxes.dtype, result.scores.dtype, result.labels.dtype) == (
            np.float32, np.float32, np.int64,
        )  # fmt: skip
    assert n == 0 and result.names == []


def test_a_list_gives_a_list_in_order(sees: Detector) -> None:
    pictures = [paint(Picture(height=64, width=96, objects=[(8 * i, 16, 16, 16, 7)])) for i in range(5)]
    for batch_size in (1, 2, 5, 9):
        results = sees.predict(pictures, batch_size=batch_size)
        assert [result.boxes[0, 0] for result in results] == [0, 8, 16, 24, 32]
    assert sees.predict([]) == []
    assert isinstance(sees.predict(pictures[:1]), list) and isinstance(sees.predict(pictures[0]), Result)


@pytest.mark.parametrize("shapes", [DATA.shapes, None])
def test_mixed_sizes_in_batches_equal_one_by_one(
    random_detector: Detector, shapes: list[tuple[int, int]] | None
) -> None:
    random_detector.config.data = DataConfig(short_side=64, long_side=96, shapes=shapes)
    sizes = [(64, 96), (96, 64), (40, 90), (64, 96), (130, 60), (64, 64), (33, 97)]
    pictures = [noise(*size, seed) for seed, size in enumerate(sizes)]
    alone = [random_detector.predict(picture, score_threshold=0) for picture in pictures]
    for batch_size in (2, 7):
        together = random_detector.predict(pictures, batch_size=batch_size, score_threshold=0)
        for one, other in zip(alone, together, strict=True):
            assert len(one) > 5
            same(one, other, atol=1e-4)


def test_settings_of_a_call_count_for_that_call(sees: Detector) -> None:
    result = sees.predict(paint(SCENE))
    low, high = sorted(result.scores.tolist())
    assert low < high
    assert len(sees.predict(paint(SCENE), score_threshold=(low + high) / 2)) == 1
    assert len(sees.predict(paint(SCENE), max_detections=1)) == 1
    same(sees.predict(paint(SCENE)), result)


def test_what_is_shown_and_what_is_scored(random_detector: Detector) -> None:
    picture = noise(64, 96)
    config = random_detector.config
    everything = random_detector.predict(picture, score_threshold=0).scores
    config.predict.nms_iou = 1.0
    middle = float(np.median(everything))
    assert (everything < 0.3).all() and len(random_detector.predict(picture)) == 0
    assert len(next(random_detector.stream([picture]))) == 0
    assert len(next(random_detector.stream([picture], config.predict))) == 20  # as evaluation does
    random_detector.config.predict = replace(config.predict, score_threshold=0.4)
    assert random_detector.shown.score_threshold == 0.4  # as a file with suppression inside may have
    assert (random_detector.predict(picture, score_threshold=middle).scores > middle).all()


def test_classes_by_name_and_by_number(sees: Detector) -> None:
    everything = sees.predict(paint(SCENE))
    assert sorted(everything.names) == ["green", "red"]
    for classes in (["red"], [1], "red", ("red", "blue"), ["red", 1]):
        found = sees.predict(paint(SCENE), classes=classes)
        assert found.names == ["red"]
        assert found.boxes[0].tolist() == everything.boxes[everything.names.index("red")].tolist()
    assert len(sees.predict(paint(SCENE), classes=["blue"])) == 0
    sees.config.predict.classes = ["green"]
    assert sees.predict(paint(SCENE)).names == ["green"]


def test_class_agnostic_suppression(random_detector: Detector) -> None:
    picture = noise(64, 96)
    every = random_detector.predict(picture, score_threshold=0, max_detections=1000)
    found = random_detector.predict(picture, score_threshold=0, max_detections=1000, class_agnostic=True)
    boxes, scores = torch.from_numpy(found.boxes), torch.from_numpy(found.scores)
    assert 0 < len(found) < len(every) and len(set(found.names)) > 1
    assert len(torchvision.ops.nms(boxes, scores, 0.3)) == len(found)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"classes": ["rad"]}, "'rad' is no class of this detector; did you mean 'red'"),
        ({"classes": ["dog"]}, r"'dog' is no class of this detector \(its classes: 'green', 'red', 'blue'\)"),
        ({"classes": [3]}, "3 is no class; they are numbered 0 to 2"),
        ({"classes": [-1]}, "-1 is no class"),
        ({"classes": []}, "names or numbers of classes"),
        ({"classes": [1.5]}, "names or numbers of classes"),
        ({"score_threshold": 1.5}, "score_threshold = 1.5"),
        ({"max_detections": 0}, "max_detections = 0"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"batch_size": -2}, "batch_size = -2"),
    ],
)
def test_settings_out_of_range(sees: Detector, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        sees.predict(paint(SCENE), **options)


def test_files_that_cannot_be_read_are_named(sees: Detector, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text.png", "gone.png"):
        with pytest.raises(UserError, match=name):
            sees.predict(tmp_path / name)


def test_exif_rotation_follows_the_setting(sees: Detector, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns the stored pixels a quarter clockwise
    Image.fromarray(paint(Picture(height=64, width=96, objects=[(10, 16, 30, 20, 7)]))).save(
        tmp_path / "a.png", exif=exif
    )
    turned = sees.predict(tmp_path / "a.png")
    assert turned.size == (96, 64)
    assert turned.boxes[0].tolist() == pytest.approx([64 - 36, 10, 64 - 16, 40], abs=1e-3)
    sees.config.data = DataConfig(short_side=64, long_side=96, shapes=DATA.shapes, exif_rotation=False)
    assert sees.predict(tmp_path / "a.png").boxes.tolist() == [[10, 16, 40, 36]]


def test_a_result_as_json_values(sees: Detector, tmp_path: Path) -> None:
    Image.fromarray(paint(SCENE)).save(tmp_path / "a.png")
    values = sees.predict(tmp_path / "a.png").to_dict()
    assert values["image"] == str(tmp_path / "a.png") and values["size"] == [128, 192]
    by_name = {d["name"]: d for d in values["detections"]}
    assert by_name["red"]["box"] == pytest.approx([20, 30, 80, 70], abs=2e-3)
    assert (by_name["red"]["label"], by_name["green"]["label"]) == (1, 0)
    assert all(0 < d["score"] < 1 and d.keys() == {"box", "score", "label", "name"} for d in by_name.values())


def test_supervision_without_the_package(sees: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(UserError, match="pip install supervision"):
        sees.predict(paint(SCENE)).to_supervision()


def test_supervision(sees: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    class Detections(dict[str, Any]):
        """Stand-in with the arguments of supervision.Detections."""

    module = type("supervision", (), {"Detections": Detections})
    monkeypatch.setitem(__import__("sys").modules, "supervision", module)
    result = sees.predict(paint(SCENE))
    found: Any = result.to_supervision()
    assert found["xyxy"] is result.boxes and found["confidence"] is result.scores
    assert found["class_id"] is result.labels and found["data"]["class_name"].tolist() == result.names


# Files.


def test_save_and_load(random_detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "a" / "model.pt"
    random_detector.save(path)
    again = load(str(path), "cpu")
    assert again.classes == CLASSES and to_dict(again.config) == to_dict(random_detector.config)
    assert not again.model.training
    picture = noise(64, 96)
    same(again.predict(picture, score_threshold=0), random_detector.predict(picture, score_threshold=0))
    again.save(tmp_path / "b.pt")
    first, second = (torch.load(p, weights_only=True)["model"] for p in (path, tmp_path / "b.pt"))
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_saved_detector_keeps_the_normalisation_in_use(
    random_detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of timm may have other values for the backbone."""
    random_detector.save(tmp_path / "model.pt")
    features = find_features(random_detector.config.model.backbone)._replace(mean=(0.0,) * 3, std=(1.0,) * 3)
    monkeypatch.setattr(backbone, "find_features", lambda name: features)
    assert FSAF(replace(random_detector.config.model, mean=None), 1).mean.flatten().tolist() == [0, 0, 0]
    again = load(tmp_path / "model.pt", "cpu")
    assert torch.equal(again.model.mean, random_detector.model.mean)
    assert torch.equal(again.model.std, random_detector.model.std)


def test_winograd_is_used_on_a_cpu_unless_turned_off(random_detector: Detector, tmp_path: Path) -> None:
    def used(detector: Detector) -> bool:
        return any(isinstance(module, Conv3x3) for module in detector.model.modules())

    assert not used(random_detector)
    random_detector.save(tmp_path / "model.pt")
    opened = load(tmp_path / "model.pt", "cpu")
    plain = load(tmp_path / "model.pt", "cpu", winograd=False)
    assert used(opened) is has_winograd(torch.device("cpu")) and not used(plain)
    picture = noise(64, 96)
    same(opened.predict(picture, score_threshold=0), plain.predict(picture, score_threshold=0), atol=1e-2)
    plain.save(tmp_path / "plain.pt")
    assert not used(load(tmp_path / "plain.pt", "cpu"))


def test_the_public_names() -> None:
    assert issubclass(fsaf.Detector, Detector) and fsaf.Result is Result
    with pytest.raises(AttributeError, match="nothing"):
        fsaf.nothing  # noqa: B018


def test_load_names_the_file(tmp_path: Path, random_detector: Detector) -> None:
    with pytest.raises(UserError, match=r"none\.pt: no such checkpoint"):
        load(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(UserError, match=r"text\.pt: not a readable checkpoint"):
        load(tmp_path / "text.pt")
    random_detector.save(tmp_path / "a.pt")
    with pytest.raises(UserError, match="device 'abacus'"):
        load(tmp_path / "a.pt", "abacus")
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    content["classes"] = {"names": ["one"], "ids": [1]}
    torch.save(content, tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"b\.pt: does not fit the model.*number of classes"):
        load(tmp_path / "b.pt")


def test_colours_are_told_apart() -> None:
    """The stand-in network of these tests detects as they expect."""
    assert len({tuple(c) for c in COLORS.values()}) == 3
    outputs = SeesColours()(torch.from_numpy(paint(SCENE)).permute(2, 0, 1)[None])
    scores: Tensor = torch.cat([x.flatten(2) for x in outputs.free.logits], 2).sigmoid()
    assert (scores > 0.5).sum() == 2


def test_load_merges_batch_norms_until_the_network_is_asked_for(
    random_detector: Detector, tmp_path: Path
) -> None:
    file = tmp_path / "detector.pt"
    random_detector.save(file)
    plain, folded = fsaf.load(file, device="cpu", fold=False), fsaf.load(file, device="cpu")
    assert has_batch_norms(plain.network.runs) and not has_batch_norms(folded.network.runs)
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    want, got = plain.predict(picture, score_threshold=0), folded.predict(picture, score_threshold=0)
    np.testing.assert_allclose(got.boxes, want.boxes, atol=1e-2)
    np.testing.assert_allclose(got.scores, want.scores, atol=1e-5)
    assert folded.model is folded.network.module and has_batch_norms(folded.network.runs)
    again = folded.predict(picture, score_threshold=0)
    assert again.scores.tolist() == want.scores.tolist()
    folded.fold()
    folded.save(tmp_path / "again.pt")
    one, other = (read_checkpoint(path).weights for path in (file, tmp_path / "again.pt"))
    assert one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def has_batch_norms(module: torch.nn.Module) -> bool:
    return any(isinstance(each, torch.nn.BatchNorm2d) for each in module.modules())
