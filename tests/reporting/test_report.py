"""The report of a run shows and escapes everything; every file is optional."""

import base64
import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from fsaf.errors import UserError
from fsaf.reporting.charts import Series, line_chart, number, share_chart, thin, ticks
from fsaf.reporting.report import write_report
from fsaf.scoring.metrics import METRICS

NASTY = "<script>alert('x')</script>"


def step(at: int, **more: Any) -> dict[str, Any]:
    return {
        "step": at,
        "epoch": 1 + at // 50,
        "lr": 0.001,
        "loss": 100.0 / (at + 10),
        "loss_cls": 60.0 / (at + 10),
        "loss_box": 40.0 / (at + 10),
        "pos_recall": 70.0,
        "images_per_second": 12.5,
        "data_seconds": 0.1,
        "step_seconds": 0.5,
        "memory_gb": 0.0,
        "level_share": [0.1, 0.2, 0.3, 0.25, 0.15],
    } | more


def evaluated(epoch: int, ap: float | None) -> dict[str, Any]:
    return {"step": epoch * 50, "epoch": epoch, "AP": ap, "AP50": 0.9, "per_class": {}}


def write_lines(run: Path, *records: dict[str, Any]) -> None:
    text = "".join(json.dumps(record) + "\n" for record in records)
    (run / "metrics.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A whole run folder."""
    run = tmp_path / "my run"
    (run / "pictures").mkdir(parents=True)
    write_lines(run, *(step(at) for at in range(10, 110, 10)), evaluated(1, 0.31), evaluated(2, 0.62))
    evaluation: dict[str, Any] = {key: 0.123 + 0.01 * i for i, key in enumerate(METRICS)}
    evaluation |= {"AP_small": None, "images_per_second": 23.4}
    evaluation["per_class"] = {
        "low": {"AP": 0.25, "AP50": 0.5, "boxes": 1234},
        NASTY: {"AP": None, "AP50": None, "boxes": 0},
        "high": {"AP": 0.75, "AP50": 1.0, "boxes": 5},
    }
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    (run / "summary.json").write_text(json.dumps({"train": 400.0, "export": 8.0, NASTY: 1.0}))
    (run / "export.json").write_text(json.dumps({"path": NASTY, "check": {"passed": True, "boxes": 0.0031}}))
    (run / "config.yaml").write_text(f"model:\n  backbone: resnet50\nout: {NASTY}\n")
    for name in ("a", "b"):
        Image.new("RGB", (64, 48), (200, 30, 30)).save(run / "pictures" / f"{name}.png")
    return run


class Page(HTMLParser):
    """Collect tags, attributes and visible text of a page, and check that tags nest."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data + " "

    def images(self) -> list[Image.Image]:
        return [
            Image.open(io.BytesIO(base64.b64decode((attributes["src"] or "").split("base64,")[1])))
            for tag, attributes in self.tags
            if tag == "img"
        ]


def test_a_whole_run_is_shown(run: Path) -> None:
    path = write_report(run)
    assert path == run / "report.html"
    page = Page(path)
    for text in (
        "my run",
        "resnet50",
        "AP_medium",
        "0.163",
        "1,234",
        "23.4",
        "7 min",
        "check: passed",
        "yes",
    ):
        assert text in page.text
    for title in ("Loss", "Accuracy on the validation split", "Learning rate", "Pyramid level"):
        assert title in page.text
    assert page.text.index("high") < page.text.index("low") < page.text.index(NASTY)  # best class first
    assert [image.size for image in page.images()] == [(64, 48)] * 2
    assert "This run has" not in page.text and "Not readable" not in page.text
    assert list(run.glob(".*")) == []


def test_what_does_not_exist_is_a_dash(run: Path) -> None:
    source = write_report(run).read_text()
    rows = {
        row[0]: row[1] for row in re.findall(r'scope="row">(\w+)<small>.*?class="num">([^<]*)<', source, re.S)
    }
    assert rows["AP_small"] == "-" and rows["AP_medium"] == "0.163"
    assert len(rows) == 12


def test_text_from_files_is_escaped(run: Path) -> None:
    (run / "pictures" / 'x" onerror="alert(1).png').write_bytes((run / "pictures" / "a.png").read_bytes())
    run = run.rename(run.with_name("<img src=x onerror=alert(1)>"))
    (run / "evaluation.json").write_text("{" + NASTY)
    path = write_report(run)
    page = Page(path)
    assert not {"script", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(NASTY) >= 3  # settings, stage, export
    assert sum(tag == "img" for tag, _ in page.tags) == 3


def test_class_names_are_escaped(run: Path) -> None:
    source = write_report(run).read_text()
    assert NASTY not in source and html.escape(NASTY).replace("&#x27;", "&#39;") in source


def test_nothing_is_loaded_from_elsewhere(run: Path) -> None:
    path = write_report(run)
    for tag, attributes in Page(path).tags:
        assert tag not in ("link", "script")
        for name in ("src", "href", "xlink:href", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:")
    source = path.read_text()
    assert "url(" not in source and "@import" not in source
    assert "default-src 'none'" in source


def test_an_empty_folder_gives_a_page_of_plain_sentences(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path))
    for text in ("no evaluation yet", "no pictures", "no record of its training", "not been exported"):
        assert text in page.text
    assert "has no config.yaml" in page.text


@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.jsonl", "evaluation.json", "export.json", "summary.json", "pictures"]
)
def test_any_part_may_be_missing(run: Path, name: str) -> None:
    (run / name).rename(run.with_name("elsewhere"))
    assert "Not readable" not in Page(write_report(run)).text


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff\xfe\x00", b"null", b'{"AP": "x", "per_class": [1]}']
)
def test_any_part_may_be_broken(run: Path, content: bytes) -> None:
    for name in ("config.yaml", "metrics.jsonl", "evaluation.json", "export.json", "summary.json"):
        (run / name).write_bytes(content)
    (run / "pictures" / "a.png").write_bytes(content)
    page = Page(write_report(run))
    assert "pictures/a.png is not readable" in page.text
    assert len(page.images()) == 1


@pytest.mark.parametrize("text", ["{: [", "on: 2024-13-45", "x: 0x_"])
def test_settings_that_are_no_yaml_are_told(run: Path, text: str) -> None:
    (run / "config.yaml").write_text(text)
    page = Page(write_report(run))
    assert "config.yaml is not readable" in page.text and text in page.text


def test_pictures_run_no_other_program(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file called PNG may be PostScript, for which Pillow runs Ghostscript."""
    calls = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: calls.append(1))
    Image.new("RGB", (8, 8)).save(run / "pictures" / "a.png", "EPS")
    assert "pictures/a.png is not readable" in Page(write_report(run)).text
    assert not calls


