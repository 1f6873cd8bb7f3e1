"""Co-design: which network for which device under which budget, and what it costs on the other devices.

    pretrain once ─▶ search per device ─▶ derive per device × budget ─┬─▶ train each distinct network once
                                                                      └─▶ measure it on devices that are here

A network that two devices or budgets agree on is one network. Its costs on all devices are predicted when it
is derived; so a device that is absent has a column too, marked as estimated.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dsonas_hw.budget import parse_budgets
from dsonas_hw.config import build_config, overlay
from dsonas_hw.errors import BudgetError, DeviceError, UserError
from dsonas_hw.files import read_json, write_json
from dsonas_hw.study.job import RESULT
from dsonas_hw.study.scheduler import is_done, job_directory
from dsonas_hw.study.spec import Job, slug

SPECIFICATION = "codesign.json"
MAX_PAIRS = 1000


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


def budget_levels(options: Sequence[str]) -> tuple[str, ...]:
    """`latency=3ms,5ms,8ms` → three budgets; limits of several quantities are combined, each with each.

    Raises:
        BudgetError: a limit that cannot be read, or none at all.
    """
    limits: dict[str, list[str]] = {}
    name = ""
    for part in (part.strip() for text in options for part in text.split(",")):
        if not part:
            continue
        before, equals, after = part.partition("=")
        name, limit = (before.strip(), after.strip()) if equals else (name, part)
        (budget,) = parse_budgets([f"{name}={limit}" if name else part])
        texts = limits.setdefault(budget.name, [])
        if str(budget) in texts:
            raise BudgetError(f"budget {budget} is given twice; keep one")
        texts.append(str(budget))
    if not limits:
        raise BudgetError("a co-design study needs budgets, e.g. --budget latency=3ms,5ms,8ms")
    return tuple(",".join(level) for level in itertools.product(*limits.values()))


def plan_codesign(
    devices: Sequence[str],
    budgets: Sequence[str],
    config: dict[str, Any],
    *,
    seeds: Sequence[int] = (0,),
    search_per_budget: bool = False,
    skip_infeasible: bool = False,
) -> Codesign:
    """Check everything that would fail later.

    devices: names or aliases. budgets: as `budget_levels` makes them. config: a preset overlaid by options.
    skip_infeasible: leave out devices × budgets that no network, or every network, of the space serves.

    Raises:
        DeviceError: an unknown device, or one named twice.
        BudgetError: a budget that does not fit a device's networks; says what would.
        ProfileError: a device that needs a profile has none.
    """
    from dsonas_hw.task import prepare_task, space_of_config

    if len(devices) * len(budgets) > MAX_PAIRS:
        raise UserError(f"{len(devices)} devices × {len(budgets)} budgets are more than {MAX_PAIRS} networks")
    base = overlay(config, {"budget": []})
    found = _look_up(devices, base)
    space = space_of_config(build_config(base))
    skipped: list[Pair] = []
    reasons: dict[str, str] = {}
    for device, budget in itertools.product(found, budgets):
        run = build_config(overlay(base, {"target": {"device": device.name}, "budget": [budget]}))
        try:
            prepare_task(run, space)
        except BudgetError as error:
            skipped.append(Pair(device=device.name, budget=budget))
            reasons.setdefault(device.name, str(error))
    if skipped and not skip_infeasible:
        words = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise BudgetError(f"{words}. Change the budgets, or leave such pairs out with --skip-infeasible")
    if len(skipped) == len(found) * len(budgets):
        raise BudgetError(f"no budget fits any device: {next(iter(reasons.values()))}")
    return Codesign(
        devices=found, budgets=tuple(budgets), seeds=tuple(seeds), search_per_budget=search_per_budget,
        config=base, skipped=tuple(skipped),
    )  # fmt: skip


def _look_up(names: Sequence[str], config: dict[str, Any]) -> tuple[StudyDevice, ...]:
    from dsonas_hw.config import DeviceConfig
    from dsonas_hw.device.cpu import local_cpu
    from dsonas_hw.device.spec import LOCAL, load_device
    from dsonas_hw.profile.open import open_latency_model, resolve

    devices: dict[str, StudyDevice] = {}
    for text in names:
        name, _ = resolve(text, None)
        if name in devices:
            raise DeviceError(f"device {name} is listed twice in --devices")
        target = DeviceConfig(**{**config.get("target", {}), "device": name})
        model = open_latency_model(
            name, runtime=target.runtime, precision=target.precision, batch_size=target.batch_size,
            threads=target.threads,
        )  # fmt: skip
        table = getattr(model, "table", None)
        errors = [check.error.mape for check in table.checks.values()] if table is not None else []
        devices[name] = StudyDevice(
            name=name,
            title=local_cpu().title if name == LOCAL else load_device(name).title,
            runtime=model.runtime,
            source=model.source,
            is_here=_is_here(target),
            mean_error=sum(errors) / len(errors) if errors else None,
        )
    return tuple(devices.values())


def _is_here(target: Any) -> bool:
    """Whether networks can be measured on it now."""
    from dsonas_hw.deploy.measure import find_target

    try:
        return find_target(target) is not None
    except DeviceError:
        return False


# -- jobs --------------------------------------------------------------------------------------------------


def search_jobs(study: Codesign) -> list[Job]:
    """Pretraining, searches and derivations: what finds the networks."""
    jobs = []
    for seed in study.seeds:
        config = overlay(study.config, {"seed": seed})
        pretraining = Job(
            name=f"pretrain-s{seed}",
            kind="pretrain",
            variant="pretrain",
            budgets=(),
            seed=seed,
            config=config,
        )
        jobs.append(pretraining)
        for device in study.devices:
            budgets = [pair.budget for pair in study.pairs if pair.device == device.name]
            for served in ([b] for b in budgets) if study.search_per_budget else [budgets] if budgets else []:
                jobs += _search_and_derive(study, device, served, pretraining)
    return jobs


def _search_and_derive(
    study: Codesign, device: StudyDevice, budgets: Sequence[str], pretraining: Job
) -> list[Job]:
    seed = pretraining.seed
    common: dict[str, Any] = {
        "variant": device.name, "seed": seed,
        "config": overlay(pretraining.config, {"target": {"device": device.name}}),
    }  # fmt: skip
    suffix = f"-{slug(budgets[0])}" if study.search_per_budget else ""
    search = Job(
        name=f"search-{device.name}{suffix}-s{seed}", kind="search", budgets=tuple(budgets),
        needs=pretraining.name, **common,
    )  # fmt: skip
    return [
        search,
        *(
            Job(
                name=derive_name(device.name, budget, seed), kind="derive", budgets=(budget,),
                needs=search.name, devices=tuple(d.name for d in study.devices),
                exclusive=device.is_here and _is_timed(budget), **common,
            )
            for budget in budgets
        ),
    ]  # fmt: skip


def derive_name(device: str, budget: str, seed: int) -> str:
    """Name of the job that derives the network of a device and a budget."""
    return f"derive-{device}-{slug(budget)}-s{seed}"


def _is_timed(budget: str) -> bool:
    return any(b.name in ("latency", "energy") for b in parse_budgets([budget]))


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """A derivation that is done."""

    job: Job
    network: str
    """Hash of the architecture."""
    result: dict[str, Any]


def finished_derivations(path: Path, jobs: Sequence[Job]) -> list[Derivation]:
    """What has been derived so far, in the order of the jobs.

    Raises:
        UserError: a damaged result.
    """
    found = []
    for job in jobs:
        if job.kind == "derive" and is_done(path, job.name):
            result = read_json(job_directory(path, job.name) / RESULT)
            try:
                found.append(Derivation(job=job, network=str(result["network"]), result=result))
            except (KeyError, TypeError):
                raise UserError(f"the result of {job.name} is damaged; remove its directory") from None
    return found


def network_jobs(study: Codesign, derivations: Sequence[Derivation]) -> list[Job]:
    """Training of each distinct network, and its measurement on every device that is here."""
    jobs: dict[str, Job] = {}
    for derivation in derivations:
        job, network = derivation.job, derivation.network
        plain = overlay(study.config, {"seed": job.seed})
        train = f"train-{network}-s{job.seed}"
        jobs.setdefault(
            train,
            Job(name=train, kind="train", variant=network, budgets=(), seed=job.seed, config=plain,
                needs=job.name),
        )  # fmt: skip
        for device in study.devices:
            measure = f"measure-{device.name}-{network}"
            if device.is_here and measure not in jobs:
                jobs[measure] = Job(
                    name=measure, kind="measure", variant=network, budgets=(), seed=job.seed, needs=job.name,
                    config=overlay(plain, {"target": {"device": device.name}}), exclusive=True,
                )  # fmt: skip
    order = {"train": 0, "measure": 1}
    return sorted(jobs.values(), key=lambda job: order[job.kind])


# -- files -------------------------------------------------------------------------------------------------


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
    try:
        return Codesign.model_validate(read_json(path / SPECIFICATION))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path / SPECIFICATION} is damaged: {where}: {first['msg']}") from None
