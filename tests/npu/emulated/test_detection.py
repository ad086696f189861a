"""``fsaf evaluate``, ``predict``, ``benchmark`` and ``info`` on the emulated NPU."""

import json
from pathlib import Path

import emulator
import pytest
from running import Trainer, fsaf_command


@pytest.fixture
def checkpoint(train: Trainer) -> Path:
    train("cpu", "--model.branches=[anchor_free,anchor_based]", out="run")
    return train.checkpoint("run")


@pytest.mark.usefixtures("same_program")
def test_evaluation_writes_the_same_predictions_byte_for_byte(checkpoint: Path, tmp_path: Path) -> None:
    for device in ("cpu", "npu"):
        low = "--predict.score_threshold=0.001"
        fsaf_command("evaluate", checkpoint, f"--out={tmp_path / device}", f"--device={device}", low)
    on_cpu, on_npu = ((tmp_path / device / "predictions.json").read_bytes() for device in ("cpu", "npu"))
    assert len(json.loads(on_npu)) > 100
    assert on_npu == on_cpu


@pytest.mark.usefixtures("same_program")
@pytest.mark.parametrize("options", [(), ("--predict.scales=[1,2]", "--predict.flip=true"), ("--tile=64",)])
def test_predictions_are_the_same(
    checkpoint: Path, data: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    picture = min((data / "images" / "val").glob("*.png"))
    texts = [
        fsaf_command(
            "predict", checkpoint, picture, f"--out={tmp_path / device}", f"--device={device}",
            "--format=json", "--score-threshold=0.01", *options,
        )
        for device in ("cpu", "npu")
    ]  # fmt: skip
    assert len(json.loads(texts[0])["detections"]) > 5
    assert texts[1] == texts[0]


def test_images_are_copied_without_waiting(checkpoint: Path, tmp_path: Path) -> None:
    """Each of four batches is copied to the device from pinned memory, and its candidates back."""
    with emulator.recording() as lines:
        fsaf_command("evaluate", checkpoint, f"--out={tmp_path / 'out'}", "--device=npu")
    start = max(i for i, line in enumerate(lines) if line == f"COPY host to device, {2 * 3 * 64 * 96}")
    batches = [i for i, line in enumerate(lines) if line == f"COPY host to device, {2 * 3 * 64 * 96}"]
    assert len(batches) == 4 and start == batches[-1]
    waits = [i for i, line in enumerate(lines) if i > batches[0] and line.startswith("WAIT")]
    assert len(waits) == 4, "one for each batch"


def test_benchmark_ends_in_time_and_counts_what_is_launched(tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text("data: {short_side: 64, long_side: 96, shapes: [[64, 96]], batch_size: 2}\n")
    text = fsaf_command(
        "benchmark", recipe, "--device=npu", "--json", "--seconds=0.1",
        "--model.backbone=tf_efficientnet_lite0", "--model.channels=64", "--train.precision=fp16",
    )  # fmt: skip
    found = json.loads(text)
    assert found["device"].startswith("npu")
    assert found["train"]["images_per_second"] > 0 and found["predict"]["images_per_second"] > 0