def test_values_that_are_no_numbers_are_left_out(run: Path) -> None:
    odd = [
        step(at, loss=float("nan"), lr=None, level_share=[1], images_per_second="x") for at in (10, 20, 30)
    ]
    write_lines(run, *odd, evaluated(1, None))
    page = Page(write_report(run))
    assert "Learning rate" not in page.text and "Pyramid level" not in page.text
    assert "nan" not in page.text.lower()


def test_an_integer_beyond_all_floats_is_no_number(run: Path) -> None:
    huge = "9" * 400
    (run / "summary.json").write_text(f'{{"train": {huge}, "export": 8}}')
    (run / "evaluation.json").write_text(f'{{"AP": {huge}, "AP50": 0.5, "per_class": {{}}}}')
    text = Page(write_report(run)).text
    assert "8.0 s" in text and "0.500" in text and "999999999" not in text


def test_a_cut_last_line_is_named(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 110, "lo')
    assert "1 line could not be read" in Page(write_report(run)).text


def test_after_a_resume_the_later_record_of_a_step_counts(run: Path) -> None:
    first = [step(at, lr=0.5) for at in (10, 20, 30, 40)]
    again = [step(at, lr=0.25) for at in (30, 40, 50)]
    write_lines(run, *first, evaluated(1, 0.1), *again, evaluated(1, 0.2), evaluated(2, 0.3))
    source = write_report(run).read_text()
    assert "AP 0.200 at epoch 1" in source and "AP 0.100" not in source
    rate = re.search(r'aria-label="Learning rate.*?points="([^"]*)"', source)
    assert rate is not None
    xs = [float(point.split(",")[0]) for point in rate[1].split()]
    heights = [point.split(",")[1] for point in rate[1].split()]
    assert xs == sorted(set(xs)) and len(xs) == 5
    assert len(set(heights[:2])) == len(set(heights[2:])) == 1 and heights[1] != heights[2]


def test_many_large_pictures_stay_under_five_megabytes(run: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1100, 1500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(run / "pictures" / "c00.png", compress_level=1)
    for i in range(1, 15):
        (run / "pictures" / f"c{i:02d}.png").hardlink_to(run / "pictures" / "c00.png")
    path = write_report(run)
    assert path.stat().st_size < 5_000_000
    page = Page(path)
    images = page.images()
    assert len(images) == 12 and "12 of 17 pictures" in page.text
    assert all(image.width >= 320 for image in images[2:])
    for image in images:
        image.load()


def test_a_missing_folder_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        write_report(tmp_path / "nowhere")


def test_a_line_chart_goes_through_its_points() -> None:
    svg = ElementTree.fromstring(
        str(line_chart("t", [Series(name="a<b", points=[(0, 0), (5, 1), (10, 2)], style="s0")], "step"))
    )
    line = svg.find(".//polyline")
    assert line is not None
    points = [[float(v) for v in pair.split(",")] for pair in line.attrib["points"].split()]
    assert points[1][0] == pytest.approx((points[0][0] + points[2][0]) / 2, abs=0.1)
    assert points[1][1] == pytest.approx((points[0][1] + points[2][1]) / 2, abs=0.1)
    assert points[0][1] > points[2][1]  # in SVG, y grows downwards
    assert "a<b" in "".join(svg.itertext())


def test_stacked_shares_fill_the_chart() -> None:
    shares = [[0.25, 0.75], [0.5, 0.5]]
    svg = ElementTree.fromstring(str(share_chart("t", [0, 1], shares, ["a", "b"], ["l0", "l1"], "step")))
    low, high = (
        [[float(v) for v in pair.split(",")] for pair in area.attrib["points"].split()]
        for area in svg.iter("polygon")
    )
    assert low[:2] == high[:1:-1]  # the upper area starts at the end of the lower one
    bottom, top = low[2][1], high[0][1]
    assert (bottom - low[0][1]) / (bottom - top) == pytest.approx(0.25, abs=0.002)
    assert high[0][1] == high[1][1]


def test_charts_without_points_are_left_out() -> None:
    assert line_chart("t", [Series(name="a", points=[(1, 1)], style="s0")], "x") == ""
    assert line_chart("t", [Series(name="a", points=[(1, 1)], style="s0")], "x", dots=True) != ""
    assert line_chart("t", [], "x") == "" and share_chart("t", [1], [[1.0]], ["a"], ["l0"], "x") == ""


def test_thinning_keeps_means_and_ends() -> None:
    points = [(float(i), float(i % 7)) for i in range(15_000)]
    thinned = thin(points)
    assert len(thinned) == 150
    assert np.mean(thinned, axis=0) == pytest.approx(np.mean(points, axis=0))
    assert thin(points[:100]) == points[:100]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (10, 520, [100, 200, 300, 400, 500]),
        (3, 3, [3]),
        (1, 4, [1, 1.5, 2, 2.5, 3, 3.5, 4]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0.00"),
        (0.00512, "0.00512"),
        (0.5, "0.500"),
        (12.345, "12.3"),
        (1234.5, "1,234"),
        (1e-6, "1.0e-6"),
    ],
)
def test_numbers_have_three_digits(value: float, expected: str) -> None:
    assert number(value) == expected


@pytest.mark.parametrize("huge", [1e308, -1e308, 10**400, 1e30, 1e16])
@pytest.mark.parametrize("key", ["step", "epoch", "loss", "lr", "AP"])
def test_huge_numbers_in_the_records(run: Path, key: str, huge: float) -> None:
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(json.dumps({**row, key: huge} if key in row else row) for row in rows))
    assert write_report(run).is_file()
