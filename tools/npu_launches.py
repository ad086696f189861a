"""What a training step and a prediction launch on an NPU, counted on the emulated CANN.

    make npu
    . .venv-npu/env.sh
    python tools/npu_launches.py

Pictures are small: the counts do not depend on their size. A step is the difference of runs of 1 and 3 steps.
"""

import contextlib
import io
import tempfile
from pathlib import Path

import emulator
import torch
from running import Trainer

import fsaf
import synthetic
from fsaf.data.batch import blank_images

SETTINGS = {
    "fp32": (),
    "bf16": ("--train.precision=bf16",),
    "fp16, loss scale 32": ("--train.precision=fp16", "--train.loss_scale=32"),
    "fp16, dynamic loss scale, moving average": ("--train.precision=fp16", "--train.ema=0.99"),
}
RECIPES = ("lite0", "fsaf_r50_fpn_1x_coco")


def new_trainer(folder: Path) -> Trainer:
    """Make a data set and a trainer for it."""
    synthetic.write_coco(folder, synthetic.eight_pictures())
    synthetic.write_coco(folder, synthetic.eight_pictures(1), name="val", first_id=50)
    return Trainer(folder, folder)


def count_step(train: Trainer, recipe: str, *options: str) -> dict[str, float]:
    """Count what one step puts on the device."""
    counts = []
    for steps in (1, 3):
        with emulator.recording() as lines, contextlib.redirect_stderr(io.StringIO()):
            train(
                "npu",
                *options,
                "--log.every=100",
                recipe=recipe,
                steps=steps,
                out=f"{steps} {recipe} {options}",
            )
        counts.append(emulator.count(lines))
    return {name: (counts[1][name] - counts[0][name]) / 2 for name in counts[0]}


def count_prediction(train: Trainer, recipe: str) -> dict[str, int]:
    """Count what the detection of a batch of two images puts on the device."""
    train("cpu", recipe=recipe, steps=1, out=f"cpu {recipe}")
    detector = fsaf.load(train.checkpoint(f"cpu {recipe}"), device="npu")
    images, sizes = blank_images(2, 64, 96).pin_memory(), torch.tensor([[64, 96], [50, 96]]).pin_memory()
    detector.detect(images, sizes)
    with emulator.recording() as lines:
        detector.detect(images, sizes)
    return emulator.count(lines)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        train = new_trainer(Path(folder))
        print(
            "| | launches | copies to the device | copies from it | waits | on the AI CPU |\n"
            "|---|---|---|---|---|---|"
        )
        for recipe in RECIPES:
            rows = {
                f"step, {name}": count_step(train, recipe, *options) for name, options in SETTINGS.items()
            }
            rows["batch in evaluation"] = dict(count_prediction(train, recipe))
            for name, counted in rows.items():
                columns = ("launches", "to device", "from device", "waits", "ai cpu")
                values = " | ".join(f"{counted[column]:,.0f}" for column in columns)
                print(f"| {recipe}, {name} | {values} |")


if __name__ == "__main__":
    main()
