"""Choosing from a search's path what holds the budgets when it is measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.budget import METRICS, QUANTITIES, format_interval, format_quantity
from dsonas_hw.config import DeviceConfig
from dsonas_hw.deploy.fit_measured import Trial, fit_until_measured, measure_architecture, scale_timed
from dsonas_hw.deploy.measure import usual_speed_of
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.choose import derive
from dsonas_hw.task import Task

if TYPE_CHECKING:
    from dsonas_hw.measure.statistics import Estimate
    from dsonas_hw.search.derive import Derived
    from dsonas_hw.train.loop import Progress

Say = Callable[[str], None]
Bar = Callable[[str], AbstractContextManager["Progress"]]


def derive_measured(
    run: RunDirectory,
    task: Task,
    *,
    say: Say,
    bar: Bar,
    shrink: float = 1.0,
    refused: Collection[Architecture] = (),
) -> Derived:
    """Derive from the path; measure and fit until it holds where a metric is budgeted and the target here.

    shrink: limits of the measured budgets are multiplied by it from the start.
    refused: architectures that did not hold when they were measured; they are not taken.

    Raises:
        BudgetError: nothing on the path holds the budgets.
    """
    found: dict[Architecture, Derived] = {}

    def fit(scale: float) -> Architecture:
        derived = derive(run, task, scale_timed(task.budgets, scale * shrink))
        found[derived.architecture] = derived
        return derived.architecture

    target, usual = task.config.target, usual_speed_of(task.target.cost_model)

    def measure(architecture: Architecture) -> Mapping[str, Estimate | None]:
        with bar("measure") as report:
            return measure_architecture(
                target, usual=usual, progress=lambda done, total: report(done, total, "")
            )(architecture)

    fitted = fit_until_measured(
        fit, task.budgets, measure, refused=refused, on_trial=lambda trial: say(trial_text(trial, target))
    )
    return found[fitted.architecture]


def trial_text(trial: Trial[Architecture], target: DeviceConfig) -> str:
    """What a trial says to people."""
    measured = "".join(
        f", {target.statistic if metric == 'latency' else metric} {format_quantity(metric, found.value)} "
        f"({format_interval(metric, found.low, found.high)})"
        for metric in METRICS
        if (found := trial.measured.get(QUANTITIES[metric])) is not None
    )
    return (
        f"tried {trial.architecture.width} channels{measured}: {trial.ratio:.1%} of the budget, up to "
        f"{trial.bound:.1%} within the interval"
    )
