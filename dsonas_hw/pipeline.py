"""The whole job: profile ▶ search ▶ select (measured) ▶ retrain ▶ export ▶ validate ▶ report.

Every stage leaves its files in the run directory, and a stage whose files are there is not done again: so a
run that was stopped anywhere goes on from there.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.fit import check_feasible, find_loose
from dsonas_hw.config import RunConfig
from dsonas_hw.deploy.derive_measured import Bar, Say, derive_measured
from dsonas_hw.deploy.select_measured import refuse, select_measured, selects
from dsonas_hw.device.spec import LOCAL
from dsonas_hw.errors import BudgetError
from dsonas_hw.profile.open import resolve_target
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.runtime.registry import get_runtime
from dsonas_hw.search.choose import (
    load_architecture,
    save_architecture,
    search_path,
    steering_note,
    take_architecture,
)
from dsonas_hw.search.progress import unfinished_search
from dsonas_hw.task import Task, check_meter, needed_metrics, prepare_task
from dsonas_hw.train.images import load_data, space_of_config

if TYPE_CHECKING:
    from dsonas_hw.deploy.validate import Validation
    from dsonas_hw.space.space import SearchSpace
    from dsonas_hw.train.data import Dataset

MAX_ATTEMPTS = 3
"""Networks that are trained at most: each but the first is another one, because the one before missed."""
NARROWER = 0.97
"""Beside the cost (or the upper end of its interval) / limit: how much smaller the next one is made."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    validation: Validation
    exhausted: bool
    """Whether the search leads to no other network that could take the place of one that does not hold."""


def run_all(
    run: RunDirectory,
    config: RunConfig,
    *,
    resume: bool,
    download: bool = False,
    profiles_directory: Path | None = None,
    say: Say,
    bar: Bar,
) -> Outcome:
    """Do every stage that is not done yet, until the measured network holds its budgets.

    Raises:
        Interrupted: a checkpoint was written; `resume` goes on.
        UserError: whatever stands in the way, in one line; budgets are checked before any training.
    """
    from dsonas_hw.search.duration import estimate_run
    from dsonas_hw.search.parts import check_dataset
    from dsonas_hw.search.teacher import check_teacher
    from dsonas_hw.train.loop import resolve_train_device

    space = space_of_config(config)
    check_counted_budgets(config, space)
    resolve_train_device(config.train_on)
    dataset = load_data(config, download=download)
    check_dataset(config, dataset)
    check_teacher(config, dataset)
    if not run.architecture_path.exists():
        estimate = estimate_run(config, space, len(dataset.train))
        estimate.check()
        say(str(estimate))
    ensure_profile(config, space, profiles_directory=profiles_directory, say=say, bar=bar)
    task = prepare_task(config, space, profiles_directory=profiles_directory, say=say)
    for sentence in find_loose(space, task.budgets, task.target):
        say(sentence)
    run.create(config, resume=resume)
    say(f"run directory: {run.path}")
    if task.target.disclaimer:
        say(task.target.disclaimer)
    if note := steering_note(config):
        say(note)
    with run.lock():
        if unfinished_search(run) or not run.architecture_path.exists():
            with bar("search") as report:
                result = search_path(run, task, dataset, resume=resume, progress=report)
            steered = f", γ by {result.gamma_cost}" if result.gamma_cost else ""
            say(f"searched: {result.num_points} architectures on the path, {result.seconds:.0f} s{steered}")
            derived = (
                select_measured(run, task, dataset, say=say, bar=bar)
                if selects(task)
                else derive_measured(run, task, say=say, bar=bar)
            )
            take_architecture(run, derived, task, say=say)
        outcome = _deploy_until_it_holds(run, task, dataset, resume=resume, say=say, bar=bar)
        from dsonas_hw.report.write import write_report

        say(f"report: {write_report(run.path, profiles_directory=profiles_directory)}")
    return outcome


def check_counted_budgets(config: RunConfig, space: SearchSpace) -> None:
    """Refuse what needs no profile to be refused, before minutes are spent on measuring one.

    Raises:
        BudgetError: flops, mac, params or memory that no network of the space meets.
        ProfileError: energy of a CPU that has no meter.
    """
    target = resolve_target(config.target)
    counted = [budget for budget in config.budgets if not budget.metric]
    check_feasible(space, counted, TargetCosts(target=target))
    check_meter(target, needed_metrics(config))


