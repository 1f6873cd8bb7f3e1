"""The figures of a run as matplotlib objects, for notebooks and papers.

>>> figures = run_matplotlib_figures(RunDirectory(Path("runs/digits")))
>>> figures["path-mac"].savefig("path.pdf")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsonas_hw.report.chart_figure import chart_figure
from dsonas_hw.report.draw_network import drawn_blocks
from dsonas_hw.report.mpl_block import block_figure
from dsonas_hw.report.run_data import RunData
from dsonas_hw.report.run_figures import run_figures
from dsonas_hw.report.run_load import load_run_data
from dsonas_hw.run_directory import RunDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["block_figure", "chart_figure", "matplotlib_figures", "run_matplotlib_figures"]


def run_matplotlib_figures(run: RunDirectory) -> dict[str, Figure]:
    """Every chart of a run and its blocks, by name.

    Raises:
        UserError: not a run directory, or a damaged configuration.
    """
    return matplotlib_figures(load_run_data(run))


def matplotlib_figures(data: RunData) -> dict[str, Figure]:
    """Figures of what was read from a run, by name."""
    found = {chart.name: chart_figure(chart) for chart in run_figures(data)}
    if data.architecture is not None:
        for number, (_, block, conv) in enumerate(drawn_blocks(data.architecture), start=1):
            figure = block_figure(data.architecture.space, block, shortcut_conv=conv)
            found[f"block-{number:02d}"] = figure
    return found
