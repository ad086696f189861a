"""Drawn detections: position and colours, and inputs that could break drawing."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from fsaf.data.transforms import to_tensor
from fsaf.detection.draw import PALETTE, _place, caption_font, class_color, contact_sheet, draw_result, to_pil


def plain(width: int = 200, height: int = 120, color: tuple[int, int, int] = (90, 90, 90)) -> Image.Image:
    return Image.new("RGB", (width, height), color)


def changed(before: Image.Image, after: Image.Image) -> np.ndarray:
    return (np.asarray(before) != np.asarray(after)).any(2)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_pictures_deeper_than_eight_bits_are_drawn_as_they_are_detected_on(kind: type) -> None:
    image = Image.fromarray(np.linspace(0, 60_000, 12).reshape(3, 4).astype(kind))
    shown = np.asarray(to_pil(image))
    np.testing.assert_array_equal(shown, to_tensor(image).permute(1, 2, 0).numpy())
    assert len(np.unique(shown)) == 12


def test_a_font_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A video has many captions, also with letters that Pillow's own font lacks."""
    opened, font = [], ImageFont.load_default(14)

    def count(name: object, *_: object, **__: object) -> object:
        opened.append(name)
        return font

    monkeypatch.setattr(ImageFont, "truetype", count)
    caption_font.cache_clear()
    for _ in range(3):
        draw_result(plain(), [[20, 20, 90, 90]] * 4, [0] * 4, [0.5] * 4, ["猫", "dog", "naïve", "犬"])
    caption_font.cache_clear()
    assert len(opened) == 2  # Pillow's own font is a FreeTypeFont too


def test_box_lines_have_the_colour_of_the_class_and_lie_on_the_box() -> None:
    image = plain()
    picture = np.asarray(draw_result(image, [[50, 40, 150, 100]], [2]))
    color = class_color(2)
    for x, y in ((50, 70), (149, 70), (100, 40), (100, 99)):
        assert tuple(picture[y, x]) == color
    touched = changed(image, Image.fromarray(picture))
    rows, columns = np.flatnonzero(touched.any(1)), np.flatnonzero(touched.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (
        39,
        100,
        49,
        150,
    )  # a dark line of one pixel around the box
    assert not touched[50:90, 60:140].any()
    assert np.asarray(image).std() == 0  # the input stays as it was


def test_every_kind_of_picture_gives_the_same() -> None:
    array = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    arguments = ([[10.0, 20.0, 50.0, 50.0]], [1], [0.5], ["dog"])
    expected = np.asarray(draw_result(Image.fromarray(array), *arguments))
    tensors = [torch.tensor(value) for value in arguments[:3]]
    from_tensor = draw_result(torch.from_numpy(array).permute(2, 0, 1), *tensors, ["dog"])
    assert (np.asarray(draw_result(array, *arguments)) == expected).all()
    assert (np.asarray(from_tensor) == expected).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1"])
def test_other_modes_become_rgb(mode: str) -> None:
    picture = draw_result(Image.new(mode, (80, 60)), [[5, 5, 40, 40]], [0], [0.9], ["x"])
    assert picture.mode == "RGB" and picture.size == (80, 60)


def test_a_grey_array_becomes_rgb() -> None:
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert (np.asarray(to_pil(grey)) == grey[:, :, None]).all()


def test_other_arrays_are_refused() -> None:
    for array in (
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
    ):
        with pytest.raises(ValueError, match="uint8 RGB"):
            to_pil(array)


def test_a_caption_needs_one_name_a_box() -> None:
    with pytest.raises(ValueError, match="2 boxes, 2 labels, 2 scores, 1 names"):
        draw_result(plain(), [[0, 0, 9, 9]] * 2, [0, 1], [0.5, 0.5], ["a"])


def test_nothing_to_draw_leaves_the_picture() -> None:
    image = plain()
    assert not changed(image, draw_result(image, np.zeros((0, 4)), [], [], [])).any()
    below = draw_result(image, [[5, 5, 50, 50]], [0], [0.2], ["a"], score_threshold=0.3)
    assert not changed(image, below).any()


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (12, 12), (40, 3), (320, 256), (1333, 800), (4000, 30)])
def test_any_size_and_any_box(size: tuple[int, int]) -> None:
    width, height = size
    boxes = [
        [0, 0, width, height],
        [-50, -50, 2, 2],
        [width - 1, height - 1, width + 90, height + 90],
        [width + 5, height + 5, width + 9, height + 9],
        [2, 2, 2, 2],
        [5, 5, 1, 1],
        [float("nan"), 0, float("inf"), 1],
    ]
    names = ["a name that is much too long for most pictures " * 2, "", "x\ny", "犬", "é", "<b>", "b"]
    scores = np.linspace(1, 0.1, 7)
    picture = draw_result(plain(width, height), boxes, range(7), scores, names, truth_boxes=boxes)
    assert picture.size == size


coordinate = st.floats(-300, 700)


@given(
    box=st.tuples(coordinate, coordinate, coordinate, coordinate),
    name=st.text(max_size=60),
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    size=st.integers(11, 30),
)
def test_captions_stay_in_the_picture(
    box: tuple[float, ...], name: str, width: int, height: int, size: int
) -> None:
    draw = ImageDraw.Draw(plain(width, height))
    area = (int(box[0]), int(box[1]), int(box[2]), int(box[3]))
    chip = _place(draw, area, name, "0.93", size, (width, height), [])
    if chip is None:
        assert width < 4 * size or height < 2 * size
    else:
        (left, top, right, bottom), caption, _ = chip
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert caption.endswith("0.93")


