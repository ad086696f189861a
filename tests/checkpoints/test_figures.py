"""A checkpoint of MMDetection gives MMDetection 3.3.0's figures."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fsaf.checkpoints.coco_classes import COCO
from fsaf.checkpoints.mmdetection import from_mmdetection
from fsaf.checkpoints.pickles import load_plain
from fsaf.cli import main
from fsaf.data.shapes import resized_size
from fsaf.data.transforms import read_image, resize
from fsaf.model.detector import FSAF
from fsaf.scoring.metrics import METRICS

pytestmark = pytest.mark.slow

ORACLE = Path(__file__).parents[1] / "data" / "oracle"


@pytest.mark.parametrize(
    ("size", "new", "crc"),
    [
        ((37, 61), (53, 88), 547575828),
        ((61, 37), (20, 12), 4249597391),
        ((40, 64), (20, 32), 278275779),
        ((5, 3), (64, 31), 4042611647),
    ],
)
def test_resize_gives_the_pixels_of_opencv(size: tuple[int, int], new: tuple[int, int], crc: int) -> None:
    """Checksums of cv2.resize(image, (width, height)) of opencv-python-headless 5.0.0.93."""
    image = np.random.default_rng(7).integers(0, 256, (*size, 3), np.uint8)
    ours = resize(torch.from_numpy(image).permute(2, 0, 1), new)
    assert zlib.crc32(ours.permute(1, 2, 0).contiguous().numpy().tobytes()) == crc


@pytest.fixture(scope="module")
def pictures() -> list[dict[str, Any]]:
    return json.loads((ORACLE / "predictions_r50.json").read_text())["images"]


def test_input_and_raw_outputs_are_mmdetections(
    test_data: Path, r50: Path, pictures: list[dict[str, Any]]
) -> None:
    state, config, classes = from_mmdetection(load_plain(r50), str(r50))
    model = FSAF(config, len(classes)).eval()
    model.load_state_dict(state)
    for entry in pictures:
        image = read_image(test_data / "minicoco/images" / entry["file_name"])
        image = resize(image, resized_size(*image.shape[1:], 400, 667))
        canvas = torch.zeros(entry["input_shape"], dtype=torch.uint8)
        canvas[0, :, : image.shape[1], : image.shape[2]] = image
        sizes = torch.tensor([image.shape[1:]])
        with torch.inference_mode():
            normal, outputs = model.normalise(canvas, sizes), model(canvas, sizes)
        found = {
            "input_mean": normal.mean(),
            "input_std": normal.std(),
            "cls_mean": torch.stack([level.mean() for level in outputs.free.logits]),
            "cls_std": torch.stack([level.std() for level in outputs.free.logits]),
            "reg_mean": torch.stack([level.mean() for level in outputs.free.distances]),
        }
        for key, value in found.items():
            torch.testing.assert_close(value, torch.tensor(entry[key]), rtol=1e-5, atol=1e-6, msg=key)


def test_detections_are_mmdetections(
    test_data: Path, r50: Path, pictures: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    from torchvision.ops import box_iou

    names = [str(test_data / "minicoco/images" / entry["file_name"]) for entry in pictures]
    options = (
        "--format json --short-side 400 --long-side 667 --pad 32 --score-threshold 0.05 --max-detections 100"
    )
    assert main(["predict", str(r50), *names, *options.split(), "--device", "cpu"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len(pictures)
    for line, name, entry in zip(lines, names, pictures, strict=True):
        assert line["image"] == name
        rows = line["detections"]
        assert [row["name"] for row in rows] == [COCO.names[row["label"]] for row in rows]
        boxes, theirs = torch.tensor([row["box"] for row in rows]), torch.tensor(entry["boxes"])
        scores = torch.tensor([row["score"] for row in rows])
        labels = torch.tensor([row["label"] for row in rows])
        same = (
            (labels[None] == torch.tensor(entry["labels"])[:, None])
            & (box_iou(theirs, boxes) >= 0.95)
            & ((scores[None] - torch.tensor(entry["scores"])[:, None]).abs() <= 0.01)
        )
        matched = _pairs(same)
        assert matched >= 0.98 * len(theirs)
        assert len(rows) - matched <= 0.02 * len(theirs)


def _pairs(same: Tensor) -> int:
    """Return the number of rows that can be paired with a column, each column used once."""
    used: set[int] = set()
    for row in same:
        free = [column for column in row.nonzero()[:, 0].tolist() if column not in used]
        used.update(free[:1])
    return len(used)


def annotations_of(ids: list[int], test_data: Path, path: Path) -> Path:
    """Return minicoco's validation annotations of these images, in this order."""
    data = json.loads((test_data / "minicoco/annotations/instances_val.json").read_text())
    by_id = {image["id"]: image for image in data["images"]}
    data["images"] = [by_id[id_] for id_ in ids]
    data["annotations"] = [entry for entry in data["annotations"] if entry["image_id"] in ids]
    path.write_text(json.dumps(data))
    return path


