"""What a study does not have yet, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsonas_hw.study.engine import LOG
from dsonas_hw.study.scheduler import is_done, job_directory, last_line
from dsonas_hw.study.spec import Job


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A job that is not done."""

    job: str
    reason: str


def missing_jobs(path: Path, jobs: Sequence[Job]) -> tuple[Missing, ...]:
    """Which of them are not done, and why."""
    return tuple(Missing(job=job.name, reason=_why(path, job)) for job in jobs if not is_done(path, job.name))


def _why(path: Path, job: Job) -> str:
    """Why a job is not done, in its own words if it has said something."""
    folder = job_directory(path, job.name)
    if not (folder / LOG).exists():
        needs = [name for name in job.all_needs if not is_done(path, name)]
        return f"waits for {needs[0]}" if needs else "not started"
    return last_line(folder / LOG) or "begun, not finished"
