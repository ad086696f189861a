"""Fuzzing: damaged annotation files and images, in three formats; ``FSAF_FUZZ=1`` tries all 3,000.

Each one trains, or is refused with one clear message: no other exception, no hang, no box or image lost
without being counted. ``fsaf check`` refuses exactly what training refuses, and what ``--fix`` writes is
clean. The damage is seeded, so that every failure can be repeated.
"""

import json
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import FrameType
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from damage import damage_file, damage_image
from fsaf.checking.annotations import read_splits
from fsaf.checking.fix import CHANGES, write_clean
from fsaf.checking.survey import Survey, survey
from fsaf.checking.text import check_result, describe, faults_text
from fsaf.checking.verdict import verdict
from fsaf.config import Config, DataConfig, ObjectiveConfig, SplitConfig
from fsaf.data.readers.formats import find_splits
from fsaf.data.readers.splits import open_split
from fsaf.data.records import Records
from fsaf.data.samples import Images
from fsaf.data.workers import make_loader
from fsaf.errors import UserError
from fsaf.model.outputs import FreeOutputs, RawOutputs
from fsaf.model.points import STRIDES
from fsaf.objective.objective import objective
from fsaf.training.prepare import for_training, open_for_training
from other_formats import write_voc, write_yolo
from synthetic import Picture, write_coco

pytestmark = pytest.mark.slow

SEED = 0
SHARE = float(os.environ.get("FSAF_FUZZ", "0.3"))
SECONDS = 10
"""Time limit of a case."""

PICTURES = [
    Picture(height=32, width=48, objects=[(4, 4, 20, 20, 7), (20, 10, 12, 16, 3)]),
    Picture(height=48, width=32, objects=[(2, 20, 25, 25, 90)], crowds=[(0, 0, 10, 10, 7)]),
    Picture(height=32, width=32, objects=[(8, 8, 16, 16, 7)]),
]


def config(folder: Path) -> Config:
    data = DataConfig(
        root=str(folder),
        batch_size=3,
        workers=0,
        short_side=32,
        long_side=64,
        shapes=[(32, 64)],
        max_boxes=4,
        min_size=1,
        max_pixels=1_000_000,
    )
    return Config(data=data)


class Network(nn.Module):
    """The smallest network that learns: one convolution for each level, with its stride."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(3, classes + 4, stride, stride) for stride in STRIDES)

    def forward(self, images: Tensor) -> RawOutputs:
        images = images.float() / 255
        width, height = images.shape[3], images.shape[2]
        padded = functional.pad(images, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1]))
        found = [
            level(padded)[:, :, : -(-height // stride), : -(-width // stride)]
            for level, stride in zip(self.levels, STRIDES, strict=True)
        ]
        logits, distances = [each[:, 4:] for each in found], [each[:, :4].relu() for each in found]
        return RawOutputs(FreeOutputs(logits, distances))


@cache
def network(classes: int) -> Network:
    torch.manual_seed(0)
    return Network(classes)


@contextmanager
def time_limit() -> Iterator[None]:
    def stop(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# What must hold of any folder.


def trains(folder: Path) -> None:
    """Read both splits as training does, make batches, evaluate the objective; or raise UserError."""
    settings = config(folder)
    every = open_split(settings.data, "train")
    nothing_lost(every, settings.data)
    train, val, _ = open_for_training(settings)
    for records, augment in ((train, True), (val, False)):
        if records is None:
            continue
        loader, _ = make_loader(Images(records, settings.data, augment=augment), 3, workers=0, train=augment)
        for batch in loader:
            counts = {image.id: len(image.boxes) for image in records.images}
            assert int(batch.boxes.valid.sum()) + batch.cut == sum(counts[id_] for id_ in batch.ids)
            assert torch.isfinite(batch.boxes.xyxy).all() and (batch.boxes.xyxy >= 0).all()
            if augment and len(records.classes) <= 16:
                model = network(len(records.classes))
                loss = objective(model(batch.images), batch.boxes, ObjectiveConfig()).loss
                gradients = torch.autograd.grad(loss, list(model.parameters()))
                assert torch.isfinite(loss) and all(torch.isfinite(each).all() for each in gradients)


def nothing_lost(every: Records, data: DataConfig) -> None:
    """Assert that all boxes and images of the files are in the records, or counted in a note."""
    boxes, images = in_files(every)
    counts = every.faults.counts
    left_out = sum(
        count for kind, count in counts.items() if kind.startswith("box-") and kind != "box-clipped"
    )
    assert boxes == sum(len(image.boxes) for image in every.images) + left_out
    assert images == len(every.images)
    for image in every.images:
        assert np.isfinite(image.boxes).all() and (image.boxes[:, 2:] > image.boxes[:, :2]).all()
        assert (image.boxes >= 0).all() and (image.boxes <= [image.width, image.height] * 2).all()
    kept, notes = for_training(every, data)
    told: Counter[str] = Counter()
    for note in notes:
        if found := re.match(r"(\w+)[^:]*: (\d+) of \d+ left out", note):
            told[found[1]] += int(found[2])
    assert told["images"] == images - len(kept.images) and told["boxes"] == left_out


def in_files(records: Records) -> tuple[int, int]:
    """Count boxes and images of a split without the package's readers."""
    if records.format == "coco":
        data = json.loads(records.source.read_bytes())
        return len(data["annotations"]), len(data["images"])
    if records.format == "voc":
        names = {line.strip() for line in records.source.read_text().splitlines()} - {""}
        folder = records.source.parents[2] / "Annotations"
        roots = [ElementTree.parse(folder / f"{name}.xml").getroot() for name in names]
        return sum(len(root.findall("object")) for root in roots), len(roots)
    labels = [records.folder / "labels" / "train" / f"{image.path.stem}.txt" for image in records.images]
    lines = [line for path in labels if path.is_file() for line in path.read_text("utf-8-sig").splitlines()]
    found = [path for path in (records.folder / "images" / "train").iterdir() if path.is_file()]
    return sum(bool(line.strip()) for line in lines), len(found)


