"""Launches in a training step and in a prediction. They decide the speed of small networks on an NPU."""

import pytest
from running import Trainer

from scripts import TOOLS, load_script

npu_launches = load_script(TOOLS / "npu_launches.py")


@pytest.mark.parametrize(("recipe", "setting", "limit"), [
    ("lite0", "fp32", 1_300),
    ("lite0", "fp16, dynamic loss scale, moving average", 1_550),
    ("fsaf_r50_fpn_1x_coco", "bf16", 1_500),
    ("fsaf_r50_fpn_1x_coco", "fp16, loss scale 32", 1_500),
])  # fmt: skip
def test_a_step_copies_its_batch_and_never_waits(
    train: Trainer, recipe: str, setting: str, limit: int
) -> None:
    counted = npu_launches.count_step(train, recipe, *npu_launches.SETTINGS[setting])
    assert 1_000 < counted["launches"] <= limit
    assert counted["to device"] == 6, "images and the five tensors of `Boxes`"
    assert (counted["from device"], counted["waits"], counted["ai cpu"]) == (0, 0, 0)


@pytest.mark.parametrize("recipe", npu_launches.RECIPES)
def test_a_batch_in_evaluation_waits_once(train: Trainer, recipe: str) -> None:
    counted = npu_launches.count_prediction(train, recipe)
    assert 200 < counted["launches"] <= 600
    assert (counted["to device"], counted["from device"], counted["waits"], counted["ai cpu"]) == (2, 1, 1, 0)
