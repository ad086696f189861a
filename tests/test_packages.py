"""The wheel and the sdist: what they hold, and that an installed wheel works outside of the repository."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import fsaf
from documents import ROOT
from fsaf.recipe import recipe_names
from synthetic import write_eight

pytest.importorskip("hatchling")
pytestmark = pytest.mark.slow

READ_EVERYTHING = """
import fsaf
from fsaf.recipe import load_recipe, recipe_names
print(fsaf.__file__)
print(*(load_recipe(name) and name for name in recipe_names()))
"""


def build(folder: Path, out: Path) -> tuple[Path, Path]:
    """Build wheel and sdist of a source tree, without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def members(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel by name, without the record of their sums."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def test_the_wheel_holds_every_file_of_the_package(packages: tuple[Path, Path]) -> None:
    found = members(packages[0])
    source = {path for path in (ROOT / "src" / "fsaf").rglob("*") if path.is_file()}
    expected = {
        path.relative_to(ROOT / "src").as_posix() for path in source if "__pycache__" not in path.parts
    }
    assert {name for name in found if name.startswith("fsaf/")} == expected
    assert "fsaf/py.typed" in expected and any(name.endswith(".j2") for name in expected)
    (metadata,) = (text.decode() for name, text in found.items() if name.endswith("/METADATA"))
    about = Parser().parsestr(metadata)
    assert (about["Name"], about["Version"]) == ("fsaf", fsaf.__version__)
    assert about["License-Expression"] == "Apache-2.0" and about["License-File"] == "LICENSE"
    assert "Typing :: Typed" in about.get_all("Classifier", [])
    assert any("arxiv.org" in url for url in about.get_all("Project-URL", []))


def test_the_sdist_builds_the_same_wheel(packages: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(packages[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    wheel, _ = build(folder, tmp_path / "dist")
    assert members(wheel) == members(packages[0])


def test_an_installed_wheel_works_anywhere(packages: tuple[Path, Path], tmp_path: Path) -> None:
    """Dependencies are those of this environment, which has them beside an fsaf that must not be used."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    install = [sys.executable, "-m", "pip", "--python", str(scripts / "python"), "install", "-q"]
    subprocess.run([*install, "--no-deps", "--no-index", str(packages[0])], check=True)
    (place,) = {path.parent for path in home.rglob("site-packages/fsaf")}
    (place / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    write_eight(tmp_path / "DATA")

    def run(*words: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    command = str(scripts / "fsaf")
    assert run(command, "--version").split()[-1] == fsaf.__version__
    assert "fsaf_r50_coco" in run(command, "models")
    file, recipes = run(str(scripts / "python"), "-c", READ_EVERYTHING).splitlines()
    assert Path(file).is_relative_to(home)
    assert recipes.split() == recipe_names()
    run(command, "check", "DATA", "--html", "page.html")
    assert "<html" in (tmp_path / "page.html").read_text()
