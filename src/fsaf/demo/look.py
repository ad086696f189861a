"""One picture seen by the network once; what is shown of it is chosen afterwards, as often as one likes."""

import time
from dataclasses import dataclass, replace

import torch
from PIL import Image

from fsaf.detection.detector import Detector
from fsaf.detection.picture import Prepared, prepare, stack
from fsaf.detection.postprocess import Candidates, suppress
from fsaf.detection.result import Result
from fsaf.detection.views import from_view

LOWEST_SCORE = 0.05
"""Candidates under it are not kept."""


@dataclass(kw_only=True)
class Look:
    """A picture and all candidates of the network in it."""

    detector: Detector
    picture: Image.Image
    prepared: Prepared
    candidates: Candidates
    seconds: float
    """Seconds for reading, resizing and the network."""

    @torch.inference_mode()
    def choose(self, score_threshold: float, nms_iou: float) -> Result:
        """Return the detections with other settings, without running the network."""
        settings = replace(self.detector.config.predict, score_threshold=score_threshold, nms_iou=nms_iou)
        scores = self.candidates.scores_bk
        scores = torch.where(scores > score_threshold, scores, 0.0)
        found = suppress(self.candidates._replace(scores_bk=scores), settings)
        prepared = self.prepared
        return self.detector.result(from_view(found, 0, prepared.view), prepared.original, prepared.path)


@torch.inference_mode()
def look(detector: Detector, picture: Image.Image) -> Look:
    """Run the network on a picture; a file with suppression inside returns its detections as candidates."""
    start = time.perf_counter()
    settings = replace(detector.config.predict, score_threshold=LOWEST_SCORE)
    prepared = prepare(picture, detector.config.data)
    images, sizes_b2 = stack([prepared])
    candidates = detector.network.candidates(images, sizes_b2, settings)
    seconds = time.perf_counter() - start
    return Look(detector=detector, picture=picture, prepared=prepared, candidates=candidates, seconds=seconds)
