"""Pixels: decode every kind of file, resize as OpenCV does, mirror boxes with their pixels."""

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fsaf.data.shapes import resized_size
from fsaf.data.transforms import read_image, resize, to_tensor
from fsaf.errors import UserError

RAMP = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5
"""Grey-scale image, 6 pixels high and 8 wide."""


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return (H, W, 3) uint8: smooth colours with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / (5 + c)) * np.cos(y / (7 - c)) for c in range(3)], 2)
    return (127 + 90 * waves + rng.normal(0, 15, (height, width, 3))).clip(0, 255).astype(np.uint8)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def pixels(path: Path, **options: Any) -> np.ndarray:
    """Read a file and return (H, W, 3), after the checks that hold for every file."""
    image = read_image(path, **options)
    assert image.dtype is torch.uint8 and image.dim() == 3 and image.shape[0] == 3
    return image.permute(1, 2, 0).numpy()


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, 2)


def test_rgb_png_is_read_as_it_is(tmp_path: Path) -> None:
    image = photograph(6, 8)
    assert (pixels(saved(tmp_path / "a.png", Image.fromarray(image))) == image).all()


def test_jpeg_is_close(tmp_path: Path) -> None:
    y, x = np.mgrid[:48, :64]
    image = np.stack((x * 3, y * 4, 128 + x - y), 2).astype(np.uint8)
    path = saved(tmp_path / "a.jpg", Image.fromarray(image), quality=95)
    assert np.abs(pixels(path).astype(int) - image).mean() < 2


def test_grey_scale(tmp_path: Path) -> None:
    assert (pixels(saved(tmp_path / "a.png", Image.fromarray(RAMP))) == grey(RAMP)).all()


def test_black_and_white(tmp_path: Path) -> None:
    image = Image.fromarray(RAMP).point(lambda value: 255 * (value > 99), "1")
    assert (pixels(saved(tmp_path / "a.png", image)) == grey(np.where(RAMP > 99, 255, 0))).all()


def test_grey_with_alpha_keeps_the_grey(tmp_path: Path) -> None:
    image = Image.merge("LA", (Image.fromarray(RAMP), Image.fromarray(255 - RAMP)))
    assert (pixels(saved(tmp_path / "a.png", image)) == grey(RAMP)).all()


@pytest.mark.parametrize("transparency", [None, 0, bytes(range(16))], ids=["opaque", "one", "table"])
def test_palette(tmp_path: Path, transparency: int | bytes | None) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (16, 3), dtype=np.uint8)
    index = np.arange(48, dtype=np.uint8).reshape(6, 8) % 16
    image = Image.fromarray(index).convert("P")
    image.putdata(index.reshape(-1).tolist())
    image.putpalette(colours.reshape(-1).tolist())
    options = {} if transparency is None else {"transparency": transparency}
    assert (pixels(saved(tmp_path / "a.png", image, **options)) == colours[index]).all()


def test_rgba_keeps_the_colours_under_the_transparency(tmp_path: Path) -> None:
    image = np.dstack((photograph(6, 8), RAMP))
    assert (pixels(saved(tmp_path / "a.png", Image.fromarray(image))) == image[:, :, :3]).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_shades(tmp_path: Path, suffix: str) -> None:
    values = RAMP.astype(np.uint16) * 257  # 0 .. 60395 of 65535
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(values))
    found = pixels(path)
    assert (found == found[:, :, :1]).all()
    expected = values / values.max() * 255  # the brightest becomes white
    assert np.abs(found[:, :, 0] - expected).max() <= 1


