"""Every chart of a run, as plain data."""

from __future__ import annotations

from dsonas_hw.report.chart import Chart
from dsonas_hw.report.figures_epochs import retrain_figures, search_figures
from dsonas_hw.report.figures_lambda import lambda_figures
from dsonas_hw.report.figures_latency import latency_figures
from dsonas_hw.report.figures_path import path_figures
from dsonas_hw.report.run_data import RunData


def run_figures(data: RunData) -> list[Chart]:
    """Every chart that this run has data for, in the order of the page."""
    return [
        *path_figures(data),
        *lambda_figures(data),
        *search_figures(data),
        *latency_figures(data),
        *retrain_figures(data),
    ]
