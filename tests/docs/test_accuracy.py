"""benchmarks/accuracy.py runs protocols, and the pages show what its JSON files say."""

import json
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from documents import ROOT
from fsaf.config import Config
from fsaf.data.records import Records
from fsaf.errors import UserError
from fsaf.training.prepare import open_for_training
from scripts import load_script

BENCHMARKS = ROOT / "benchmarks"
PROTOCOLS = sorted((BENCHMARKS / "protocols").glob("*.yaml"))


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))  # scripts import each other, as when they are run
    yield load_script(BENCHMARKS / "accuracy.py")
    sys.path.remove(str(BENCHMARKS))


class Trainer:
    """Stands in for training: remembers its configs and data, and writes the files of a run."""

    def __init__(self) -> None:
        self.configs: list[Config] = []
        self.data: list[tuple[Records, Records]] = []
        self.fails = False

    def __call__(self, config: Config) -> None:
        self.configs.append(config)
        if self.fails:
            raise KeyboardInterrupt
        records, validation, _ = open_for_training(config)
        assert validation is not None
        self.data.append((records, validation))
        out = Path(str(config.out))
        out.mkdir(parents=True)
        ap = 0.5 + config.train.seed / 10
        scores = {
            "AP": ap,
            "AP50": ap + 0.1,
            "images": 3,
            "per_class": {"red": {"AP": ap}, "blue": {"AP": None}},
        }
        (out / "evaluation.json").write_text(json.dumps(scores))
        (out / "metrics.jsonl").write_text('{"step": 3, "loss": 1.0}\n{"step": 4, "loss": 0.5}\n')


