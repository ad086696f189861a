"""Opening images: the limit of the setting applies before anything is decoded."""

import threading
import zlib
from pathlib import Path

import pytest
from PIL import Image

from fsaf.config import DataConfig
from fsaf.data.decode import ImageTooLarge, header_size, open_image
from fsaf.data.transforms import read_image
from fsaf.errors import UserError


def png(path: Path, width: int, height: int) -> Path:
    """Return a small file whose header gives ``width`` x ``height``."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    crc = zlib.crc32(header).to_bytes(4, "big")
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"
        + header
        + crc
        + (len(data) - 4).to_bytes(4, "big")
        + data
        + zlib.crc32(data).to_bytes(4, "big")
    )
    return path


def test_the_header_is_enough_to_refuse(tmp_path: Path) -> None:
    path = png(tmp_path / "bomb.png", 100_000, 100_000)
    for limit in (100_000_000, 10**10 - 1):
        with pytest.raises(ImageTooLarge, match=rf"bomb\.png: .*data\.max_pixels = {limit:,}"):
            read_image(path, max_pixels=limit)
    assert header_size(path, 10**10) == (100_000, 100_000)


@pytest.mark.filterwarnings("error")
def test_pillows_own_limit_does_not_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(tmp_path / "a.png").shape == (3, 40, 60)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(UserError, match=r"60 x 40 is more than data\.max_pixels = 2,399"):
        read_image(tmp_path / "a.png", max_pixels=2399)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(UserError, match=r"data\.max_pixels"):
        read_image(png(tmp_path / "bomb.png", 50_000, 50_000))


def test_in_many_threads(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    small, large = tmp_path / "small.png", png(tmp_path / "large.png", 15_000, 15_000)
    Image.new("RGB", (60, 40)).save(small)
    failed: list[object] = []

    def work(limit: int) -> None:
        for _ in range(50):
            try:
                header_size(small, limit)
                if header_size(large, 10**9) != (15_000, 15_000):
                    failed.append("size")
            except UserError as error:
                failed.append(error)

    threads = [threading.Thread(target=work, args=(limit,)) for limit in (2400, 10**8, 10**9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and before == Image.MAX_IMAGE_PIXELS


def test_files_that_would_run_another_program_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(UserError, match=r"a\.png: does not decode"), open_image(tmp_path / "a.png") as image:
        image.load()


@pytest.mark.parametrize("name", ["a" * 300 + ".png", "a\0b.png"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="does not decode"):
        read_image(tmp_path / name)


def test_the_limit_is_a_setting() -> None:
    assert DataConfig().max_pixels == 100_000_000
    with pytest.raises(UserError, match=r"data\.max_pixels = 0"):
        DataConfig(max_pixels=0)
