"""`dsonas-hw derive`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsonas_hw.cli.advice import beside, check_finished, refuse_trained, unfinished_option
from dsonas_hw.cli.common import json_option, print_json, say
from dsonas_hw.cli.options import profiles_option

if TYPE_CHECKING:
    from dsonas_hw.run_directory import RunDirectory
    from dsonas_hw.search.derive import Derived
    from dsonas_hw.task import Task

EXAMPLES = """\b
Examples:
  dsonas-hw derive runs/cifar10-1
  dsonas-hw derive runs/cifar10-1 --budget latency=3ms --out runs/cifar10-3ms
  dsonas-hw derive runs/cifar10-1 --budget latency=3ms,5ms,8ms --out runs/by-latency
  dsonas-hw derive runs/cifar10-1 --step 420
"""


@click.command(epilog=EXAMPLES)
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--budget",
    multiple=True,
    metavar="LIMITS",
    help="Other budgets than the search's. Budgets of several quantities must all hold; several limits of "
    "one (latency=3ms,5ms) give a network each, in a run each.",
)
@click.option(
    "--step",
    type=click.IntRange(0),
    metavar="N",
    help="Take the point of the path that was reached at this λ step, as the report shows it.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write a new run directory; for several limits a folder of them (default: beside RUN).",
)
@unfinished_option
@profiles_option
@json_option
def command(
    run_path: Path,
    budget: tuple[str, ...],
    step: int | None,
    out: Path | None,
    unfinished: bool,
    profiles_directory: Path | None,
    as_json: bool,
) -> None:
    """Fit an architecture of a finished search to a budget: any budget, no new search.

    Of all architectures the search passed, the one nearest to the budget is taken, and its width is set to
    use the budget well. A predicted latency is what the network takes when nothing disturbs it; `validate`
    holds the median that is measured against the budget.
    """
    from dsonas_hw.budget import budget_levels
    from dsonas_hw.errors import command_line
    from dsonas_hw.run_directory import RunDirectory
    from dsonas_hw.search.choose import derive
    from dsonas_hw.task import prepare_task
    from dsonas_hw.train.images import space_of_config

    run = RunDirectory(run_path)
    config = run.load_config()
    levels = budget_levels(budget) if budget else (",".join(config.budget),)
    check_finished(run, unfinished)
    found = []
    for level in levels:
        target = _target(run, level, out, several=len(levels) > 1)
        wanted = config.model_copy(update={"budget": tuple(level.split(","))}) if budget else config
        task = prepare_task(wanted, space_of_config(config), profiles_directory=profiles_directory, say=say)
        found.append((target, task, derive(run, task, task.budgets, step=step)))
        if target is not run:
            target.check_usable(wanted)
    if task.target.disclaimer:
        say(task.target.disclaimer)
    flag = ("--unfinished",) if unfinished else ()
    for target, task, derived in found:
        _save(run, target, task, derived)
        if as_json:
            print_json(derived_json(target, derived, task))
            continue
        if len(found) > 1:
            click.echo(f"{', '.join(map(str, task.budgets))}: {target.path}")
        describe_derived(derived, task)
        click.echo(f"next: {command_line('retrain', target.path, *flag)}")


def _target(run: RunDirectory, level: str, out: Path | None, *, several: bool) -> RunDirectory:
    """Where the network of a budget goes."""
    from dsonas_hw.run_directory import RunDirectory
    from dsonas_hw.study.spec import slug

    if several:
        return RunDirectory(beside(run.path, level) if out is None else out / slug(level))
    return run if out is None else RunDirectory(out)


def _save(run: RunDirectory, target: RunDirectory, task: Task, derived: Derived) -> None:
    """Write an architecture to its run; a new one gets the search's logs too.

    Raises:
        RunError: the run holds the training of another architecture, finished or not.
    """
    from dsonas_hw.search.choose import copy_search, save_architecture

    if target is not run:
        target.create(task.config)
    else:
        refuse_trained(run, derived.architecture, "write this one to a new run with --out")
    with target.lock():
        if target is not run:
            copy_search(run, target)
        save_architecture(target, derived, task)


def derived_json(run: RunDirectory, derived: Derived, task: Task) -> dict[str, Any]:
    """What `--json` tells of a derived architecture."""
    return {
        "run": str(run.path),
        "budget": [str(budget) for budget in task.budgets],
        "width": derived.architecture.width,
        "ratio_before_fit": derived.ratio_before_fit,
        "ratio": derived.ratio,
        "step": derived.point.step,
        "predicted": derived.costs.to_dict(),
        "source": task.target.source,
    }


def describe_derived(derived: Derived, task: Task) -> None:
    """A few lines about a derived architecture, for people; a predicted latency is the quiet value."""
    from dsonas_hw.budget import COST_LABELS, METRICS, QUANTITIES, format_quantity, holds_with

    architecture = derived.architecture
    click.echo(f"architecture: {architecture.num_edges} edges, {architecture.width} channels wide")
    for name, quantity in QUANTITIES.items():
        value = derived.costs.to_dict()[quantity]
        if value is None:
            continue
        budget = next((b for b in task.budgets if b.name == name), None)
        of_limit = (
            f"  of {format_quantity(name, budget.limit)} ({value / budget.limit:.1%})" if budget else ""
        )
        undisturbed = ", undisturbed" if name == "latency" else ""
        source = f"  predicted{undisturbed}, from {task.target.source} kernels" if name in METRICS else ""
        probability = task.target.probability_within(architecture, budget) if budget else None
        source += "" if probability is None else f"; {holds_with(probability)}"
        click.echo(f"  {COST_LABELS[name]:26}{format_quantity(name, value):>10}{of_limit}{source}")
