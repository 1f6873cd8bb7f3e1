"""The page of a grid study, finished or not, and TensorBoard scalars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dsonas_hw.errors import RunError, UserError
from dsonas_hw.files import read_json, write_json
from dsonas_hw.report.grid_page import grid_figures
from dsonas_hw.report.tensorboard import write_tensorboard
from dsonas_hw.report.write import write_figures, write_report
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.study.expand import expand
from dsonas_hw.study.grid import load_grid, save_grid
from dsonas_hw.study.job_files import job_directory
from dsonas_hw.study.spec import StudyFile

FILE = StudyFile(
    name="small", base={"preset": "digits"}, budgets=["mac=200k", "mac=100k"], random=2,
    variants={"flops": {"search": {"adaptive_cost": "flops"}}, "mac": {"search": {"adaptive_cost": "mac"}}},
)  # fmt: skip


def make_grid(path: Path, *, without: str = "nothing") -> Path:
    """A study with a result for every job whose name does not contain `without`."""
    study = expand(FILE)
    save_grid(path, study)
    for number, job in enumerate(study.jobs):
        if without in job.name:
            continue
        result: dict[str, Any] = {}
        if job.kind != "search":
            costs = {"mac": 1e5 + number, "flops": 1e6, "params": 1e3, "memory_bytes": 1, "latency_ms": None}
            result = {
                "test_error": 0.1 + number / 1000, "ratio": 0.9, "ratio_before_fit": 1.1, "width": 16,
                "latency_measured": {"p50_ms": 0.125, "p95_ms": 0.25, "p99_ms": 0.5},
                "costs": {**costs, "energy_mj": None},
                "block_flops": [1000 * (number + 1), 3000 * (number + 1)],
            }  # fmt: skip
        write_json(job_directory(path, job.name) / "result.json", result)
    return path


def test_the_page_has_the_table_and_every_network(tmp_path: Path) -> None:
    html = write_report(make_grid(tmp_path)).read_text(encoding="utf-8")
    result = load_grid(tmp_path)
    assert len(result.rows) == 2 * 3
    for row in result.rows:
        assert f"{100 * row.test_error_mean:.2f}\u202f%" in html
    for job in expand(FILE).jobs:
        if job.kind != "search":
            assert f">{job.name}<" in html
    assert html.count("data-sortable") >= 2
    for heading in ("Measured p50", "Measured p95", "Measured p99", "Median", "Undisturbed"):
        assert f">{heading}, ms<" in html
    for value in ("0.125", "0.25", "0.5"):
        assert html.count(f">{value}<") == len(result.rows) + len(result.results)
    assert "not complete" not in html


def test_an_unfinished_study_says_what_is_missing(tmp_path: Path) -> None:
    html = write_report(make_grid(tmp_path, without="flops")).read_text(encoding="utf-8")
    assert "This study is not complete" in html
    assert "search-flops-s0: not started" in html
    assert "flops-mac-100k-s0-searched: waits for search-flops-s0" in html
    assert len(load_grid(tmp_path).rows) == 2 * 2


def test_nothing_done_is_a_page_too(tmp_path: Path) -> None:
    html = write_report(make_grid(tmp_path, without="")).read_text(encoding="utf-8")
    assert "No network has been trained yet" in html


def test_everything_is_there_as_files(tmp_path: Path) -> None:
    make_grid(tmp_path / "study")
    files = {path.name for path in write_figures(tmp_path / "study", tmp_path / "figures")}
    for chart in ("accuracy-mac", "accuracy-params", "flops-by-block"):
        assert {f"{chart}.{kind}" for kind in ("svg", "png", "csv", "json")} <= files
    assert {
        f"{name}.{kind}" for name in ("table", "networks", "missing") for kind in ("csv", "json")
    } <= files


def test_the_flops_of_each_block_are_means_over_a_variants_networks(tmp_path: Path) -> None:
    path = make_grid(tmp_path)
    flops = {"flops-mac-200k-s0-searched": [1000, 3000], "flops-mac-100k-s0-searched": [0, 500],
             "mac-mac-200k-s0-searched": [0, 0], "mac-mac-100k-s0-searched": [600, 400]}  # fmt: skip
    for job, counts in flops.items():
        file = job_directory(path, job) / "result.json"
        write_json(file, read_json(file) | {"block_flops": counts})
    (chart,) = (c for c in grid_figures(load_grid(path)) if c.name == "flops-by-block")
    shares = {series.name: (series.x, series.y) for series in chart.series}
    assert shares["flops"] == ((1.0, 2.0), pytest.approx((0.125, 0.875)))
    assert shares["mac"] == ((1.0, 2.0), pytest.approx((0.6, 0.4)))  # the empty network has no shares
    assert shares["random"] == ((1.0, 2.0), pytest.approx((0.25, 0.75)))
    assert chart.title in write_report(path).read_text(encoding="utf-8")


def test_a_damaged_study_is_refused(tmp_path: Path) -> None:
    path = make_grid(tmp_path)
    write_json(path / "study.json", {"name": "x"})
    with pytest.raises(UserError, match=r"study\.json is damaged: base"):
        load_grid(path)


@pytest.mark.parametrize("content", ["1.5", "[]", '{"test_error": [], "costs": 3}', '{"costs": {}}'])
def test_a_damaged_result_of_a_study_is_refused(content: str, tmp_path: Path) -> None:
    path = make_grid(tmp_path)
    results = list(path.glob("jobs/*/result.json"))
    assert results
    for result in results:
        result.write_text(content)
    with pytest.raises(UserError, match="damaged"):
        load_grid(path)


def test_scalars_for_tensorboard(share_run: RunDirectory, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    count = write_tensorboard(share_run.path, tmp_path)
    events = EventAccumulator(str(tmp_path / share_run.path.name))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"pretrain/loss", "search/cost_ratio", "retrain/test_accuracy"} <= set(tags)
    assert sum(len(events.Scalars(tag)) for tag in tags) == count
    with pytest.raises(RunError, match="has logged nothing yet"):
        write_tensorboard(tmp_path / "nowhere", tmp_path)
