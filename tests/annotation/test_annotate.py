"""``fsaf predict`` on pictures, videos and a camera."""

import json
import signal
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from annotation.videos import write_frames
from fsaf.annotation import annotate as module
from fsaf.annotation.annotate import Output, annotate
from fsaf.annotation.sources import Source, find_sources
from fsaf.annotation.video import Frame, VideoReader
from fsaf.cli import main
from fsaf.config import Config, DataConfig
from fsaf.data import arrays
from fsaf.detection.detector import Detector
from fsaf.detection.draw import draw_result
from fsaf.errors import Stopped, UserError
from fsaf.model.detector import FSAF
from synthetic import CLASSES, Picture, SeesColours, paint, tiny_model

DATA = DataConfig(short_side=64, long_side=96, shapes=[(64, 96)])


@pytest.fixture
def sees() -> Detector:
    """A detector that detects coloured rectangles."""
    return Detector(SeesColours().eval(), CLASSES, Config(data=DATA))


def scene(index: int) -> np.ndarray:
    """A red rectangle that moves, and from the third frame on a green one."""
    objects = [(4 * index, 20, 24, 16, 7), (60, 40, 20, 12, 3)]
    return paint(Picture(height=64, width=96, objects=objects[: 1 + (index >= 2)]))


def expected(index: int) -> list[tuple[str, list[float]]]:
    found = [("red", [4.0 * index, 20.0, 4.0 * index + 24, 36.0])]
    return found + ([("green", [60.0, 40.0, 80.0, 52.0])] if index >= 2 else [])


def record(path: Path, count: int = 9) -> Path:
    """Record ``scene`` at 10 frames per second, without loss."""
    return write_frames(path, map(scene, range(count)), ("ffv1", "bgr0"), rate=10)


