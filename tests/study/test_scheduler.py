"""The scheduler with quick workers that die, fail or hang on demand; real ones are in test_study_run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from dsonas_hw.errors import RunError
from dsonas_hw.study.job_files import is_done, job_directory
from dsonas_hw.study.scheduler import MAX_TRIES, JobFailure, run_jobs
from dsonas_hw.study.spec import Job

WORKER = (sys.executable, "-S", str(Path(__file__).with_name("fake_worker.py")))


def job(name: str, needs: str | None = None, **config: Any) -> Job:
    return Job(name=name, kind="random", variant="v", budgets=("mac=1M",), seed=0, config=config, needs=needs)


def run(path: Path, jobs: Sequence[Job], **options: Any) -> list[JobFailure]:
    return run_jobs(path, jobs, **{"num_workers": 2, "command": WORKER, **options})


def num_starts(path: Path, name: str) -> int:
    starts = job_directory(path, name) / "starts"
    return len(starts.read_text().splitlines()) if starts.exists() else 0


def has_started(path: Path, name: str) -> bool:
    return num_starts(path, name) > 0  # a file is there before its line is


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_jobs_wait_for_what_they_need_and_run_once(tmp_path: Path) -> None:
    jobs = [job("c", needs="b"), job("b", needs="a"), job("a"), job("d")]
    assert run(tmp_path, jobs) == []
    assert all(is_done(tmp_path, j.name) for j in jobs)
    assert run(tmp_path, jobs) == []  # another start of the same study
    assert [num_starts(tmp_path, j.name) for j in jobs] == [1, 1, 1, 1]


def test_progress_counts_what_is_done(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    run(tmp_path, [job("a")])
    run(tmp_path, [job("a"), job("b")], report=lambda done, total, words: seen.append((done, total)))
    assert seen[0] == (1, 2)
    assert seen[-1] == (2, 2)


def test_no_more_workers_than_asked_for(tmp_path: Path) -> None:
    most = 0

    def report(done: int, total: int, words: str) -> None:
        nonlocal most
        most = max(most, len(words.split(", ")) if words else 0)

    run(tmp_path, [job(f"j{i}") for i in range(6)], num_workers=3, report=report)
    assert most == 3


def test_what_measures_this_machine_runs_alone_and_last(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    alone = [job(f"alone-{i}").model_copy(update={"exclusive": True}) for i in range(2)]
    jobs = [alone[0], job("a"), job("b"), alone[1], job("c", needs="a")]
    run(tmp_path, jobs, num_workers=3, report=lambda done, total, words: seen.append(words.split(", ")))
    assert all(is_done(tmp_path, j.name) for j in jobs)
    assert all(len(names) == 1 for names in seen if any("alone" in name for name in names))
    order = [names for names in seen if names != [""]]
    assert "alone" not in order[0][0]


def test_a_killed_job_is_tried_again(tmp_path: Path) -> None:
    assert run(tmp_path, [job("killed-once"), job("other")]) == []
    assert num_starts(tmp_path, "killed-once") == 2


def test_a_job_that_always_dies_is_given_up(tmp_path: Path) -> None:
    (failure,) = run(tmp_path, [job("killed-always"), job("other")])
    assert failure == JobFailure(name="killed-always", reason="killed by signal 9")
    assert num_starts(tmp_path, "killed-always") == MAX_TRIES
    assert is_done(tmp_path, "other")


def test_a_mistake_is_reported_once_and_what_needs_it_is_skipped(tmp_path: Path) -> None:
    jobs = [job("wrong"), job("next", needs="wrong"), job("after", needs="next"), job("other"), job("bug")]
    failures = {failure.name: failure.reason for failure in run(tmp_path, jobs)}
    assert failures == {
        "wrong": "the budget cannot be met",
        "next": "needs wrong, which failed",
        "after": "needs next, which failed",
        "bug": "RuntimeError: a bug",
    }
    assert [num_starts(tmp_path, name) for name in ("wrong", "next", "after", "bug")] == [1, 0, 0, 1]
    assert is_done(tmp_path, "other")
    # Started again, what failed is tried again: the cause may be gone.
    run(tmp_path, jobs)
    assert [num_starts(tmp_path, name) for name in ("wrong", "next", "after", "other")] == [2, 0, 0, 1]


def test_another_configuration_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path, [job("a", epochs=1)])
    with pytest.raises(RunError, match="job a has another configuration; choose another --out"):
        run(tmp_path, [job("new"), job("a", epochs=2)])
    assert not job_directory(tmp_path, "new").exists()
    assert run(tmp_path, [job("a", epochs=1), job("more")]) == []  # a study may grow


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")  # a run's
    with pytest.raises(RunError, match="is not empty and is not a study; choose another --out"):
        run(tmp_path, [job("a")])
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_one_scheduler_at_a_time(tmp_path: Path) -> None:
    with FileLock(str(tmp_path / ".lock")), pytest.raises(RunError, match="another process runs the study"):
        run(tmp_path, [job("a")])


# -- being stopped ----------------------------------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_scheduler import job, run
run(Path(sys.argv[2]), [job("slow-1"), job("slow-2"), job("slow-3")])
"""


def start_scheduler(path: Path) -> subprocess.Popen[bytes]:
    """A process that schedules three jobs, two of which run (they do not end by themselves)."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    for name in ("slow-1", "slow-2"):
        wait_until(partial(has_started, path, name))
    return process


def is_alive(path: Path, name: str) -> bool:
    try:
        os.kill(int((job_directory(path, name) / "starts").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_workers_end_with_the_scheduler_and_leave_checkpoints(number: signal.Signals, tmp_path: Path) -> None:
    process = start_scheduler(tmp_path)
    try:
        # As a terminal does on Ctrl-C: to the whole group of processes.
        os.killpg(process.pid, number)
        process.wait()
        names = ("slow-1", "slow-2")
        for name in names:
            wait_until((job_directory(tmp_path, name) / "checkpoint").exists)
            wait_until(lambda name=name: not is_alive(tmp_path, name))
            assert not (job_directory(tmp_path, name) / "interrupted").exists()  # one signal, not two
        assert num_starts(tmp_path, "slow-3") == 0
    finally:
        process.kill()
    # Started again, it goes on: the fake job ends when it finds its checkpoint.
    (job_directory(tmp_path, "slow-3") / "checkpoint").touch()
    assert run(tmp_path, [job("slow-1"), job("slow-2"), job("slow-3")]) == []
    assert [num_starts(tmp_path, name) for name in (*names, "slow-3")] == [2, 2, 1]


@pytest.mark.parametrize("place", ["jobs", "jobs/a", "jobs/a/log.txt"])
def test_a_link_in_a_study_does_not_lead_us_elsewhere(place: str, tmp_path: Path) -> None:
    elsewhere, study = tmp_path / "elsewhere", tmp_path / "study"
    elsewhere.mkdir()
    (study / place).parent.mkdir(parents=True)
    (study / place).symlink_to(elsewhere if place != "jobs/a/log.txt" else elsewhere / "log")
    with pytest.raises(RunError, match="symbolic link"):
        run(study, [job("a")])
    assert list(elsewhere.iterdir()) == []
