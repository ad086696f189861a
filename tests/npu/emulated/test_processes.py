"""Two NPUs, connected by torch_npu's HCCL, train as two processes on the CPU do."""

import socket
from pathlib import Path

import pytest
from running import Trainer, collectives
from torch import multiprocessing


@pytest.fixture(autouse=True)
def as_a_user_starts_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    log = tmp_path / "log.txt"
    monkeypatch.setenv("EMULATOR_LOG", str(log))
    return log


@pytest.mark.parametrize(
    "options",
    [
        ("--objective.normalise=process",),
        ("--objective.normalise=mean", "--train.accumulate=2", "--data.batch_size=1"),
        ("--train.precision=fp16", "--train.loss_scale=dynamic", "--optim.name=sgd", "--optim.lr=0.01"),
    ],
    ids=["own counts", "mean counts, parts", "fp16, overflow"],
)
def test_two_npus_train_as_two_processes_on_the_cpu(
    train: Trainer, options: tuple[str, ...], as_a_user_starts_it: Path
) -> None:
    common = ("--devices=2", "--max-restarts=0", *options)
    on_cpu = train("cpu", *common)
    assert not as_a_user_starts_it.exists() or "HCCL" not in as_a_user_starts_it.read_text()
    on_npu = train("npu", *common)
    log = as_a_user_starts_it.read_text().splitlines()
    assert sum(line == "HCCL init" for line in log) == sum(line == "HCCL destroy" for line in log) >= 2
    assert sum(line == "HCCL AllReduce" for line in log) >= 6
    # The CPU runs another program (channels last, fused optimizers): rounding differences grow.
    tolerances = [1e-2] * 3 if "--train.precision=fp16" in options else [1e-6, 1e-5, 1e-4]
    for a, b, tolerance in zip(on_npu, on_cpu, tolerances, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=tolerance)
        assert a["loss_scale"] == b["loss_scale"]
        assert (a["grad_norm"] is None) == (b["grad_norm"] is None)


def test_each_process_uses_its_own_device_only(train: Trainer, as_a_user_starts_it: Path) -> None:
    train("npu", "--devices=2", "--max-restarts=0", steps=1)
    log = as_a_user_starts_it.read_text().splitlines()
    chosen = {line for line in log if line.startswith("DEVICE")}
    by_process: dict[str, set[str]] = {}
    for line in chosen:
        _, device, _, process = line.split()
        by_process.setdefault(process, set()).add(device)
    assert sorted(map(sorted, by_process.values())) == [["0"], ["1"]]


def test_collectives_exchange_data() -> None:
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(collectives, (port, results), nprocs=2)
    expected = ([1.0, 3.0, 5.0, 7.0, 9.0], [1, 1, 1], [[0.0, 0.0], [1.0, 1.0]], 2.0)
    assert [results.get(), results.get()] == [expected, expected]
