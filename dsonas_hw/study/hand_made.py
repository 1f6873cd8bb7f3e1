"""The jobs of a study that holds searched networks against hand-made, random and randomly searched ones.

    search × seeds ──▶ fit × budgets ──▶ train           the searched network, selected by brief trainings
                        └─ time of both ─▶ choose ─▶ fit ─▶ train     random search within that time
    fit × families × budgets ─▶ train × seeds            a family at the width that fills the budget
    fit × random × budgets × seeds ─▶ train              random networks of the space

A fit measures this machine, so it runs alone; all networks are trained by the same recipe, seeds and code.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dsonas_hw.budget import parse_budgets
from dsonas_hw.config import build_config
from dsonas_hw.study.spec import RANDOM, Job, StudyFile, slug

RANDOM_SEARCH = "random search"
SEARCHED = "searched"
TEACHER = "teacher"

Configure = Callable[[str, Mapping[str, Any], int], dict[str, Any]]
"""(variant, its changes, seed) → the checked configuration."""


def hand_made_jobs(
    file: StudyFile, variants: Mapping[str, dict[str, Any]], configure: Configure
) -> Iterator[Job]:
    """Yield the jobs of a study that names hand-made families."""
    first = next(iter(variants))
    plain = {seed: configure(first, variants[first], seed) for seed in file.seeds}
    teacher = build_config(plain[file.seeds[0]]).retrain.distill.teacher
    names = {seed: _teacher_job(teacher, first, seed) for seed in file.seeds}
    if teacher not in (None, "supernet", "network"):
        for seed in file.seeds:
            yield Job(
                name=f"{TEACHER}-s{seed}",
                kind="teacher",
                variant=TEACHER,
                budgets=(),
                seed=seed,
                config=plain[seed],
            )
    for (variant, changes), seed in itertools.product(variants.items(), file.seeds):
        config = configure(variant, changes, seed)
        search = f"search-{slug(variant)}-s{seed}"
        yield Job(
            name=search, kind="search", variant=variant, budgets=tuple(file.budgets), seed=seed, config=config
        )
        for text in file.budgets:
            yield from _fitted(variant, SEARCHED, text, seed, {seed: config}, names, needs=search)
    for family, text in itertools.product(file.hand_made, file.budgets):
        yield from _fitted(family, family, text, None, plain, names)
    for seed, text in itertools.product(file.seeds, file.budgets):
        for index in range(file.random):
            yield from _fitted(RANDOM, RANDOM, text, seed, plain, names, index=index)
        if file.random_search:
            name = f"choose-{slug(text)}-s{seed}"
            yield Job(
                name=name, kind="choose", variant=RANDOM_SEARCH, budgets=(text,), seed=seed,
                config=plain[seed], needs=f"fit-{slug(first)}-{slug(text)}-s{seed}",
            )  # fmt: skip
            yield from _fitted(RANDOM_SEARCH, RANDOM_SEARCH, text, seed, plain, names, needs=name)


def _fitted(
    variant: str,
    network: str,
    budget: str,
    seed: int | None,
    configs: Mapping[int, dict[str, Any]],
    teachers: Mapping[int, str | None],
    *,
    needs: str | None = None,
    index: int = 0,
) -> Iterator[Job]:
    """One network fitted to a budget, and its training; for all seeds if it does not depend on one."""
    seeds: Sequence[int] = list(configs) if seed is None else [seed]
    tag = f"{slug(variant)}-{slug(budget)}" + ("" if seed is None else f"-s{seed}")
    tag += f"-{index + 1}" if network == RANDOM else ""
    fit = f"fit-{tag}"
    timed = any(b.metric for b in parse_budgets([budget]))
    yield Job(
        name=fit, kind="fit", variant=variant, budgets=(budget,), seed=seeds[0], config=configs[seeds[0]],
        needs=needs, index=index, network=network, exclusive=timed,
    )  # fmt: skip
    for each in seeds:
        yield Job(
            name=f"train-{tag}" + (f"-s{each}" if seed is None else ""), kind="fitted", variant=variant,
            budgets=(budget,), seed=each, config=configs[each], needs=fit, network=network,
            teacher=teachers[each],
        )  # fmt: skip


def _teacher_job(teacher: str | None, variant: str, seed: int) -> str | None:
    """The job whose run holds the teacher of a seed; None: there is none, or a run was named."""
    if teacher in (None, "network"):
        return None
    return f"search-{slug(variant)}-s{seed}" if teacher == "supernet" else f"{TEACHER}-s{seed}"
