"""Test ``fsaf benchmark``: its measurements, its text and its errors."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import synthetic
from fsaf.cli import main
from fsaf.config import Config, DataConfig, ModelConfig
from fsaf.data.readers.coco import read_coco
from fsaf.measuring import benchmark
from fsaf.measuring.benchmark_text import format_benchmark
from fsaf.measuring.flops import step_flops
from fsaf.measuring.inputs import largest_shape, random_batch, random_classes
from fsaf.measuring.timing import summary
from fsaf.model.detector import FSAF

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    synthetic.write_eight(folder / "data", val=8)
    values = synthetic.recipe(folder / "data", folder / "run", model__backbone="test_efficientnet")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def found(recipe: Path) -> dict[str, Any]:
    from fsaf.recipe import load_recipe

    said: list[str] = []
    figures = benchmark.benchmark(load_recipe(str(recipe), ["--device=cpu"]), seconds=0.01, say=said.append)
    assert [text.split(":")[0] for text in said] == ["machine", "loader", "training step", "prediction"]
    return figures


def test_figures_agree_with_each_other(found: dict[str, Any]) -> None:
    train, predict, loader = found["train"], found["predict"], found["loader"]
    assert train["images_per_second"] * train["seconds"]["median"] == pytest.approx(train["batch"])
    used = train["flops"] / train["seconds"]["median"] / found["matrix_flops"]
    assert train["utilisation"] == pytest.approx(used)
    assert 0 < train["objective_share"] < 1
    assert predict["images_per_second"] * predict["seconds"]["median"] == pytest.approx(1)
    assert loader["images"] > 0 and loader["images_per_second"] > 0
    assert found["matrix_flops"] > 1e8 and found["copy_bytes"] > 1e7
    json.dumps(found)


def test_compiling_and_capturing_are_printed(found: dict[str, Any]) -> None:
    asked = {**found, "train": {**found["train"], "compiled": True, "captured": True}}
    assert "img/s, compiled, captured as one graph\n" in format_benchmark(asked)
    assert "compiled" not in format_benchmark(found)


def test_nothing_is_written(recipe: Path, found: dict[str, Any]) -> None:
    assert not (recipe.parent / "run").exists()


def test_text_is_aligned(found: dict[str, Any]) -> None:
    lines = format_benchmark(found).splitlines()
    wide = max(len(line.split("  ")[0]) for line in lines if not line.startswith(" ")) + 2
    assert all(not line or (line[wide - 1] == " " and line[wide] != " ") for line in lines)
    for name in ("device", "training step", "objective", "memory", "prediction", "loader", "padding"):
        assert any(line.startswith(name) for line in lines)


@pytest.mark.slow
def test_a_step_has_all_accumulated_batches(recipe: Path, found: dict[str, Any]) -> None:
    """Each accumulated part is a whole batch, as in training, even if a batch has fewer images than parts."""
    from fsaf.recipe import load_recipe

    config = load_recipe(str(recipe), ["--device=cpu", "--train.accumulate=5"])
    classes, shape = random_classes(3), (64, 96)
    step = benchmark.measure_training(config, classes, shape, torch.device("cpu"), 0.0, 1e9)
    assert step["batch"] == 5 * found["train"]["batch"] and step["flops"] == 5 * found["train"]["flops"]
    assert step["forward_flops"] == 5 * found["train"]["forward_flops"]


@pytest.mark.slow
def test_without_data_the_rest_is_measured(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--device", "cpu", "--seconds", "0.01", "--data.root", "nowhere"]
    assert main(["benchmark", str(recipe), *options]) == 0
    out = capsys.readouterr().out
    assert "not measured: nowhere" in out and "img/s" in out


@pytest.mark.slow
def test_json(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", str(recipe), "--device", "cpu", "--seconds", "0.01", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train"]["images_per_second"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seconds", "0"], "--seconds 0: must be above 0"),
        (["--device", "abacus"], "abacus"),
        (["--data.batch_size", "0"], "data.batch_size"),
    ],
)
def test_mistakes(recipe: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", str(recipe), *options]) == 2
    assert message in capsys.readouterr().err


def test_flops_of_a_convolution_by_hand() -> None:
    """One more class adds one output at each location to the last convolution."""
    config = Config(model=synthetic.tiny_model())
    locations = sum(math.ceil(64 / s) * math.ceil(96 / s) for s in (8, 16, 32, 64, 128))
    (one, one_step), (two, two_step) = (step_flops(config, classes, 2, (64, 96)) for classes in (3, 4))
    forward = 2 * 2 * locations * 64 * 9
    assert two - one == forward
    assert two_step - one_step == 3 * forward  # forward, and both gradients


@pytest.mark.parametrize("branches", [["anchor_free"], ["anchor_based"], ["anchor_free", "anchor_based"]])
def test_flops_against_a_sum_over_convolutions(branches: list[Any]) -> None:
    """Grouped convolutions count too: forward, and twice that in the backward pass."""
    config = ModelConfig(
        backbone="test_efficientnet", channels=8, convs=1, frozen_stages=-1, branches=branches
    )
    model, counts = FSAF(config, 3).train(), []

    def count(module: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        counts.append(2 * output.numel() * module.weight[0].numel())

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    model(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
    found = step_flops(Config(model=config), 3, 2, (64, 96))
    assert found == (sum(counts), 3 * sum(counts) - counts[0])  # the images need no gradient


def test_random_boxes_lie_inside() -> None:
    images, boxes = random_batch(3, 64, 96, 50, 7)
    assert images.shape == (3, 3, 64, 96) and images.dtype is torch.uint8
    x1, y1, x2, y2 = boxes.xyxy.unbind(2)
    assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 <= 96.01).all() and (y2 <= 64.01).all()
    assert (x2 - x1 >= 7.9).all() and (y2 - y1 >= 7.9).all()
    assert boxes.labels.min() >= 0 and boxes.labels.max() < 7 and boxes.valid.all()


def test_padding_waste_by_hand(tmp_path: Path) -> None:
    pictures = [synthetic.Picture(height=64, width=96), synthetic.Picture(height=64, width=64)]
    records = read_coco(synthetic.write_coco(tmp_path, pictures), tmp_path / "images" / "train")
    data = DataConfig(short_side=64, long_side=96, shapes=[(64, 96)])
    assert benchmark.padding_waste(records, data) == pytest.approx(2 * 96 / (96 + 64) - 1)
    assert benchmark.padding_waste(records, DataConfig(short_side=64, long_side=96, pad=32)) is None


def test_largest_shape() -> None:
    assert largest_shape(DataConfig(shapes=[(64, 96), (128, 96)])) == (128, 96)
    assert largest_shape(DataConfig(short_side=100, long_side=150, pad=32)) == (128, 160)


def test_summary_of_known_times() -> None:
    row = summary([0.3, 0.1, 0.2, 0.4, 0.5])
    assert row["median"] == pytest.approx(0.3) and row["least"] == pytest.approx(0.1) and row["count"] == 5
    assert row["p25"] == pytest.approx(0.2) and row["p99"] == pytest.approx(0.496)
