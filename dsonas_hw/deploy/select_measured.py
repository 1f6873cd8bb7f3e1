"""The stage between search and retraining: candidates, measured and trained briefly; one is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.deploy.derive_measured import Bar, Say, trial_text
from dsonas_hw.deploy.fit_measured import measure_architecture
from dsonas_hw.deploy.measure import Progress, silent, usual_speed_of
from dsonas_hw.deploy.measured_use import MeasuredUse, relative_costs
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.choose import points_of
from dsonas_hw.task import Task

if TYPE_CHECKING:
    from dsonas_hw.search.derive import Derived
    from dsonas_hw.train.data import Dataset


def selects(task: Task) -> bool:
    """Whether candidates are trained before one is taken: where its preset asks for it, and for budgets."""
    return task.config.select.candidates > 0 and bool(task.budgets)


def refuse(run: RunDirectory, architecture: Architecture, *, need: float) -> None:
    """Have the next selection pass over a network whose measurement as trained did not hold.

    need: what it may take of its limit, above 1.
    """
    from dsonas_hw.search.selection import LOG_NAME
    from dsonas_hw.train.identity import architecture_hash

    network = architecture_hash(architecture)
    run.log(LOG_NAME, {"kind": "verdict", "network": network, "need": need})


def measured_use(task: Task, *, progress: Progress = silent, **options: Any) -> MeasuredUse:
    """What networks need of a task's budgets, measured on its target.

    progress: of every measurement for a verdict; options: as of `MeasuredUse`.
    """
    target, usual = task.config.target, usual_speed_of(task.target.cost_model)
    return MeasuredUse(
        task.budgets,
        measure=measure_architecture(target, usual=usual, progress=progress),
        measure_relative=relative_costs(target, task.budgets),
        **options,
    )


def select_measured(run: RunDirectory, task: Task, dataset: Dataset, *, say: Say, bar: Bar) -> Derived:
    """Choose by brief trainings among networks that are measured to hold, where the target is here.

    Writes selection.jsonl, and goes on from what it holds.

    Raises:
        RunError: no search has been run here.
        BudgetError: no candidate holds the budgets.
        Interrupted: by a signal; what was measured and trained is kept.
    """
    from dsonas_hw.search.selection import LOG_NAME, select_architecture, selection_rows
    from dsonas_hw.train.loop import resolve_train_device

    target = task.config.target
    with bar("select") as report:
        use = measured_use(
            task,
            progress=lambda done, total: report(done, total, "measuring"),
            known=selection_rows(run),
            log=lambda row: run.log(LOG_NAME, row),
            on_trial=lambda trial: say(trial_text(trial, target)),
        )
        derived = select_architecture(
            run, task, dataset, points_of(run, task), device=resolve_train_device(task.config.train_on),
            measure=use, verdict=use.verdict, progress=report,
        )  # fmt: skip
    chosen = derived.architecture
    say(f"selected: {chosen.width} channels, {chosen.num_edges} edges, {derived.ratio:.1%} of the budget")
    return derived