def test_sixteen_bit_grey_takes_memory_for_eight_bits(tmp_path: Path) -> None:
    """The whole image as float64 took 29 bytes a pixel."""
    image = Image.fromarray(np.arange(4_000_000, dtype=np.uint32).reshape(2000, 2000).astype(np.uint16))
    tracemalloc.start()
    found = to_tensor(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    values = np.asarray(image, np.float64)
    white = np.percentile(values[:, ::4], 99.9, method="nearest")
    expected = np.rint(values.clip(0, white) * (255 / white)).astype(np.uint8)
    assert np.array_equal(found[0].numpy(), expected), "the same across strips"
    assert peak < 12 * 4_000_000


@pytest.mark.parametrize(("mode", "top"), [("I;16", 65535), ("I", 2_000_000_000), ("F", 1e30)])
def test_a_hot_pixel_does_not_darken_a_picture(mode: str, top: float) -> None:
    values = np.linspace(0, 4000, 10_000).reshape(100, 100)
    kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    plain, hot = values.astype(kind), values.astype(kind)
    hot[50, 50] = top
    images = [Image.fromarray(each) for each in (plain, hot)]
    assert [image.mode for image in images] == [mode, mode]
    a, b = (to_tensor(image)[0].numpy().astype(int) for image in images)
    assert a.max() == 255 and b[50, 50] == 255
    b[50, 50] = a[50, 50]
    assert np.abs(a - b).max() <= 1


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_floats_keep_their_brightness(white: float) -> None:
    """Half grey stays half grey: 1 is white, or 255 if there are larger values."""
    values = np.linspace(0, white / 2, 10_000, dtype=np.float32).reshape(100, 100)
    found = to_tensor(Image.fromarray(values))
    assert found.max() in (127, 128)
    values[0, :3] = np.nan, np.inf, -5
    assert to_tensor(Image.fromarray(values))[0, 0, :3].tolist() == [0, 0, 0]
    assert to_tensor(Image.fromarray(values)).max() == found.max()


def test_pixels_without_a_bright_one_in_a_thousand() -> None:
    values = np.zeros((100, 100), np.uint16)
    assert to_tensor(Image.fromarray(values)).max() == 0
    values[3, 4] = 900
    assert to_tensor(Image.fromarray(values))[0, 3, 4] == 255


def test_cmyk(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)]
    for colour in colours:
        image = Image.new("RGB", (16, 16), colour).convert("CMYK")
        path = saved(tmp_path / "a.jpg", image, quality=100)
        assert np.abs(pixels(path).astype(int) - colour).max() <= 3


EXIF_TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
"""Rotation and flip that a viewer applies for each value of the orientation tag (EXIF 2.3, 4.6.4 A)."""


@pytest.mark.parametrize("orientation", EXIF_TURNS)
def test_exif_rotation_is_ignored_unless_asked(tmp_path: Path, orientation: int) -> None:
    image = photograph(6, 8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", Image.fromarray(image), exif=exif)
    assert (pixels(path) == image).all()
    turned = EXIF_TURNS[orientation](image)
    assert pixels(path, exif_rotation=True).shape == turned.shape
    assert (pixels(path, exif_rotation=True) == turned).all()


# Files that are not images.

NO_IMAGES = {"empty": b"", "text": b"not an image\n", "json": b'{"images": []}', "zeros": bytes(1000)}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_a_file_that_is_no_image_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.jpg"
    path.write_bytes(NO_IMAGES[name])
    with pytest.raises(UserError, match=rf"{name}\.jpg: does not decode as an image"):
        read_image(path)


def test_missing_image_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png: no such image"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(UserError, match="does not decode"):
        read_image(tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_a_truncated_image_is_refused_not_padded(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photograph(48, 64)).save(buffer, kind)
    whole = buffer.getvalue()
    path = tmp_path / "a.img"
    for share in (0.02, 0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UserError, match=r"a\.img: does not decode"):
            read_image(path)
    path.write_bytes(whole)
    assert read_image(path).shape == (3, 48, 64)


@pytest.mark.filterwarnings("ignore")
def test_damage_anywhere_decodes_or_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        buffer = io.BytesIO()
        Image.fromarray(photograph(24, 32)).save(buffer, kind)
        for _ in range(60):
            data = bytearray(buffer.getvalue())
            for _ in range(rng.integers(1, 6)):
                data[rng.integers(0, min(len(data), 200))] = rng.integers(0, 256)
            (tmp_path / "a").write_bytes(bytes(data))
            try:
                read_image(tmp_path / "a", exif_rotation=True)
            except UserError as error:
                assert str(tmp_path / "a") in str(error)
                refused += 1
    assert refused > 30


# Sizes.


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        # short side 800 first: 800 / 480 = 1.667; 640 * 1.667 = 1066.67 -> 1067
        ((480, 640), (800, 1333), (800, 1067)),
        ((640, 480), (800, 1333), (1067, 800)),
        # long side 1333 first: 1333 / 640 = 2.083; 300 * 2.083 = 624.8 -> 625
        ((300, 640), (800, 1333), (625, 1333)),
        # 800 / 427 = 1.8735; 640 * 1.8735 = 1199.06 -> 1199
        ((427, 640), (800, 1333), (800, 1199)),
        # shrinking: 800 / 1000; 1500 * 0.8 = 1200
        ((1000, 1500), (800, 1333), (800, 1200)),
        # exactly both limits
        ((800, 1333), (800, 1333), (800, 1333)),
        # halves round up: 101 * 0.5 = 50.5 -> 51
        ((101, 200), (100, 100), (51, 100)),
        # at least one pixel
        ((1, 5000), (32, 64), (1, 64)),
    ],
)
def test_resized_size_by_hand(
    size: tuple[int, int], limits: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert resized_size(*size, *limits) == expected


# Resizing.

SIZES = [
    ((48, 64), (31, 41)),
    ((48, 64), (24, 32)),
    ((48, 64), (100, 133)),
    ((48, 64), (48, 65)),
    ((37, 53), (7, 90)),
    ((5, 9), (200, 300)),
    ((1, 1), (8, 8)),
    ((1, 40), (3, 17)),
    ((600, 17), (33, 1)),
]


@pytest.mark.parametrize(("size", "new"), SIZES)
def test_resize_is_torchs_interpolation_within_a_level(size: tuple[int, int], new: tuple[int, int]) -> None:
    image = torch.from_numpy(photograph(*size)).permute(2, 0, 1)
    found = resize(image, new)
    assert found.shape == (3, *new) and found.dtype is torch.uint8
    exact = F.interpolate(image[None].double(), size=new, mode="bilinear", align_corners=False)[0]
    assert (found - exact).abs().max() <= 1


def fixed_point_bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) uint8 to ``size`` in integers, as OpenCV's documentation and source define it."""
    left, right, left_weight, right_weight = fixed_point_taps(image.shape[1], size[1])
    upper, lower, upper_weight, lower_weight = fixed_point_taps(image.shape[0], size[0])
    rows = image[:, left] * left_weight[:, None] + image[:, right] * right_weight[:, None] >> 4
    above = rows[upper] * upper_weight[:, None, None] >> 16
    below = rows[lower] * lower_weight[:, None, None] >> 16
    return (above + below + 2 >> 2).astype(np.uint8)


