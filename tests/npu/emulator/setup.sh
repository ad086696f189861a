#!/usr/bin/env bash
# setup.sh FOLDER [PYTHON]: an environment with the real torch_npu, the emulated CANN, and what fsaf needs.
# If pip finds no CPU build of PyTorch, which torch_npu needs, it writes FOLDER/no-cpu-build and fails.
# Afterwards:  . FOLDER/env.sh;  python -m fsaf train lite0 --device npu ...
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../../.." && pwd)
python=${2:-python3}
torch=torch==2.13.0 torchvision=torchvision==0.28.0 torch_npu=torch-npu==2.13.0

mkdir -p "$1"
folder=$(cd "$1" && pwd)
"$python" -m venv "$folder/venv"
bin=$folder/venv/bin
pip=("$bin/python" -m pip --disable-pip-version-check --quiet)

# The CUDA build is 30 times as large, so ask before it is downloaded: it requires NVIDIA's packages.
if ! "${pip[@]}" install --dry-run --no-deps --ignore-installed --report - "$torch" 2>/dev/null \
    | "$bin/python" -c 'import json, sys
needs = json.load(sys.stdin)["install"][0]["metadata"].get("requires_dist", [])
sys.exit(any("nvidia" in each or "cuda" in each for each in needs))'; then
  echo "pip finds no CPU build of $torch here; torch_npu aborts beside a CUDA build" >&2
  touch "$folder/no-cpu-build"
  exit 3
fi
"${pip[@]}" install "$torch" setuptools pytest
"${pip[@]}" install --no-deps "$torchvision" "$torch_npu" timm
# The project's own requirements, without those that would bring another torch.
"$bin/python" - "$project/pyproject.toml" > "$folder/requirements.txt" <<'PYTHON'
import re, sys
text = open(sys.argv[1], encoding="utf-8").read()
block = re.search(r"^dependencies = \[(.*?)^\]", text, re.S | re.M).group(1)
print("\n".join(name for name in re.findall(r'"([^"]+)"', block) if not re.match(r"torch|timm", name)))
PYTHON
"${pip[@]}" install -r "$folder/requirements.txt" tqdm
"${pip[@]}" install --no-deps -e "$project"

PYTHONPATH=$here TORCH_DEVICE_BACKEND_AUTOLOAD=0 "$bin/python" "$here/build.py" "$folder"
cat > "$folder/env.sh" <<ENV
export PATH=$bin:\$PATH LD_LIBRARY_PATH=$folder/lib PYTHONPATH=$project/src:$here:$project/tests:$project/tests/npu/emulated OMP_NUM_THREADS=1
export ASCEND_HOME_PATH=$folder ASCEND_OPP_PATH=$folder/opp TASK_QUEUE_ENABLE=0 CUDA_VISIBLE_DEVICES=
ENV
echo "ready: . $1/env.sh; python -m fsaf info"
