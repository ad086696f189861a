"""The batch shape of an image, and the size that it is resized to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsaf.config import DataConfig
from fsaf.data.shapes import choose_shape, fit_image, padded_shape, resized_size, round_up

sides = st.integers(1, 3000)
shapes = st.lists(st.tuples(st.integers(1, 45), st.integers(1, 45)), min_size=1, max_size=4).map(
    lambda pairs: [(32 * h, 32 * w) for h, w in pairs]
)


@given(height=sides, width=sides, shapes=shapes, short=st.integers(32, 900), extra=st.integers(0, 600))
def test_a_fitted_image_lies_in_its_shape_and_keeps_its_ratio(
    height: int, width: int, shapes: list[tuple[int, int]], short: int, extra: int
) -> None:
    data = DataConfig(short_side=short, long_side=short + extra, shapes=shapes)
    (h, w), shape = fit_image((height, width), data)
    assert shape in shapes
    assert 1 <= h <= shape[0] and 1 <= w <= shape[1]
    # One scale for both sides, each rounded to the nearest pixel (and at least one).
    low = max((h - 0.5) / height if h > 1 else 0, (w - 0.5) / width if w > 1 else 0)
    high = min((h + 0.5) / height, (w + 0.5) / width)
    assert low <= high * (1 + 1e-9)
    # Never larger than the limits allow.
    limit_h, limit_w = resized_size(height, width, short, short + extra)
    assert h <= limit_h and w <= limit_w
    # Smaller only if it would not fit, and then as large as the shape allows.
    if (h, w) != (limit_h, limit_w):
        assert limit_h > shape[0] or limit_w > shape[1]
        assert h == shape[0] or w == shape[1]


@given(height=sides, width=sides, shapes=shapes)
def test_the_shape_is_the_smallest_that_holds_the_image(
    height: int, width: int, shapes: list[tuple[int, int]]
) -> None:
    chosen = choose_shape((height, width), shapes)
    holding = [shape for shape in shapes if shape[0] >= height and shape[1] >= width]
    if holding:
        assert chosen in holding
        assert chosen[0] * chosen[1] == min(h * w for h, w in holding)
    else:
        # No shape holds it: the one that shrinks it least.
        kept = [min(h / height, w / width) for h, w in shapes]
        assert min(chosen[0] / height, chosen[1] / width) == max(kept)


def test_shapes_by_hand() -> None:
    data = DataConfig(short_side=256, long_side=384, shapes=[(256, 384), (384, 256), (320, 320)])
    assert fit_image((480, 640), data) == ((256, 341), (256, 384))
    assert fit_image((640, 480), data) == ((341, 256), (384, 256))
    assert fit_image((500, 500), data) == ((256, 256), (256, 384))  # equal areas: the first listed
    only = DataConfig(short_side=256, long_side=384, shapes=[(256, 320)])
    assert fit_image((480, 640), only) == ((240, 320), (256, 320))  # 341 > 320: scale 320 / 640
    assert fit_image((640, 480), only) == ((256, 192), (256, 320))  # 341 > 256: scale 256 / 640


@pytest.mark.parametrize("data", [DataConfig(), DataConfig(pad=32), DataConfig(pad=1, shapes=[(64, 64)])])
def test_without_shapes_or_with_padding_there_is_no_fixed_shape(data: DataConfig) -> None:
    assert fit_image((480, 640), data) == ((800, 1067), None)


@given(st.integers(1, 5000), st.integers(1, 128))
def test_round_up(value: int, multiple: int) -> None:
    up = round_up(value, multiple)
    assert up % multiple == 0 and value <= up < value + multiple


def test_a_padded_batch_holds_its_largest_sides() -> None:
    assert padded_shape([(800, 1067), (1067, 800), (0, 0)], 32) == (1088, 1088)
    assert padded_shape([(64, 33)], 32) == (64, 64)
    assert padded_shape([(64, 33)], 1) == (64, 33)
