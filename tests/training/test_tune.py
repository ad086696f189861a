"""The search of settings: with a stand-in for training, and once as a command."""

import io
import json
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from fsaf.cli import main
from fsaf.cli.main import make_parser
from fsaf.config import Config
from fsaf.errors import DataError, Stopped, UserError
from fsaf.recipe import build_config, load_recipe
from fsaf.training import tune
from fsaf.training.space import SPACE, own_value
from synthetic import Picture, recipe, write_coco, write_eight
from training.test_best import score

pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'fsaf[tune]'")

pytestmark = pytest.mark.slow  # Optuna writes its journal synchronously

Training = Callable[[Config, int], list[float]]
"""A training: returns AP at a half and at the end. Takes settings and the number of trainings before."""


@pytest.fixture
def search(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that searches with a stand-in for training, and returns what it prints."""
    trained: list[Config] = []

    def run(training: Training, trials: int, fixed: tuple[str, ...] = (), **overrides: Any) -> str:
        def train(config: Config, console: Console, callbacks: Any, command: str) -> None:
            trained.append(config)
            state = SimpleNamespace(config=config, steps_per_epoch=4, position=0)
            (watch,) = callbacks
            watch.on_start(state)
            best = Path(str(config.out)) / "checkpoints" / "best.pt"
            best.parent.mkdir(parents=True)
            for name in ("best.pt", "last.pt"):
                best.with_name(name).touch()
            for i, found in enumerate(training(config, len(trained) - 1), start=1):
                state.position = 4 * config.train.epochs * i // 2
                watch.on_evaluation({"AP": found})

        monkeypatch.setattr(tune, "train", train)
        text = io.StringIO()
        config = build_config(recipe(root, tmp_path / "x", **overrides), where="here")
        line = tune.tune(
            config,
            tmp_path / "study",
            trials=trials,
            fixed=fixed,
            words=["mine.yaml"],
            console=Console(file=text, width=300),
        )
        return text.getvalue() + line

    run.trained = trained  # type: ignore[attr-defined]
    return run


def values(config: Config) -> dict[str, Any]:
    return {key: own_value(config, key) for key in SPACE}


def by_rate(config: Config, number: int) -> list[float]:
    """Score a training by how close its learning rate is to 0.004."""
    score = 0.5 - abs(0.004 - config.optim.lr)
    return [score / 2, score]


def test_the_recipe_comes_first_and_the_best_trial_is_the_result(
    search: Any, root: Path, tmp_path: Path
) -> None:
    said = search(by_rate, 5)
    assert values(search.trained[0]) == values(build_config(recipe(root, tmp_path), where="here"))
    best = min(range(5), key=lambda i: abs(0.004 - search.trained[i].optim.lr))
    *_, line = said.splitlines()
    words = shlex.split(line)
    assert words[:3] == ["fsaf", "train", "mine.yaml"] and words[-2:] == [
        "--out",
        str(tmp_path / "study" / "best"),
    ]
    given = dict(zip(words[3:-2:2], words[4:-2:2], strict=True))
    for key, value in values(search.trained[best]).items():
        expected = pytest.approx(value, rel=0.01) if isinstance(value, float) else value
        assert type(value)(given[f"--{key}"]) == expected
    score = 0.5 - abs(0.004 - search.trained[best].optim.lr)
    assert f"best of 5 trials: {best}, AP {score:.3f}" in said and "trial 4 (5 of 5, ETA" in said
    kept = [path.relative_to(tmp_path / "study") for path in (tmp_path / "study").rglob("*.pt")]
    assert kept == [Path(f"trial-{best:03}") / "checkpoints" / "best.pt"]


def test_a_setting_that_is_given_is_not_searched(search: Any) -> None:
    said = search(by_rate, 4, fixed=tuple(key for key in SPACE if key != "optim.lr"))
    assert len({config.optim.lr for config in search.trained}) == 4
    assert {config.optim.weight_decay for config in search.trained} == {1e-4}
    assert "--optim.lr" in said and "--optim.weight_decay" not in said
    with pytest.raises(UserError, match="nothing is left to search"):
        search(by_rate, 4, fixed=tuple(SPACE))


def test_a_study_continues(search: Any, tmp_path: Path) -> None:
    search(by_rate, 3)
    said = search(by_rate, 5)
    assert len(search.trained) == 5 and "best of 5 trials" in said
    assert len({config.optim.lr for config in search.trained}) == 5
    assert [config.out for config in search.trained] == [
        str(tmp_path / "study" / f"trial-{i:03}") for i in range(5)
    ]
    search(by_rate, 5)
    assert len(search.trained) == 5
    with pytest.raises(UserError, match=r"another value of train\.epochs, which cannot be compared"):
        search(by_rate, 6, train__epochs=7)


def test_a_trial_that_was_stopped_is_tried_again(search: Any) -> None:
    def stopped(config: Config, number: int) -> list[float]:
        if number == 1:
            raise Stopped("resume with: fsaf train --resume trial-001", signal.SIGTERM)
        return by_rate(config, number)

    with pytest.raises(Stopped, match="the same command continues the study") as error:
        search(stopped, 3)
    assert error.value.signal == signal.SIGTERM
    said = search(by_rate, 3)
    assert values(search.trained[1]) == values(search.trained[2]) != values(search.trained[3])
    assert len(search.trained) == 4 and "best of 3 trials" in said
    search(by_rate, 4)
    assert values(search.trained[4]) != values(search.trained[1])


def test_a_trial_that_is_behind_is_pruned(search: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "FREE_TRIALS", 2)
    said = search(lambda config, number: [0.1, 0.9] if number == 2 else [0.4, 0.5], 4)
    assert "trial 2: 50%  AP 0.100" in said and "trial 2: pruned" in said and "AP 0.900" not in said
    assert "best of 4 trials: 0, AP 0.500" in said
    (row,) = [line.split() for line in said.splitlines() if line.split()[:1] == ["2"]]
    assert row[1] == "pruned"


def test_a_training_that_fails_counts_as_no_ap(search: Any) -> None:
    def failing(config: Config, number: int) -> list[float]:
        if number == 1:
            raise UserError("the loss is not finite in step 3")
        return by_rate(config, number)

    said = search(failing, 3)
    assert "trial 1: counts as AP 0: the loss is not finite in step 3" in said
    assert len(search.trained) == 3 and "best of 3 trials" in said


def test_mistakes_are_one_message_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_eight(data)
    write_coco(data, [Picture(height=64, width=96)] * 2, "val", first_id=501)
    with pytest.raises(DataError, match="nothing to evaluate on"):
        tune.tune(build_config(recipe(data, out), where="here"), out)
    with pytest.raises(DataError):
        tune.tune(build_config(recipe(tmp_path / "none", out), where="here"), out)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError) as error:
        tune.tune(build_config(recipe(data, out), where="here"), out)
    assert str(error.value) == "fsaf tune needs the package optuna: pip install 'fsaf[tune]'"
    assert not out.exists()


@pytest.mark.parametrize("option", ["--trials=0", "--hours=0"])
def test_no_trials_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "lite0", "--data.root", "x", "--out", "x", option]) == 2
    assert "must be" in capsys.readouterr().err


def test_the_command(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two real trainings, the second pruned; the last line is a command that this program takes."""
    score(monkeypatch, 0.5, 0.6, 0.1)
    monkeypatch.setattr(tune, "FREE_TRIALS", 1)
    file = tmp_path / "mine.json"
    small = {"model__backbone": "test_efficientnet", "model__convs": 0, "train__epochs": 2}
    file.write_text(json.dumps(recipe(root, tmp_path / "x", **small)))
    out = tmp_path / "study"
    assert main(["tune", str(file), "--trials", "2", "--out", str(out), "--data.workers", "0"]) == 0
    said = capsys.readouterr().out
    args, unknown = make_parser().parse_known_args(shlex.split(said.splitlines()[-1])[1:])
    assert unknown == []
    assert load_recipe(args.config, args.overrides).out == str(out / "best")
    assert "best of 2 trials: 0, AP 0.600" in said and "trial 1: pruned" in said
    assert "trained; everything is in" in (out / "trial-000" / "log.txt").read_text()
    assert [path.parent.parent.name for path in out.rglob("*.pt")] == ["trial-000"]
