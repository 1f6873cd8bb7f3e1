"""A grid study on disk: what it is, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsonas_hw.errors import UserError
from dsonas_hw.files import write_json
from dsonas_hw.study.expand import expand
from dsonas_hw.study.job_files import Missing, missing_jobs, read_stored
from dsonas_hw.study.spec import Study, StudyFile
from dsonas_hw.study.table import StudyRow, collect_results, collect_skipped, tabulate

SPECIFICATION = "study.json"


@dataclass(frozen=True, kw_only=True)
class GridResult:
    """Everything that is known so far of a grid study."""

    study: Study = field(repr=False)
    rows: tuple[StudyRow, ...]
    results: tuple[dict[str, Any], ...] = field(repr=False)
    """One per network that is trained: `job`, `variant`, `budget`, `seed`, `test_error`, `costs`, …"""
    missing: tuple[Missing, ...]
    skipped: tuple[str, ...] = ()
    """Why families have no network, a line each."""


def save_grid(path: Path, study: Study) -> None:
    """Write study.json: the study file, as it was understood.

    Raises:
        RunError: the directory cannot be written.
    """
    write_json(path / SPECIFICATION, study.file.model_dump(mode="json"))


def load_grid(path: Path) -> GridResult:
    """Read a study's directory, finished or not.

    Raises:
        UserError: not a grid study, or damaged.
    """
    study = expand(read_stored(path / SPECIFICATION, StudyFile))
    try:
        results = collect_results(path, study)
        rows = tabulate(results, study.baselines)
        skipped = collect_skipped(path, study)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"a result in {path / 'jobs'} is damaged: {type(error).__name__} {error}") from None
    return GridResult(
        study=study, rows=tuple(rows), results=tuple(results), missing=missing_jobs(path, study.jobs),
        skipped=tuple(skipped),
    )  # fmt: skip
