"""The result of ``fsaf train --dry-run`` as text."""

from datetime import timedelta
from statistics import median

from fsaf.checking.text import describe
from fsaf.config import to_dict
from fsaf.device import is_accelerator, total_memory
from fsaf.measuring.dry_run import DryRun
from fsaf.recipe import to_yaml
from fsaf.text import columns, printable


def format_dry_run(found: DryRun) -> str:
    """Return config, data, batches, network and estimate as plain text."""
    config = found.run.config
    splits = {"train": found.records} | ({"val": found.validation} if found.validation else {})
    parts = {
        "config": to_yaml(to_dict(config)).rstrip(),
        "data": describe(splits, config.data, config.objective),
        "": "\n".join(printable(note) for note in found.notes),
        "batches": columns(_batch_rows(found), "l"),
        "network": columns(_network_rows(found), "l"),
        "estimate": columns(_estimate_rows(found), "l"),
    }
    texts = [f"-- {name} --\n{text}" if name else text for name, text in parts.items() if text]
    return "\n\n".join([*texts, "Nothing was written. The same command without --dry-run trains."])


def _batch_rows(found: DryRun) -> list[tuple[str, str]]:
    config, batches = found.run.config, found.batches
    total = config.data.batch_size * config.train.accumulate * found.devices
    blank = total * batches.steps.total() - batches.images
    cut = sum(max(0, len(image.boxes) - config.data.max_boxes) for image in found.records.images)
    of = f" ({found.devices} processes of {total // found.devices})" if found.devices > 1 else ""
    shapes = sorted(batches.steps.items(), key=lambda item: -item[0][0] * item[0][1])
    shown = [(f"{height} x {width}", f"{count:,} an epoch") for (height, width), count in shapes[:20]]
    if len(shapes) > len(shown):
        shown.append((f"{len(shapes) - len(shown)} other", f"{sum(c for _, c in shapes[20:]):,} an epoch"))
    return [
        ("images a step", f"{total}{of}"),
        ("steps", f"{batches.steps.total():,} an epoch, {found.start:,} to {found.end:,} in all"),
        *shown,
        ("padding", f"{batches.padding:.1%} of the images' pixels"),
        ("blank rows", f"{blank:,} an epoch, to fill up each shape's last batch"),
        ("boxes cut", f"{cut:,} an epoch beyond data.max_boxes = {config.data.max_boxes} of an image"),
    ]


def _network_rows(found: DryRun) -> list[tuple[str, str]]:
    parameters = list(found.run.model.parameters())
    trained = sum(weight.numel() for weight in parameters if weight.requires_grad)
    forward, both = found.flops
    height, width = found.batches.shape
    return [
        ("backbone", found.run.config.model.backbone),
        ("weights", f"{sum(w.numel() for w in parameters) / 1e6:.2f} M, {trained / 1e6:.2f} M of them train"),
        (
            "computation",
            f"{both / 1e9:,.1f} GFLOP a step of {height} x {width} ({forward / 1e9:,.1f} forward)",
        ),
    ]


def _estimate_rows(found: DryRun) -> list[tuple[str, str]]:
    trial, config, device = found.trial, found.run.config, found.run.model.mean.device
    times = len(trial.step)
    how = f"median of {times}" if times > 1 else "measured once"
    whole = total_memory(device) if is_accelerator(device) else None
    of = f"of {whole / 1e9:.1f} GB of {device}" if whole else f"of {device}" if is_accelerator(device) else ""
    workers = config.data.workers
    reading = f"{workers} loader processes" if workers else "in the training process"
    memory = f"{trial.memory_gb:.2f} GB {of or 'of this process; loader processes come on top'}"
    rows = [
        ("device", f"{device}, {config.train.precision}"),
        ("first step", f"{trial.first:.2f} s, loss {trial.loss:.3f}"),
        ("a step", f"{median(trial.step):.3f} s for the largest shape, {how}; others by their pixels"),
        ("reading", f"{trial.read * 1000:.1f} ms an image, {reading}"),
        ("an epoch", _duration(found.epoch_seconds)),
    ]
    if found.evaluations:
        each = f"{_duration(found.evaluation_seconds)} without scoring"
        rows.append(("evaluation", f"{each}, {found.evaluations} of them"))
    return [
        *rows,
        ("training", f"{_duration(found.seconds)} in all"),
        ("memory", memory if trial.memory_gb else "not measured"),
    ]


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if seconds >= 10 else f"{seconds:.1f} s"
