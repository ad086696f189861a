"""Numbers of objects in videos; with the real package ``trackers`` if it is installed."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from annotation.videos import write_frames
from fsaf.annotation.annotate import Output, annotate
from fsaf.annotation.sources import find_sources
from fsaf.annotation.tracking import Tracks
from fsaf.annotation.video import Frame
from fsaf.detection.detector import Detector
from fsaf.detection.result import Result
from fsaf.errors import UserError
from synthetic import Picture, paint

FRAMES = 20


def scene(index: int) -> np.ndarray:
    """Red goes right, blue goes left below it, green stays and is hidden for three frames."""
    objects = [(3 * index, 4, 20, 14, 7), (70 - 3 * index, 44, 20, 14, 90)]
    if index not in (8, 9, 10):
        objects.append((30, 24, 16, 12, 3))
    return paint(Picture(height=64, width=96, objects=objects))


def test_numbers_stay_with_their_objects(
    sees: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trackers", reason="the package trackers is not installed")
    path = write_frames(tmp_path / "a.mkv", map(scene, range(FRAMES)), ("ffv1", "bgr0"), rate=10)
    sources, _ = find_sources([str(path)])
    assert annotate(sees, sources, Output(folder=tmp_path, json=True, track=True)) == 0
    tracks: dict[str, list[int | None]] = {"right": [], "left": [], "green": []}
    for line in map(json.loads, capsys.readouterr().out.splitlines()):
        for found in line["detections"]:
            top = found["box"][1]
            tracks["right" if top < 10 else "left" if top > 40 else "green"].append(found["track"])
    numbers = {name: set(found[1:]) for name, found in tracks.items()}
    assert all(len(found) == 1 and None not in found for found in numbers.values()), tracks
    assert len(set.union(*numbers.values())) == 3
    assert [len(found) for found in tracks.values()] == [FRAMES, FRAMES, FRAMES - 3]


class ByteTrackTracker:
    """Stand-in with the package's interface: numbers rows from 5, in reverse order."""

    made: Any = None

    def __init__(self, **options: Any) -> None:
        ByteTrackTracker.made = options

    def update(self, detections: Any, timestamp: float) -> Any:
        count = len(detections.data["row"])
        ids = np.arange(5, 5 + count)[::-1]

        class Found(SimpleNamespace):
            def __len__(self) -> int:
                return count

        return Found(data={"row": detections.data["row"][::-1]}, tracker_id=ids)


def test_rows_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", SimpleNamespace(ByteTrackTracker=ByteTrackTracker))
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=SimpleNamespace))
    tracks = Tracks(25.0, 0.3)
    assert ByteTrackTracker.made == {
        "frame_rate": 25.0, "track_activation_threshold": 0.3, "high_conf_det_threshold": 0.3,
    }  # fmt: skip
    frame = Frame(index=0, ticks=0, time=0.0, image=np.zeros((8, 8, 3), np.uint8))
    for count in (3, 0):
        result = Result(
            boxes=np.zeros((count, 4), np.float32),
            scores=np.ones(count, np.float32),
            labels=np.zeros(count, np.int64),
            names=["green"] * count,
            size=(8, 8),
        )
        assert tracks.follow(result, frame).track_ids() == [5, 6, 7][:count]


def test_mistakes(sees: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(scene(0)).save(tmp_path / "a.png")
    sources, _ = find_sources([str(tmp_path)])
    output = Output(folder=tmp_path / "out", track=True)
    monkeypatch.setitem(sys.modules, "trackers", SimpleNamespace())
    with pytest.raises(UserError, match="none is given"):
        annotate(sees, sources, output)
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(UserError, match=r"pip install 'fsaf\[track\]'"):
        annotate(sees, sources, output)
    assert not output.folder.exists()
