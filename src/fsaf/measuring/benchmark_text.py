"""The measurements of ``fsaf benchmark`` as text."""

import math
from typing import Any

from fsaf.text import columns


def format_benchmark(found: dict[str, Any]) -> str:
    """Return the measurements as lines of text, names left and values right."""
    train, predict, loader = found["train"], found["predict"], found["loader"]
    how = ", compiled" * train["compiled"] + ", captured as one graph" * train["captured"]
    rows = [
        ("device", f"{found['device']}, {found['threads']} threads, {found['precision']}"),
        ("matrix product", f"{found['matrix_flops'] / 1e12:.3g} TFLOP/s"),
        ("copy", f"{found['copy_bytes'] / 1e9:.3g} GB/s"),
        ("", ""),
        ("training step", _times(train["seconds"], train["batch"], train["shape"])),
        ("", f"{train['images_per_second']:.3g} img/s{how}"),
        ("objective", f"{train['objective_share']:.1%} of the step"),
        (
            "network",
            f"{train['flops'] / 1e9:,.0f} GFLOP a step, {train['utilisation']:.1%} of the matrix product",
        ),
        (
            "memory",
            f"{train['memory_bytes'] / 2**30:.2f} GiB" if train["memory_bytes"] else "not measured on a CPU",
        ),
        ("", ""),
        ("prediction", _times(predict["seconds"], 1, predict["shape"])),
        ("", f"{predict['images_per_second']:.3g} img/s, suppression included"),
        ("", ""),
    ]
    if "skipped" in loader:
        rows.append(("loader", f"not measured: {loader['skipped']}"))
    else:
        speed = loader["images_per_second"]
        rows.append(
            ("loader", f"{speed:.3g} img/s, {loader['workers']} workers" if speed else "too few images")
        )
        waste = loader["padding_waste"]
        rows.append(
            ("padding", "depends on the batch" if waste is None else f"{waste:.1%} of the images' pixels")
        )
    return columns(rows, "l")


def _times(times: dict[str, float], batch: int, shape: list[int]) -> str:
    digits = max(0, 2 - math.floor(math.log10(times["median"] * 1000)))
    median, low, high, tail = (f"{times[key] * 1000:.{digits}f}" for key in ("median", "p25", "p75", "p99"))
    images = "1 image" if batch == 1 else f"{batch} images"
    return f"{median} ms ({low} to {high}, 99% under {tail}) for {images} of {shape[0]} x {shape[1]}"
