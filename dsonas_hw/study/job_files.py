"""What the jobs of a study have on disk: which are done, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from dsonas_hw.errors import UserError, first_problem
from dsonas_hw.files import read_json
from dsonas_hw.study.spec import Job

DESCRIPTION = "job.json"
LOG = "log.txt"
RESULT = "result.json"


Stored = TypeVar("Stored", bound=BaseModel)
REMOVE = "; remove its directory"


def read_stored(path: Path, kind: type[Stored], *, then: str = "") -> Stored:
    """Read one of a study's files, which may come from anyone; then: what the message of a damaged one adds.

    Raises:
        UserError: missing or damaged.
    """
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path} is damaged: {first_problem(error)}{then}") from None


def job_directory(study: Path, name: str) -> Path:
    """Return the directory of a job."""
    return study / "jobs" / name


def is_done(study: Path, name: str) -> bool:
    """Return whether a job has its result."""
    return (job_directory(study, name) / RESULT).exists()


def last_line(path: Path) -> str:
    """Return the last line of a log, at most 500 characters of it; empty if there is none."""
    lines = path.read_text("utf-8", errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1][:500] if lines else ""


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A job that is not done."""

    job: str
    reason: str


def missing_jobs(path: Path, jobs: Sequence[Job]) -> tuple[Missing, ...]:
    """Return which jobs are not done, and why."""
    return tuple(Missing(job=job.name, reason=_why(path, job)) for job in jobs if not is_done(path, job.name))


def _why(path: Path, job: Job) -> str:
    """Why a job is not done, in its own words if it has said something."""
    folder = job_directory(path, job.name)
    if not (folder / LOG).exists():
        needs = [name for name in job.all_needs if not is_done(path, name)]
        return f"waits for {needs[0]}" if needs else "not started"
    return last_line(folder / LOG) or "begun, not finished"
