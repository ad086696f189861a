"""What all benchmarks share: options, contenders in turns, tables, JSON that says where figures are from.

Contenders take turns, since the load of a machine changes while one runs. What is compared are medians; the
table has the quartiles beside them.
"""

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fsaf.device import is_accelerator, resolve_device
from fsaf.measuring.timing import summary, wait

PACKAGES = (
    "fsaf",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pillow",
    "opencv-python-headless",
    "onnxruntime",
)
PEERS = ("mmdet", "mmcv", "mmcv-lite", "mmengine", "hotcoco", "pycocotools")


def arguments(text: str, **defaults: Any) -> argparse.ArgumentParser:
    """A parser with the options that every script has."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--threads", type=int, help="threads of PyTorch on a CPU (its own choice)")
    parser.add_argument("--repeat", type=int, help="timed rounds")
    parser.add_argument("--quick", action="store_true", help="small inputs and few rounds: does it run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.set_defaults(**defaults)
    return parser


def begin(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, torch.device]:
    """Options as given, and the device; threads are set."""
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    return args, resolve_device(args.device)


def machine(device: torch.device) -> dict[str, Any]:
    """Where figures come from."""
    versions = {name: _version(name) for name in (*PACKAGES, *PEERS)}
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "machine": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "device": _device_name(device),
        "versions": {"python": platform.python_version(), **{k: v for k, v in versions.items() if v}},
    }


def alternate(
    contenders: Mapping[str, Callable[[], Any]], repeat: int, device: torch.device, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each contender's calls, taken in turns; the first rounds do not count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warm_up + repeat):
        for name, call in contenders.items():
            wait(device)
            start = time.perf_counter()
            call()
            wait(device)
            if number >= warm_up:
                times[name].append(time.perf_counter() - start)
    return times


def compare(
    title: str, times: Mapping[str, list[float]], ours: str, count: float = 1, unit: str = "images"
) -> dict[str, Any]:
    """Print medians, quartiles, ``count`` a second, and how many times as fast ``ours`` is; returns them.

    The ratio of medians is the figure; beside it stands the one of the fastest calls.
    """
    rows: dict[str, Any] = {name: summary(list(own)) for name, own in times.items()}
    wide = max(len(name) for name in [*rows, title])
    heads = f"{'ms':>10} {'25%':>9} {'75%':>9} {unit + '/s':>11} {'ours is x':>10} {'fastest':>8}"
    print(f"\n{title:<{wide}} {heads}")
    for name, row in rows.items():
        row["per_second"] = count / row["median"]
        row["ratio"] = row["median"] / rows[ours]["median"] if ours in rows else None
        row["ratio_of_fastest"] = row["least"] / rows[ours]["least"] if ours in rows else None
        ratio = f"{row['ratio']:>10.2f} {row['ratio_of_fastest']:>8.2f}" if ours in rows else ""
        print(
            f"{name:<{wide}} {row['median'] * 1e3:>10.2f} {row['p25'] * 1e3:>9.2f} {row['p75'] * 1e3:>9.2f} "
            f"{row['per_second']:>11.2f} {ratio}"
        )
    sys.stdout.flush()
    return {"unit": unit, "count": count, "ours": ours, "rows": rows}


def finish(args: argparse.Namespace, device: torch.device, figures: dict[str, Any]) -> None:
    """Print where the figures come from, and write them where ``--json`` says."""
    found = {"where": machine(device), "figures": figures}
    where = found["where"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    print(f"\n{where['machine']}, {where['cores']} cores, {where['threads']} threads, {where['device']}")
    print(f"{versions}\n{where['date']}  {where['command']}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"written: {args.json}")


def check(what: str, difference: float, limit: float) -> dict[str, float]:
    """Say how far two answers are apart; ends the script where that is too far."""
    print(f"checked: {what}: difference {difference:.2g}, allowed {limit:g}")
    if not difference <= limit:
        sys.exit(f"{what}: the answers differ by {difference:.3g}; nothing was timed")
    return {"difference": difference, "limit": limit}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        text = cpuinfo.read_text(encoding="utf-8")
        names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
        flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
        known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
        found = ", ".join(flag for flag in known if flag in flags.split())
        return f"{names[0] if names else platform.machine()} ({found})"
    return platform.processor() or platform.machine()


def _device_name(device: torch.device) -> str:
    if not is_accelerator(device):
        return "cpu"
    module = torch.get_device_module(device)
    return str(module.get_device_name(device)) if hasattr(module, "get_device_name") else str(device)
