"""Writing what a co-design study has to show: its page, and its figures and tables as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.files import write_text
from dsonas_hw.report.codesign_figures import codesign_figures
from dsonas_hw.report.codesign_page import codesign_page
from dsonas_hw.report.codesign_tables import codesign_tables
from dsonas_hw.study.codesign_result import CodesignResult, load_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.html"


def write_codesign_report(path: Path) -> Path:
    """Write STUDY/report.html and return its path. An unfinished study gets a page too.

    Raises:
        UserError: not a co-design study, damaged, or a directory that cannot be written.
    """
    write_text(path / PAGE, codesign_page(load_result(path), name=path.resolve().name))
    return path / PAGE


def write_codesign_figures(path: Path, directory: Path) -> list[Path]:
    """Write every figure (SVG, PNG, CSV, JSON), table (CSV, JSON) and network (as a run's); return the files.

    Raises:
        UserError: as `write_codesign_report`.
    """
    from dsonas_hw.report.chart_figure import chart_figure
    from dsonas_hw.report.export import write_chart_data, write_drawings, write_figure_file, write_tables

    result = load_result(path)
    paths: list[Path] = []
    for chart in codesign_figures(result):
        paths += write_figure_file(directory, chart.name, chart_figure(chart))
        paths += write_chart_data(directory, chart)
    for network in result.networks:
        name = f"network-{network.name}"
        paths += write_drawings(directory, network.architecture, name=name, block_name=f"{name}-block")
    return paths + write_tables(directory, codesign_tables(result))


def codesign_matplotlib_figures(result: CodesignResult) -> dict[str, Figure]:
    """Every chart of a study as a matplotlib figure, by name (`front-<device>`)."""
    from dsonas_hw.report.chart_figure import chart_figure

    return {chart.name: chart_figure(chart) for chart in codesign_figures(result)}
