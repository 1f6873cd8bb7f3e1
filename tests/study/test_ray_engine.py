"""Ray as the engine: the same outcomes as local processes. The worker is the scheduler tests' fake one."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dsonas_hw.errors import UserError
from dsonas_hw.study.engine import LocalEngine
from dsonas_hw.study.job_files import is_done, job_directory
from dsonas_hw.study.ray_engine import RayEngine, check_address
from dsonas_hw.study.scheduler import MAX_TRIES, run_jobs
from dsonas_hw.study.spec import Job

WORKER = (sys.executable, "-S", str(Path(__file__).with_name("fake_worker.py")))


def job(name: str, needs: str | None = None, **changes: Any) -> Job:
    options: dict[str, Any] = {"kind": "train", "variant": "v", "budgets": (), "seed": 0, "config": {}}
    return Job(name=name, needs=needs, **{**options, **changes})


def num_starts(path: Path, name: str) -> int:
    starts = job_directory(path, name) / "starts"
    return len(starts.read_text().splitlines()) if starts.exists() else 0


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    pytest.importorskip("ray", reason="Ray is not installed")
    engine = RayEngine("local", num_workers=2)
    yield engine
    engine.close()


def test_outcomes_are_those_of_local_processes(engine: RayEngine, tmp_path: Path) -> None:
    jobs = [
        job("b", needs="a"), job("a"), job("killed-once"), job("wrong"), job("after", needs="wrong"),
        job("bug"), job("killed-always"), job("alone", exclusive=True),
    ]  # fmt: skip
    outcomes = []
    for name, chosen in (("ray", engine), ("here", LocalEngine())):
        path = tmp_path / name
        failures = run_jobs(path, jobs, num_workers=2, engine=chosen, command=WORKER)
        starts = {j.name: num_starts(path, j.name) for j in jobs}
        places = {(job_directory(path, j.name) / "place").read_text() for j in jobs if starts[j.name]}
        outcomes.append((sorted((f.name, f.reason) for f in failures), starts, places))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][1]["killed-once"] == 2
    assert outcomes[0][1]["killed-always"] == MAX_TRIES


def test_a_job_whose_worker_dies_is_tried_again(engine: RayEngine, tmp_path: Path) -> None:
    assert run_jobs(tmp_path, [job("orphaned-once")], num_workers=2, engine=engine, command=WORKER) == []
    assert num_starts(tmp_path, "orphaned-once") == 2
    assert is_done(tmp_path, "orphaned-once")


def test_a_stopped_job_leaves_its_checkpoint(engine: RayEngine, tmp_path: Path) -> None:
    folder = job_directory(tmp_path, "slow")
    folder.mkdir(parents=True)
    (folder / "job.json").write_text('{"needs": null}')
    worker = engine.start(job("slow"), folder, WORKER)
    while not (folder / "starts").exists():
        assert worker.poll() is None
        time.sleep(0.02)
    worker.terminate()
    worker.wait()
    assert (folder / "checkpoint").exists()


def test_a_node_that_does_not_see_the_directory(engine: RayEngine, tmp_path: Path) -> None:
    worker = engine.start(job("lost"), tmp_path / "not-there", WORKER)
    with pytest.raises(UserError, match="does not see the study's directory"):
        worker.wait()


def test_a_dead_address_fails_fast() -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(UserError, match=f"no Ray cluster answers at {address} "):
            check_address(address)


@pytest.mark.parametrize("address", ["", "head", "head:", ":6379", "head:port", "head:0", "head:99999"])
def test_what_is_no_address_is_refused(address: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(UserError, match="neither 'local' nor HOST:PORT"):
        check_address(address)
