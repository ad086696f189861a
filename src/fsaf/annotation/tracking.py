"""Follow objects through a video, each with the same number in every frame, by ByteTrack of ``trackers``."""

from dataclasses import replace
from typing import Any

import numpy as np

from fsaf.annotation.video import Frame
from fsaf.detection.result import Result
from fsaf.errors import UserError


def import_trackers() -> Any:
    """Return the package ``trackers``. Raises UserError with the line that installs it."""
    try:
        import trackers
    except ImportError as error:
        raise UserError(f"--track needs the package trackers ({error}): pip install 'fsaf[track]'") from error
    return trackers


class Tracks:
    """The tracks of one video.

    rate: frames per second. lowest: score from which a detection starts a track; those of a frame below it,
    if any, only continue one.
    """

    def __init__(self, rate: float, lowest: float) -> None:
        self._tracker = import_trackers().ByteTrackTracker(
            frame_rate=rate, track_activation_threshold=lowest, high_conf_det_threshold=lowest
        )

    def follow(self, result: Result, frame: Frame) -> Result:
        """Return the result of the next frame with ``tracks``; -1 for what is seen for the first time."""
        import supervision

        tracks = np.full(len(result), -1, np.int64)
        seen = supervision.Detections(
            xyxy=result.boxes.reshape(-1, 4),
            confidence=result.scores,
            class_id=result.labels,
            data={"row": np.arange(len(result))},
        )
        found = self._tracker.update(seen, timestamp=frame.time)
        if len(found):
            tracks[found.data["row"]] = found.tracker_id
        return replace(result, tracks=tracks)
