"""The notebook runs from its first cell to its last, on a few pictures and steps."""

from pathlib import Path

import pytest

from documents import ROOT

pytestmark = pytest.mark.slow

pytest.importorskip("sklearn")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

SMALL = """
TRAIN, VAL = 4, 2
OUT = "run"
KEYS = ["--train.max_steps=2", "--log.every=1", "--data.workers=0", "--data.batch_size=2", "--device=cpu"]
KEYS += ["--model.backbone=test_efficientnet", "--model.weights=none"]
"""


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") for cell in notebook.cells), "outputs are not kept in the repository"
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source = SMALL
    client = nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3
    assert (tmp_path / "run" / "checkpoints" / "best.pt").is_file()