def test_evaluation_of_a_checkpoint_equals_pycocotools(test_data: Path, r50: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO as Truth
    from pycocotools.cocoeval import COCOeval

    annotations = annotations_of([139, 802, 6818, 10764], test_data, tmp_path / "four.json")
    options = {
        "out": tmp_path,
        "device": "cpu",
        "data.val.annotations": annotations,
        "data.val.images": test_data / "minicoco/images",
        "data.short_side": 224,
        "data.long_side": 373,
        "data.pad": 32,
        "data.workers": 0,
    }
    arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    assert main(["evaluate", str(r50), *arguments]) == 0
    # Weights by rule detect nothing real. So use some of the detections, moved a little, as ground truth.
    rng = np.random.default_rng(0)
    found = json.loads((tmp_path / "predictions.json").read_text())[::3]
    data = json.loads(annotations.read_text())
    for k, entry in enumerate(found, start=1):
        x, y, width, height = entry.pop("bbox")
        dx, dy = rng.normal(0, 0.07, 2) * (width, height)
        entry |= {"id": k, "bbox": [x + dx, y + dy, width, height], "area": width * height}
        entry["iscrowd"] = int(k % 10 == 0)
    annotations.write_text(json.dumps(data | {"annotations": found}))
    assert main(["evaluate", str(r50), *arguments]) == 0

    truth = Truth(str(annotations))
    theirs = COCOeval(truth, truth.loadRes(str(tmp_path / "predictions.json")), "bbox")
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    ours = json.loads((tmp_path / "evaluation.json").read_text())
    twelve = list(METRICS)
    assert len(twelve) == len(theirs.stats) == 12
    assert [ours[key] for key in twelve] == pytest.approx(list(theirs.stats), abs=1e-6)
    assert all(0.05 < ours[key] < 0.95 for key in twelve), "figures that say something"


def test_five_training_steps_are_mmdetections(test_data: Path, r50: Path, tmp_path: Path) -> None:
    reference = json.loads((ORACLE / "training_r50.json").read_text())
    order = list(dict.fromkeys(id_ for step in reference["steps"] for id_ in step["images"]))
    annotations = annotations_of(order, test_data, tmp_path / "six.json")
    settings = {
        "init": r50,
        "out": tmp_path / "run",
        "device": "cpu",
        "data.root": test_data / "minicoco",
        "data.train.annotations": annotations,
        "data.train.images": "images",
        "data.shapes": "null",
        "data.shuffle": "false",
        "data.flip": 0,
        "data.short_side": 400,
        "data.long_side": 667,
        "data.pad": 32,
        "data.workers": 0,
        "optim.lr": reference["lr"],
        "optim.scale_lr": "false",
        "optim.warmup_steps": 0,
        "train.max_steps": 5,
        "train.evaluate_every": 0,
        "log.every": 1,
    }
    options = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    assert main(["train", "fsaf_r50_fpn_1x_coco", *options]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    assert len(lines) == len(reference["steps"]) == 5
    keys = {"loss_bbox": "loss_box", "num_pos_per_image": "num_pos"}
    for line, step in zip(lines, reference["steps"], strict=True):
        for key in ("loss_cls", "loss_bbox", "num_pos_per_image", "pos_recall", "grad_norm"):
            tolerance = 1e-3 if line["step"] == 1 else 2e-2
            assert line[keys.get(key, key)] == pytest.approx(step[key], rel=tolerance, abs=1e-6), (
                line["step"],
                key,
            )
