"""What a study file says, and the jobs that it stands for (`study.expand`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

JobKind = Literal[
    "pretrain", "search", "evaluate", "derive", "train", "measure", "searched", "random", "transferred",
    "teacher", "choose", "fit", "fitted",
]  # fmt: skip
"""`searched`, `random` and `transferred` derive (or draw) and train in one; `teacher`, `choose`,
`fit` and `fitted` are of a study with hand-made networks, the others but `search` of a co-design study."""
RANDOM = "random"
"""Variant of the random architectures."""
SAME_WIDTH = "random, same width"
"""Variant of those that are as wide as the searched one."""
TRANSFERRED = "transferred"
"""Variant of the networks whose block was found elsewhere."""
DEFAULT_PRESET = "digits"


class TransferFrom(BaseModel):
    """Where a block is searched that is carried into the network of the base (the paper's DSO-NAS*)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: dict[str, Any]
    """Of that search, laid over the preset that it names; `--set transfer.KEY=VALUE` is laid over it."""
    budget: str
    """One budget or a comma list, which that search and the choice of its architecture serve."""


class StudyFile(BaseModel):
    """The fields of a study file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    description: str = ""
    base: dict[str, Any]
    """Laid over the preset that it names."""
    variants: dict[str, dict[str, Any]] = {}
    """Name → configuration laid over the base."""
    grid: dict[str, list[Any]] = {}
    """Dotted configuration field → values; every combination is a variant."""
    budgets: list[str] = Field(min_length=1)
    """Each one budget or a comma list."""
    seeds: list[int] = Field(default=[0], min_length=1)
    random: int = Field(default=0, ge=0, le=1000)
    """Random architectures for each budget and seed, drawn from each space that a variant has."""
    random_same_width: int = Field(default=0, ge=0, le=1000)
    """So many more of exactly the width that the searched architecture has, of the first variant of a space:
    what is left of its lead is due to the edges."""
    hand_made: list[str] = []
    """Families of `train.families` at the width that fills each budget, by name, e.g. resnet or resnet-s2;
    then every network is fitted by measurement, the searched and the random ones too."""
    random_search: bool = False
    """With hand_made: also the best random architecture that brief trainings find in the search's time."""
    transfer: TransferFrom | None = None
    for_preset: dict[str, dict[str, Any]] = {}
    """Preset → fields that take the place of this file's where `--preset` asks for it."""
    search_per_budget: bool = False
    """Search anew for each budget instead of serving all of them from one path."""
    measure: bool = False
    """Also measure the latency of every network on the target; these jobs run alone, one after the other."""


class Job(BaseModel):
    """One piece of work, e.g. a search; stored as job.json in `jobs/<name>` of the study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: JobKind
    variant: str
    budgets: tuple[str, ...]
    seed: int
    config: dict[str, Any]
    needs: str | None = None
    """Name of the job whose outcome it uses: the search's path, the pretraining's supernet, …"""
    needs_also: tuple[str, ...] = ()
    """Names of more of them: all searches whose candidates are shared."""
    index: int = 0
    """Number of the random architecture."""
    measure: bool = False
    devices: tuple[str, ...] = ()
    """Whose latency is predicted too (derive)."""
    exclusive: bool = False
    """Measures this machine: runs here, and alone."""
    network: str = ""
    """Of a study with hand-made networks: searched, random, random search or a family."""
    teacher: str | None = None
    """Name of the job whose run holds the teacher."""

    @property
    def all_needs(self) -> tuple[str, ...]:
        """Names of the jobs that come first."""
        return tuple(name for name in (self.needs, self.teacher, *self.needs_also) if name is not None)


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The random networks of a space, as variants of their own."""

    of: str
    """The first variant of that space."""
    random: str
    same_width: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """A checked study file and its jobs, searches first."""

    file: StudyFile
    jobs: tuple[Job, ...] = field(repr=False)
    baselines: Mapping[str, Baseline] = field(default_factory=dict, repr=False)
    """Variant → what its networks are compared with."""


def slug(text: str) -> str:
    """Return a part of a file name; short, since several make up one."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")[:64]
