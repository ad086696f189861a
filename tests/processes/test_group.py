"""Training and evaluation by 2 and 4 processes (gloo, CPU), against one process doing all of it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import many_processes
from fsaf import cli
from fsaf.checkpoints.format import load_checkpoint
from fsaf.config import OptimConfig
from fsaf.errors import DataError
from fsaf.processes import launch
from fsaf.training.schedule import peak_rate
from synthetic import Picture, eight_pictures, recipe, write_coco

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

if many_processes.FORK is None:
    pytest.skip("FSAF_PROCESSES: no fork server on this system", allow_module_level=True)

TINY: dict[str, Any] = {
    "model__backbone": "test_efficientnet",
    "model__frozen_norm": True,  # statistics of a batch would differ between 1 x 8 and 4 x 2 images
    "train__evaluate_every": 0,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eight")
    write_coco(folder, eight_pictures())
    write_coco(folder, [Picture(height=64, width=96), *eight_pictures(1)[:6]], "val", first_id=501)
    return folder


def start(function: Callable[..., None], arguments: list[Any], count: int, max_restarts: int = 0) -> None:
    launch.launch(function, arguments, count, max_restarts, start_method="forkserver")


def spread(gradients: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of a gradient, relative to its norm."""
    assert gradients.keys() == expected.keys() and len(gradients) > 20
    return max(
        float((gradients[name] - expected[name]).norm() / (expected[name].norm() + 1e-6)) for name in expected
    )


