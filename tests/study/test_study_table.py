"""The table of a study, its arithmetic by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from dsonas_hw.files import write_json
from dsonas_hw.report.grid_page import row_table
from dsonas_hw.report.write import write_grid
from dsonas_hw.study.expand import expand
from dsonas_hw.study.grid import GridResult, save_grid
from dsonas_hw.study.job_files import job_directory
from dsonas_hw.study.spec import SAME_WIDTH, StudyFile
from dsonas_hw.study.table import collect_results, tabulate


def result(variant: str, error: float, *, budget: str = "mac=1M", **changes: Any) -> dict[str, Any]:
    costs = {"mac": 900_000, "flops": 2_000_000, "params": 1000, "memory_bytes": 4096, "latency_ms": None}
    return {
        "variant": variant, "budget": budget, "test_error": error, "ratio": 0.9, "ratio_before_fit": 1.1,
        "costs": costs, "latency_measured": None, **changes,
    }  # fmt: skip


def test_means_and_deviations() -> None:
    # random: mean 0.4, deviations ±0.1, 0: s = √((0.01 + 0 + 0.01) / 2) = 0.1; searched: 0.25.
    results = [result("searched", 0.2), result("searched", 0.3)]
    results += [result("random", error) for error in (0.3, 0.4, 0.5)]
    searched, random = tabulate(results)
    assert (searched.variant, searched.num, random.variant, random.num) == ("searched", 2, "random", 3)
    assert searched.test_error_mean == pytest.approx(0.25)
    assert searched.test_error_std == pytest.approx(0.05 * 2**0.5)  # √((0.05² + 0.05²) / 1)
    assert random.test_error_mean == pytest.approx(0.4)
    assert random.test_error_std == pytest.approx(0.1)
    assert searched.beats_random_by_std == pytest.approx((0.4 - 0.25) / 0.1)
    assert random.beats_random_by_std is None


def test_costs_are_means_and_unknown_ones_stay_unknown() -> None:
    def costs(mac: int, latency_ms: float | None) -> dict[str, Any]:
        return {"mac": mac, "flops": 10 * mac, "params": 100, "memory_bytes": 1, "latency_ms": latency_ms}

    def measured(ms: float) -> dict[str, float]:
        return {"p50_ms": ms, "p95_ms": 2 * ms, "p99_ms": 3 * ms}

    (row,) = tabulate(
        [
            result(
                "a",
                0.1,
                costs=costs(100, 1.0),
                ratio=0.95,
                ratio_before_fit=1.2,
                latency_measured=measured(2.0),
            ),
            result(
                "a",
                0.1,
                costs=costs(300, 2.0),
                ratio=0.97,
                ratio_before_fit=0.8,
                latency_measured=measured(3.0),
            ),
        ]
    )
    assert (row.mac, row.flops, row.params) == (200, 2000, 100)
    assert (row.latency_ms, row.latency_p50_ms, row.latency_p95_ms, row.latency_p99_ms) == (
        1.5,
        2.5,
        5.0,
        7.5,
    )
    assert (row.budget_used, row.ratio_before_fit) == (pytest.approx(0.96), pytest.approx(1.0))
    (row,) = tabulate([result("a", 0.1, latency_measured=measured(2.0)), result("a", 0.1)])
    assert row.latency_p50_ms is None  # not the mean of those that are known
    assert row.latency_ms is None


def test_one_network_has_no_deviation_and_one_random_network_is_no_baseline() -> None:
    searched, random = tabulate([result("searched", 0.2), result("random", 0.3)])
    assert (searched.test_error_std, random.test_error_std) == (None, None)
    assert searched.beats_random_by_std is None
    twins = tabulate([result("searched", 0.2), result("random", 0.3), result("random", 0.3)])
    assert twins[0].beats_random_by_std is None  # no deviation to measure by


def test_a_variant_is_held_against_the_random_ones_of_its_own_budget() -> None:
    results = [result("a", 0.1, budget=budget) for budget in ("mac=1M", "mac=2M")]
    results += [result("random", error, budget="mac=1M") for error in (0.2, 0.4)]
    results += [result("random", error, budget="mac=2M") for error in (0.1, 0.2)]
    beats = {row.budget: row.beats_random_by_std for row in tabulate(results) if row.variant == "a"}
    # mac=1M: (0.3 − 0.1) / 0.1414; mac=2M: (0.15 − 0.1) / 0.0707
    assert beats == {
        "mac=1M": pytest.approx(0.2 / (0.1 * 2**0.5)),
        "mac=2M": pytest.approx(0.05 * 2**0.5 / 0.1),
    }


def test_and_against_those_of_its_own_width() -> None:
    # random: mean 0.5, s = 0.1414; of the same width: mean 0.3, s = 0.0707.
    results = [result("searched", 0.2)]
    results += [result("random", error) for error in (0.4, 0.6)]
    results += [result(SAME_WIDTH, error) for error in (0.25, 0.35)]
    searched, random, same_width = tabulate(results)
    assert searched.beats_random_by_std == pytest.approx(0.3 / (0.1 * 2**0.5))
    assert searched.beats_same_width_by_std == pytest.approx(0.1 / (0.05 * 2**0.5))
    assert same_width.beats_random_by_std == pytest.approx(0.2 / (0.1 * 2**0.5))
    assert same_width.beats_same_width_by_std is None
    assert random.beats_same_width_by_std == pytest.approx(-0.2 / (0.05 * 2**0.5))


def test_what_people_read() -> None:
    results = [result("searched", 0.2), *(result("random", error) for error in (0.3, 0.5))]
    study = expand(StudyFile(name="s", base={}, budgets=["mac=1M"]))
    found = GridResult(study=study, rows=tuple(tabulate(results)), results=(), missing=())
    heading, _, searched, random = row_table(found).to_markdown().replace("\u202f", " ").splitlines()
    assert searched.startswith("| mac=1M | searched | 1 | 20.00 % | – | 900 k | 2 M | 1 k |")
    assert "| 40.00 % | 14.14 % |" in random
    assert "Better than random" in heading
    assert "of its width" not in heading  # there are no such networks


def test_files_hold_what_is_done_so_far(tmp_path: Path) -> None:
    study = expand(StudyFile(name="s", base={}, budgets=["mac=1M", "mac=2M"], random=2))
    save_grid(tmp_path, study)
    assert write_grid(tmp_path).rows == ()
    for job in study.jobs:
        if job.kind == "random" and job.budgets == ("mac=1M",):
            stored = result("", 0.1 * job.index)
            del stored["variant"], stored["budget"]  # the job's, not its result's
            write_json(job_directory(tmp_path, job.name) / "result.json", stored)
    (row,) = write_grid(tmp_path).to_records()
    assert (row["variant"], row["budget"], row["num"]) == ("random", "mac=1M", 2)
    (line,) = csv.DictReader((tmp_path / "table.csv").open())
    assert float(line["test_error_mean"]) == pytest.approx(0.05)
    assert "| mac=1M | random | 2 |" in (tmp_path / "table.md").read_text()
    entries = json.loads((tmp_path / "results.json").read_text())
    assert entries == collect_results(tmp_path, study)
    assert {entry["job"] for entry in entries} == {"random-mac-1M-s0-1", "random-mac-1M-s0-2"}
