"""Every value that cannot work is refused with a message that names its key."""

import re
from typing import Any

import pytest

from fsaf.config import (
    Config,
    DataConfig,
    LogConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    PredictConfig,
    TrainConfig,
    to_dict,
)
from fsaf.errors import UserError

SECTIONS = {
    "data": DataConfig,
    "model": ModelConfig,
    "objective": ObjectiveConfig,
    "predict": PredictConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
    "log": LogConfig,
}

BAD: list[tuple[str, Any]] = [
    ("data.batch_size", 0),
    ("data.workers", -1),
    ("data.max_boxes", 0),
    ("data.flip", 1.5),
    ("data.flip", -0.1),
    ("data.flip_vertical", 2.0),
    ("data.short_side", 31),
    ("data.long_side", 16),
    ("data.pad", 0),
    ("data.shapes", [(100, 128)]),
    ("data.shapes", [(128, 128), (128, 100)]),
    ("data.shapes", [(0, 128)]),
    ("model.channels", 0),
    ("model.convs", -1),
    ("model.frozen_stages", -2),
    ("model.frozen_stages", 5),
    ("model.std", (1.0, 0.0, 1.0)),
    ("objective.pos_scale", 0.0),
    ("objective.pos_scale", 1.1),
    ("objective.neg_scale", 0.1),
    ("objective.neg_scale", 1.5),
    ("objective.alpha", 1.5),
    ("objective.gamma", -1.0),
    ("predict.score_threshold", 1.0),
    ("predict.score_threshold", -0.1),
    ("predict.nms_iou", 0.0),
    ("predict.nms_iou", 1.1),
    ("predict.anchor_weight", 0.0),
    ("predict.anchor_weight", 1.1),
    ("predict.candidates", 0),
    ("predict.max_detections", 0),
    ("optim.lr", 0.0),
    ("optim.momentum", -0.1),
    ("optim.momentum", 1.0),
    ("optim.milestones", [0]),
    ("optim.decay", 0.0),
    ("optim.warmup_factor", -0.1),
    ("optim.warmup_factor", 1.1),
    ("optim.weight_decay", -1e-4),
    ("optim.clip_norm", -1.0),
    ("optim.warmup_steps", -1),
    ("optim.base_batch", 0),
    ("train.epochs", 0),
    ("train.max_steps", 0),
    ("train.loss_scale", 0.0),
    ("train.ema", 1.0),
    ("train.evaluate_every", -1),
    ("train.seed", -1),
    ("train.seed", 2**63),
    ("log.every", 0),
]


@pytest.mark.parametrize(("key", "value"), BAD, ids=[f"{key}={value}" for key, value in BAD])
def test_a_bad_value_is_refused_by_its_key(key: str, value: Any) -> None:
    section, name = key.split(".")
    with pytest.raises(UserError, match=re.escape(key) + r" = .*must be") as error:
        SECTIONS[section](**{name: value})
    shown = list(value[-1]) if name == "shapes" else value
    assert repr(shown) in str(error.value) or repr(list(shown)) in str(error.value)


def test_short_side_above_long_side_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.short_side = 800.*data\.long_side"):
        DataConfig(short_side=800, long_side=640)


def test_group_norm_needs_a_multiple_of_32_channels() -> None:
    with pytest.raises(UserError, match=r"model\.channels = 100.*multiple of 32"):
        ModelConfig(norm="group", channels=100)
    assert ModelConfig(norm="group", channels=96).channels == 96
    assert ModelConfig(norm="none", channels=100).channels == 100


def test_every_number_that_is_checked_accepts_its_limits() -> None:
    DataConfig(batch_size=1, workers=0, max_boxes=1, flip=1.0, flip_vertical=0.0, short_side=32, long_side=32)
    DataConfig(shapes=[(32, 64)], pad=1)
    ModelConfig(channels=1, convs=0, frozen_stages=-1)
    ObjectiveConfig(pos_scale=1.0, neg_scale=1.0, alpha=1.0, gamma=0.0)
    PredictConfig(score_threshold=0.0, nms_iou=1.0, candidates=1, max_detections=1)
    OptimConfig(weight_decay=0.0, clip_norm=0.0, warmup_steps=0, base_batch=1)
    OptimConfig(momentum=0.0, milestones=[], decay=1.0, warmup_factor=0.0)
    OptimConfig(milestones=[1], warmup_factor=1.0)
    TrainConfig(epochs=1, max_steps=1, loss_scale=32.0, ema=0.0, evaluate_every=0)
    TrainConfig(seed=2**63 - 1)
    LogConfig(every=1)


def test_defaults_are_the_published_recipe() -> None:
    config = Config()
    assert (config.data.short_side, config.data.long_side, config.data.flip) == (800, 1333, 0.5)
    assert (config.model.channels, config.model.convs, config.model.frozen_stages) == (256, 4, 1)
    assert (config.objective.pos_scale, config.objective.alpha, config.objective.gamma) == (0.2, 0.25, 2.0)
    assert (config.optim.lr, config.optim.momentum, config.optim.weight_decay) == (0.01, 0.9, 1e-4)
    assert (config.optim.milestones, config.optim.warmup_steps, config.train.epochs) == ([8, 11], 500, 12)
    assert (config.predict.score_threshold, config.predict.nms_iou) == (0.05, 0.5)


def test_fields_are_keyword_only() -> None:
    with pytest.raises(TypeError):
        ObjectiveConfig(0.2)  # type: ignore[misc]


def is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (str, bool, int, float))


def test_to_dict_holds_plain_values_that_build_the_same_config() -> None:
    config = Config(out="runs/x", data=DataConfig(shapes=[(320, 256), (256, 320)]))
    plain = to_dict(config)
    assert is_plain(plain)
    assert plain["data"]["shapes"] == [[320, 256], [256, 320]]
    again = Config(
        **{
            key: SECTIONS[key](**value) if key in SECTIONS and key != "data" else value
            for key, value in plain.items()
        }
    )
    assert to_dict(again) == plain
