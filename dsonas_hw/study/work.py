"""A job that is being done: its directory, its configuration, and what the jobs before it left."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.config import RunConfig, build_config
from dsonas_hw.files import read_json
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.choose import load_architecture
from dsonas_hw.study.job_files import RESULT
from dsonas_hw.study.spec import Job
from dsonas_hw.task import Task, prepare_task
from dsonas_hw.train.images import load_data, space_of_config

if TYPE_CHECKING:
    from dsonas_hw.train.data import Dataset

PATIENCE_S = 120.0
"""How long a job waits for the worker of a study that was killed, which writes its checkpoint and ends."""


@dataclass(frozen=True)
class Work:
    """A job and its directory, `jobs/<name>` of the study's."""

    path: Path
    job: Job

    @cached_property
    def config(self) -> RunConfig:
        """The job's configuration under its budgets; without any where they are alternatives."""
        are_alternatives = self.job.kind in ("search", "evaluate")
        return build_config({**self.job.config, "budget": [] if are_alternatives else self.job.budgets})

    @cached_property
    def task(self) -> Task:
        """What a run of this configuration works on."""
        return prepare_task(self.config, space_of_config(self.config))

    def load_data(self) -> Dataset:
        """Return the images of the configuration."""
        return load_data(self.config)

    def open_run(self, config: RunConfig | None = None) -> tuple[RunDirectory, bool]:
        """Return the job's run directory, and whether it was begun before."""
        run = RunDirectory(self.path / "run", patience_s=PATIENCE_S)
        begun = run.config_path.exists()
        run.create(config or self.config, resume=True)
        return run, begun

    def run_of(self, name: str | None) -> RunDirectory:
        """Return the run directory of a job that this one needs."""
        assert name is not None, f"{self.job.name} needs no such job"
        return RunDirectory(self.path.parent / name / "run")

    @property
    def needed_run(self) -> RunDirectory:
        """The run directory of the job that `needs` names."""
        return self.run_of(self.job.needs)

    @property
    def needed_result(self) -> dict[str, Any]:
        """The result of the job that `needs` names."""
        result: dict[str, Any] = read_json(self.needed_run.path.parent / RESULT)
        return result

    @property
    def needed_architecture(self) -> Architecture:
        """The architecture that the derivation found which this job needs."""
        return load_architecture(self.needed_run)[0]
