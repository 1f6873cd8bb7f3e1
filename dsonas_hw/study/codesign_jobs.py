"""The jobs of a co-design study: first what finds the networks, then what trains and measures them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsonas_hw.budget import parse_budgets
from dsonas_hw.config import overlay
from dsonas_hw.errors import UserError
from dsonas_hw.files import read_json
from dsonas_hw.study.codesign import Codesign, StudyDevice
from dsonas_hw.study.engine import RESULT
from dsonas_hw.study.scheduler import is_done, job_directory
from dsonas_hw.study.spec import Job, slug


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
            network = result.get("network") if isinstance(result, dict) else None
            # It becomes part of a directory's name: nothing but a hash may.
            if not isinstance(network, str) or not re.fullmatch(r"[0-9a-f]{6,64}", network):
                raise UserError(f"the result of {job.name} is damaged (no network); remove its directory")
            if not isinstance(result.get("predicted", {}), dict):
                raise UserError(f"the result of {job.name} is damaged; remove its directory")
            found.append(Derivation(job=job, network=network, result=result))
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
