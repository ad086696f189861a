"""A run folder with all files that a report shows, made without training."""

import json
from pathlib import Path

import yaml

from fsaf.config import Config
from fsaf.data.readers.splits import open_split
from fsaf.detection.detector import Detector
from fsaf.recipe import build_config
from fsaf.scoring.evaluate import evaluate
from fsaf.scoring.results import write_evaluation
from synthetic import CLASSES, SeesBadly, recipe, write_eight


def write_run(root: Path, name: str = "run") -> Config:
    """Write data into ``root``, and the run folder of an evaluation on it to ``root / name``."""
    write_eight(root, val=8)
    values = recipe(root, root / name)
    config = build_config(values, where="")
    detector = Detector(SeesBadly().eval(), CLASSES, config)
    records = open_split(config.data, "val", CLASSES)
    metrics, predictions = evaluate(detector, records, config.data)
    write_evaluation(root / name, metrics, predictions, config.data, CLASSES)
    (root / name / "config.yaml").write_text(yaml.safe_dump(values))
    lines = [
        {
            "step": at,
            "epoch": 1 + at // 50,
            "lr": 0.001,
            "loss": 9 / at,
            "loss_cls": 6 / at,
            "loss_box": 3 / at,
            "pos_recall": 70.0,
            "images_per_second": 12.5,
            "data_seconds": 0.1,
            "step_seconds": 0.5,
            "memory_gb": 1.5,
            "level_share": [0.1, 0.2, 0.3, 0.25, 0.15],
        }
        for at in range(10, 110, 10)
    ]
    lines += [
        {"step": 50 * epoch, "epoch": epoch, "AP": 0.3 * epoch, "AP50": 0.4 * epoch} for epoch in (1, 2)
    ]
    (root / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = {"time": "2026-01-02T03:04:05+00:00", "device": "cpu (x86_64)", "versions": {"fsaf": "0.1.0"}}
    command["command"] = f"fsaf train {'a-long-name/' * 20}recipe.yaml"
    (root / name / "commands.jsonl").write_text(json.dumps(command) + "\n")
    return config
