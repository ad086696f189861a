"""Environment for the tests in ``emulated/``. They run only inside it."""

import importlib.util
import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENT = Path(os.environ.get("FSAF_NPU_ENVIRONMENT") or HERE.parents[1] / ".venv-npu")
"""Folder that ``make npu`` writes."""

collect_ignore = [] if importlib.util.find_spec("torch_npu") else ["emulated"]