def cut(path: Path) -> Path:
    """Cut an AVI file in the middle of its frames."""
    data = path.read_bytes()
    path.write_bytes(data[: (data.index(b"movi") + data.rindex(b"idx1")) // 2])
    return path


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_lines_of_a_video(
    sees: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str], batch_size: int
) -> None:
    sources, _ = find_sources([str(record(tmp_path / "a.mkv"))])
    output = Output(folder=tmp_path / "out", json=True)
    assert annotate(sees, sources, output, batch_size) == 0
    found = lines(capsys)
    assert [(line["image"], line["frame"]) for line in found] == [(sources[0].name, i) for i in range(9)]
    assert [line["time"] for line in found] == pytest.approx([i / 10 for i in range(9)])
    for index, line in enumerate(found):
        assert line["size"] == [64, 96]
        by_name = [(entry["name"], entry["box"]) for entry in line["detections"]]
        assert by_name == [(name, pytest.approx(box, abs=2e-3)) for name, box in expected(index)]
    assert not (tmp_path / "out").exists()


def test_a_video_with_boxes_in_it_and_crops(sees: Detector, tmp_path: Path) -> None:
    sources, _ = find_sources([str(record(tmp_path / "a.mkv"))])
    annotate(sees, sources, Output(folder=tmp_path / "out", crops=True), 4)
    with VideoReader(str(tmp_path / "out" / "a.mp4")) as reader:
        frames = list(reader.frames())
        assert (len(frames), reader.rate) == (9, 10)
    for index in (0, 3, 8):
        result = sees.predict(scene(index))
        drawn = np.asarray(
            draw_result(scene(index), result.boxes, result.labels, result.scores, result.names)
        )
        difference = np.abs(frames[index].image.astype(int) - drawn).mean()
        plain = np.abs(frames[index].image.astype(int) - scene(index)).mean()
        assert difference < plain / 3, index  # H.264 loses some colour at edges
    crops = sorted(str(path.relative_to(tmp_path / "out")) for path in tmp_path.rglob("*.png"))
    assert crops[:2] == ["crops/green/a_000002_001.png", "crops/green/a_000003_001.png"]
    assert len(crops) == 7 + 9 and crops[-1] == "crops/red/a_000008_000.png"
    with Image.open(tmp_path / "out" / crops[-1]) as crop:
        assert (np.asarray(crop) == scene(8)[20:36, 32:56]).all()


def test_damage_is_told_and_what_decodes_is_kept(
    sees: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cut(record(tmp_path / "a.avi"))
    sources, _ = find_sources([str(path), str(record(tmp_path / "b.mkv"))])
    assert annotate(sees, sources, Output(folder=tmp_path / "out")) == 1
    out, err = capsys.readouterr()
    assert err.startswith(f"fsaf predict: {path}: is damaged in 1 place; the ") and err.count("\n") == 1
    kept = int(err.split("; the ")[1].split()[0])
    with VideoReader(str(tmp_path / "out" / "a.mp4")) as reader:
        assert 2 <= len(list(reader.frames())) == kept < 9
    assert (tmp_path / "out" / "b.mp4").exists() and f"{kept} frames at" in out


class Endless:
    """A camera without end. The user presses Ctrl-C after the sixth frame."""

    rate, time_base, aspect, faults, total = Fraction(10), Fraction(1, 10), None, (), None
    given = 0

    def __init__(self, *_: Any) -> None: ...
    def __enter__(self) -> "Endless":
        return self

    def __exit__(self, *_: object) -> None: ...
    def frames(self) -> Iterator[Frame]:
        for index in range(1000):
            if index == 6:
                signal.raise_signal(signal.SIGINT)
            Endless.given = index + 1
            yield Frame(index=index, ticks=index, time=index / 10, image=scene(index % 8))


@pytest.mark.parametrize("name", ["camera:0", "long.mp4"])
def test_ctrl_c_ends_the_file_properly(
    sees: Detector, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VideoReader", Endless)
    source = Source(name=name, place=Path("seen"), video=True)
    output = Output(folder=tmp_path)
    if source.camera:
        assert annotate(sees, [source], output, 2) == 0
    else:
        with pytest.raises(Stopped, match=r"stopped after \d frames of long\.mp4") as stopped:
            annotate(sees, [source], output, 2)
        assert stopped.value.signal == signal.SIGINT
    with VideoReader(str(tmp_path / "seen.mp4")) as reader:
        assert 7 <= len(list(reader.frames())) == Endless.given <= 8
    assert [path.name for path in tmp_path.iterdir()] == ["seen.mp4"]


def test_no_more_than_a_batch_of_frames_waits(
    sees: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead: list[int] = []
    write = module.VideoWriter.write

    def watched(self: Any, image: np.ndarray, ticks: int) -> None:
        ahead.append(Endless.given - ticks)
        write(self, image, ticks)

    monkeypatch.setattr(module, "VideoReader", Endless)
    monkeypatch.setattr(module.VideoWriter, "write", watched)
    annotate(sees, [Source(name="camera:0", place=Path("seen"), video=True)], Output(folder=tmp_path), 3)
    assert len(ahead) >= 7 and max(ahead) == 3


@pytest.mark.parametrize("batch_size", [1, 2])
def test_each_picture_is_decoded_once(
    sees: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    for index in range(5):
        Image.fromarray(scene(index)).save(tmp_path / f"{index}.png")
    sources, _ = find_sources([str(tmp_path)])
    decoded: list[Path] = []
    open_image = arrays.open_image

    def counting(path: Path, *rest: Any, **options: Any) -> Any:
        decoded.append(path)
        return open_image(path, *rest, **options)

    monkeypatch.setattr(arrays, "open_image", counting)
    annotate(sees, sources, Output(folder=tmp_path / "out", crops=True), batch_size)
    assert [path.name for path in decoded] == [f"{index}.png" for index in range(5)]


def test_crops_are_not_written_over_what_is_given(sees: Detector, tmp_path: Path) -> None:
    path = tmp_path / "crops" / "red" / "a.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(scene(0)).save(path)
    sources, _ = find_sources([str(tmp_path / "crops")])
    with pytest.raises(UserError, match=r"a\.png: is in the folder that crops are written to"):
        annotate(sees, sources, Output(folder=tmp_path, crops=True))


def test_a_file_where_a_folder_of_the_tree_is_to_be(sees: Detector, tmp_path: Path) -> None:
    for name in ("photos/a/one.png", "photos/b/two.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(scene(0)).save(tmp_path / name)
    record(tmp_path / "photos" / "c" / "three.mkv")
    for folder, told in (("a", "one.png"), ("c", "three.mp4")):
        out = tmp_path / f"out-{folder}"
        out.mkdir()
        (out / folder).write_text("mine")
        sources, _ = find_sources([str(tmp_path / "photos")])
        with pytest.raises(UserError, match=f"{told}: cannot be written"):
            annotate(sees, sources, Output(folder=out))
        assert (out / folder).read_text() == "mine"


def test_bad_inputs_are_told_and_the_others_are_done(
    sees: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(3):
        Image.fromarray(scene(index)).save(tmp_path / f"{index}.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    (tmp_path / "3.mkv").write_text("no video")
    record(tmp_path / "4.mkv", 2)
    sources, _ = find_sources([str(tmp_path)])
    for batch_size in (1, 4):
        assert annotate(sees, sources, Output(folder=tmp_path / "out"), batch_size) == 2
        out, err = capsys.readouterr()
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "2.png", "4.mp4"]
        assert len(out.splitlines()) == 3
        bad = [line for line in err.splitlines() if line.startswith("fsaf predict: ")]
        assert [Path(line.split(": ")[1]).name for line in bad] == ["1.png", "3.mkv"]


# The command line.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained detector that detects something everywhere."""
    torch.manual_seed(0)
    model = tiny_model()
    config = Config(data=DATA, model=model, device="cpu")
    path = tmp_path_factory.mktemp("run") / "best.pt"
    Detector(FSAF(model, len(CLASSES)).eval(), CLASSES, config).save(path)
    return path


def test_a_tree_of_pictures_and_videos(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "deep").mkdir(parents=True)
    for name, index in (("data/a.png", 0), ("data/deep/a.png", 3)):
        Image.fromarray(scene(index)).save(tmp_path / name)
    record(tmp_path / "data" / "deep" / "b.avi", 3)
    options = ["--score-threshold", "0", "--max-detections", "2", "--batch-size", "2", "--device", "cpu"]
    options += ["--predict.flip", "true", "--predict.scales", "[1.0, 1.5]", "--tile", "48", "--save-crops"]
    assert main(["predict", str(checkpoint), "data", "--out", "data/out", *options]) == 0
    out, err = capsys.readouterr()
    written = sorted(str(path.relative_to("data/out")) for path in Path("data/out").rglob("*.*"))
    crops = [name for name in written if name.startswith("crops/")]
    assert sorted(set(written) - set(crops)) == ["a.png", "deep/a.png", "deep/b.mp4"]
    assert {Path(name).parent.name for name in crops} >= {"deep"} and len(crops) >= 2 * 5
    assert "data/deep/b.avi -> data/out/deep/b.mp4: 3 frames at" in out and "img/s" in err
    assert (
        main(["predict", str(checkpoint), "data", "--out", "data/out", "--format", "json", *options[:6]]) == 0
    )
    out, err = capsys.readouterr()
    assert err == f"note: leaves out {len(written)} files in the output folder data/out\n"
    found = [json.loads(line) for line in out.splitlines()]
    assert [(line["image"], line.get("frame")) for line in found] == [
        ("data/a.png", None), ("data/deep/a.png", None), *(("data/deep/b.avi", i) for i in range(3)),
    ]  # fmt: skip


def test_statuses_of_damaged_videos(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cut(record(tmp_path / "a.avi"))
    assert main(["predict", str(checkpoint), str(path), "--format", "json"]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) >= 2 and "is damaged" in err
    assert err.endswith("fsaf predict: 1 of 1 input could not be read, or not in full\n")
    path.write_text("no video")
    assert main(["predict", str(checkpoint), str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"fsaf predict: {path}: does not open as a video")
