"""What the jobs of a co-design study leave behind: one record type for each kind of result.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from dsonas_hw.architecture.costs import Costs
from dsonas_hw.study.job_files import REMOVE, RESULT, job_directory, read_stored
from dsonas_hw.study.measured import Measured


class Predicted(BaseModel):
    """The quiet latency and the energy of a network on a device, as its profile or estimate tells them."""

    model_config = ConfigDict(frozen=True)

    latency_ms: float
    latency_ms_low: float
    latency_ms_high: float
    source: str
    energy_mj: float | None = None
    """None, like its bounds: the profile has no energies."""
    energy_mj_low: float | None = None
    energy_mj_high: float | None = None


class Derived(BaseModel):
    """The network of a device and a budget."""

    model_config = ConfigDict(frozen=True)

    network: str = Field(pattern=r"^[0-9a-f]{6,64}$")
    """Hash of the architecture; it becomes part of a directory's name."""
    architecture: dict[str, Any]
    costs: Costs
    ratio: float | None = None
    ratio_before_fit: float | None = None
    predicted: dict[str, Predicted]
    """By device."""


class Trained(BaseModel):
    """A network trained from scratch."""

    model_config = ConfigDict(frozen=True)

    test_accuracy: float
    seconds: float


Record = TypeVar("Record", Derived, Trained, Measured)


def load_record(study: Path, job: str, kind: type[Record]) -> Record:
    """Read the result of a job that is done.

    Raises:
        UserError: it is damaged.
    """
    return read_stored(job_directory(study, job) / RESULT, kind, then=REMOVE)
