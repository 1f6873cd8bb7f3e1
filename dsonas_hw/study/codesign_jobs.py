"""The jobs of a co-design study: first what finds the networks, then what trains and measures them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsonas_hw.budget import parse_budgets
from dsonas_hw.config import build_config, overlay
from dsonas_hw.study.codesign import Codesign, Pair
from dsonas_hw.study.codesign_records import Derived, load_record
from dsonas_hw.study.job_files import is_done
from dsonas_hw.study.spec import Job, slug


def search_jobs(study: Codesign) -> list[Job]:
    """Return pretraining, searches, evaluation of the candidates (if the preset selects), derivations."""
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
        searches = {
            pair: job for job, served in _searches(study, pretraining) for pair in served
        }  # of each device and budget
        jobs += [pretraining, *{job.name: job for job in searches.values()}.values()]
        if build_config(study.config).select.candidates:
            evaluation = Job(
                name=f"evaluate-s{seed}", kind="evaluate", variant="evaluate", seed=seed, config=config,
                budgets=study.budgets, devices=tuple(device.name for device in study.devices),
                needs_also=tuple(dict.fromkeys(job.name for job in searches.values())),
            )  # fmt: skip
            jobs.append(evaluation)
            searches = dict.fromkeys(searches, evaluation)
        jobs += [_derivation(study, pair, needed, seed) for pair, needed in searches.items()]
    return jobs


def _searches(study: Codesign, pretraining: Job) -> Iterator[tuple[Job, list[Pair]]]:
    """Each search of a seed, and the devices and budgets that it serves."""
    for device in study.devices:
        pairs = [pair for pair in study.pairs if pair.device == device.name]
        for served in ([p] for p in pairs) if study.search_per_budget else [pairs] if pairs else []:
            suffix = f"-{slug(served[0].budget)}" if study.search_per_budget else ""
            yield (
                Job(
                    name=f"search-{device.name}{suffix}-s{pretraining.seed}", kind="search",
                    variant=device.name, budgets=tuple(pair.budget for pair in served),
                    seed=pretraining.seed, needs=pretraining.name,
                    config=overlay(pretraining.config, {"target": {"device": device.name}}),
                ),
                served,
            )  # fmt: skip


def _derivation(study: Codesign, pair: Pair, needed: Job, seed: int) -> Job:
    """The derivation of a device and a budget from its search, or from the candidates of all."""
    device = next(device for device in study.devices if device.name == pair.device)
    return Job(
        name=derive_name(pair.device, pair.budget, seed), kind="derive", variant=pair.device,
        budgets=(pair.budget,), seed=seed, needs=needed.name,
        config=overlay(study.config, {"seed": seed, "target": {"device": pair.device}}),
        devices=tuple(d.name for d in study.devices), exclusive=device.is_here and _is_timed(pair.budget),
    )  # fmt: skip


def derive_name(device: str, budget: str, seed: int) -> str:
    """Return the name of the job that derives the network of a device and a budget."""
    return f"derive-{device}-{slug(budget)}-s{seed}"


def _is_timed(budget: str) -> bool:
    return any(b.metric for b in parse_budgets([budget]))


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """A derivation that is done."""

    job: Job
    result: Derived


def finished_derivations(path: Path, jobs: Sequence[Job]) -> list[Derivation]:
    """Return what has been derived so far, in the order of the jobs.

    Raises:
        UserError: a damaged result.
    """
    return [
        Derivation(job=job, result=load_record(path, job.name, Derived))
        for job in jobs
        if job.kind == "derive" and is_done(path, job.name)
    ]


def network_jobs(study: Codesign, derivations: Sequence[Derivation]) -> list[Job]:
    """Return the training of each distinct network, and its measurement on every device that is here."""
    jobs: dict[str, Job] = {}
    for derivation in derivations:
        job, network = derivation.job, derivation.result.network
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
