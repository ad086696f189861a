"""Every figure of one GPU in one call: prediction, the training step, and training from JPEG files.

    python benchmarks/one_gpu.py --out runs/one-gpu            # at most 8 minutes
    python benchmarks/one_gpu.py --device cpu --quick          # does it run?

Runs predict.py, then train_step.py; both check their answers before they time anything. Writes
``predict.json`` and ``train_step.json``. A script that fails, or is not done when the time is over, is named,
and the exit status is 1; the figures of the other stay.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

SCRIPTS = {"predict": ["--batch", "1", "32"], "train_step": ["--batch", "16", "32", "--workers", "16"]}
QUICK = {"predict": ["--quick"], "train_step": ["--quick", "--workers", "1"]}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, npu, xpu, ...")
    parser.add_argument("--out", type=Path, default=Path("runs/one-gpu"), help="folder of the figures")
    parser.add_argument("--seconds", type=float, default=480, help="time for all of it")
    parser.add_argument("--quick", action="store_true", help="small inputs and few rounds")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + args.seconds
    failed = []
    for name, options in (QUICK if args.quick else SCRIPTS).items():
        file = args.out / f"{name}.json"
        file.unlink(missing_ok=True)  # an earlier call's figures must not pass for this one's
        script = Path(__file__).with_name(f"{name}.py")
        command = [sys.executable, script, "--device", args.device, *options, "--json", file]
        print(f"\n== {name}.py {' '.join(options)}", flush=True)
        try:
            done = subprocess.run(command, timeout=max(1, end - time.monotonic())).returncode == 0
        except subprocess.TimeoutExpired:
            done = False
            print(f"not done after {args.seconds:g} s: --seconds gives more", flush=True)
        if not done:
            failed.append(name)
    print(f"\nfigures in {args.out}" + (f"; without {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
