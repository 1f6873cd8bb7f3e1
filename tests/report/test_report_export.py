"""Figures and tables as files, and the command that writes them."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from synthetic_run import make_run

from dsonas_hw.cli.report import command
from dsonas_hw.errors import UserError
from dsonas_hw.report.chart_figure import chart_figure
from dsonas_hw.report.export import write_figure_file
from dsonas_hw.report.numbers import cost_text
from dsonas_hw.report.run_figures import run_figures
from dsonas_hw.report.run_load import load_run_data
from dsonas_hw.report.write import matplotlib_figures, write_figures
from dsonas_hw.run_directory import RunDirectory


@pytest.fixture(scope="module")
def files(share_run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("figures")
    paths = write_figures(share_run.path, directory)
    assert sorted(paths) == sorted(directory.iterdir())
    return {path.name: path for path in paths}


def test_every_figure_has_four_files(files: dict[str, Path], share_run: RunDirectory) -> None:
    for chart in run_figures(load_run_data(share_run)):
        for suffix in ("svg", "png", "csv", "json"):
            assert files[f"{chart.name}.{suffix}"].stat().st_size > 100
    for path in files.values():
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        if path.suffix == ".svg":
            ET.fromstring(path.read_text(encoding="utf-8"))
    assert {"architecture.svg", "block-01.svg", "block-01.png"} <= set(files)


def test_tables_say_what_the_logs_say(files: dict[str, Path], share_run: RunDirectory) -> None:
    data = load_run_data(share_run)
    path = json.loads(files["path.json"].read_text())
    assert [row["mac"] for row in path] == [point.costs["mac"] for point in data.path]
    rows = list(csv.DictReader(files["lambda-edges.csv"].open()))
    assert len(rows) == len(data.lam) * 128
    assert float(rows[-1]["lam"]) == data.lam[-1].lam[0][-1]
    budgets = json.loads(files["budgets.json"].read_text())
    assert budgets[1]["quantity"] == "latency_ms"
    # The synthetic median is 3.1 % above the prediction, and the quiet value 3 % below the median.
    assert budgets[1]["relative_error"] == pytest.approx(1 / (1.031 * 0.97) - 1)
    assert (budgets[1]["statistic"], budgets[1]["verdict"]) == ("p50", "holds")
    assert budgets[1]["low"] < budgets[1]["measured"] < budgets[1]["high"]
    latency = {row["statistic"]: row["interval"] for row in json.loads(files["latency.json"].read_text())}
    assert {"p50, the median", "p95", "p99", "undisturbed (low quantile)"} <= latency.keys()
    assert " to " in latency["p99"]


def test_chart_data_is_the_chart(files: dict[str, Path], share_run: RunDirectory) -> None:
    chart = next(c for c in run_figures(load_run_data(share_run)) if c.name == "path-mac")
    stored = json.loads(files["path-mac.json"].read_text())
    limit = load_run_data(share_run).budgets[0].limit
    label = f"budget {cost_text('mac', limit)}"
    assert stored["marks"] == [{"axis": "x", "value": limit, "label": label}]
    for series, raw in zip(chart.series, stored["series"], strict=True):
        assert (list(series.x), list(series.y)) == (raw["x"], raw["y"])


def test_files_do_not_change_from_one_writing_to_the_next(
    files: dict[str, Path], share_run: RunDirectory, tmp_path: Path
) -> None:
    chart = next(c for c in run_figures(load_run_data(share_run)) if c.name == "path-mac")
    for path in write_figure_file(tmp_path, chart.name, chart_figure(chart)):
        assert path.read_bytes() == files[path.name].read_bytes(), path.name


def test_matplotlib_objects(full_run: RunDirectory) -> None:
    from matplotlib.figure import Figure

    figures = matplotlib_figures(full_run.path)
    assert all(isinstance(figure, Figure) for figure in figures.values())
    assert {"path-mac", "lambda-block-01", "block-03", "retrain-accuracy"} <= set(figures)
    axes = figures["path-mac"].axes[0]
    assert axes.get_title(loc="left") == "accuracy with shared weights"


def report(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def test_command_prints_where_the_page_is(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", stages=(1,), until="config")
    result = report(str(run.path))
    assert result.exit_code == 0
    assert result.stdout.strip() == str(run.report_path)
    (tmp_path / "figures").mkdir()
    result = report(str(run.path), "--json", "--figures", str(tmp_path / "figures"))
    answer = json.loads(result.stdout)
    assert answer["report"] == str(run.report_path)
    assert len(answer["figures"]) == len(list((tmp_path / "figures").iterdir()))


def test_command_refuses_what_is_not_a_run(tmp_path: Path) -> None:
    result = report(str(tmp_path / "nowhere"))
    assert isinstance(result.exception, UserError)
    assert "neither a run" in str(result.exception)


def test_help_has_examples() -> None:
    assert "dsonas-hw report runs/digits --figures" in report("--help").stdout