def fixed_point_taps(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the two source positions of each new pixel, and their weights, which sum to 2048."""
    position = ((np.arange(new_size) + 0.5) * (size / new_size) - 0.5).astype(np.float32)
    first = np.floor(position)
    weight = np.rint((position - first) * np.float32(2048)).astype(np.int32)
    index = first.astype(np.int64)
    return index.clip(0, size - 1), (index + 1).clip(0, size - 1), 2048 - weight, weight


@pytest.mark.parametrize(("size", "new"), SIZES)
@pytest.mark.parametrize("planes", [False, True], ids=["pixels", "planes"])
def test_resize_gives_the_fixed_point_pixels(
    size: tuple[int, int], new: tuple[int, int], planes: bool
) -> None:
    image = photograph(*size)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    found = resize(tensor.contiguous() if planes else tensor, new).permute(1, 2, 0).numpy()
    assert (found == fixed_point_bilinear(image, new)).all()


@given(data=st.data())
def test_resize_gives_the_fixed_point_pixels_of_any_size(data: st.DataObject) -> None:
    height, width, new_height, new_width = (data.draw(st.integers(1, 99)) for _ in range(4))
    image = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = resize(torch.from_numpy(image).permute(2, 0, 1), (new_height, new_width))
    expected = fixed_point_bilinear(image, (new_height, new_width))
    assert (found.permute(1, 2, 0).numpy() == expected).all()


@pytest.mark.parametrize(("size", "new"), [*SIZES, ((48, 64), (48, 64))])
@pytest.mark.parametrize("antialias", [False, True])
def test_resizing_into_a_part_of_a_batch_writes_that_part(
    size: tuple[int, int], new: tuple[int, int], antialias: bool
) -> None:
    image = torch.from_numpy(photograph(*size)).permute(2, 0, 1)
    canvas = torch.full((new[0] + 3, new[1] + 5, 3), 9, dtype=torch.uint8).permute(2, 0, 1)
    inside = canvas[:, : new[0], : new[1]]
    resize(image, new, antialias, out=inside)
    assert torch.equal(inside, resize(image, new, antialias))
    assert (canvas[:, new[0] :] == 9).all() and (canvas[:, :, new[1] :] == 9).all()


@pytest.mark.parametrize(("size", "new"), [((2, 70_000), (2, 64)), ((70_000, 2), (64, 2))])
def test_panoramas_are_resized(size: tuple[int, int], new: tuple[int, int]) -> None:
    image = np.full((*size, 3), 77, np.uint8)
    found = resize(torch.from_numpy(image).permute(2, 0, 1), new)
    assert found.shape == (3, *new) and (found == 77).all()


def test_antialias_averages_where_the_default_samples() -> None:
    stripes = torch.zeros(3, 32, 64, dtype=torch.uint8)
    stripes[:, :, ::4] = 255  # every fourth column: average 63.75
    smooth = resize(stripes, (8, 16), antialias=True)
    assert smooth.shape == (3, 8, 16) and smooth.dtype is torch.uint8
    assert (smooth[:, :, 1:-1].float() - 63.75).abs().max() <= 12
    assert set(resize(stripes, (8, 16)).unique().tolist()) <= {0, 127, 128, 255}


def test_resizing_to_the_same_size_changes_nothing() -> None:
    image = torch.from_numpy(photograph(9, 7)).permute(2, 0, 1)
    assert torch.equal(resize(image, (9, 7)), image)
    assert torch.equal(resize(image, (9, 7), antialias=True), image)
