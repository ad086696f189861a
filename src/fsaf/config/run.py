"""The whole schema of a recipe, and its plain form."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from fsaf.config.data import DataConfig
from fsaf.config.fields import AUTO, is_auto, key, section
from fsaf.config.model import ModelConfig
from fsaf.config.objective import ObjectiveConfig
from fsaf.config.predict import PredictConfig
from fsaf.config.train import LogConfig, OptimConfig, TrainConfig


@dataclass(kw_only=True)
class Config:
    """Everything that a training depends on.

    >>> config = fsaf.Config(data=DataConfig(root="DATA"), out="runs/mine")
    """

    init: str | None = key(
        None, "Checkpoint to start from. Weights are taken as far as they fit; classes are matched by name."
    )
    resume: bool | Literal["auto"] = key(
        False,
        "Resume from `last.pt` in the run folder; `auto` resumes if there is one and starts anew otherwise. "
        "`fsaf train --resume RUN` resumes the run in folder RUN with its own settings.",
    )
    out: str | None = key(None, "Run folder (default: `runs/<recipe name>`).")
    device: str = key(
        "auto", "`auto` (an accelerator if there is one), `cpu`, `cuda`, `npu`, `xpu` or `mps`."
    )
    winograd: bool = key(
        True,
        "On a CPU, compute large 3x3 convolutions in float32 by Winograd's algorithm: faster, with results "
        "that differ by about 1e-5 of their values.",
    )
    data: DataConfig = section(DataConfig, "Images, boxes and how they are put into batches")
    model: ModelConfig = section(ModelConfig, "The network")
    objective: ObjectiveConfig = section(ObjectiveConfig, "What training minimises")
    predict: PredictConfig = section(PredictConfig, "From raw outputs to detections")
    optim: OptimConfig = section(OptimConfig, "Optimizer and learning rate")
    train: TrainConfig = section(TrainConfig, "Length, precision, evaluation")
    log: LogConfig = section(LogConfig, "Logging")


RENAMED = {"train.cuda_graphs": "train.graphs"}
"""Old names of keys, which recipes, checkpoints and the command line may still use."""


def to_dict(config: object) -> dict[str, Any]:
    """Return a config as plain dicts, lists and scalars, as YAML and checkpoints hold it."""
    assert dataclasses.is_dataclass(config) and not isinstance(config, type)

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if is_auto(value):
            return AUTO
        return value

    return plain(dataclasses.asdict(config))
