"""The images that fit into an accelerator's memory, with a CPU that counts bytes as an accelerator would."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from fsaf.data.readers.splits import open_split
from fsaf.recipe import build_config
from fsaf.training import memory
from synthetic import recipe

CPU = torch.device("cpu")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Let a step take 100 bytes and 10 for each image, of 200 that are free; note its shapes."""
    shapes: list[tuple[int, ...]] = []
    real = memory.update

    def noted(run: Any, forward_loss: Any, images: torch.Tensor, boxes: Any) -> None:
        shapes.append((*images.shape, boxes.xyxy.shape[1]))
        real(run, forward_loss, images, boxes)

    monkeypatch.setattr(memory, "update", noted)
    monkeypatch.setattr(memory, "is_accelerator", lambda device: True)
    monkeypatch.setattr(memory, "free_memory", lambda device: 200)
    monkeypatch.setattr(memory, "peak_memory", lambda device: 100 + 10 * shapes[-1][0])
    monkeypatch.setattr(memory, "reset_peak_memory", lambda device: None)
    monkeypatch.setattr(memory, "free_cache", lambda device: None)
    return shapes


def images(root: Path, **overrides: Any) -> int | None:
    values = recipe(root, root / "out", model__backbone="test_efficientnet", **overrides)
    config = build_config(values, where="here")
    return memory.images_in_memory(config, open_split(config.data, "train"), CPU)


def test_images_beyond_the_second_take_as_much_as_the_second(
    root: Path, steps: list[tuple[int, ...]]
) -> None:
    assert images(root) == 6  # 0.8 x 200 bytes, less 100, by 10
    assert steps == [(1, 3, 64, 96, 8), (1, 3, 64, 96, 8), (2, 3, 64, 96, 8)]


def test_without_fixed_shapes_the_largest_sides_count(root: Path, steps: list[tuple[int, ...]]) -> None:
    assert images(root, data__shapes=None, data__short_side=100, data__long_side=150) == 6
    assert steps[0] == (1, 3, 128, 160, 8)


@pytest.mark.parametrize(("failing", "expected"), [(0, 1), (1, 1), (2, 1)])
def test_memory_that_is_used_up_leaves_one_image(
    root: Path, steps: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch, failing: int, expected: int
) -> None:
    count = itertools.count()

    def update(*_: Any) -> None:
        steps.append((1,))
        if next(count) == failing:
            raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(memory, "update", update)
    assert images(root) == expected


def test_a_device_that_reports_nothing_sets_no_limit(
    root: Path, steps: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "peak_memory", lambda device: 0)
    assert images(root) is None
    monkeypatch.setattr(memory, "free_memory", lambda device: None)
    assert images(root) is None


def test_a_cpu_is_not_asked(root: Path) -> None:
    assert images(root) is None


def test_random_numbers_of_the_training_are_the_same_with_and_without_it(
    root: Path, steps: list[tuple[int, ...]]
) -> None:
    from fsaf.training.start import start_run

    config = build_config(recipe(root, root / "out", model__backbone="test_efficientnet"), where="here")
    records = open_split(config.data, "train")
    plain = start_run(config, records.classes, CPU)
    after = torch.rand(3)
    memory.images_in_memory(config, records, CPU)
    tried = start_run(config, records.classes, CPU)
    assert torch.equal(torch.rand(3), after)
    weights = plain.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in tried.model.state_dict().items())


@pytest.mark.gpu
def test_the_batch_that_fits_does_fit(root: Path) -> None:
    """On a real device, of which another tensor takes all but 3 GB."""
    values = recipe(root, root / "out", device="cuda", data__short_side=512, data__long_side=512)
    config = build_config(values | {"data": values["data"] | {"shapes": [[512, 512]]}}, where="here")
    records = open_split(config.data, "train")
    device = torch.device("cuda")
    torch.cuda.empty_cache()
    filler = torch.empty(torch.cuda.mem_get_info()[0] - 3 * 10**9, dtype=torch.uint8, device=device)
    count = memory.images_in_memory(config, records, device)
    assert count is not None and 1 < count < 10_000
    run = memory.start_run(config, records.classes, device)
    forward_loss = memory.ForwardLoss(run.model.train(), config.objective, run.precision)
    pictures = torch.zeros(count, 3, 512, 512, dtype=torch.uint8, device=device)
    memory.update(run, forward_loss, pictures, memory._boxes(count, 8, (512, 512)).to(device))
    assert torch.cuda.max_memory_allocated() - len(filler) > 0.5 * 3e9
