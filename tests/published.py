"""A small run and its folder for the Hugging Face hub."""

from pathlib import Path

import yaml

from fsaf.cli import main
from synthetic import recipe, write_eight


def train(folder: Path) -> Path:
    """Train for an epoch on ``folder/coloured_boxes``; return the run folder inside ``folder``."""
    write_eight(folder / "coloured_boxes")
    values = recipe(folder / "coloured_boxes", folder / "mine", model__backbone="test_efficientnet")
    values["predict"] = {"score_threshold": 0.0}
    (folder / "mine.yaml").write_text(yaml.safe_dump(values))
    assert main(["train", str(folder / "mine.yaml"), "--train.epochs", "1"]) == 0
    return folder / "mine"


def publish(run: Path) -> Path:
    """Publish the run; return its folder for the hub."""
    assert main(["publish", str(run / "checkpoints" / "last.pt"), "--license", "mit"]) == 0
    return run / "hub"


def picture(run: Path) -> Path:
    """Return a validation picture of the run's data."""
    return run.parent / "coloured_boxes" / "images" / "val" / "0501.png"
