"""Writing what a grid study has to show: its page, and its figures and tables as files."""

from __future__ import annotations

from pathlib import Path

from dsonas_hw.files import write_text
from dsonas_hw.report.codesign_tables import missing_table
from dsonas_hw.report.grid_page import grid_figures, grid_page, network_table, row_table
from dsonas_hw.study.grid import load_grid

PAGE = "report.html"


def write_grid_report(path: Path) -> Path:
    """Write STUDY/report.html and return its path. An unfinished study gets a page too.

    Raises:
        UserError: not a grid study, damaged, or a directory that cannot be written.
    """
    write_text(path / PAGE, grid_page(load_grid(path), name=path.resolve().name))
    return path / PAGE


def write_grid_figures(path: Path, directory: Path) -> list[Path]:
    """Write every figure (SVG, PNG, CSV, JSON) and table (CSV, JSON); return the files.

    Raises:
        UserError: as `write_grid_report`.
    """
    from dsonas_hw.report.chart_figure import chart_figure
    from dsonas_hw.report.export import write_chart_data, write_figure_file, write_tables

    result = load_grid(path)
    paths: list[Path] = []
    for chart in grid_figures(result):
        paths += write_figure_file(directory, chart.name, chart_figure(chart))
        paths += write_chart_data(directory, chart)
    return paths + write_tables(
        directory, [row_table(result), network_table(result), missing_table(result.missing)]
    )
