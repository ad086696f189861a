"""One picture seen by the network once; what is shown of it is chosen afterwards, as often as one likes."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from fsaf.config import PredictConfig
from fsaf.detection.classes import with_labels
from fsaf.detection.detector import Detector
from fsaf.detection.draw import to_pil
from fsaf.detection.picture import Prepared, open_picture, prepare_view, stack
from fsaf.detection.postprocess import Candidates, suppress
from fsaf.detection.result import Result
from fsaf.detection.views import from_view, plan_views

SHOWN = 2000
"""Longer side of pictures on the page. Drawing and sending larger ones would take seconds."""
LOWEST_SCORE = 0.05
"""Candidates under it are not kept."""


@dataclass(kw_only=True)
class Look:
    """A picture and all candidates of the network in it."""

    detector: Detector
    picture: Image.Image
    """As shown, of at most ``SHOWN`` pixels a side."""
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
        return self.detector.result(
            from_view(found.rows()[0], prepared.view), prepared.original, prepared.path
        )


@torch.inference_mode()
def look(detector: Detector, path: Path, max_pixels: int) -> Look:
    """Run the network on a picture file; a file with suppression inside returns its detections as candidates.

    Raises UserError if the picture has more than ``max_pixels``, before it is decoded, or does not decode.
    """
    start = time.perf_counter()
    settings = with_labels(detector.config.predict, detector.classes)
    settings = replace(settings, score_threshold=LOWEST_SCORE)
    data = replace(detector.config.data, max_pixels=min(max_pixels, detector.config.data.max_pixels))
    opened = open_picture(path, data)
    (view,) = plan_views(opened.size, data, PredictConfig())
    prepared = replace(prepare_view(opened, view, data.antialias), path=path.name)
    picture = to_pil(opened.image)
    picture.thumbnail((SHOWN, SHOWN))
    images, sizes_b2 = (torch.from_numpy(each) for each in stack([prepared]))
    candidates = detector.network.candidates(images, sizes_b2, settings)
    seconds = time.perf_counter() - start
    return Look(detector=detector, picture=picture, prepared=prepared, candidates=candidates, seconds=seconds)