@pytest.fixture
def trainer(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    trainer = Trainer()
    monkeypatch.setattr(script, "train", trainer)
    monkeypatch.setattr(script, "TRAINERS", dict.fromkeys(script.PEERS, trainer))
    return trainer


SMALL = """
seeds: [0, 1]
data:
  eight:
    recipe: lite0
    train: annotations/train.json
    test: annotations/val.json
    images: images/train
    steps: 9
    options: {data.batch_size: 2, model.weights: none, data.keep_empty: true}
variants:
  plain: {}
  light: {data.augment: light}
peers: [torchvision-fcos]
"""


@pytest.fixture
def protocol(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return file


def run(script: ModuleType, protocol: Path, root: Path, *words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [f"--{name}={protocol.parent / name}" for name in ("out", "results")]
    page = f"--page={protocol.parent / 'page.md'}"
    command = ["accuracy.py", str(protocol), *words, "--root", f"eight={root}", *places, page]
    monkeypatch.setattr(sys, "argv", command)
    script.main()


def results(protocol: Path) -> dict[str, Any]:
    folder = protocol.parent / "results"
    return {
        str(file.relative_to(folder)): json.loads(file.read_text()) for file in sorted(folder.rglob("*.json"))
    }


def test_choosing_trains_every_variant_on_a_part_and_repeats_nothing(
    script: ModuleType, trainer: Trainer, protocol: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_names = {
        image["file_name"] for image in json.loads((root / "annotations/val.json").read_text())["images"]
    }
    run(script, protocol, root, "choose", monkeypatch=monkeypatch)
    assert list(results(protocol)) == [
        f"small/eight/choose/{name}-seed{seed}.json" for name in ("light", "plain") for seed in (0, 1)
    ]
    # Seeds are outermost, so that every variant has a figure early.
    assert [(config.data.augment, config.train.seed) for config in trainer.configs] == [
        ("none", 0), ("light", 0), ("none", 1), ("light", 1),
    ]  # fmt: skip
    parts = {
        tuple(tuple(sorted(image.path.name for image in part.images)) for part in each)
        for each in trainer.data
    }
    ((train, validation),) = parts  # the same for every run
    assert not set(train) & set(validation) and len(validation) == 2 and len(train) + len(validation) == 8
    assert not (set(train) | set(validation)) & test_names
    # 6 pictures in batches of 2: three steps an epoch, and 9 steps were asked for.
    assert {(config.train.epochs, config.train.evaluate_every) for config in trainer.configs} == {(3, 3)}
    one = results(protocol)["small/eight/choose/light-seed1.json"]
    assert (one["AP"], one["AP50"], one["per_class"], one["steps"], one["seed"]) == (
        0.6, 0.7, {"red": 0.6, "blue": None}, 4, 1,
    )  # fmt: skip
    assert str(root) not in json.dumps(one) and one["versions"]["torch"]

    run(script, protocol, root, "choose", monkeypatch=monkeypatch)
    assert len(trainer.configs) == 4

    page = (protocol.parent / "page.md").read_text()
    assert "| `light` | 0.500 (0), 0.600 (1) | 0.550 | 0.100 | 0.650 | 0.550 |  | 4 |" in page
    assert script.fill(page, results(protocol).values()) == page


def test_reporting_tests_one_variant_once(
    script: ModuleType, trainer: Trainer, protocol: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (["report"], ["report", "--runs", "plain", "light"]):
        with pytest.raises(SystemExit, match="report tests one variant"):
            run(script, protocol, root, *words, monkeypatch=monkeypatch)
    run(script, protocol, root, "report", "--runs", "light", "torchvision-fcos", monkeypatch=monkeypatch)
    assert len(results(protocol)) == 4
    for train, test in trainer.data:  # the whole training part, and the test part
        assert (train.source.name, len(train.images), test.source.name) == ("train.json", 8, "val.json")
    with pytest.raises(SystemExit, match=r"not 2 \(light, plain\)"):
        run(script, protocol, root, "report", "--runs", "plain", monkeypatch=monkeypatch)


def test_an_interrupted_run_is_done_again_and_a_run_of_another_process_is_left_alone(
    script: ModuleType, trainer: Trainer, protocol: Path, root: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    trainer.fails = True
    with pytest.raises(KeyboardInterrupt):
        run(script, protocol, root, "choose", monkeypatch=monkeypatch)
    assert not results(protocol)
    trainer.fails = False

    def held(self: Any) -> None:
        if "plain-seed0" in str(self.folder):
            raise script.WriteError(f"{self.folder}: fsaf accuracy writes this folder")
        acquire(self)

    acquire = script.FolderLock.acquire
    monkeypatch.setattr(script.FolderLock, "acquire", held)
    run(script, protocol, root, "choose", monkeypatch=monkeypatch)
    assert len(results(protocol)) == 3 and "other processes have 1 run" in capsys.readouterr().out


def test_results_of_other_settings_are_not_mixed(
    script: ModuleType, trainer: Trainer, protocol: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(script, protocol, root, "choose", monkeypatch=monkeypatch)
    protocol.write_text(SMALL.replace("augment: light", "augment: strong"))
    with pytest.raises(SystemExit, match=r"light-seed0.json: is of other settings"):
        run(script, protocol, root, "choose", monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("seeds: [0, 1]", "seed: [0, 1]", "unknown key seed; did you mean 'seeds'"),
        ("    steps: 9\n", "", "give either steps or minutes"),
        ("    recipe: lite0\n", "", "data.eight.recipe is missing"),
        ("torchvision-fcos", "fcos", "must be of torchvision-fcos"),
        ("    test: annotations/val.json\n", "", "give train and test"),
    ],
)
def test_mistakes_in_a_protocol_are_named(
    script: ModuleType, protocol: Path, before: str, after: str, message: str
) -> None:
    assert before in SMALL
    protocol.write_text(SMALL.replace(before, after))
    with pytest.raises(UserError, match=message):
        script.read_protocol(protocol)


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: path.stem)
def test_protocols_are_of_recipes_and_keys_that_exist(script: ModuleType, path: Path) -> None:
    protocol = script.read_protocol(path)
    for data in protocol.data.values():
        for options in protocol.variants.values():
            script.load_recipe(data.recipe, script.words({**data.options, **options}))


def test_the_page_shows_the_results(script: ModuleType) -> None:
    page = script.PAGE.read_text(encoding="utf-8")
    assert script.fill(page, script.read_results(script.RESULTS)) == page
    stored = {(one["protocol"], one["data"], one["phase"]) for one in script.read_results(script.RESULTS)}
    assert {tuple(found) for found in re.findall(r"<!-- accuracy (\S+) (\S+) (\S+) -->", page)} == stored


@pytest.mark.parametrize(("data", "recipe"), [("bccd", "bccd_lite0"), ("digits", "digits_lite0")])
def test_readme_shows_the_reported_figures(script: ModuleType, data: str, recipe: str) -> None:
    found = script.read_results(script.RESULTS / "recipes" / data / "report")
    if not found:
        pytest.skip(f"no results of {recipe} on its test part yet")
    (row,) = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
              if line.startswith(f"| `{recipe}` |")]  # fmt: skip
    for key in ("AP", "AP50"):
        assert f"| {statistics.mean(one[key] for one in found):.3f} |" in row
