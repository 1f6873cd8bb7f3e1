"""Writing what a run or a study has to show: its page, and its figures and tables as files.

>>> figures = matplotlib_figures(Path("runs/digits"))
>>> figures["path-mac"].savefig("path.pdf")
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.errors import UserError
from dsonas_hw.files import write_json, write_text
from dsonas_hw.profile.open import find_table, resolve_target
from dsonas_hw.report.chart import Chart
from dsonas_hw.report.codesign_cross import cross_table
from dsonas_hw.report.codesign_page import codesign_figures, codesign_page
from dsonas_hw.report.codesign_tables import codesign_tables, missing_table
from dsonas_hw.report.draw import draw_block
from dsonas_hw.report.draw_network import drawn_blocks
from dsonas_hw.report.grid_page import grid_figures, grid_page, network_table, row_table
from dsonas_hw.report.kind import kind_of
from dsonas_hw.report.page import write_page
from dsonas_hw.report.parts import Page
from dsonas_hw.report.run_data import RunData
from dsonas_hw.report.run_figures import run_figures
from dsonas_hw.report.run_load import load_run_data
from dsonas_hw.report.run_page import run_page
from dsonas_hw.report.run_tables import check_table, run_tables
from dsonas_hw.report.table import Table
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.study.codesign_result import load_result
from dsonas_hw.study.grid import load_grid
from dsonas_hw.table.table import LookupTable, load_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.html"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a run or a study has to show."""

    page: Page
    charts: Sequence[Chart]
    tables: Sequence[Table]
    networks: Mapping[str, Architecture] = field(default_factory=dict)
    """By the stem of their files: `architecture`, or `network-A` and so on."""


def read_report(path: Path, *, profiles_directory: Path | None = None) -> Report:
    """What a directory has to show, finished or not.

    profiles_directory: where the table is that a run's predictions came from, for its check and fingerprint;
        the default is the user's data directory, then the tables that are shipped.

    Raises:
        UserError: neither a run nor a study, or a damaged configuration.
    """
    name = path.resolve().name
    kind = kind_of(path)
    if kind == "run":
        return _read_run(RunDirectory(path), profiles_directory)
    if kind == "codesign":
        result = load_result(path)
        return Report(
            page=codesign_page(result, name=name),
            charts=codesign_figures(result),
            tables=[cross_table(result), *codesign_tables(result)],
            networks={f"network-{network.name}": network.architecture for network in result.networks},
        )
    grid = load_grid(path)
    return Report(
        page=grid_page(grid, name=name),
        charts=grid_figures(grid),
        tables=[row_table(grid), network_table(grid), missing_table(grid.missing)],
    )


def _read_run(run: RunDirectory, profiles_directory: Path | None) -> Report:
    data = load_run_data(run)
    profile = find_profile(data, profiles_directory)
    check = check_table(profile)
    return Report(
        page=run_page(data, profile),
        charts=run_figures(data),
        tables=[*run_tables(data), *([check] if check else [])],
        networks={"architecture": data.architecture} if data.architecture is not None else {},
    )


def find_profile(data: RunData, profiles_directory: Path | None) -> LookupTable | None:
    """The target's table; None if it is not here or is that of another machine than the one measured on."""
    try:
        path = find_table(resolve_target(data.config.target), profiles_directory=profiles_directory)
        table = load_table(path) if path is not None else None
    except UserError as error:
        _log.warning("the profile is left out of the report: %s", error)
        return None
    if table is None or not _is_same_machine(data, table):
        return None
    return table


def _is_same_machine(data: RunData, table: LookupTable) -> bool:
    """By the titles that validation and table carry; where one has none, nothing tells them apart."""
    latency = data.validation.latency if data.validation else None
    there, here = table.header.settings.get("device_title"), latency.device_title if latency else ""
    return not there or not here or there == here


def write_report(path: Path, *, profiles_directory: Path | None = None) -> Path:
    """Write report.html, a page that needs neither network nor script, and return its path.

    What is unfinished gets a page too; it says what is missing. profiles_directory: as of `read_report`.

    Raises:
        UserError: as `read_report`, or a directory that cannot be written.
    """
    write_text(path / PAGE, write_page(read_report(path, profiles_directory=profiles_directory).page))
    return path / PAGE


def write_figures(path: Path, directory: Path, *, profiles_directory: Path | None = None) -> list[Path]:
    """Write every figure (SVG, PNG, CSV, JSON), table (CSV, JSON) and network; return the files.

    Raises:
        UserError: as `write_report`.
    """
    from dsonas_hw.report.chart_figure import chart_figure
    from dsonas_hw.report.export import write_chart_data, write_drawings, write_figure_file, write_tables

    report = read_report(path, profiles_directory=profiles_directory)
    paths: list[Path] = []
    for chart in report.charts:
        paths += write_figure_file(directory, chart.name, chart_figure(chart))
        paths += write_chart_data(directory, chart)
    for name, architecture in report.networks.items():
        paths += write_drawings(directory, architecture, name=name, block_name=_block_stem(name))
    return paths + write_tables(directory, report.tables)


def write_grid(path: Path) -> Table:
    """Write what a grid study found into its directory: results.json, and table.csv, .json and .md.

    Returns the table.

    Raises:
        UserError: as `write_report`.
    """
    from dsonas_hw.report.export import write_tables

    grid = load_grid(path)
    table = row_table(grid)
    write_json(path / "results.json", list(grid.results))
    write_tables(path, [table])
    write_text(path / "table.md", table.to_markdown() + "\n")
    return table


def matplotlib_figures(path: Path) -> dict[str, Figure]:
    """Every chart of a run or study, and every block, as matplotlib figures, by the names of their files.

    Raises:
        UserError: as `read_report`.
    """
    from dsonas_hw.report.chart_figure import chart_figure
    from dsonas_hw.report.draw_figure import drawing_figure

    report = read_report(path)
    figures = {chart.name: chart_figure(chart) for chart in report.charts}
    for name, architecture in report.networks.items():
        for number, (_, block, conv) in enumerate(drawn_blocks(architecture), start=1):
            drawing = draw_block(architecture.space, block, shortcut_conv=conv)
            figures[f"{_block_stem(name)}-{number:02d}"] = drawing_figure(drawing)
    return figures


def _block_stem(network: str) -> str:
    return "block" if network == "architecture" else f"{network}-block"