def ensure_profile(
    config: RunConfig, space: SearchSpace, *, profiles_directory: Path | None, say: Say, bar: Bar
) -> None:
    """Measure the target if it is here and its table does not cover this space.

    A target that is not here is estimated when it is asked for; see `profile.open`.

    Raises:
        DeviceError: it is here, and the runtime cannot serve it.
    """
    from dsonas_hw.profile.gpu_bench import is_here
    from dsonas_hw.profile.profile_space import is_profiled, profile_space

    target = resolve_target(config.target)
    if target.device == LOCAL and get_runtime(target.runtime).why_untimed(target):
        return
    if target.device != LOCAL and not is_here(target.device):
        return
    if is_profiled(space, target, profiles_directory=profiles_directory):
        return
    with bar(f"profile {target.device}") as report:
        profile = profile_space(
            space, target, name=config.preset, profiles_directory=profiles_directory, progress=report
        )
    if profile.check is not None:
        error = profile.check.error
        say(
            f"profiled {target.device}: {profile.path}; on {profile.check.num_networks} networks it had not "
            f"seen the error is {error.mape:.1%}"
        )


def _deploy_until_it_holds(
    run: RunDirectory, task: Task, dataset: Dataset, *, resume: bool, say: Say, bar: Bar
) -> Outcome:
    """Retrain, export, validate; if the network does not hold, try the next candidate, or a smaller one."""
    shrink = 1.0
    refused: list[Architecture] = []
    _, budgets = load_architecture(run)  # others than the search's, if it was derived for them
    by_selection, exhausted = selects(task) and budgets == task.budgets, False
    task = replace(task, budgets=budgets)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        validation = deploy(run, task, dataset, resume=resume, say=say, bar=bar)
        if not (validation.missed or validation.undecided) or attempt == MAX_ATTEMPTS:
            break
        worst = worst_use(validation)
        shrink *= NARROWER / worst
        refused.append(load_architecture(run)[0])
        say(f"the trained network may take {worst:.1%} of its budget; trying another one")
        try:
            if by_selection:
                refuse(run, refused[-1], need=worst)
                another = select_measured(run, task, dataset, say=say, bar=bar)
            else:
                another = derive_measured(run, task, say=say, bar=bar, shrink=shrink, refused=refused)
        except BudgetError as error:
            say(f"there is none: {error}")
            exhausted = True
            break
        save_architecture(run, another, task)
        resume = False
    return Outcome(validation=validation, exhausted=exhausted)


def worst_use(validation: Validation) -> float:
    """What a network may take of its tightest budget: of a measured cost the interval's upper end."""
    return max((b.high or b.measured or b.predicted or 0.0) / b.limit for b in validation.budgets)


def deploy(
    run: RunDirectory, task: Task, dataset: Dataset, *, resume: bool, say: Say, bar: Bar
) -> Validation:
    """Retrain the run's architecture, export it, and hold it against the budgets.

    A verdict that is there is kept: a network is not measured again until it fits.
    """
    from dsonas_hw.deploy.export_and_validate import export_network, validate_network
    from dsonas_hw.deploy.validate import load_validation
    from dsonas_hw.search.teacher import open_teacher
    from dsonas_hw.train.loop import resolve_train_device
    from dsonas_hw.train.retrain import retrain

    architecture, budgets = load_architecture(run)
    config = task.config
    device = resolve_train_device(config.train_on)
    with bar("teacher") if config.retrain.distill.teacher else nullcontext() as report:
        teacher = open_teacher(run, config, dataset, device=device, progress=report)
    with bar("retrain") as report:
        trained = retrain(
            run, config, architecture, dataset, device=device, resume=resume, teacher=teacher, progress=report
        )
    say(f"retrained: test accuracy {trained.test_accuracy:.2%}, {trained.seconds:.0f} s")
    if advice := trained.advice(run):
        say(f"warning: {advice}")
    export_network(run, architecture, dataset, batch_size=config.target.batch_size)
    say(f"exported: {run.model_path}")
    stored = load_validation(run.validation_path) if resume else None
    if stored is not None and stored.answers(run.model_path, budgets, config.target):
        say(f"measured before, on {stored.date}")
        return stored
    with bar("validate") as report:
        return validate_network(
            run, architecture, budgets, task.target, config.target,
            progress=lambda done, total: report(done, total, ""),
        )  # fmt: skip
