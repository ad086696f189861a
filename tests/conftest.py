"""Fixtures that every test may use: determinism, real data, small configurations."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # Workers share the cores. Set before PyTorch starts its threads; processes of tests inherit it.
    threads = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, threads)))

import pytest
import torch
from hypothesis import settings

import shell
from fsaf.config import ModelConfig
from published import publish, train
from synthetic import tiny_model, write_eight

REPOSITORY = Path(__file__).resolve().parents[1]

# Same examples on every run. `pytest --hypothesis-profile search` looks for new ones, and for many more.
settings.register_profile("fsaf", derandomize=True, deadline=None, max_examples=60, database=None)
settings.register_profile("search", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("fsaf")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and there is none"))


@pytest.fixture(autouse=True)
def seed() -> None:
    """Start every test from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def commands() -> Iterator[None]:
    """Commands of a test see a closed terminal, also under nohup, and none is left running after it."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    shell.end_all()


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder with the real data sets ``bccd`` and ``minicoco``.

    $FSAF_TEST_DATA, by default ../shared/data beside the repository. If it is missing, tests are skipped, or
    fail if $FSAF_REQUIRE_DATA is set.
    """
    folder = Path(os.environ.get("FSAF_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        reason = f"no real data: FSAF_TEST_DATA = {folder} is not a folder"
        if os.environ.get("FSAF_REQUIRE_DATA"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def oracle_folder() -> Path:
    """Reference figures computed by MMDetection 3.3.0."""
    return Path(__file__).parent / "data" / "oracle"


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder of eight pictures to train on and three to evaluate on. Tests must not change it."""
    folder = tmp_path_factory.mktemp("eight")
    write_eight(folder)
    return folder


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a small training. Tests must not change it."""
    return train(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="session")
def published(trained_run: Path) -> Path:
    """The folder of that run for the Hugging Face hub."""
    return publish(trained_run)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute on one thread, here and in the processes started from here, so that sums have one order."""
    threads = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny_model_config() -> ModelConfig:
    """A detector of 0.3 million weights."""
    return tiny_model()
