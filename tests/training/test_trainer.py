"""Whole runs on eight small pictures: the run folder, exact resumption, and failures."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from fsaf.checkpoints.format import load_checkpoint, save_checkpoint
from fsaf.config import to_dict
from fsaf.errors import UserError
from fsaf.model.detector import FSAF
from fsaf.recipe import build_config
from fsaf.training import step, trainer
from many_processes import equal
from synthetic import CLASSES, eight_pictures, recipe, write_coco

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {"model__backbone": "test_efficientnet"}
QUIET: dict[str, Any] = {**TINY, "train__evaluate_every": 0}
"""Settings without evaluation, for tests of training alone."""
STEP_KEYS = {
    "step", "epoch", "lr", "loss", "loss_cls", "loss_box", "num_pos", "pos_recall", "grad_norm", "loss_scale",
    "images_per_second", "data_seconds", "step_seconds", "memory_gb", "level_share", "skipped_steps",
}  # fmt: skip


def run(root: Path, out: Path, **overrides: Any) -> str:
    """Train; return the text on the console."""
    text = io.StringIO()
    config = build_config(recipe(root, out, **overrides), where="the test's recipe")
    assert trainer.train(config, Console(file=text, width=400)) == out
    return text.getvalue()


def strict(text: str) -> Any:
    """Parse standard JSON, which has no NaN and Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def records(out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the steps and evaluations in metrics.jsonl."""
    lines = [strict(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [r for r in lines if "loss" in r], [r for r in lines if "loss" not in r]


def test_the_run_folder(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "a"
    said = run(root, out, train__ema=0.9)  # lite0, as in the small recipes
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("tensorboard/")}
    assert len(events) == 1
    assert names - events == {
        "commands.jsonl",
        "config.yaml",
        "metrics.jsonl",
        "preview.jpg",
        "evaluation.json",
        "predictions.json",
        "checkpoints/last.pt",
        "checkpoints/best.pt",
    }
    config = build_config(recipe(root, out, train__ema=0.9), where="")
    config.model = FSAF(config.model, 3).settings  # with the backbone's mean and deviation
    assert yaml.safe_load((out / "config.yaml").read_text()) == to_dict(config)

    steps, evaluations = records(out)
    assert [record["step"] for record in steps] == [1, 2, 3, 4]
    assert [record["epoch"] for record in steps] == [1, 1, 2, 2]
    assert [(record["step"], record["epoch"]) for record in evaluations] == [(2, 1), (4, 2)]
    for record in steps:
        assert record.keys() == STEP_KEYS
        assert len(record["level_share"]) == 5 and sum(record["level_share"]) == pytest.approx(1)
        assert record["loss"] == pytest.approx(record["loss_cls"] + record["loss_box"], rel=1e-5)
        assert 0 < record["lr"] <= 0.001 and 0 <= record["pos_recall"] <= 100
        assert record["num_pos"] > 0 and record["grad_norm"] > 0 and record["loss_scale"] == 1
        assert record["images_per_second"] > 0 and record["memory_gb"] > 0.05
        assert 0 <= record["data_seconds"] <= record["step_seconds"]

    evaluation = strict((out / "evaluation.json").read_text())
    assert set(evaluation["per_class"]) == {"red", "green", "blue"}
    assert {"AP", "AP50", "AR100", "images_per_second"} <= evaluation.keys()
    assert all(evaluation[key] == evaluations[-1][key] for key in ("AP", "AP50"))
    assert isinstance(strict((out / "predictions.json").read_text()), list)

    last = load_checkpoint(out / "checkpoints" / "last.pt")
    assert last.step == 4
    assert last.classes == CLASSES
    assert last.training and not equal(last.weights, last.training.model)  # the moving average
    best = load_checkpoint(out / "checkpoints" / "best.pt")
    ap = max(record["AP"] for record in evaluations)
    assert last.training.best == ap
    assert best.step in (2, 4) and best.training is None
    assert "8 images, 3 classes" in said and "step 4/4" in said and "ETA" in said and "AP50" in said


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_run_is_the_unbroken_one_bit_by_bit(
    root: Path, tmp_path: Path, ema: float, optimizer: str
) -> None:
    settings = {
        **QUIET,
        "train__ema": ema,
        "optim__name": optimizer,
        "data__batch_size": 3,  # 8 images: the third batch of an epoch has a blank row
        "data__flip_vertical": 0.5,
        "model__frozen_norm": False,
    }
    run(root, tmp_path / "whole", **settings)
    whole = load_checkpoint(tmp_path / "whole" / "checkpoints" / "last.pt")
    assert whole.step == 6
    for stop in (1, 3, 5):  # in an epoch, at its end, in the last
        out = tmp_path / f"stopped{stop}"
        run(root, out, **settings, train__max_steps=stop)
        assert load_checkpoint(out / "checkpoints" / "last.pt").step == stop
        torch.manual_seed(stop)
        run(root, out, **settings, resume=True)
        resumed = load_checkpoint(out / "checkpoints" / "last.pt")
        assert equal(resumed.weights, whole.weights), stop
        assert equal(resumed.training, whole.training), stop
        losses = [[r["loss"] for r in records(tmp_path / name)[0]] for name in ("whole", out.name)]
        assert losses[0] == losses[1]


def test_resuming_a_finished_run_changes_nothing(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path, **QUIET)
    before = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    run(root, tmp_path, **QUIET, resume=True)
    assert equal(load_checkpoint(tmp_path / "checkpoints" / "last.pt"), before)
    assert len(records(tmp_path)[0]) == 4


def test_the_same_seed_gives_the_same_run_and_another_does_not(root: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(root, tmp_path / name, **QUIET, train__max_steps=1, train__seed=seed)
    a, b, c = (load_checkpoint(tmp_path / name / "checkpoints" / "last.pt").weights for name in "abc")
    assert equal(a, b) and not equal(a, c)


def test_training_reduces_the_loss(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path, **QUIET, train__epochs=15, optim__lr=0.005, log__every=2)
    losses = [record["loss"] for record in records(tmp_path)[0]]
    assert len(losses) == 15
    assert losses[-1] < 0.7 * losses[0]


def test_records_are_means_over_the_steps_between_them(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path / "each", **QUIET)
    run(root, tmp_path / "two", **QUIET, log__every=2)
    each, two = records(tmp_path / "each")[0], records(tmp_path / "two")[0]
    assert [record["step"] for record in two] == [2, 4]
    for i, record in enumerate(two):
        for key in ("loss", "loss_cls", "num_pos", "grad_norm"):
            expected = (each[2 * i][key] + each[2 * i + 1][key]) / 2
            assert record[key] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("precision", "scale", "shown"),
    [("bf16", "dynamic", 1.0), ("fp16", 32.0, 32.0), ("fp16", "dynamic", None)],
)
def test_half_precision_trains(
    root: Path, tmp_path: Path, precision: str, scale: float | str, shown: float | None
) -> None:
    settings = {**QUIET, "train__precision": precision, "train__loss_scale": scale, "train__epochs": 1}
    run(root, tmp_path, **settings)
    steps, _ = records(tmp_path)
    assert len(steps) == 2
    for record in steps:
        assert math.isfinite(record["loss"])
        assert record["loss_scale"] == shown or (
            shown is None and record["loss_scale"] in (65536, 32768, 16384)
        )
    weights = load_checkpoint(tmp_path / "checkpoints" / "last.pt").weights
    floats = [value for value in weights.values() if value.is_floating_point()]
    assert all(value.dtype is torch.float32 and value.isfinite().all() for value in floats)


def scaled_loss(factor: float) -> Any:
    """Return the objective with its loss multiplied."""
    original = step.objective

    def scaled(*args: Any) -> Any:
        terms = original(*args)
        return terms._replace(loss=terms.loss * factor)

    return scaled


def test_an_overflow_in_fp16_is_skipped_and_its_record_is_json(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**QUIET, "train__precision": "fp16", "train__max_steps": 1}
    run(root, tmp_path / "a", **settings, optim__lr=1e-30)
    monkeypatch.setattr(step, "objective", scaled_loss(1e35))  # finite, but not if scaled by 65536
    run(root, tmp_path / "b", **settings, optim__lr=1.0)
    (record,), _ = records(tmp_path / "b")
    assert record["loss_scale"] == 32768 and record["grad_norm"] is None and record["skipped_steps"] == 1
    before, after = (load_checkpoint(tmp_path / n / "checkpoints" / "last.pt").weights for n in "ab")
    assert equal(before["head.classes.weight"], after["head.classes.weight"])


def test_a_loss_that_is_not_finite_stops_the_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(root, tmp_path, **QUIET, train__max_steps=2)
    last = tmp_path / "checkpoints" / "last.pt"
    before = last.read_bytes()
    monkeypatch.setattr(step, "objective", scaled_loss(math.nan))
    with pytest.raises(UserError) as error:
        run(root, tmp_path, **QUIET, resume=True)
    message = str(error.value)
    assert message.startswith("the loss is not finite in step 3, at the learning rate 0.0")
    folder = root / "images" / "train"
    files = message[message.index(" on ") + 4 : message.index(";")].split(", ")
    assert len(set(files)) == 4 and set(files) <= {str(path) for path in folder.iterdir()}
    assert f"the last good checkpoint is {last}" in message and "optim.lr" in message
    assert last.read_bytes() == before
    with pytest.raises(UserError, match="no good checkpoint yet"):
        run(root, tmp_path / "new", **QUIET)
    assert not (tmp_path / "new" / "checkpoints").exists()


def test_gradients_that_are_not_finite_never_reach_the_checkpoint(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp32 they destroy the weights one step before the loss shows it."""
    original = step.objective

    def overflowing(outputs: Any, *rest: Any) -> Any:
        terms = original(outputs, *rest)
        zero = outputs.tensors()[0].sum() * 0
        return terms._replace(loss=terms.loss + torch.sqrt(zero))  # the root's slope at zero is infinite

    monkeypatch.setattr(step, "objective", overflowing)
    with pytest.raises(UserError, match=r"gradients are not finite in step 1, .*no good checkpoint yet"):
        run(root, tmp_path, **QUIET, train__max_steps=1)
    assert not (tmp_path / "checkpoints").exists()


def test_a_rate_far_too_high_ends_in_that_message(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finite in step"):
        run(
            root, tmp_path, **QUIET, optim__lr=1e30, optim__warmup_steps=0, optim__name="sgd", train__epochs=5
        )


def test_the_last_good_checkpoint_is_one_with_a_healthy_loss(root: Path, tmp_path: Path) -> None:
    """At this rate the loss grows for some steps, with a checkpoint after each, before it overflows."""
    healthy = {**QUIET, "train__save_every": 1, "optim__name": "sgd", "optim__schedule": "constant"}
    healthy |= {"train__epochs": 50, "optim__warmup_steps": 0}
    run(root, tmp_path, **healthy, optim__lr=1e-3, train__max_steps=4)
    checkpoints = tmp_path / "checkpoints"
    text = io.StringIO()
    diverging = {**healthy, "optim__lr": 1e5, "optim__clip_norm": 0.0, "resume": True}
    with pytest.raises(UserError) as error:
        trainer.train(
            build_config(recipe(root, tmp_path, **diverging), where="here"), Console(file=text, width=400)
        )
    (warning,) = [line for line in text.getvalue().splitlines() if "training diverges" in line]
    assert (
        warning.startswith("warning: ") and f"the last good checkpoint is {checkpoints / 'last'}" in warning
    )
    assert f"the last good checkpoint is {checkpoints / 'last-1.pt'}" in str(error.value)
    last, good = (load_checkpoint(checkpoints / name) for name in ("last.pt", "last-1.pt"))
    assert last.training is not None and good.training is not None
    assert last.training.losses["last"] > 10 * good.training.losses["last"]
    assert good.step is not None and last.step is not None and last.step > good.step >= 4
    said = run(root, tmp_path, **healthy, optim__lr=1e-3, train__max_steps=last.step, resume=True)
    assert "training diverges: the loss is" in said and "at this checkpoint" in said
    assert f"move {checkpoints / 'last.pt'} away" in said


def test_an_existing_run_is_not_touched_without_resume(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path, **QUIET, train__max_steps=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        UserError, match=r"holds a run already; resume it with fsaf train --resume .*, or give another"
    ):
        run(root, tmp_path, **QUIET)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_resumed_run_uses_the_settings_it_is_given(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path, **QUIET, train__max_steps=1)
    run(root, tmp_path, **QUIET, train__max_steps=2, optim__weight_decay=0.25, resume=True)
    training = load_checkpoint(tmp_path / "checkpoints" / "last.pt").training
    assert [group["weight_decay"] for group in training.optimizer["param_groups"]] == [0.25]


def test_resuming_on_other_classes_is_refused(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path, **QUIET, train__max_steps=1)
    last = tmp_path / "checkpoints" / "last.pt"
    checkpoint = load_checkpoint(last)
    checkpoint.classes = replace(checkpoint.classes, names=("another", *checkpoint.classes.names[1:]))
    save_checkpoint(last, checkpoint)
    with pytest.raises(UserError, match="another"):
        run(root, tmp_path, **QUIET, resume=True)


def test_resume_without_a_checkpoint(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"last\.pt: no such checkpoint"):
        run(root, tmp_path / "out", **QUIET, resume=True)
    assert not (tmp_path / "out").exists()


def test_resume_auto_starts_and_goes_on_with_one_command(root: Path, tmp_path: Path) -> None:
    """Schedulers restart a stopped job with the command that started it."""
    auto, whole = tmp_path / "auto", tmp_path / "whole"
    run(root, whole, **QUIET, train__max_steps=3)
    run(root, auto, **QUIET, train__max_steps=1, resume="auto")
    assert load_checkpoint(auto / "checkpoints" / "last.pt").config.resume is False
    run(root, auto, **QUIET, train__max_steps=2, resume="auto")
    (auto / "checkpoints" / "last.pt").unlink()  # last-1.pt, after the first step, stays
    said = run(root, auto, **QUIET, train__max_steps=3, resume="auto")
    assert "resuming from the checkpoint before it" in said
    ours, expected = (load_checkpoint(out / "checkpoints" / "last.pt") for out in (auto, whole))
    assert ours.config.resume is True and ours.step == 3
    assert all(torch.equal(ours.weights[name], value) for name, value in expected.weights.items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train__ema": 0.9}, r"train\.ema"),
        ({"optim__name": "sgd"}, r"optim\.name"),
        ({"model__channels": 96}, "does not fit the model"),
        ({"model__frozen_stages": 1}, r"model\.frozen_stages"),
        ({"optim__backbone_rate": 0.1}, r"optim\.backbone_rate"),
    ],
)
def test_resuming_with_settings_that_do_not_fit_is_refused(
    root: Path, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    run(root, tmp_path, **QUIET, train__max_steps=1)
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(UserError, match=rf"last\.pt: .*{told}"):
        run(root, tmp_path, **{**QUIET, **change}, resume=True)
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_a_run_may_go_on_in_fp16(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path, **QUIET, train__max_steps=1)
    run(root, tmp_path, **QUIET, train__max_steps=2, train__precision="fp16", resume=True)
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pt").step == 2


def test_cut_boxes_are_warned_about(root: Path, tmp_path: Path) -> None:
    boxes = [len(picture.objects) for picture in eight_pictures()]
    said = run(root, tmp_path / "cut", **QUIET, data__max_boxes=1, train__epochs=1, log__every=50)
    assert f"warning: {sum(boxes) - 8} boxes cut" in said and "data.max_boxes" in said
    assert "boxes cut" not in run(root, tmp_path / "all", **QUIET, train__max_steps=1)


def test_what_training_left_out_is_said(tmp_path: Path) -> None:
    pictures = eight_pictures()
    pictures[0].objects.clear()
    write_coco(tmp_path, pictures)
    said = run(tmp_path, tmp_path / "out", **QUIET, train__max_steps=1)
    assert (
        "note: images without boxes: 1 of 8 left out; --data.keep_empty true" in said
        and "7 images, 3 classes" in said
    )


def test_init_starts_from_the_weights_of_a_checkpoint(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path / "a", **QUIET, train__max_steps=1)
    init = tmp_path / "a" / "checkpoints" / "last.pt"
    run(root, tmp_path / "b", **QUIET, train__max_steps=1, init=str(init), optim__lr=1e-30, train__seed=5)
    a, b = (load_checkpoint(tmp_path / name / "checkpoints" / "last.pt").weights for name in "ab")
    weights = [name for name in a if name.endswith("weight")]
    assert len(weights) > 20
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in weights)


def test_nothing_is_written_for_mistakes_in_the_data(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for overrides in (
        {"data__root": str(tmp_path)},
        {"data__val": {"annotations": "annotations/none.json", "images": "images/val"}},
        {"model__backbone": "no_such_model"},
        {"model__weights": str(tmp_path / "none.pth")},
        {"init": str(tmp_path / "none.pt")},
        {"device": "abacus"},
    ):
        with pytest.raises(UserError):
            run(root, out, **{**TINY, **overrides})
        assert not out.exists()
