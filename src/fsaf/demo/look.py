"""One picture seen by the network once; what is shown of it is chosen afterwards, as often as one likes."""

import time
from dataclasses import dataclass, replace

import torch
from PIL import Image

from fsaf.detection.detector import Detector, Result
from fsaf.detection.picture import Prepared, prepare, stack
from fsaf.detection.postprocess import Candidates, find_candidates, suppress
from fsaf.detection.views import from_view
from fsaf.model.detector import FSAF

LOWEST_SCORE = 0.05
"""Candidates under it are not kept."""


@dataclass(kw_only=True)
class Look:
    """A picture and everything that the network proposes in it."""

    detector: Detector
    picture: Image.Image
    prepared: Prepared
    candidates: Candidates
    seconds: float
    """What reading, resizing and the network took."""

    @torch.inference_mode()
    def choose(self, score_threshold: float, nms_iou: float) -> Result:
        """The detections with other settings, without the network."""
        settings = replace(self.detector.config.predict, score_threshold=score_threshold, nms_iou=nms_iou)
        boxes, scores, labels, levels = self.candidates
        scores = torch.where(scores > score_threshold, scores, 0.0)
        found = suppress(Candidates(boxes, scores, labels, levels), settings)
        if not isinstance(self.detector.model, FSAF):
            found = found._replace(levels_bm=None)
        prepared = self.prepared
        return self.detector.result(from_view(found, 0, prepared.view), prepared.original, prepared.path)


@torch.inference_mode()
def look(detector: Detector, picture: Image.Image) -> Look:
    """Run the network on a picture. Of an exported file, whose suppression is built in, the candidates are
    its detections."""
    start = time.perf_counter()
    settings = replace(detector.config.predict, score_threshold=LOWEST_SCORE)
    prepared = prepare(picture, detector.config.data)
    images, sizes_b2 = stack([prepared])
    if isinstance(detector.model, FSAF):
        device = detector.model.mean.device
        sizes_b2 = sizes_b2.to(device)
        candidates = find_candidates(detector.model(images.to(device), sizes_b2), sizes_b2, settings)
    else:
        boxes, scores, labels, *_ = detector.detect(images, sizes_b2)
        candidates = Candidates(boxes, scores, labels.clamp(min=0), torch.zeros_like(labels))
    seconds = time.perf_counter() - start
    return Look(detector=detector, picture=picture, prepared=prepared, candidates=candidates, seconds=seconds)
