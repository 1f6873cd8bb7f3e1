"""Runs the jobs of a study in worker processes; what is finished is never run again.

A job that dies (killed, out of memory) is tried again, a job that fails by a user's mistake is not. The
study goes on with what does not need it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dsonas_hw.errors import RunError
from dsonas_hw.files import read_json, write_json
from dsonas_hw.study.job import DESCRIPTION, RESULT
from dsonas_hw.study.spec import Job

MAX_TRIES = 3
POLL_S = 0.2

Report = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class JobFailure:
    """A job that could not be done, and the last line it said."""

    name: str
    reason: str


@dataclass(kw_only=True)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes]


def job_directory(study: Path, job: Job) -> Path:
    return study / "jobs" / job.name


def is_done(study: Path, job: Job) -> bool:
    return (job_directory(study, job) / RESULT).exists()


def run_jobs(
    study: Path, jobs: Sequence[Job], *, num_workers: int, report: Report | None = None
) -> list[JobFailure]:
    """Run every job that is not done, at most `num_workers` at a time. Returns what failed.

    Raises:
        RunError: a job of that name exists with another configuration.
    """
    for job in jobs:
        _describe(study, job)
    waiting = [job for job in jobs if not is_done(study, job)]
    tries = dict.fromkeys((job.name for job in waiting), 0)
    failed: dict[str, JobFailure] = {}
    running: list[_Running] = []
    try:
        while waiting or running:
            for job in list(waiting):
                if job.needs in failed:
                    waiting.remove(job)
                    failed[job.name] = JobFailure(name=job.name, reason=f"needs {job.needs}, which failed")
                elif len(running) < num_workers and _is_ready(study, job, jobs):
                    waiting.remove(job)
                    tries[job.name] += 1
                    running.append(_start(study, job))
            for entry in [r for r in running if r.process.poll() is not None]:
                running.remove(entry)
                entry.log.close()
                job = entry.job
                if is_done(study, job):
                    continue
                reason = _last_line(job_directory(study, job) / "log.txt")
                died = entry.process.returncode < 0 or entry.process.returncode not in (0, 1, 2)
                if died and tries[job.name] < MAX_TRIES:
                    waiting.append(job)
                else:
                    failed[job.name] = JobFailure(
                        name=job.name, reason=reason or f"exit code {entry.process.returncode}"
                    )
            if report is not None:
                done = sum(is_done(study, job) for job in jobs)
                report(done, len(jobs), ", ".join(r.job.name for r in running))
            time.sleep(POLL_S)
    finally:
        for entry in running:
            entry.process.terminate()
        for entry in running:
            entry.process.wait()
            entry.log.close()
    return list(failed.values())


def _describe(study: Path, job: Job) -> None:
    """Write job.json, or check that it is this job's."""
    path = job_directory(study, job) / DESCRIPTION
    if path.exists():
        if read_json(path) != job.to_json():
            raise RunError(
                f"{study} holds a study whose job {job.name} has another configuration; choose another --out"
            )
        return
    write_json(path, job.to_json())


def _is_ready(study: Path, job: Job, jobs: Sequence[Job]) -> bool:
    return job.needs is None or any(is_done(study, other) for other in jobs if other.name == job.needs)


def _start(study: Path, job: Job) -> _Running:
    folder = job_directory(study, job)
    log = open(folder / "log.txt", "ab")  # noqa: SIM115  closed when the job ends
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    process = subprocess.Popen(
        [sys.executable, "-m", "dsonas_hw.study.job", str(folder)],
        stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment,
    )  # fmt: skip
    return _Running(job=job, process=process, log=log)


def _last_line(path: Path) -> str:
    lines = path.read_text("utf-8", errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1][:500] if lines else ""
