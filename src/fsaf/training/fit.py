"""Choose the keys that are ``auto`` by the number of images, and check that the schedule fits the length."""

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import median

from fsaf.config import Config
from fsaf.config.fields import is_auto
from fsaf.data.records import Records
from fsaf.text import counted

STEPS = 300
"""Steps that a training on few images should have: fewer learn little (docs/lab/blood-cells.md)."""
BATCHES = (8, 4, 2)
LEAST = 12
"""Steps an epoch should have, or batches become smaller."""
LARGE_BATCHES = (64, 32, 16)
"""Batches of an accelerator with the memory for them, if the learning rate follows (``optim.scale_lr``)."""
LEAST_OF_LARGE = 100
"""Steps an epoch should have with these."""
EVALUATIONS = 4
WARM_UP_SHARE = 6
"""Warm-up takes a sixth of all steps at most."""
KEYS = (("data", "batch_size"), ("train", "epochs"), ("train", "evaluate_every"), ("optim", "warmup_steps"))
"""Keys that may be ``auto``."""


SIZES = (("data", "short_side"), ("data", "long_side"))
"""Keys of the image size that may be ``auto``."""
SMALLEST, LARGEST = 480, 800


def fit_size(config: Config, records: Records, earlier: Config | None = None) -> tuple[Config, list[str]]:
    """Return ``config`` with a number for each key of the image size that is ``auto``, and a note about it.

    COCO's images, most with a short side of 480, are enlarged to 800 in the published training; images of
    another size are enlarged as much, so that objects look as large as those that its weights know.
    records: the training images. earlier: as in ``fit_to_data``.
    """
    auto = [key for key in SIZES if is_auto(_get(config, *key))]
    if not auto:
        return config, []
    if earlier:
        return _with(config, {key: int(_get(earlier, *key)) for key in auto}), []
    usual = int(median(min(image.width, image.height) for image in records.images))
    short, long = int(config.data.short_side), int(config.data.long_side)
    if SIZES[0] in auto:
        short = min(max(round(usual * 5 / 3), SMALLEST), LARGEST)
    if SIZES[1] in auto:
        long = round(short * 5 / 3)
    chosen = dict(zip(SIZES, (min(short, long), long), strict=True))
    named = ", ".join(f"{section}.{name} {chosen[section, name]}" for section, name in auto)
    note = f"chosen for images with a short side of {usual} (median): {named}; give them to change it"
    return _with(config, {key: chosen[key] for key in auto}), [note]


def fit_to_data(
    config: Config,
    images: int,
    processes: int,
    earlier: Config | None = None,
    count_in_memory: Callable[[], int | None] = lambda: None,
) -> tuple[Config, list[str]]:
    """Return ``config`` with a number for each key that is ``auto``, and a note on what was chosen.

    images: number of training images. earlier: of the checkpoint that a run resumes from, whose values stay.
    count_in_memory: returns the images of a batch that the device has memory for; None if that is not known.
    It is called only to choose a batch.
    """
    auto = [key for key in KEYS if is_auto(_get(config, *key))]
    if not auto:
        return config, []
    if earlier:
        chosen = {key: int(_get(earlier, *key)) for key in auto}
        return _with(config, chosen), []
    parts = config.train.accumulate * processes
    fitting: int | None = None
    batch, epochs, every = config.data.batch_size, config.train.epochs, config.train.evaluate_every
    if ("data", "batch_size") in auto:
        fitting = count_in_memory()
        batch = _choose_batch(images, parts, fitting, config.optim.scale_lr)
    steps = -(-images // (batch * parts))
    if ("train", "epochs") in auto:
        epochs = max(epochs, -(-STEPS // steps))
        every = max(1, epochs // EVALUATIONS)
    warm_up = min(config.optim.warmup_steps, steps * epochs // WARM_UP_SHARE)
    values = dict(zip(KEYS, (int(batch), int(epochs), int(every), int(warm_up)), strict=True))
    chosen = {key: values[key] for key in auto}
    named = ", ".join(f"{section}.{name} {value}" for (section, name), value in chosen.items())
    few = epochs > config.train.epochs or batch < min(config.data.batch_size, fitting or math.inf)
    note = f"chosen for {counted(images, 'image')}: {named}; about {counted(steps * epochs, 'step')}"
    note += ", since fewer learn little" if few else ""
    if fitting is not None:
        note += f"; {fitting:,} images of the largest shape fit into the memory"
    return _with(config, chosen), [f"{note}; give any of them to change it"]


def _choose_batch(images: int, parts: int, fitting: int | None, scales_rate: bool) -> int:
    """Return the images of a batch. parts: batches of a step. fitting: images that fit into the memory."""
    by_data = next((size for size in BATCHES if images >= LEAST * size * parts), BATCHES[-1])
    if fitting is None:
        return by_data
    large = [size for size in LARGE_BATCHES if images >= LEAST_OF_LARGE * size * parts]
    sizes = [*(large if scales_rate else []), *(size for size in BATCHES if size <= by_data), 1]
    return next((size for size in sizes if size <= fitting), 1)


def schedule_notes(config: Config, all_steps: int) -> list[str]:
    """Return a note for each part of the schedule that does not fit the length of training."""
    optim, epochs = config.optim, config.train.epochs
    notes = []
    late = [milestone for milestone in optim.milestones if milestone >= epochs]
    if optim.schedule == "step" and late:
        names = ", ".join(map(str, late))
        better = sorted({max(1, round(epochs * 2 / 3)), max(1, round(epochs * 11 / 12))} - {epochs})
        come = "come" if len(late) > 1 else "comes"
        notes.append(
            f"optim.milestones {names} {come} after train.epochs {epochs}, so the learning rate does not "
            f"fall there; perhaps --optim.milestones '{better}'"
        )
    if optim.warmup_steps > all_steps // 2:
        notes.append(
            f"optim.warmup_steps {optim.warmup_steps} is more than half of all "
            f"{counted(all_steps, 'step')}; give fewer, or more train.epochs"
        )
    return notes


def _get(config: Config, section: str, name: str) -> int:
    value: int = getattr(getattr(config, section), name)
    return value


def _with(config: Config, chosen: dict[tuple[str, str], int]) -> Config:
    for section in dict.fromkeys(section for section, _ in chosen):
        values = {name: value for (where, name), value in chosen.items() if where == section}
        config = replace(config, **{section: replace(getattr(config, section), **values)})
    return config
