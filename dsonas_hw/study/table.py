"""The table of a study: means and standard deviations over seeds and draws."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsonas_hw.files import read_json
from dsonas_hw.study.job_files import RESULT, is_done, job_directory
from dsonas_hw.study.spec import RANDOM, SAME_WIDTH, Baseline, Study

TRAINED = ("searched", "random", "transferred", "fitted")
"""Kinds of jobs whose result is a trained network."""


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """One variant under one budget."""

    variant: str
    budget: str
    num: int
    test_error_mean: float
    test_error_std: float | None
    """Sample standard deviation; None for one network."""
    mac: float
    flops: float
    params: float
    latency_ms: float | None
    """Predicted, undisturbed; means over the networks, as all costs."""
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    """Measured."""
    budget_used: float
    """Tightest cost / limit after width fitting."""
    ratio_before_fit: float
    num_holding: int | None = None
    """Networks whose verdict is that the budget holds; None: there are no verdicts."""
    beats_random_by_std: float | None = None
    """(mean error of the random networks − this mean) / their standard deviation."""
    beats_same_width_by_std: float | None = None
    """The same against the random networks of the searched width."""


def collect_results(path: Path, study: Study) -> list[dict[str, Any]]:
    """Return the results of all finished trainings, with what they belong to."""
    return [
        {"job": job.name, "variant": job.variant, "budget": job.budgets[0], "seed": job.seed, **result}
        for job in study.jobs
        if job.kind in TRAINED and is_done(path, job.name)
        and "skipped" not in (result := read_json(job_directory(path, job.name) / RESULT))
    ]  # fmt: skip


def collect_skipped(path: Path, study: Study) -> list[str]:
    """Return why families have no network, a line each."""
    results = [
        read_json(job_directory(path, job.name) / RESULT)
        for job in study.jobs
        if job.kind == "fit" and is_done(path, job.name)
    ]
    return list(dict.fromkeys(result["reason"] for result in results if "reason" in result))


def tabulate(
    results: Sequence[dict[str, Any]], baselines: Mapping[str, Baseline] | None = None
) -> list[StudyRow]:
    """Return the rows by budget, then variant, in the order of the results.

    baselines: variant → the random networks of its space (`Study.baselines`); None: of the only space.
    """
    of_variant = dict(baselines or {})
    for found in list(of_variant.values()):
        of_variant |= {found.random: found, found.same_width: found}
    only = Baseline(of="", random=RANDOM, same_width=SAME_WIDTH)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["budget"], result["variant"]), []).append(result)
    rows = []
    for (budget, variant), members in groups.items():
        errors = [m["test_error"] for m in members]

        def lead(baseline: str, budget: str = budget, own: str = variant) -> float | None:
            others = groups.get((budget, baseline), []) if own != baseline else []
            return _lead([m["test_error"] for m in groups[budget, own]], [m["test_error"] for m in others])

        rows.append(
            StudyRow(
                variant=variant, budget=budget, num=len(members),
                test_error_mean=statistics.mean(errors),
                test_error_std=statistics.stdev(errors) if len(errors) > 1 else None,
                mac=statistics.mean(m["costs"]["mac"] for m in members),
                flops=statistics.mean(m["costs"]["flops"] for m in members),
                params=statistics.mean(m["costs"]["params"] for m in members),
                latency_ms=_mean_or_none([m["costs"]["latency_ms"] for m in members]),
                latency_p50_ms=_mean_or_none([measured_ms(m, "p50_ms") for m in members]),
                latency_p95_ms=_mean_or_none([measured_ms(m, "p95_ms") for m in members]),
                latency_p99_ms=_mean_or_none([measured_ms(m, "p99_ms") for m in members]),
                budget_used=statistics.mean(m["ratio"] for m in members),
                ratio_before_fit=statistics.mean(m["ratio_before_fit"] for m in members),
                num_holding=_num_holding(members),
                beats_random_by_std=lead(of_variant.get(variant, only).random),
                beats_same_width_by_std=lead(of_variant.get(variant, only).same_width),
            )
        )  # fmt: skip
    return rows


def _lead(errors: Sequence[float], others: Sequence[float]) -> float | None:
    """Standard deviations of the others by which these are better in the mean; None without a deviation."""
    if len(others) < 2 or (deviation := statistics.stdev(others)) == 0:
        return None
    return (statistics.mean(others) - statistics.mean(errors)) / deviation


def measured_ms(result: Mapping[str, Any], name: str) -> float | None:
    """Return a number of a network's measured latency (`p50_ms`, …); None: it was not measured."""
    measured = result.get("latency_measured")
    value = measured.get(name) if isinstance(measured, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _num_holding(members: Sequence[Mapping[str, Any]]) -> int | None:
    verdicts = [m["verdict"] for m in members if m.get("verdict")]
    return verdicts.count("holds") if verdicts else None


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.mean(known) if known and len(known) == len(values) else None
