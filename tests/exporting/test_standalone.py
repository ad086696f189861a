"""The script of ``--standalone``: without PyTorch and fsaf it finds what ``fsaf.load`` finds."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fsaf.config import DataConfig, PredictConfig
from fsaf.data.shapes import fit_image, padded_shape
from fsaf.data.transforms import resize
from fsaf.detection.detector import Detector, load
from fsaf.detection.torch_network import TorchNetwork
from fsaf.errors import UserError
from fsaf.exporting.export import export_detector
from fsaf.exporting.standalone import TEMPLATE, check_standalone
from random_networks import CLASSES, CONFIG, random_network

ABSENT = ("torch", "torchvision", "fsaf", "cv2", "onnx", "timm")
START = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({ABSENT}))  # None: an import raises ImportError
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
CONFIG = replace(CONFIG, data=DataConfig(short_side=60, long_side=90, shapes=[(64, 96), (96, 64)]))


@pytest.fixture(scope="module")
def functions() -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(TEMPLATE.read_text(encoding="utf-8").split("\nparser =")[0], found)
    return found


sides = st.integers(1, 150)


@given(height=sides, width=sides, new_height=sides, new_width=sides, seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_resizes_to_the_pixels_of_opencv(
    functions: dict[str, Any], height: int, width: int, new_height: int, new_width: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = functions["resize"](Image.fromarray(pixels), new_height, new_width, False)
    expected = resize(torch.from_numpy(pixels).permute(2, 0, 1), (new_height, new_width))
    assert np.array_equal(found, expected.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("size", [(20, 31), (97, 150)])
def test_antialiased_pixels_differ_by_one_step_at_most(
    functions: dict[str, Any], size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    found = functions["resize"](Image.fromarray(pixels), *size, True)
    expected = resize(torch.from_numpy(pixels).permute(2, 0, 1), size, antialias=True)
    assert np.abs(found.astype(int) - expected.permute(1, 2, 0).numpy()).max() <= 1


@given(height=sides, width=sides)
@settings(max_examples=100)
@pytest.mark.parametrize(
    "changes", [{"shapes": [(64, 96), (96, 64)]}, {"shapes": [(64, 64)]}, {"pad": 64}, {"shapes": None}]
)
def test_sizes_are_those_of_fsaf(
    functions: dict[str, Any], changes: dict[str, Any], height: int, width: int
) -> None:
    data = replace(CONFIG.data, **changes)
    size, shape = fit_image((height, width), data)
    values = {name: getattr(data, name) for name in ("short_side", "long_side", "shapes", "pad")}
    found, padded = functions["fit"]((height, width), values)
    assert tuple(found) == size and tuple(padded) == (shape or padded_shape([size], data.pad or 32))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A wide picture, one that its EXIF tag turns, and a grey one."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    wide, turned, grey = (
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8).repeat(8, 0).repeat(8, 1))
        for shape in ((15, 23, 3), (9, 14, 3), (11, 11))
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    wide.save(folder / "wide.png")
    turned.save(folder / "turned.jpg", exif=exif)
    grey.save(folder / "grey.png")
    return [str(folder / name) for name in ("wide.png", "turned.jpg", "grey.png")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"size": (64, 96), "fixed_size": True, "float_images": True, "batch": 2}],
    ids=["free", "fixed"],
)
def test_finds_what_fsaf_finds_without_it(options: dict[str, Any], photos: list[str], tmp_path: Path) -> None:
    detector = Detector(TorchNetwork(random_network(CONFIG)), CLASSES, CONFIG)
    path = tmp_path / "it's a 猫.onnx"
    report = export_detector(detector, path, photos[:2], standalone=True, **options)
    assert report.script == tmp_path / "it's a 猫_predict.py"
    assert len(report.script.read_text(encoding="utf-8").splitlines()) < 80
    words = ["-I", "-c", START, str(report.script), *photos, "--out", str(tmp_path / "drawn")]
    done = subprocess.run([sys.executable, *words], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    expected = [result.to_dict() for result in load(path).predict(photos)]
    assert found == expected
    assert sum(len(each["detections"]) for each in found) > 10
    for name, size in (("wide", (184, 120)), ("turned", (72, 112)), ("grey", (88, 88))):
        with Image.open(tmp_path / "drawn" / f"{name}.png") as drawn:
            assert drawn.size == size and (np.asarray(drawn) == (255, 0, 0)).all(2).any()


def test_what_no_script_can_stand_for(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(UserError, match="leave out --raw"):
        check_standalone(path, "raw", PredictConfig())
    with pytest.raises(UserError, match=r"predict\.tile"):
        check_standalone(path, "detections", PredictConfig(flip=True))
    (tmp_path / "model_predict.py").write_text("print('mine')")
    with pytest.raises(UserError, match=r"model_predict\.py: already exists"):
        check_standalone(path, "detections", PredictConfig())
    (tmp_path / "model_predict.py").write_bytes(TEMPLATE.read_bytes())
    check_standalone(path, "detections", PredictConfig())
