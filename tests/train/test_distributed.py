"""Two processes (gloo) do what one does: the same λ, weights, accuracy; a killed one costs but time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dsonas_hw.errors import UserError
from dsonas_hw.files import read_json_lines
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.choose import load_architecture
from dsonas_hw.train import distributed
from dsonas_hw.train.weights import load_weights

STEPS = Path(__file__).with_name("distributed_steps.py")
SEARCH = [
    "search", "--dataset", "digits", "--budget", "flops=30k", "--train-on", "cpu",
    "--set", "data.subset=160", "--set", "data.test_subset=45", "--set", "space.channels=8",
    "--set", "space.levels=1", "--set", "space.stages=[1,1]", "--set", "search.pretrain_epochs=1",
    "--set", "search.epochs=4", "--set", "search.batch_size=16", "--set", "search.prune_every=1",
    "--set", "retrain.epochs=3", "--set", "retrain.batch_size=16",
]  # fmt: skip


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run_steps(num_ranks: int) -> dict[str, Any]:
    """What distributed_steps.py prints, with so many processes."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(num_ranks)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(STEPS), "shared" if num_ranks > 1 else "alone"],
            env=environment() | (shared | {"RANK": str(rank)} if num_ranks > 1 else {}),
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * num_ranks
    assert outputs[1:] == [""] * (num_ranks - 1)
    found: dict[str, Any] = json.loads(outputs[0])
    return found


def test_two_processes_do_what_one_does() -> None:
    one, two = run_steps(1), run_steps(2)
    np.testing.assert_allclose(two["search"]["lam"], one["search"]["lam"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(two["search"]["weights"], one["search"]["weights"], rtol=1e-6, atol=1e-9)
    assert two["search"]["num_w"] == one["search"]["num_w"]
    np.testing.assert_allclose(two["retrain"]["weights"], one["retrain"]["weights"], rtol=1e-6, atol=1e-6)
    assert two["retrain"]["loss"] == pytest.approx(one["retrain"]["loss"], rel=1e-6)  # float32
    for name in ("images", "confusion"):
        assert two["retrain"][name] == one["retrain"][name]
    assert len(one["search"]["lam"]) == 8
    assert len(set(map(tuple, one["search"]["lam"]))) == 8  # λ moved


def test_a_job_arrives_on_the_cpu_wherever_rank_0_has_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every helper would hold a copy on rank 0's GPU, and a context there."""
    sent: list[Tensor] = []

    def broadcast(tensor: Tensor, src: int) -> None:
        if sending:
            sent.append(tensor.clone())
        else:
            tensor.copy_(sent.pop(0))

    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "broadcast", broadcast)
    sending = True
    with monkeypatch.context() as rank_0:
        rank_0.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        distributed.begin("search", {"state": torch.arange(3)})
    sending = False
    job = distributed.wait_for_job()
    assert job is not None
    assert job["state"].tolist() == [0, 1, 2]


def test_more_processes_than_gpus_may_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be to train on the CPU; if not, the device that is missing is named later, in one line."""

    def set_device(index: int) -> None:
        raise RuntimeError("CUDA error: invalid device ordinal")

    def rendezvous(url: str, timeout: object) -> None:
        raise ValueError("nobody there")

    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    monkeypatch.setattr(distributed, "rendezvous", rendezvous)
    with pytest.raises(UserError, match="cannot meet the other processes of torchrun: nobody there"):
        distributed.join()


def torchrun(arguments: list[str], *, max_restarts: int = 0) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [*launcher, f"--max-restarts={max_restarts}", "-m", "dsonas_hw", *arguments],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def process_of_rank(rank: int, launcher: int) -> int | None:
    """The process id of a rank below a launcher."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == launcher and f"RANK={rank}".encode() in variables:
            return int(folder.name)
    return None


def wait_for_rows(log: Path, number: int, process: subprocess.Popen[str]) -> None:
    while not log.exists() or log.read_bytes().count(b"\n") < number:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_json_lines(run / name)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    for arguments in ([*SEARCH, "--out", str(run)], ["retrain", str(run)]):
        process = torchrun(arguments)
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert out.count("next: dsonas-hw") == 1  # only rank 0 prints
    return run


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_a_killed_process_changes_nothing(uninterrupted: Path, tmp_path: Path) -> None:
    """One that helps, in the search; the one that leads, in retraining."""
    run = tmp_path / "run"
    for rank, arguments, log_rows in ((1, [*SEARCH, "--out", str(run)], 3), (0, ["retrain", str(run)], 6)):
        process = torchrun(arguments, max_restarts=1)
        wait_for_rows(run / "metrics.jsonl", log_rows, process)
        victim = process_of_rank(rank, process.pid)
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert "next: dsonas-hw" in out
    for name in ("path.jsonl", "lambda.jsonl", "metrics.jsonl"):
        assert rows(run, name) == rows(uninterrupted, name)
    architecture, _ = load_architecture(RunDirectory(run))
    ours = load_weights(run / "weights.npz", architecture)
    theirs = load_weights(uninterrupted / "weights.npz", architecture)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_that_one_process_can_go_on_from(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = torchrun([*SEARCH, "--out", str(run)])
    wait_for_rows(run / "metrics.jsonl", 2, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert "search interrupted" in err
    before = rows(run, "metrics.jsonl")
    done = subprocess.run(
        [sys.executable, "-m", "dsonas_hw", "search", "--resume", str(run)],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert rows(run, "metrics.jsonl")[: len(before)] == before
    assert len(before) < len(rows(run, "metrics.jsonl")) == 5


@pytest.mark.parametrize(("has_nccl", "backend"), [(True, "nccl"), (False, "gloo")])
def test_nccl_is_used_where_torch_has_it(
    has_nccl: bool, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows there is CUDA and no NCCL."""
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(distributed.dist, "is_nccl_available", lambda: has_nccl)
    monkeypatch.setattr(distributed, "rendezvous", lambda *args, **options: iter([(None, 0, 1)]))
    monkeypatch.setattr(distributed, "PrefixStore", lambda prefix, store: store)
    monkeypatch.setattr(
        distributed.dist, "init_process_group", lambda backend, **options: asked.append(backend)
    )
    distributed.join()
    assert asked == [f"cpu:gloo,cuda:{backend}"]