@pytest.mark.parametrize("box", [(0, 0, 60, 40), (140, 0, 200, 40), (0, 80, 60, 120), (140, 80, 200, 120)])
def test_the_whole_caption_shows_wherever_the_box_is(box: tuple[int, int, int, int]) -> None:
    """Letters have as many pixels at the edge of the picture as in its middle.

    Colour 1 has no blue: only its captions hold dark pixels without any.
    """

    def letters(box: tuple[int, int, int, int]) -> int:
        picture = np.asarray(draw_result(plain(), [box], [1], [0.93], ["platelet"]))
        return int(((picture[:, :, 2] == 0) & (picture[:, :, 0] < 150)).sum())

    assert letters(box) == letters((70, 40, 130, 80)) > 50


def test_a_long_name_is_cut_and_the_score_stays() -> None:
    draw = ImageDraw.Draw(plain())
    chip = _place(draw, (5, 50, 60, 90), "internationalisation " * 4, "0.93", 14, (200, 120), [])
    assert chip is not None
    assert chip[1].startswith("internat") and chip[1].endswith("… 0.93")


@pytest.mark.parametrize("length", [2_000, 1_000_000])
def test_few_captions_are_measured_for_a_name_of_any_length(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, measured = ImageDraw.Draw(plain()), []
    whole = draw.textbbox

    def textbbox(xy: tuple[int, int], text: str, **options: object) -> tuple[float, float, float, float]:
        measured.append(len(text))
        return whole(xy, text, **options)

    monkeypatch.setattr(draw, "textbbox", textbbox)
    chip = _place(draw, (5, 50, 60, 90), "w" * length, "0.93", 14, (200, 120), [])
    assert chip is not None and chip[1].startswith("www") and chip[1].endswith("… 0.93")
    assert len(measured) < 20 and max(measured) < 400


def test_captions_of_boxes_at_one_place_do_not_cover_each_other() -> None:
    draw = ImageDraw.Draw(plain())
    taken = []
    for _ in range(3):
        chip = _place(draw, (60, 40, 130, 90), "cell", "0.50", 14, (200, 120), taken)
        assert chip is not None
        taken.append(chip[0])
    for a, b in itertools.combinations(taken, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_the_best_detection_lies_on_top() -> None:
    boxes = [[50, 40, 150, 100]] * 2
    for scores, top in (([0.9, 0.4], 0), ([0.4, 0.9], 1)):
        picture = draw_result(plain(), boxes, [0, 1], scores)
        assert picture.getpixel((100, 99)) == class_color(top)


def test_ground_truth_is_dashed_and_has_no_caption() -> None:
    image = plain()
    picture = draw_result(image, np.zeros((0, 4)), [], truth_boxes=[[50, 40, 150, 100]], truth_labels=[3])
    edge = changed(image, picture)[40, 50:150]
    assert 0.3 < edge.mean() < 0.9
    assert (np.asarray(picture) == class_color(3)).all(2).any()
    assert not changed(image, picture)[:39].any()


def test_lines_and_letters_grow_with_the_picture() -> None:
    def line_width(image: Image.Image) -> int:
        column = np.asarray(draw_result(image, [[20, 20, image.width - 20, image.height - 20]], [0]))[:, 100]
        return int((column[: image.height // 2] == PALETTE[0]).all(1).sum())

    widths = [line_width(plain(*size)) for size in ((320, 256), (1333, 800), (4000, 3000))]
    assert widths == sorted(set(widths)) and widths[0] == 2


def _seen(color: tuple[int, int, int], matrix: list[list[float]]) -> np.ndarray:
    """Return the CIE L*a*b* (D65) of a colour as seen by a colour-blind eye."""
    value = np.array(color) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(matrix) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    ratio = xyz / [0.9505, 1.0, 1.089]
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize(
    "matrix",
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ],
    ids=["normal", "protanopia", "deuteranopia"],
)
def test_the_first_colours_differ_for_colour_blind_eyes(matrix: list[list[float]]) -> None:
    """Simulation: Machado, Oliveira and Fernandes 2009, full severity. Distance 2.3 is just noticeable."""
    seen = [_seen(color, matrix) for color in PALETTE]
    worst = min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2))
    assert worst > 30


def test_class_colours_are_fixed_and_distinct() -> None:
    colors = [class_color(label) for label in range(80)]
    assert len(set(colors)) == 80
    assert colors == [class_color(label) for label in range(80)]
    assert all(0 <= value <= 255 for color in colors for value in color)


def test_contact_sheet_lays_pictures_in_rows() -> None:
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)]
    images = [plain(100, 50 + 10 * i, color) for i, color in enumerate(colors)]
    sheet = contact_sheet(images, 3, gap=5)
    assert sheet.size == (3 * 105 + 5, 5 + 70 + 5 + 80 + 5)
    assert sheet.getpixel((55, 40)) == (255, 0, 0) and sheet.getpixel((265, 40)) == (0, 0, 255)
    assert sheet.getpixel((55, 120)) == (9, 9, 9) and sheet.getpixel((160, 120)) == (255, 255, 255)
    assert contact_sheet(images, 9, width=50, gap=0).size == (200, 40)
    with pytest.raises(ValueError, match="0 images"):
        contact_sheet([], 3)