@pytest.mark.parametrize("count", [2, 4])
def test_the_same_total_batch_gives_the_same_gradients(root: Path, tmp_path: Path, count: int) -> None:
    values = recipe(root, tmp_path, **TINY, data__batch_size=8 // count, data__flip=0.0)
    for normalise in ("mean", "process"):
        start(many_processes.write_gradients, [tmp_path, values, normalise], count)
    alone = recipe(root, tmp_path, **TINY, data__batch_size=8, data__flip=0.0)
    whole = many_processes.gradients(alone, "process")
    mean = [torch.load(tmp_path / f"mean-{rank}.pt") for rank in range(count)]
    assert spread(mean[0], whole) < 1e-4
    assert all(spread(other, mean[0]) == 0 for other in mean)

    # `process`: each divides by its own positives, and the gradients of these losses are averaged.
    parts = [many_processes.share_of_gradients(alone, part, count) for part in range(count)]
    expected = {name: torch.stack([part[name] for part in parts]).mean(0) for name in whole}
    own = torch.load(tmp_path / "process-0.pt")
    assert spread(own, expected) < 1e-4
    assert spread(own, whole) > 1e-2  # the two rules do differ here


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Train with 1, 2 and 4 processes, 8 images a step in all, each process in its own folder."""
    folders = {}
    for count in (1, 2, 4):
        out = folders[count] = tmp_path_factory.mktemp(f"by{count}")
        settings = {**TINY, "objective__normalise": "mean", "data__batch_size": 8 // count}
        settings |= {"optim__scale_lr": True, "optim__base_batch": 4, "optim__name": "sgd"}
        start(many_processes.train_here, [out, recipe(root, Path("run"), **settings)], count)
    return folders


@pytest.mark.parametrize("count", [2, 4])
def test_training_ends_at_the_weights_of_one_process(trained: dict[int, Path], count: int) -> None:
    one, many = (load_checkpoint(trained[n] / "0/run/checkpoints/last.pt").weights for n in (1, count))
    for name, value in one.items():
        torch.testing.assert_close(many[name], value, rtol=1e-4, atol=1e-6)
    rows = [
        [json.loads(line) for line in (trained[n] / "0/run/metrics.jsonl").read_text().splitlines()]
        for n in (1, count)
    ]
    for mine, theirs in zip(*rows, strict=True):
        for key in ("loss", "loss_cls", "loss_box", "grad_norm"):
            assert theirs[key] == pytest.approx(mine[key], rel=1e-4)
        assert theirs["lr"] == mine["lr"]


@pytest.mark.parametrize("normalise", ["mean", "process"])
def test_accumulating_in_two_processes_ends_at_the_weights_of_larger_batches(
    root: Path, tmp_path: Path, normalise: str, trained: dict[int, Path]
) -> None:
    """2 processes accumulate 2 x 2 images. Equal to one process with 8 (``mean``) or two with 4 each."""
    settings = {**TINY, "objective__normalise": normalise, "optim__name": "sgd"}
    settings |= {"optim__scale_lr": True, "optim__base_batch": 4}
    ends, folders = [], {"larger": trained[1]} if normalise == "mean" else {}
    for name, batch, accumulate in (("larger", 4, 1), ("accumulated", 2, 2)):
        if name not in folders:
            out = folders[name] = tmp_path / name
            out.mkdir()
            parts = {"data__batch_size": batch, "train__accumulate": accumulate}
            start(many_processes.train_here, [out, recipe(root, Path("run"), **settings, **parts)], 2)
        rows = [json.loads(x) for x in (folders[name] / "0/run/metrics.jsonl").read_text().splitlines()]
        ends.append((load_checkpoint(folders[name] / "0/run/checkpoints/last.pt").weights, rows))
    (larger, expected), (weights, found) = ends
    for name, value in larger.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-6)
    assert len(found) == 2
    for mine, theirs in zip(found, expected, strict=True):
        for key in ("loss", "loss_cls", "loss_box", "grad_norm", "num_pos", "lr"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4), key
    said = (folders["accumulated"] / "said-0-0.txt").read_text()
    assert "1 step an epoch of 8 images (2 x 2 on each of 2)" in said
    assert "peak learning rate 0.002 = 0.001 x 8 / 4" in said
    seen = [json.loads((folders["accumulated"] / f"seen-{rank}-0.json").read_text()) for rank in range(2)]
    for epoch in range(2):
        assert sorted(id_ for steps in seen for id_ in steps[epoch]) == list(range(11, 19))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_image_is_seen_once_an_epoch(trained: dict[int, Path], count: int) -> None:
    seen = [json.loads((trained[count] / f"seen-{rank}-0.json").read_text()) for rank in range(count)]
    assert [len(steps) for steps in seen] == [2] * count  # an epoch is one step of 8 images
    for epoch in range(2):
        ids = [id_ for steps in seen for id_ in steps[epoch]]
        assert sorted(ids) == list(range(11, 19))


@pytest.mark.parametrize("count", [2, 4])
def test_only_the_main_process_writes_and_speaks(trained: dict[int, Path], count: int) -> None:
    out = trained[count]
    assert {path.name for path in (out / "0" / "run").iterdir()} == {
        "checkpoints", "commands.jsonl", "config.yaml", "metrics.jsonl", "preview.jpg", "tensorboard",
    }  # fmt: skip
    for rank in range(1, count):
        assert list((out / str(rank)).iterdir()) == []
        assert (out / f"said-{rank}-0.txt").read_text() == ""


@pytest.mark.parametrize("count", [2, 4])
def test_the_log_says_what_all_do_and_what_each_does(trained: dict[int, Path], count: int) -> None:
    said = (trained[count] / "said-0-0.txt").read_text()
    assert f"1 step an epoch of 8 images ({8 // count} on each of {count})" in said
    rate = peak_rate(OptimConfig(lr=0.001, scale_lr=True, base_batch=4), 8)
    assert f"peak learning rate {rate:g} = 0.001 x 8 / 4" in said
    total, each, number = re.findall(r"([\d.]+) img/s \(([\d.]+) on each of (\d)\)", said)[0]
    assert int(number) == count and float(total) == pytest.approx(count * float(each), abs=0.05 * count + 0.1)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("shapes", [[[64, 96]], None])
def test_evaluation_gives_what_one_process_gives(root: Path, tmp_path: Path, count: int, shapes: Any) -> None:
    """Seven images in batches of two. The last process gets a short batch, or one batch less."""
    data = {"batch_size": 2, "workers": 0, "short_side": 64, "long_side": 96, "shapes": shapes}
    arguments = [tmp_path, root / "annotations/val.json", root / "images/val", data]
    many_processes.write_evaluation(*arguments)
    start(many_processes.write_evaluation, arguments, count)
    alone, found = json.loads((tmp_path / "alone.json").read_text())
    assert len(found) > 20 and 0 < alone.pop("AP") < 1 and alone.pop("images_per_second") > 0
    for rank in range(count):
        metrics, predictions = json.loads((tmp_path / f"{rank}.json").read_text())
        assert predictions == (found if rank == 0 else [])
        assert {key: value for key, value in metrics.items() if key in alone} == alone


@pytest.mark.parametrize(("rank", "step", "every"), [(1, 4, 2), (0, 5, 2), (1, 1, 2), (1, 4, 1)])
def test_a_killed_process_is_restarted_and_the_run_ends_the_same(
    root: Path, tmp_path: Path, rank: int, step: int, every: int
) -> None:
    """Two steps an epoch. Kill in the second or third epoch, or before the first checkpoint.

    every: steps between checkpoints.
    """
    settings = {**TINY, "data__batch_size": 2, "train__epochs": 3, "train__ema": 0.9}
    settings |= {"train__save_every": every, "log__every": 2, "train__evaluate_every": 1}
    settings |= {"model__frozen_norm": False}
    ends = []
    for name, kill in (("whole", None), ("killed", (rank, step))):
        out = tmp_path / name
        out.mkdir()
        start(
            many_processes.train_here, [out, recipe(root, out / "run", **settings), kill], 2, max_restarts=1
        )
        last = load_checkpoint(out / "run/checkpoints/last.pt")
        rows = [json.loads(line) for line in (out / "run/metrics.jsonl").read_text().splitlines()]
        assert last.training is not None
        figures = [(row["step"], row.get("loss"), row.get("AP")) for row in rows]
        ends.append((last.weights, vars(last.training) | {"step": last.step}, figures))
    assert not (tmp_path / "killed" / f"seen-{rank}-0.json").exists()  # it did die
    again = json.loads((tmp_path / "killed" / f"seen-{rank}-1.json").read_text())
    assert len(again) == 6 - (step - 1) // every * every  # it resumed from the last checkpoint
    assert ends[0][1]["step"] == 6 and [row[0] for row in ends[0][2]] == [2, 2, 4, 4, 6, 6]
    assert many_processes.equal(ends[0], ends[1])


def test_one_that_keeps_dying_ends_the_run(root: Path, tmp_path: Path) -> None:
    values = recipe(root, tmp_path / "run", **TINY, data__batch_size=2)
    # Whichever the launcher sees first: the one that dies, or the one that it leaves alone.
    with pytest.raises(RuntimeError, match=r"process 1 of 2 ended with .*SIGKILL|process 0 of 2 failed"):
        start(many_processes.train_here, [tmp_path, values, (1, 2)], 2)


LAUNCH = launch.launch


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Return a function that reads what processes started by the CLI have printed since the last call.

    They are forked, which is faster than to start them.
    """

    def faster(function: Any, arguments: Any, *rest: int) -> None:
        folder = tmp_path / "said"
        folder.mkdir(exist_ok=True)
        LAUNCH(many_processes.captured, [folder, function, *arguments], *rest, start_method="forkserver")

    def read() -> str:
        files = sorted((tmp_path / "said").iterdir())
        text = "".join(file.read_text() for file in files)
        for file in files:
            file.unlink()
        return text

    monkeypatch.setattr(launch, "launch", faster)
    return read


def test_train_and_evaluate_on_two_devices(
    root: Path, tmp_path: Path, said: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "run", tmp_path / "recipe.yaml"
    file.write_text(json.dumps(recipe(root, out, **{**TINY, "train__evaluate_every": 1}, train__epochs=1)))
    assert cli.main(["train", str(file), "--devices", "2"]) == 0
    shown = said()
    assert shown.count("trained; everything is in") == shown.count("step 1/1") == 1
    assert "warning" not in shown.lower()
    last = str(out / "checkpoints" / "last.pt")
    written = []
    for devices in ("2", "1"):
        arguments = ["--predict.score_threshold", "0.001", "--device", "cpu", "--devices", devices]
        assert cli.main(["evaluate", last, *arguments]) == 0
        table = (said() if devices == "2" else capsys.readouterr().out).split("\n7 images at")[0]
        written.append((table, (out / "predictions.json").read_text()))
    assert written[0] == written[1]
    assert written[0][0].count("IoU 0.50 to 0.95") == 1 and len(json.loads(written[0][1])) > 20


def test_a_mistake_is_said_once(
    tmp_path: Path, said: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(recipe(tmp_path / "none", tmp_path / "run", **TINY)))
    assert cli.main(["train", str(file), "--devices", "2"]) == 2
    # On a busy machine the launcher may have had to stop a process that was slow to start, and says so too.
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fsaf train: ")]
    assert len(lines) == 1 and lines[0].count("train.json") == 1
    assert said() == ""
    assert not (tmp_path / "run").exists()


def test_processes_of_torchrun_say_a_mistake_once(root: Path, tmp_path: Path) -> None:
    """torchrun starts one command line per process."""
    file = tmp_path / "recipe.yaml"
    for first in (tmp_path / "none", root):  # the second is found after the processes have met
        file.write_text(json.dumps(recipe(first, tmp_path / "run", **TINY)))
        if first == root:
            (tmp_path / "run" / "checkpoints").mkdir(parents=True)
            (tmp_path / "run" / "checkpoints" / "last.pt").touch()
        (tmp_path / "said").mkdir(exist_ok=True)
        start(many_processes.captured, [tmp_path / "said", many_processes.command, "train", str(file)], 2)
        texts = [(tmp_path / "said" / f"{rank}-0.txt").read_text() for rank in range(2)]
        assert sorted(text.count("fsaf train: ") for text in texts) == [0, 1]
        assert sorted(text.count("status 2") for text in texts) == [1, 1]


def test_a_mistake_that_one_process_finds_stops_all(root: Path, tmp_path: Path) -> None:
    """One process reads an unreadable image; the others wait for its gradients."""
    write_coco(tmp_path, eight_pictures())
    (tmp_path / "images/train/0013.png").write_bytes(b"not a picture")
    values = recipe(tmp_path, tmp_path / "run", **TINY, data__batch_size=2)
    with pytest.raises(DataError, match=r"0013\.png"):
        start(many_processes.train_here, [tmp_path, values], 2, max_restarts=2)
    assert not list(tmp_path.glob("said-*-1.txt"))  # nothing is started again for it


@pytest.mark.parametrize("option", [["--devices", "0"], ["--devices", "2", "--max-restarts", "-1"]])
def test_numbers_that_cannot_be(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "digits_lite0", *option]) == 2
    assert option[-2] in capsys.readouterr().err


def test_torchrun(root: Path, tmp_path: Path) -> None:
    """As on many machines: processes find each other by the environment that torchrun sets."""
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(recipe(root, tmp_path / "run", **TINY, train__max_steps=1)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "fsaf", "train", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained; everything is in") == 1
    assert load_checkpoint(tmp_path / "run/checkpoints/last.pt").step == 1
