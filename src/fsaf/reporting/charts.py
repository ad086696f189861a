"""Small SVG charts for the report: lines, dots and stacked areas, coloured by its style sheet, no JavaScript.

Every text goes through ``Markup.format`` and thereby is escaped.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from fsaf.text import counted

Point = tuple[float, float]

_WIDTH, _HEIGHT = 460, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 14, 12, 36
_MOST_POINTS = 150


@dataclass(kw_only=True)
class Series:
    """A line of a chart."""

    name: str
    points: list[Point]
    """(x, y), x rising."""
    style: str
    """CSS class of the colour."""
    value: str | None = None
    """Text in the legend; by default the last value."""


def line_chart(
    title: str, series: Sequence[Series], x_label: str, *, dots: bool = False, unit: bool = False
) -> Markup:
    """Draw lines over a common x axis, with y from 0; return an empty text without lines to draw.

    dots: mark and label every point; for charts with few points. unit: both axes go from 0 to 1. A line needs
    two points, or one with ``dots``.
    """
    series = [line for line in series if len(line.points) > (0 if dots else 1)]
    if not series:
        return Markup("")
    if unit:
        frame = _Frame([0, 1], 1, fractions=True)
    else:
        frame = _Frame(
            [x for line in series for x, _ in line.points], max(y for line in series for _, y in line.points)
        )
    parts = [frame.axes(x_label)]
    for line in series:
        points = line.points if dots else thin(line.points)
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(line.style, path))
        if dots:
            for x, y in points:
                label = f"{line.name} {y:.3f} at {x_label} {x:g}"
                parts.append(
                    Markup('<circle class="dot {}" cx="{}" cy="{}" r="4"><title>{}</title></circle>').format(
                        line.style, f"{frame.x(x):.1f}", f"{frame.y(y):.1f}", label
                    )
                )
    last = [
        (line.name, line.style, number(line.points[-1][1]) if line.value is None else line.value)
        for line in series
    ]
    said = "; ".join(
        f"{line.name} {'ends at ' if line.value is None else ''}{value}".rstrip()
        for line, (_, _, value) in zip(series, last, strict=True)
    )
    return _figure(title, f"{title}: {said}", parts, last)


def share_chart(
    title: str,
    xs: Sequence[float],
    shares: Sequence[Sequence[float]],
    names: Sequence[str],
    styles: Sequence[str],
    x_label: str,
) -> Markup:
    """Draw shares that sum to one as stacked areas; return an empty text for fewer than two rows.

    shares: one row for each x.
    """
    if len(xs) < 2:
        return Markup("")
    frame = _Frame(list(xs), 1.0)
    columns = [thin([(x, row[k]) for x, row in zip(xs, shares, strict=True)]) for k in range(len(names))]
    base = [0.0] * len(columns[0])
    parts = []
    for style, column in zip(styles, columns, strict=True):
        top = [min(low + y, 1.0) for low, (_, y) in zip(base, column, strict=True)]
        upper = [(x, y) for (x, _), y in zip(column, top, strict=True)]
        lower = [(x, y) for (x, _), y in zip(column, base, strict=True)][::-1]
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in upper + lower)
        parts.append(Markup('<polygon class="area {}" points="{}"/>').format(style, path))
        base = top
    parts.append(frame.axes(x_label))
    last = [
        (name, style, f"{share:.0%}") for name, style, share in zip(names, styles, shares[-1], strict=True)
    ]
    said = ", ".join(f"{name} {value}" for name, _, value in last)
    return _figure(title, f"{title}: at the end {said}", parts, last)


def dot_chart(title: str, counts: Mapping[Point, int], x_label: str, y_label: str) -> Markup:
    """Draw a dot for each point (x, y), larger for higher counts; return an empty text without points.

    Both axes start from 0.
    """
    if not counts:
        return Markup("")
    frame = _Frame([0, max(x for x, _ in counts) * 1.05], max(y for _, y in counts))
    largest = max(counts.values())
    parts = [frame.axes(x_label)]
    for (x, y), count in sorted(counts.items(), key=lambda each: -each[1]):
        parts.append(
            Markup('<circle class="dot s0" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
                f"{frame.x(x):.1f}",
                f"{frame.y(y):.1f}",
                f"{3 + 9 * math.sqrt(count / largest):.1f}",
                f"{x:g} x {y:g}: {count:,}",
            )
        )
    often = max(counts, key=lambda point: counts[point])
    said = f"{often[0]:g} x {often[1]:g}, {counts[often]:,} of {sum(counts.values()):,}"
    legend = [(f"{counted(len(counts), 'size')}, most often", "s0", said)]
    return _figure(title, f"{title}: {y_label} over {x_label}, most often {said}", parts, legend)


def thin(points: list[Point]) -> list[Point]:
    """Return at most ``_MOST_POINTS`` points, each the mean of its neighbours; fewer points stay."""
    if len(points) <= _MOST_POINTS:
        return points
    edges = [round(i * len(points) / _MOST_POINTS) for i in range(_MOST_POINTS + 1)]
    groups = [points[a:b] for a, b in pairwise(edges)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups
    ]


def number(value: float) -> str:
    """Format a number with three significant digits, without an exponent if that stays short."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        digits = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:,.{digits}f}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return about ``about`` round numbers from ``low`` to ``high``."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.8)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


class _Frame:
    """Map values to pixels; y starts at zero.

    fractions: ticks of x need not be whole numbers.
    """

    def __init__(self, xs: list[float], top: float, fractions: bool = False) -> None:
        self.fractions = fractions
        self.low, self.high = min(xs), max(xs)
        if self.low == self.high:
            margin = max(0.5, 1e-3 * abs(self.low))  # half of a step would vanish beside a huge number
            self.low, self.high = self.low - margin, self.high + margin
        self.top = top * 1.05 if top > 0 and top != 1 else 1.0

    def x(self, value: float) -> float:
        return _LEFT + (value - self.low) / (self.high - self.low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - value / self.top * (_HEIGHT - _TOP - _BOTTOM)

    def axes(self, x_label: str) -> Markup:
        parts = []
        for value in ticks(0, self.top, 4):
            parts.append(
                Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                    _LEFT, _WIDTH - _RIGHT, f"{self.y(value):.1f}", f"{self.y(value):.1f}"
                )
            )
            parts.append(
                Markup('<text class="tick" text-anchor="end" x="{}" y="{}">{}</text>').format(
                    _LEFT - 7, f"{self.y(value) + 4:.1f}", f"{value:g}"
                )
            )
        for value in ticks(self.low, self.high):
            if self.fractions or value == round(value):
                parts.append(
                    Markup('<text class="tick" text-anchor="middle" x="{}" y="{}">{}</text>').format(
                        f"{self.x(value):.1f}",
                        _HEIGHT - _BOTTOM + 16,
                        f"{value:g}" if self.fractions else f"{value:,.0f}",
                    )
                )
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(
            Markup('<text class="tick" text-anchor="middle" x="{}" y="{}">{}</text>').format(
                middle, _HEIGHT - 4, x_label
            )
        )
        return Markup("").join(parts)


def _figure(title: str, said: str, parts: Sequence[Markup], legend: Sequence[tuple[str, str, str]]) -> Markup:
    keys = Markup("").join(
        Markup('<li><i class="{}"></i>{} <b>{}</b></li>').format(style, name, value)
        for name, style, value in legend
    )
    return Markup(
        '<figure class="chart"><figcaption>{}</figcaption><ul class="legend">{}</ul>'
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg></figure>'
    ).format(title, keys, _WIDTH, _HEIGHT, said, Markup("").join(parts))
