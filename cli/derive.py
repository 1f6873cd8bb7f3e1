"""`dsonas-hw derive`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dsonas_hw.cli.common import json_option, print_json, say
from dsonas_hw.cli.options import profiles_option

if TYPE_CHECKING:
    from dsonas_hw.search.derive import Derived
    from dsonas_hw.task import Task

EXAMPLES = """\b
Examples:
  dsonas-hw derive runs/cifar10-1
  dsonas-hw derive runs/cifar10-1 --budget latency=3ms --out runs/cifar10-3ms
"""


@click.command(epilog=EXAMPLES)
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--budget", multiple=True, metavar="LIMITS", help="Other budgets than the search's.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a new run directory for this budget.")
@profiles_option
@json_option
def command(
    run_path: Path,
    budget: tuple[str, ...],
    out: Path | None,
    profiles_directory: Path | None,
    as_json: bool,
) -> None:
    """Fit an architecture of a finished search to a budget: any budget, no new search.

    Of all architectures the search passed, the one nearest to the budget is taken, and its width is set to
    use the budget well. A predicted latency is what the network takes when nothing disturbs it; `validate`
    holds the median that is measured against the budget.
    """
    from dsonas_hw.budget import parse_budgets
    from dsonas_hw.errors import RunError, command_line
    from dsonas_hw.run_directory import RunDirectory
    from dsonas_hw.search.choose import derive, load_architecture, save_architecture
    from dsonas_hw.task import prepare_task
    from dsonas_hw.train.images import space_of_config

    run = RunDirectory(run_path)
    config = run.load_config()
    if budget:
        parse_budgets(budget)
        config = config.model_copy(update={"budget": budget})
    task = prepare_task(config, space_of_config(config), profiles_directory=profiles_directory, say=say)
    if task.target.caution:
        say(task.target.caution)
    derived = derive(run, task, task.budgets)
    target = run
    if out is not None:
        target = RunDirectory(out)
        target.create(config)
        shutil.copyfile(run.log_path("path.jsonl"), target.log_path("path.jsonl"))
    elif (run.path / "weights.npz").exists() and load_architecture(run)[0] != derived.architecture:
        raise RunError(
            f"{run.path} holds the trained weights of another architecture; keep them and write this one "
            "to a new run with --out"
        )
    with target.lock():
        save_architecture(target, derived, task)
    if as_json:
        print_json(
            {
                "run": str(target.path),
                "width": derived.architecture.width,
                "ratio_before_fit": derived.ratio_before_fit,
                "ratio": derived.ratio,
                "step": derived.point.step,
                "predicted": derived.costs.to_dict(),
                "source": task.target.source,
            }
        )
        return
    describe_derived(derived, task)
    click.echo(f"next: {command_line('retrain', target.path)}")


def describe_derived(derived: Derived, task: Task) -> None:
    """A few lines about a derived architecture, for people; a predicted latency is the quiet value."""
    from dsonas_hw.budget import METRICS, QUANTITIES, format_probability, format_quantity

    architecture = derived.architecture
    edges = sum(block.num_edges for block in architecture.blocks)
    click.echo(f"architecture: {edges} edges, {architecture.width} channels wide")
    for name in ("mac", "flops", "params", "memory", *METRICS):
        quantity = QUANTITIES[name]
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
        source += "" if probability is None else f"; holds with {format_probability(probability)}"
        click.echo(f"  {name:8} {format_quantity(name, value):>10}{of_limit}{source}")
