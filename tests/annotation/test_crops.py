"""Crops, and folder names that are valid on every file system."""

from pathlib import Path, PurePath

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fsaf.annotation.crops import Crops, folder_names
from fsaf.detection.detector import Result


def test_names_that_are_fine_stay() -> None:
    names = ["person", "traffic light", "猫", "naïve", "x-ray (hand)", "0", "कुत्ता", "ไก่", "snake_case"]
    assert folder_names(names) == names
    assert folder_names(["caf\u00e9", "cafe\u0301"]) == ["caf\u00e9", "caf\u00e9-1"]  # one name on macOS


def test_names_that_are_not() -> None:
    names = ["a/b", "a\\b", "..", "", "NUL", "com1.txt", "Cat", "cat", "a b. ", "x\n\ty", "é" * 200]
    assert folder_names(names)[:10] == [
        "a_b", "a_b-1", "_", "_-3", "NUL_", "com1.txt_", "Cat", "cat-7", "a b", "x__y",
    ]  # fmt: skip
    assert folder_names(names)[10] == "é" * 50


@settings(max_examples=30)
@given(st.lists(st.text(max_size=8) | st.sampled_from(["a", "A", "a-1", "A-1", "_", "con"]), max_size=6))
def test_each_class_has_a_folder_of_its_own(names: list[str]) -> None:
    safe = folder_names(names)
    assert len({name.casefold() for name in safe}) == len(names)
    for name in safe:
        assert name and name == name.strip(" .") and not set(name) & set('<>:"/\\|?*\0\n')
        assert PurePath(name).name == name


def test_pixels_and_files(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    boxes = np.array([[10.2, 5, 20, 15.7], [0, 0, 60, 40], [59.9, 39.9, 60, 40]], np.float32)
    labels = np.array([1, 0, 1])
    result = Result(
        boxes=boxes, scores=np.ones(3, np.float32), labels=labels, names=["b", "a/c", "b"], size=(40, 60)
    )
    Crops(tmp_path / "crops", ["a/c", "b"]).save(image, result, PurePath("sub/photo.1"))
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    folder = "crops/b/sub"
    assert files == [
        "crops/a_c/sub/photo.1_001.png",
        f"{folder}/photo.1_000.png",
        f"{folder}/photo.1_002.png",
    ]
    for name, expected in (
        (files[0], image),
        (files[1], image[5:16, 10:20]),
        (files[2], image[39:, 59:]),
    ):
        with Image.open(tmp_path / name) as crop:
            assert (np.asarray(crop) == expected).all()
