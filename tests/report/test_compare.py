"""Networks of runs and studies side by side, on a page and as a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_run import make_run
from synthetic_study import make_study

from dsonas_hw.cli.main import main
from dsonas_hw.errors import RunError
from dsonas_hw.files import read_json
from dsonas_hw.report.compare import HAND_MADE, RANDOM, SEARCHED, compare, compare_table
from dsonas_hw.report.compare_page import compare_charts
from dsonas_hw.study.grid import save_grid
from dsonas_hw.study.job_files import job_directory
from dsonas_hw.study.load import load_study

COSTS = {"flops": 3e6, "mac": 2e5, "params": 1e4, "latency_ms": 0.2}


def hand_made_study(path: Path) -> Path:
    """A study with two families of which one network each is trained, one with a measured latency."""
    study = load_study("hand-made", {}, preset="digits", budgets=["latency=0.2ms"], seeds=[0])
    save_grid(path, study)
    errors = {"searched": 0.02, "resnet": 0.05, "random": 0.04}
    for job in study.jobs:
        if job.kind == "fitted" and job.variant in errors:
            folder = job_directory(path, job.name)
            folder.mkdir(parents=True, exist_ok=True)
            result = {
                "test_error": errors[job.variant], "costs": COSTS, "ratio": 1.0, "ratio_before_fit": 1.0,
                "verdict": "holds", "width": 8,
                "latency_measured": {"p50_ms": 0.19} if job.variant == "searched" else None,
            }  # fmt: skip
            (folder / "result.json").write_text(json.dumps(result))
    return path


def test_a_run_is_a_row_with_its_verdict(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", latency_verdict="missed")
    (row,), notes = compare([run.path])
    validation = read_json(run.validation_path)
    assert (row.kind, row.num_networks, row.verdict, notes) == (SEARCHED, 1, "missed", [])
    assert row.accuracy == read_json(run.path / "retrain.json")["test_accuracy"]
    assert row.costs["mac"] == validation["costs"]["mac"]
    assert row.latency_source == "measured"
    estimated = make_run(tmp_path / "estimated", source="estimated")
    (row,), _ = compare([estimated.path])
    assert (row.verdict, row.text("latency_ms")[0]) == ("holds with 55 %", "~")


def test_what_has_not_been_measured_or_finished_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", until="derive")
    log = run.log_path("metrics.jsonl")
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    (row,), notes = compare([run.path])
    assert (row.accuracy, row.verdict, row.latency_source) == (None, None, "predicted")
    assert notes == [f"{run.path}: the search is not finished (35 of 36 epochs)."]


def test_hand_made_baselines_of_a_study_stand_beside_a_run(tmp_path: Path) -> None:
    study, run = hand_made_study(tmp_path / "study"), make_run(tmp_path / "run")
    rows, notes = compare([run.path, study])
    assert notes == ["The accuracies are on different images: cifar10, digits."]
    kinds = {row.name: row.kind for row in rows}
    assert kinds == {"run": SEARCHED, "searched": SEARCHED, "resnet": HAND_MADE, "random": RANDOM}
    found = {row.name: row for row in rows}
    assert (found["searched"].latency_ms, found["searched"].latency_source) == (0.19, "measured")
    assert (found["resnet"].latency_ms, found["resnet"].latency_source) == (0.2, "predicted")
    assert found["resnet"].accuracy == pytest.approx(0.95)
    assert found["resnet"].verdict == "holds"
    # The run's images are others, and it is alone with them.
    charts = compare_charts(rows)
    assert [chart.name for chart in charts] == [
        "latency-against-accuracy-digits", "memory-access-against-accuracy-digits",
    ]  # fmt: skip
    for chart, guessed in zip(charts, ({RANDOM, HAND_MADE}, set()), strict=True):
        drawn = {series.name: (len(series.x), series.hollow) for series in chart.series}
        assert drawn == {kind: (1, kind in guessed) for kind in (RANDOM, HAND_MADE, SEARCHED)}


def test_networks_of_a_codesign_study_stand_on_the_devices_they_were_found_for(tmp_path: Path) -> None:
    rows, _ = compare([make_study(tmp_path / "study")])
    assert {row.device for row in rows} == {"1080ti", "v100", "local"}
    titles = [chart.title for chart in compare_charts(rows)]
    latencies = [f"Latency on {device} against accuracy" for device in ("1080ti", "v100", "local")]
    assert titles == [*latencies, "Memory access against accuracy"]
    assert {row.latency_source for row in rows if row.device == "local"} == {"measured"}
    assert {row.latency_source for row in rows if row.device == "v100"} == {"estimated"}
    for row in rows:
        assert row.latency_ms is not None
        limit_ms = float(row.budget.removeprefix("latency=").removesuffix("ms"))
        assert row.verdict is not None
        assert row.text("latency_ms").startswith("~") == (row.device != "local")
        if row.device != "local":
            chance = int(row.verdict.removeprefix("holds with ").removesuffix(" %"))
            assert (chance >= 50) == (row.latency_ms <= limit_ms)


def test_the_command_writes_table_and_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1, source="estimated")
    main(["compare", "a", "b", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [item["network"] for item in found["networks"]] == ["a", "b"]
    assert found["networks"] == compare_table(compare([Path("a"), Path("b")])[0]).to_records()
    page = Path(found["report"]).read_text()
    assert "Latency against accuracy" in page
    assert page.count("~") == 2  # b's latency, in the table and at its dot
    main(["compare", "a", "--out", "one.html"])
    assert "1 network<" in Path("one.html").read_text()
    assert "holds" in capsys.readouterr().out


def test_what_is_neither_run_nor_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="neither a run"):
        compare([tmp_path])
    make_run(tmp_path / "by latency" / "b"), make_run(tmp_path / "by latency" / "a")
    rows, _ = compare([tmp_path / "by latency"])
    assert [row.name for row in rows] == ["a", "b"]
