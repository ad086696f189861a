"""Exported files on the host: padding, outputs that do not fit, suppression inside a file without sizes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fsaf.detection.detector import Detector, load
from fsaf.detection.exported import fill_padding
from fsaf.detection.raw_file import to_raw_outputs
from fsaf.errors import UserError
from fsaf.exporting.onnx import export_onnx
from random_networks import CLASSES, CONFIG, SIZE, pictures, random_network

pytestmark = pytest.mark.slow


def test_padding_with_the_mean_colour_is_padding_with_zero() -> None:
    """The network sees the same values, bit by bit, if images are float."""
    images, sizes = pictures(3)
    network = random_network()
    expected = network.normalise(images, sizes)
    mean = network.settings.mean_colour

    def filled(images: torch.Tensor) -> torch.Tensor:
        return network.normalise(torch.from_numpy(fill_padding(images.numpy(), sizes.numpy(), mean)), None)

    assert torch.equal(filled(images.float()), expected)
    whole = filled(images)
    assert 0 < (whole - expected).abs().max() < 0.5 / 57


def test_outputs_that_do_not_fit_are_refused() -> None:
    logits, distances = torch.zeros(1, 3, 129), torch.zeros(1, 4, 129)
    outputs = to_raw_outputs([logits, distances], "head", CONFIG, SIZE)
    assert outputs.free is not None and outputs.anchors is None
    assert [tuple(x.shape) for x in outputs.free.logits] == [
        (1, 3, 8, 12),
        (1, 3, 4, 6),
        (1, 3, 2, 3),
        (1, 3, 1, 2),
        (1, 3, 1, 1),
    ]
    for wrong in ([logits], [logits[..., 1:], distances], [logits, distances, distances]):
        with pytest.raises(ValueError):
            to_raw_outputs(wrong, "head", CONFIG, SIZE)


@pytest.mark.parametrize("float_images", [True, False])
def test_suppression_inside_a_file_without_sizes(float_images: bool, tmp_path: Path) -> None:
    network = random_network()
    images, sizes = pictures(3)
    report = export_onnx(
        network,
        CLASSES,
        CONFIG,
        tmp_path / "model.onnx",
        size=SIZE,
        float_images=float_images,
        fixed_size=True,
        batches=[(images, sizes)],
    )
    assert report.comparison is not None and report.comparison.detections > 50
    detector = load(report.path)
    found = detector.detect(images, sizes)
    expected = Detector(network, CLASSES, CONFIG).detect(images[:1], sizes[:1])  # an image that fills H x W
    torch.testing.assert_close(found.boxes_bm4[:1], expected.boxes_bm4, rtol=0, atol=0.01)
    real = found.labels_bm[1] >= 0
    assert real.any() and found.boxes_bm4[1][real][:, 3].max() <= 50  # the image is 50 pixels high
    assert (found.boxes_bm4[1][~real] == 0).all() and (found.scores_bm[1][~real] == 0).all()
    with pytest.raises(UserError, match="export the checkpoint again"):
        detector.detect(images, sizes, replace(CONFIG.predict, nms_iou=0.6))
