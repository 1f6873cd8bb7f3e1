"""Co-design: which network for which device under which budget, and what it costs on the other devices.

    pretrain once ─▶ search per device ─▶ evaluate the candidates of all ─▶ derive per device × budget
        ─┬─▶ train each distinct network once
         └─▶ measure it on devices that are here

A derivation takes the best of all candidates that hold there, whichever device's search they came from.

A network that two devices or budgets agree on is one network. Its costs on all devices are predicted when it
is derived; so a device that is absent has a column too, marked as estimated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dsonas_hw.files import write_json
from dsonas_hw.study.job_files import read_stored

SPECIFICATION = "codesign.json"


class StudyDevice(BaseModel):
    """A device of the study, as it was when the study (last) started."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str
    runtime: str
    source: str
    """Where its latencies come from: measured, calibrated, imported or estimated."""
    is_here: bool
    """Then networks are measured on it."""
    mean_error: float | None
    """Of its profile on whole networks it was not fitted on; None: not known."""


class Pair(BaseModel):
    """A device and a budget."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    budget: str


class Codesign(BaseModel):
    """What is asked; stored as codesign.json in the study's directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    name: str = "codesign"
    devices: tuple[StudyDevice, ...] = Field(min_length=1)
    budgets: tuple[str, ...] = Field(min_length=1)
    """Each a budget, or a comma list whose parts must hold together."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    search_per_budget: bool = False
    config: dict[str, Any]
    """Of every run, but for its device and its budgets."""
    skipped: tuple[Pair, ...] = ()
    """What no network of the space can serve, or every one does."""

    @property
    def pairs(self) -> list[Pair]:
        """Every device and budget that a network is found for."""
        pairs = [Pair(device=d.name, budget=b) for d in self.devices for b in self.budgets]
        return [pair for pair in pairs if pair not in self.skipped]


def save_codesign(path: Path, study: Codesign) -> None:
    """Write codesign.json.

    Raises:
        RunError: the directory cannot be written.
    """
    write_json(path / SPECIFICATION, study.model_dump(mode="json"))


def load_codesign(path: Path) -> Codesign:
    """Read codesign.json; the file may come from anyone.

    Raises:
        UserError: missing or damaged.
    """
    return read_stored(path / SPECIFICATION, Codesign)
