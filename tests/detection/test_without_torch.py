"""An exported file with suppression inside is opened and run without PyTorch, whose import takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsaf.detection.detector import load
from fsaf.exporting.onnx import export_onnx
from random_networks import CLASSES, CONFIG, SIZE, pictures, random_network

pytestmark = pytest.mark.slow

BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
"""

PREDICT = """
import io, json
import numpy as np
from PIL import Image
import fsaf

detector = fsaf.load(sys.argv[1])
picture = Image.open(sys.argv[2])
forms = [sys.argv[2], open(sys.argv[2], "rb"), picture, np.asarray(picture), np.asarray(picture)[None]]
results = [result for form in forms for result in np.ravel(detector.predict(form, score_threshold=0.1))]
results[0].draw()
print(json.dumps([result.to_dict() | {"image": None} for result in results]))
"""

SAYS = "print('torch' in sys.modules, file=sys.stderr)\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture and exported files, with suppression inside and without."""
    folder = tmp_path_factory.mktemp("exported")
    for name, options in (("sizes", {}), ("none", {"fixed_size": True}), ("raw", {"outputs": "raw"})):
        batches = [pictures(2)]
        export_onnx(
            random_network(), CLASSES, CONFIG, folder / f"{name}.onnx", size=SIZE, batches=batches, **options
        )
    noise = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "photo.png")
    return folder


def python(code: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True)


@pytest.mark.parametrize("name", ["sizes", "none"])
@pytest.mark.parametrize("blocked", [True, False])
def test_python(name: str, blocked: bool, files: Path) -> None:
    code = (BLOCKED if blocked else "import sys\n") + PREDICT + SAYS
    ran = python(code, files / f"{name}.onnx", files / "photo.png")
    assert ran.stderr == "False\n", "PyTorch was imported" if ran.returncode == 0 else ran.stderr
    found = json.loads(ran.stdout)
    expected = load(files / f"{name}.onnx").predict(files / "photo.png", score_threshold=0.1)
    assert len(expected) > 10
    assert found == [expected.to_dict() | {"image": None}] * 5


@pytest.mark.parametrize("options", [["--format", "json"], ["--save-crops", "--save-txt"]])
def test_command_line(options: list[str], files: Path, tmp_path: Path) -> None:
    words = ["predict", files / "sizes.onnx", files / "photo.png", "--out", tmp_path, *options]
    ran = python(BLOCKED + "from fsaf.cli import main\nstatus = main()\n" + SAYS + "sys.exit(status)", *words)
    assert (ran.returncode, ran.stderr) == (0, "False\n")
    if "json" in options:
        expected = load(files / "sizes.onnx").predict(files / "photo.png")
        assert json.loads(ran.stdout) == expected.to_dict()
    else:
        assert (tmp_path / "photo.png").is_file() and (tmp_path / "labels" / "photo.txt").is_file()


def test_a_file_without_suppression_needs_it(files: Path) -> None:
    ran = python("import sys\n" + PREDICT + SAYS, files / "raw.onnx", files / "photo.png")
    assert ran.stderr == "True\n"
