"""A study file and the jobs it stands for.

    base × variants (or grid) × seeds  ─▶  one search each
                     × budgets         ─▶  the searched architecture, trained;
                                           `random` random ones, trained alike;
                                           `random_same_width` of the searched one's width

One search serves every budget: it is steered by the tightest, and the others are served from its path.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dsonas_hw.budget import parse_budgets
from dsonas_hw.config import build_config, load_config_file, load_preset, overlay, parse_yaml
from dsonas_hw.errors import UserError, closest

JobKind = Literal["pretrain", "search", "derive", "train", "measure", "searched", "random"]
"""`searched` and `random` derive (or draw) and train in one; the others are of a co-design study."""
RANDOM = "random"
"""Variant of the random architectures."""
SAME_WIDTH = "random, same width"
"""Variant of those that are as wide as the searched one."""
MAX_JOBS = 10_000


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
    """Random architectures for each budget and seed, drawn from the first variant's space."""
    random_same_width: int = Field(default=0, ge=0, le=1000)
    """So many more of exactly the width that the first variant's searched architecture has: what is left of
    its lead is due to the edges."""
    search_per_budget: bool = False
    """Search anew for each budget instead of serving all of them from one path."""
    measure: bool = False
    """Also measure the latency of every network on the target (one at a time)."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work, e.g. a search; its directory is `jobs/<name>` of the study's."""

    name: str
    kind: JobKind
    variant: str
    budgets: tuple[str, ...]
    seed: int
    config: Mapping[str, Any]
    needs: str | None = None
    """Name of the job whose outcome it uses: the search's path, the pretraining's supernet, …"""
    index: int = 0
    """Number of the random architecture."""
    measure: bool = False
    devices: tuple[str, ...] = ()
    """Whose latency is predicted too (derive)."""
    exclusive: bool = False
    """Measures this machine: runs here, and alone."""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "kind": self.kind, "variant": self.variant, "budgets": list(self.budgets),
            "seed": self.seed, "config": dict(self.config), "needs": self.needs, "index": self.index,
            "measure": self.measure, "devices": list(self.devices), "exclusive": self.exclusive,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Study:
    """A checked study file and its jobs, searches first."""

    file: StudyFile
    jobs: tuple[Job, ...] = field(repr=False)


def shipped_studies() -> list[str]:
    """Names of the studies that come with the package."""
    folder = resources.files("dsonas_hw") / "studies"
    return sorted(e.name.removesuffix(".yaml") for e in folder.iterdir() if e.name.endswith(".yaml"))


def load_study(name_or_path: str, changes: Mapping[str, Any]) -> Study:
    """A shipped study by name, or a YAML file; `changes` are laid over its base configuration.

    Raises:
        UserError: unknown study, unknown fields, or a configuration that does not hold.
    """
    if name_or_path in shipped_studies():
        text = (resources.files("dsonas_hw") / "studies" / f"{name_or_path}.yaml").read_text("utf-8")
        data = parse_yaml(text, origin=f"study {name_or_path}")
    elif Path(name_or_path).suffix in (".yaml", ".yml"):
        data = load_config_file(Path(name_or_path))
    else:
        raise UserError(
            f"unknown study {name_or_path!r}. {closest(name_or_path, shipped_studies())} "
            "Or give the path of a .yaml file"
        )
    try:
        file = StudyFile.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            hint = closest(where, list(StudyFile.model_fields))
            raise UserError(f"study {name_or_path}: unknown field {where!r}. {hint}") from None
        raise UserError(f"study {name_or_path}: {where}: {first['msg']}") from None
    return expand(file.model_copy(update={"base": overlay(file.base, changes)}))


