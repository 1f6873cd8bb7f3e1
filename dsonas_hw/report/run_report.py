"""Writing what a run has to show: its page, and its figures and tables as files."""

from __future__ import annotations

from pathlib import Path

from dsonas_hw.files import write_text
from dsonas_hw.report.run_load import load_run_data
from dsonas_hw.report.run_page import run_page
from dsonas_hw.report.run_profile import find_profile
from dsonas_hw.report.run_tables import check_table, run_tables, summarise_profile
from dsonas_hw.run_directory import RunDirectory


def write_report(run: RunDirectory, *, profiles_directory: Path | None = None) -> Path:
    """Write RUN/report.html, a page that needs neither network nor script, and return its path.

    An unfinished run gets a page too; it says what is missing.
    profiles_directory: where the table is that predictions came from, for its check and fingerprint; the
        default is the user's data directory, then the tables that are shipped.

    Raises:
        UserError: not a run directory, a damaged configuration, or a directory that cannot be written.
    """
    data = load_run_data(run)
    table = find_profile(data, profiles_directory=profiles_directory)
    write_text(run.report_path, run_page(data, summarise_profile(table) if table else None))
    return run.report_path


def write_figures(
    run: RunDirectory, directory: Path, *, profiles_directory: Path | None = None
) -> list[Path]:
    """Write every figure (SVG, PNG, CSV, JSON) and every table (CSV, JSON) of a run; return the files.

    Raises:
        UserError: not a run directory, a damaged configuration, or a directory that cannot be written.
    """
    from dsonas_hw.report.export import write_chart_data, write_drawings, write_figure_file, write_tables
    from dsonas_hw.report.figures import chart_figure
    from dsonas_hw.report.run_figures import run_figures

    data = load_run_data(run)
    paths: list[Path] = []
    for chart in run_figures(data):
        paths += write_figure_file(directory, chart.name, chart_figure(chart))
        paths += write_chart_data(directory, chart)
    if data.architecture is not None:
        paths += write_drawings(directory, data.architecture, name="architecture", block_name="block")
    tables = run_tables(data)
    table = find_profile(data, profiles_directory=profiles_directory)
    if table is not None and (check := check_table(summarise_profile(table))):
        tables.append(check)
    return paths + write_tables(directory, tables)
