"""The stages of a run that choose its architecture, each from and to files of the run directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dsonas_hw.architecture.architecture import (
    Architecture,
    Block,
    architecture_from_json,
    complete_architecture,
)
from dsonas_hw.architecture.fit import budget_ratio
from dsonas_hw.architecture.transfer import transfer_block
from dsonas_hw.budget import Budget, parse_budgets
from dsonas_hw.config import RunConfig
from dsonas_hw.errors import BudgetError, RunError, UserError, command_line
from dsonas_hw.files import read_json, read_json_lines, write_json
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.progress import SEARCH_STAGES, refuse_unfinished
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


def derive(
    run: RunDirectory,
    task: Task,
    budgets: Sequence[Budget],
    *,
    shrink: float = 1.0,
    step: int | None = None,
) -> Derived:
    """Choose from the path and fit the width; nothing is written (see `save_architecture`).

    step: the λ steps of a point that is taken whatever the rule would take.

    Raises:
        RunError: no search has been run here, or no point has that step.
        BudgetError: the path cannot reach the budgets.
    """
    from dsonas_hw.search.derive import derive_architecture

    return derive_architecture(points_of(run, task, step=step), budgets, task.target, shrink=shrink)


def points_of(run: RunDirectory, task: Task, *, step: int | None = None) -> Sequence[PathPoint]:
    """The points of a run's path that may serve a budget; with `step`, the one that was reached there.

    Raises:
        RunError: no search has been run here, or no point has that step.
    """
    from dsonas_hw.search.derive import serving_points
    from dsonas_hw.search.path import load_path

    points = load_path(run, complete_architecture(task.space).to_json()["space"])
    if step is None:
        return serving_points(points, gamma_control=task.config.search.gamma_control)
    found = [point for point in points if point.step == step]
    if not found:
        nearest = sorted({point.step for point in points}, key=lambda other: abs(other - step))[:3]
        raise RunError(
            f"the path of {run.path} has no point at step {step}; near it are {', '.join(map(str, nearest))}"
        )
    return found[-1:]


def copy_search(run: RunDirectory, other: RunDirectory) -> None:
    """Give another run the path of a search and what was logged on the way, to derive from it again there."""
    for name in ("path.jsonl", "lambda.jsonl"):
        if run.log_path(name).exists():
            shutil.copyfile(run.log_path(name), other.log_path(name))
    for row in read_json_lines(run.log_path("metrics.jsonl")):
        if row.get("stage") in SEARCH_STAGES:
            other.log("metrics.jsonl", row)


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
        "disclaimer": task.target.disclaimer,
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


def take_architecture(run: RunDirectory, derived: Derived, task: Task, *, say: Callable[[str], None]) -> None:
    """Write what a search has led to; what came of another architecture before is stale and set aside."""
    try:
        is_same = load_architecture(run)[0] == derived.architecture
    except UserError:  # there is none, or it is damaged
        is_same = False
    if not is_same and (names := run.set_aside()):
        say(
            f"stale: {', '.join(names)}: the search has changed the architecture, and they are of the one "
            f"before; they are in {run.stale}"
        )
    save_architecture(run, derived, task)


def load_derived(run: RunDirectory, task: Task) -> Derived:
    """The run's architecture with the point of the path that it came from, and what it costs.

    Raises:
        RunError: nothing has been derived, or the file does not say where it came from.
    """
    from dsonas_hw.search.derive import Derived

    architecture, budgets = load_architecture(run)
    try:
        (point,) = points_of(run, task, step=int(read_json(run.architecture_path)["derived"]["step"]))
    except (KeyError, TypeError, ValueError):
        raise RunError(
            f"{run.architecture_path} does not say which point of the path it is; derive again: "
            + command_line("derive", run.path)
        ) from None
    return Derived(
        architecture=architecture,
        point=point,
        ratio_before_fit=budget_ratio(point.architecture, budgets, task.target),
        ratio=budget_ratio(architecture, budgets, task.target),
        costs=task.target.costs(architecture),
    )


def load_architecture(run: RunDirectory) -> tuple[Architecture, tuple[Budget, ...]]:
    """The run's architecture and the budgets it was derived for.

    Raises:
        RunError: nothing has been derived yet, or not even searched to the end.
        UserError: a damaged file.
    """
    if not run.architecture_path.is_file():
        refuse_unfinished(run, "derive", run.path)
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
