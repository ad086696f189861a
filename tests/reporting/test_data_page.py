"""The page of ``fsaf check --html``: verdict, class balance, sizes, and pictures of the faults."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checking.folders import WRITERS, Folder, Photo
from fsaf.cli import main
from fsaf.detection.draw import PALETTE


@pytest.fixture(params=["coco", "voc", "yolo"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Three photographs: a box over the edge, a file that does not decode, a good one."""
    photos = [
        Photo("a.png", [(40, 5, 30, 20, 0)]),
        Photo("b.png", [(5, 5, 20, 20, 0)], "broken"),
        Photo("c.png", [(5, 5, 20, 20, 1), (5, 5, 20, 20, 1)]),
    ]
    WRITERS[request.param](
        tmp_path / "data", Folder({"train": photos, "val": [Photo("d.png", [(5, 5, 9, 9, 0)])]})
    )
    return tmp_path / "data"


def page(root: Path, status: int, *options: str) -> str:
    file = root.parent / "page.html"
    assert main(["check", str(root), "--data.min_size=1", "--html", str(file), *options]) == status
    return file.read_text(encoding="utf-8")


def test_the_page_has_the_verdict_the_faults_and_the_figures(root: Path) -> None:
    text = page(root, 2)
    for part in ("Refused", "images that do not decode", "boxes repeated", "cat", "dog", "Width and height"):
        assert part in text
    assert "60 x 40" in text and str(root / "images") not in text  # paths are those below the folder


def test_the_faulty_box_is_drawn_on_its_image(root: Path) -> None:
    section = page(root, 2).partition("boxes more than a pixel over the edge")[2]
    data = re.search(r'src="data:image/jpeg;base64,([^"]+)"', section)
    assert data is not None
    with Image.open(io.BytesIO(base64.b64decode(data[1]))) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[:2] == (40, 60)
    orange = np.abs(pixels - np.array(PALETTE[1])).sum(2) < 90
    ys, xs = np.nonzero(orange)
    assert len(xs) and xs.min() >= 36 and ys.max() <= 28  # around x 40 to 60, y 5 to 25


def test_a_clean_set_says_so(tmp_path: Path) -> None:
    photos = [Photo(f"{name}.png", [(5, 5, 20, 20, label)]) for label, name in enumerate("ab")]
    WRITERS["coco"](
        tmp_path / "data", Folder({"train": photos, "val": [Photo("d.png", [(5, 5, 20, 20, 0)])]})
    )
    text = page(tmp_path / "data", 0)
    assert "No faults found." in text and "<img" not in text


def test_names_are_escaped(tmp_path: Path) -> None:
    photos = [Photo("a.png", [(40, 5, 30, 20, 0), (5, 5, 20, 20, 1)])]
    root = tmp_path / "<script>"
    WRITERS["coco"](root, Folder({"train": photos, "val": [Photo("d.png", [(5, 5, 20, 20, 0)])]}))
    text = page(root, 0)
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_a_page_that_cannot_be_written(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root.parent / "file").write_text("mine")
    assert main(["check", str(root), "--html", str(root.parent / "file" / "page.html")]) == 2
    assert "page.html" in capsys.readouterr().err