def expand(file: StudyFile) -> Study:
    """The jobs of a study, every configuration checked.

    Raises:
        UserError: a configuration that does not hold, or too many jobs.
    """
    for text in file.budgets:
        parse_budgets([text])
    jobs: list[Job] = []
    variants = _variants(file)
    for (variant, changes), seed in itertools.product(variants.items(), file.seeds):
        common: dict[str, Any] = {
            "variant": variant, "seed": seed, "config": _config(file, variant, changes, seed),
        }  # fmt: skip
        searches = [(text,) for text in file.budgets] if file.search_per_budget else [tuple(file.budgets)]
        for budgets in searches:
            suffix = f"-{slug(budgets[0])}" if file.search_per_budget else ""
            search = f"search-{slug(variant)}-s{seed}{suffix}"
            jobs.append(Job(name=search, kind="search", budgets=budgets, **common))
            for text in budgets:
                jobs.append(
                    Job(
                        name=_searched_name(variant, text, seed), kind="searched",
                        budgets=(text,), needs=search, measure=file.measure, **common,
                    )
                )  # fmt: skip
    first, changes = next(iter(variants.items()))
    for seed in file.seeds:
        config = _config(file, first, changes, seed)
        for text, index in itertools.product(file.budgets, range(file.random)):
            jobs.append(
                Job(
                    name=f"random-{slug(text)}-s{seed}-{index + 1}", kind="random", variant=RANDOM,
                    budgets=(text,), seed=seed, config=config, index=index, measure=file.measure,
                )
            )  # fmt: skip
        for text, index in itertools.product(file.budgets, range(file.random_same_width)):
            jobs.append(
                Job(
                    name=f"same-width-{slug(text)}-s{seed}-{index + 1}", kind="random", variant=SAME_WIDTH,
                    budgets=(text,), seed=seed, config=config, index=file.random + index,
                    measure=file.measure, needs=_searched_name(first, text, seed),
                )
            )  # fmt: skip
    if len(jobs) > MAX_JOBS:
        raise UserError(f"study {file.name} has {len(jobs)} jobs, more than {MAX_JOBS}; make it smaller")
    names = [job.name for job in jobs]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(
            f"study {file.name}: two variants, budgets or seeds make the same job {twice}; rename one"
        )
    order = {"search": 0, "searched": 1, "random": 1}
    return Study(file=file, jobs=tuple(sorted(jobs, key=lambda job: order[job.kind])))


def _searched_name(variant: str, budget: str, seed: int) -> str:
    return f"{slug(variant)}-{slug(budget)}-s{seed}-searched"


def _config(file: StudyFile, variant: str, changes: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The checked configuration of a variant, without its budget."""
    origin = f"study {file.name}, variant {variant}"
    asked = overlay(file.base, changes)
    for key in ("seed", "budget"):
        if key in asked:
            raise UserError(f"{origin}: {key} is no field of a variant; list it under {key}s of the study")
    asked.setdefault("preset", "digits")
    config = overlay(load_preset(str(asked["preset"])), {**asked, "seed": seed})
    build_config(config, origin=origin)
    return config


def _variants(file: StudyFile) -> dict[str, dict[str, Any]]:
    if file.variants and file.grid:
        raise UserError(f"study {file.name}: give variants or a grid, not both")
    for name in (RANDOM, SAME_WIDTH):
        if name in file.variants:
            raise UserError(f"study {file.name}: a variant cannot be called {name}, as the baseline is")
    if not file.grid:
        return file.variants or {"searched": {}}
    if empty := [key for key, values in file.grid.items() if not values]:
        raise UserError(f"study {file.name}: grid field {empty[0]} has no values")
    variants: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*file.grid.values()):
        changes: dict[str, Any] = {}
        for key, value in zip(file.grid, values, strict=True):
            nested: Any = value
            for part in reversed(key.split(".")):
                nested = {part: nested}
            changes = overlay(changes, nested)
        name = ", ".join(f"{k.split('.')[-1]}={v}" for k, v in zip(file.grid, values, strict=True))
        variants[name] = changes
    return variants


def slug(text: str) -> str:
    """A part of a file name; short, since several make up one."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")[:64]
