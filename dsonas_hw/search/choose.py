"""The stages of a run that choose its architecture, each from and to files of the run directory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dsonas_hw.architecture.architecture import (
    Architecture,
    Block,
    architecture_from_json,
    complete_architecture,
)
from dsonas_hw.architecture.transfer import transfer_block
from dsonas_hw.budget import Budget, parse_budgets
from dsonas_hw.config import RunConfig
from dsonas_hw.errors import BudgetError, RunError, command_line
from dsonas_hw.files import read_json, write_json
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.task import Task

if TYPE_CHECKING:
    from dsonas_hw.search.derive import Derived
    from dsonas_hw.search.loop import SearchResult
    from dsonas_hw.search.path import PathPoint
    from dsonas_hw.train.data import Dataset
    from dsonas_hw.train.loop import Progress


def steering_note(config: RunConfig) -> str | None:
    """Return what a user should know of a search that no budget steers; None: one does."""
    if not config.budget:
        return "no --budget: γ stays fixed, and the network that is left in the end is taken as it is"
    if not config.search.gamma_control:
        return "γ is constant (search.gamma_control: false): the width alone meets the budget"
    return None


def search_path(
    run: RunDirectory,
    task: Task,
    dataset: Dataset,
    *,
    resume: bool,
    pretrained: RunDirectory | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search: writes path.jsonl, lambda.jsonl, metrics.jsonl and checkpoints.

    pretrained: where `pretrain_supernet` ran, to start from instead of pretraining here.

    Raises:
        Interrupted: by a signal; resumable.
    """
    from dsonas_hw.search.loop import Search

    search = Search(
        run, task.config, task.space, dataset, task.target, budgets=task.budgets, progress=progress
    )
    return search.run(resume=resume, pretrained=pretrained)


def pretrain_supernet(
    run: RunDirectory, task: Task, dataset: Dataset, *, resume: bool, progress: Progress | None = None
) -> None:
    """Pretrain the supernet, for searches that start from it: writes metrics.jsonl and checkpoints.

    The run and the task have the configuration `search.pretraining.pretraining_config`.

    Raises:
        Interrupted: by a signal; resumable.
    """
    from dsonas_hw.search.loop import Search

    search = Search(run, task.config, task.space, dataset, task.target, budgets=(), progress=progress)
    search.pretrain(resume=resume)


def derive(run: RunDirectory, task: Task, budgets: Sequence[Budget], *, shrink: float = 1.0) -> Derived:
    """Choose from the path and fit the width; nothing is written (see `save_architecture`).

    Raises:
        RunError: no search has been run here.
        BudgetError: the path cannot reach the budgets.
    """
    from dsonas_hw.search.derive import derive_architecture

    return derive_architecture(points_of(run, task), budgets, task.target, shrink=shrink)


def points_of(run: RunDirectory, task: Task) -> Sequence[PathPoint]:
    """The points of a run's path that may serve a budget.

    Raises:
        RunError: no search has been run here.
    """
    from dsonas_hw.search.derive import serving_points
    from dsonas_hw.search.path import load_path

    space_json = complete_architecture(task.space).to_json()["space"]
    return serving_points(load_path(run, space_json), gamma_control=task.config.search.gamma_control)


def transfer(run: RunDirectory, task: Task, block: Block) -> Derived:
    """Start a run whose path is one architecture: the task's network made of `block`, fitted to its budgets.

    So retrain, export and validate find an architecture, and derive serves other budgets by the width.

    Raises:
        BudgetError: not even the narrowest such network holds the budgets.
        RunError: the directory holds a run already.
    """
    from dsonas_hw.search.derive import derive_architecture
    from dsonas_hw.search.path import PathPoint

    architecture = transfer_block(block, task.space, width=task.config.retrain.width or task.space.channels)
    point = PathPoint(
        step=0, epoch=0, gamma=0.0, architecture=architecture, costs=task.target.costs(architecture),
        accuracy=None,
    )  # fmt: skip
    try:
        derived = derive_architecture([point], task.budgets, task.target)
    except BudgetError:
        wanted = ", ".join(map(str, task.budgets))
        raise BudgetError(
            f"with this block the network does not meet {wanted}, even {task.space.widths()[0]} channels "
            "wide; give a larger budget or choose another block"
        ) from None
    run.create(task.config)
    with run.lock():
        run.log("path.jsonl", point.to_json())
        save_architecture(run, derived, task)
    return derived


def save_architecture(run: RunDirectory, derived: Derived, task: Task) -> None:
    """Write architecture.json: the architecture, its predicted costs and what predicted them, its budgets."""
    data: dict[str, Any] = derived.architecture.to_json()
    data["derived"] = {
        "budgets": [str(budget) for budget in task.budgets],
        "limits": {budget.name: budget.limit for budget in task.budgets},
        "predicted": derived.costs.to_dict(),
        "source": task.target.source,
        "caution": task.target.caution,
        "probability": _probabilities(derived.architecture, task),
        "ratio_before_fit": derived.ratio_before_fit,
        "ratio": derived.ratio,
        "step": derived.point.step,
        "shared_accuracy": derived.point.accuracy,
    }
    write_json(run.architecture_path, data)


def _probabilities(architecture: Architecture, task: Task) -> dict[str, float]:
    """How likely estimated metrics are to hold their budgets; empty where nothing is estimated."""
    found = {b.name: task.target.probability_within(architecture, b) for b in task.budgets}
    return {name: probability for name, probability in found.items() if probability is not None}


def load_architecture(run: RunDirectory) -> tuple[Architecture, tuple[Budget, ...]]:
    """The run's architecture and the budgets it was derived for.

    Raises:
        RunError: nothing has been derived yet.
        UserError: a damaged file.
    """
    if not run.architecture_path.is_file():
        raise RunError(f"{run.path} has no architecture yet; run: {command_line('derive', run.path)}")
    data = read_json(run.architecture_path)
    architecture = architecture_from_json(data, origin=str(run.architecture_path))
    derived = data.get("derived", {})
    try:
        limits = {str(k): float(v) for k, v in derived["limits"].items()}
        budgets = parse_budgets(derived["budgets"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return architecture, parse_budgets(run.load_config().budget)
    exact = tuple(Budget(name=b.name, limit=limits.get(b.name, b.limit)) for b in budgets)
    return architecture, exact
