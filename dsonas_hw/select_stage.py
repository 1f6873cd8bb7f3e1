"""The stage between search and retraining: candidates, measured and trained briefly; one is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dsonas_hw.deploy.fit_measured import Trial, measure_architecture
from dsonas_hw.deploy.measure import Progress as TurnProgress
from dsonas_hw.deploy.measure import repeatability_of
from dsonas_hw.deploy.measured_use import MeasuredUse, relative_latency
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.choose import points_of
from dsonas_hw.task import Task

if TYPE_CHECKING:
    from dsonas_hw.search.derive import Derived
    from dsonas_hw.train.data import Dataset
    from dsonas_hw.train.loop import Progress


def selects(task: Task) -> bool:
    """Whether candidates are trained before one is taken: where its preset asks for it, and for budgets."""
    return task.config.select.candidates > 0 and bool(task.budgets)


def select_network(
    run: RunDirectory,
    task: Task,
    dataset: Dataset,
    *,
    progress: Progress,
    on_turn: TurnProgress,
    on_trial: Callable[[Trial], None],
) -> Derived:
    """Choose the network to train; writes selection.jsonl, and goes on from what it holds.

    Raises:
        RunError: no search has been run here.
        BudgetError: no candidate holds the budgets.
        Interrupted: by a signal, resumable.
    """
    from dsonas_hw.search.selection import LOG_NAME, select_architecture, selection_rows
    from dsonas_hw.train.loop import resolve_train_device

    target = task.config.target
    use = MeasuredUse(
        task.budgets,
        measure=measure_architecture(
            target, repeatability=repeatability_of(task.target.latency_model), progress=on_turn
        ),
        measure_relative=relative_latency(target),
        known=selection_rows(run),
        log=lambda row: run.log(LOG_NAME, row),
        on_trial=on_trial,
    )
    return select_architecture(
        run, task, dataset, points_of(run, task), device=resolve_train_device(task.config.train_on),
        measure=use, verdict=use.verdict, progress=progress,
    )  # fmt: skip
