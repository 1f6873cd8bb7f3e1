"""A study file and the jobs it stands for.

    base × variants (or grid) × seeds  ─▶  one search each
                     × budgets         ─▶  the searched architecture, trained;
                                           `random` random ones of its space, trained alike;
                                           `random_same_width` of the searched one's width
    transfer × seeds                   ─▶  one search elsewhere
                     × budgets         ─▶  its block in the network of the base, trained

One search serves every budget: it is steered by the tightest, and the others are served from its path.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from dsonas_hw.budget import parse_budgets
from dsonas_hw.config import build_config, load_preset, overlay
from dsonas_hw.errors import UserError
from dsonas_hw.study.hand_made import hand_made_jobs
from dsonas_hw.study.spec import (
    DEFAULT_PRESET,
    RANDOM,
    SAME_WIDTH,
    TRANSFERRED,
    Baseline,
    Job,
    Study,
    StudyFile,
    slug,
)

MAX_JOBS = 10_000


def expand(file: StudyFile) -> Study:
    """Return the jobs of a study file, every configuration checked.

    Raises:
        UserError: a configuration that does not hold, or too many jobs.
    """
    for text in file.budgets:
        parse_budgets([text])
    variants = variants_of(file)
    baselines = _baselines(file, variants)
    if file.hand_made:
        jobs = list(hand_made_jobs(file, variants, lambda *asked: _config(file, *asked)))
    else:
        jobs = [*_searched_jobs(file, variants), *_transfer_jobs(file)]
        for baseline in dict.fromkeys(baselines.values()):
            jobs += _random_jobs(file, variants, baseline)
    if len(jobs) > MAX_JOBS:
        raise UserError(f"study {file.name} has {len(jobs)} jobs, more than {MAX_JOBS}; make it smaller")
    names = [job.name for job in jobs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(
            f"study {file.name}: two variants, budgets or seeds make the same job {twice}; rename one"
        )
    # What measures runs alone: another job on the same GPU, or on its CPU, would be in the timing.
    jobs = [job.model_copy(update={"exclusive": True}) if job.measure else job for job in jobs]
    jobs.sort(key=lambda job: job.kind != "search")
    return Study(file=file, jobs=tuple(jobs), baselines=baselines)


def _searched_jobs(file: StudyFile, variants: Mapping[str, dict[str, Any]]) -> Iterator[Job]:
    for (variant, changes), seed in itertools.product(variants.items(), file.seeds):
        common: dict[str, Any] = {
            "variant": variant, "seed": seed, "config": _config(file, variant, changes, seed),
        }  # fmt: skip
        searches = [(text,) for text in file.budgets] if file.search_per_budget else [tuple(file.budgets)]
        for budgets in searches:
            suffix = f"-{slug(budgets[0])}" if file.search_per_budget else ""
            search = f"search-{slug(variant)}-s{seed}{suffix}"
            yield Job(name=search, kind="search", budgets=budgets, **common)
            for text in budgets:
                yield Job(
                    name=_searched_name(variant, text, seed), kind="searched",
                    budgets=(text,), needs=search, measure=file.measure, **common,
                )  # fmt: skip


def _random_jobs(
    file: StudyFile, variants: Mapping[str, dict[str, Any]], baseline: Baseline
) -> Iterator[Job]:
    tag = "" if baseline.random == RANDOM else f"-{slug(baseline.of)}"
    for seed in file.seeds:
        config = _config(file, baseline.of, variants[baseline.of], seed)
        for text, index in itertools.product(file.budgets, range(file.random)):
            yield Job(
                name=f"random{tag}-{slug(text)}-s{seed}-{index + 1}", kind="random",
                variant=baseline.random, budgets=(text,), seed=seed, config=config, index=index,
                measure=file.measure,
            )  # fmt: skip
        for text, index in itertools.product(file.budgets, range(file.random_same_width)):
            yield Job(
                name=f"same-width{tag}-{slug(text)}-s{seed}-{index + 1}", kind="random",
                variant=baseline.same_width, budgets=(text,), seed=seed, config=config,
                index=file.random + index, measure=file.measure,
                needs=_searched_name(baseline.of, text, seed),
            )  # fmt: skip


def _transfer_jobs(file: StudyFile) -> Iterator[Job]:
    """A search elsewhere for each seed, and its block in the base's network under each budget."""
    if file.transfer is None:
        return
    parse_budgets([file.transfer.budget])
    for seed in file.seeds:
        elsewhere = _checked_config(f"study {file.name}, transfer", file.transfer.base, seed)
        source = build_config(elsewhere).space
        if not source.share:
            raise UserError(f"study {file.name}: transfer needs a search of one block, space.share: true")
        inner = {"levels": source.levels, "operations": list(source.operations), "share": True}
        config = _config(file, TRANSFERRED, {"space": inner}, seed)
        search = f"search-{TRANSFERRED}-s{seed}"
        yield Job(
            name=search, kind="search", variant=TRANSFERRED, budgets=(file.transfer.budget,), seed=seed,
            config=elsewhere,
        )  # fmt: skip
        for text in file.budgets:
            yield Job(
                name=f"{TRANSFERRED}-{slug(text)}-s{seed}", kind="transferred", variant=TRANSFERRED,
                budgets=(text,), seed=seed, config=config, needs=search, measure=file.measure,
            )  # fmt: skip


def _baselines(file: StudyFile, variants: Mapping[str, dict[str, Any]]) -> dict[str, Baseline]:
    """Variant → its random networks: one such baseline for each space, named after its first variant."""
    first_of: dict[str, str] = {}
    spaces = {}
    for variant, changes in variants.items():
        config = build_config(_config(file, variant, changes, file.seeds[0]))
        data = config.data
        spaces[variant] = repr((config.space, data.dataset, data.image_size))
        first_of.setdefault(spaces[variant], variant)

    def baseline(first: str) -> Baseline:
        if len(first_of) == 1:
            return Baseline(of=first, random=RANDOM, same_width=SAME_WIDTH)
        return Baseline(of=first, random=f"{RANDOM} {first}", same_width=f"{RANDOM} {first}, same width")

    made = {space: baseline(first) for space, first in first_of.items()}
    return {variant: made[space] for variant, space in spaces.items()}


def _searched_name(variant: str, budget: str, seed: int) -> str:
    return f"{slug(variant)}-{slug(budget)}-s{seed}-searched"


def _config(file: StudyFile, variant: str, changes: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The checked configuration of a variant, without its budget."""
    return _checked_config(f"study {file.name}, variant {variant}", overlay(file.base, changes), seed)


def _checked_config(origin: str, asked: dict[str, Any], seed: int) -> dict[str, Any]:
    for key in ("seed", "budget"):
        if key in asked:
            raise UserError(f"{origin}: {key} is no field of a variant; list it under {key}s of the study")
    preset = str(asked.get("preset", DEFAULT_PRESET))
    config = overlay(load_preset(preset), {**asked, "preset": preset, "seed": seed})
    build_config(config, origin=origin)
    return config


def variants_of(file: StudyFile) -> dict[str, dict[str, Any]]:
    if file.variants and file.grid:
        raise UserError(f"study {file.name}: give variants or a grid, not both")
    for name in file.variants:
        if name.startswith(RANDOM) or name == TRANSFERRED:
            raise UserError(f"study {file.name}: {name} is the name of a baseline; rename the variant")
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