def checks(folder: Path, fix: Path | None) -> bool:
    """Run everything that ``fsaf check`` runs; return True if it says that training refuses the data."""
    settings = config(folder)
    found = survey(settings)
    assert all(line.isprintable() for line in faults_text(found.read, folder).splitlines())
    assert describe(found.read, settings.data, settings.objective) and json.dumps(check_result(found.read))
    assert verdict(found, ["lite0"]).startswith("refused" if found.refused else "training would take this")
    if fix is not None:
        try:
            files, _ = write_clean(fix, found)
        except UserError as error:
            assert "which no scale and no EXIF tag explains" in str(error) or "can be used" in str(error)
            assert not fix.exists()
        else:
            fixed_is_clean(fix, files, found)
    return found.refused


def fixed_is_clean(out: Path, files: dict[str, Path], found: Survey) -> None:
    """Assert that ``fsaf check`` finds nothing to fix in what ``--fix`` has written."""
    kinds = {
        kind for records in found.read.values() for kind, count in records.faults.counts.items() if count
    }
    assert json.loads((out / "changes.json").read_text()) or not kinds & set(CHANGES)
    for name, file in files.items():
        split = SplitConfig(annotations=str(file), images=str(found.read[name].folder))
        again = survey(
            Config(data=replace(config(found.root).data, root=None, train=split, val=SplitConfig()))
        )
        wrong = {kind for kind, count in again.read["train"].faults.counts.items() if count}
        assert not wrong & set(CHANGES), (name, wrong)


def case(folder: Path, number: int, out: Path) -> str:
    """Return the outcome of a damaged folder: ``trained`` or ``refused``."""
    with time_limit():
        try:
            trains(folder)
            outcome, why = "trained", ""
        except UserError as error:
            assert str(error).strip() and len(str(error)) < 2000
            outcome, why = "refused", str(error)
        try:
            refused = checks(folder, out if number % 4 == 0 else None)
        except UserError as error:
            assert str(error).strip()
            refused = True
        assert refused == (outcome == "refused"), f"fsaf check says refused = {refused}; training: {why}"
    return outcome


# The cases.


@dataclass
class Format:
    """A folder, and its files that are to be damaged."""

    folder: Path
    files: list[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Format]:
    folder = tmp_path_factory.mktemp("whole")
    write_coco(folder / "coco", PICTURES)
    write_coco(folder / "coco", [replace(PICTURES[0], width=60)], "val", first_id=501)
    records = read_splits(find_splits(folder / "coco"), DataConfig())
    voc, yolo = write_voc(folder / "voc", records), write_yolo(folder / "yolo", records)
    xml = [f"Annotations/{name}.xml" for name in ("0011", "0012", "0501")]
    txt = ["labels/train/0011.txt", "labels/train/0012.txt", "labels/val/0501.txt"]
    return {
        "coco": Format(folder / "coco", ["annotations/train.json"] * 4 + ["annotations/val.json"]),
        "voc": Format(voc, [*xml * 2, "ImageSets/Main/train.txt"]),
        "yolo": Format(yolo, [*txt, "data.yaml"]),
    }


def run(
    whole: Format, tmp_path: Path, count: int, seed: int, damage: Callable[[Path, np.random.Generator], None]
) -> None:
    outcomes: Counter[str] = Counter()
    count = round(count * SHARE)
    folder, out = tmp_path / f"damaged {seed}", tmp_path / f"fixed {seed}"
    shutil.copytree(whole.folder, folder)
    for number in range(count):
        rng = np.random.default_rng([SEED, seed, number])
        path = folder / str(rng.choice(whole.files))
        before = path.read_bytes()
        try:
            damage(path, rng)
            outcomes[case(folder, number, out)] += 1
        except Exception as error:
            raise AssertionError(f"case {number} of seed {seed}: {type(error).__name__}: {error}") from error
        if path.is_dir():
            path.rmdir()
        path.write_bytes(before)
        if out.is_dir():
            shutil.rmtree(out)
    assert outcomes.total() == count and min(outcomes["trained"], outcomes["refused"]) > count / 20, outcomes


@pytest.mark.parametrize("name", ["coco", "voc", "yolo"])
def test_undamaged_folders_train(whole: dict[str, Format], name: str, tmp_path: Path) -> None:
    assert case(whole[name].folder, 0, tmp_path / "fixed") == "trained"
    assert not checks(whole[name].folder, None)


def test_coco_json(whole: dict[str, Format], tmp_path: Path) -> None:
    run(whole["coco"], tmp_path, 1050, 1, damage_file)


def test_voc_xml(whole: dict[str, Format], tmp_path: Path) -> None:
    run(whole["voc"], tmp_path, 650, 2, damage_file)


def test_yolo_labels_and_yaml(whole: dict[str, Format], tmp_path: Path) -> None:
    run(whole["yolo"], tmp_path, 700, 3, damage_file)


@pytest.mark.filterwarnings("ignore")
def test_images(whole: dict[str, Format], tmp_path: Path) -> None:
    pictures = ["images/train/0011.png", "images/train/0012.png", "images/val/0501.png"]
    run(replace(whole["coco"], files=pictures), tmp_path, 350, 4, damage_image)
    run(replace(whole["yolo"], files=pictures), tmp_path, 250, 5, damage_image)
