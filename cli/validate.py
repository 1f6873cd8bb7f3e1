"""`dsonas-hw validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dsonas_hw.cli.common import EXIT_ESTIMATED, EXIT_NO, json_option, leave, print_json
from dsonas_hw.cli.options import profiles_option

if TYPE_CHECKING:
    from dsonas_hw.deploy.validate import Validation

EXAMPLES = """\b
Examples:
  dsonas-hw validate runs/cifar10-1
  dsonas-hw validate runs/cifar10-1 --runtime tensorrt
  dsonas-hw validate runs/cifar10-1 --json | jq .holds

\b
Exit codes: 0 every budget holds, 1 a budget is missed, 2 bad usage or input, 3 the device is not here: what
it would take is only estimated.
"""


@click.command(epilog=EXAMPLES)
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--runtime", help="Instead of the run's: ort-cpu, ort-cuda, ort-tensorrt, tensorrt or eager.")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), help="Instead of the run's.")
@profiles_option
@json_option
def command(
    run_path: Path,
    runtime: str | None,
    precision: str | None,
    profiles_directory: Path | None,
    as_json: bool,
) -> None:
    """Count and measure the exported network, and hold it against every budget.

    Flops, mac, params and memory are counted on model.onnx; latency (and energy, where the driver counts it)
    is measured on the device. Writes validation.json.
    """
    from dsonas_hw.deploy.stages import validate_network
    from dsonas_hw.profile.runtimes import check_runtime
    from dsonas_hw.run_directory import RunDirectory
    from dsonas_hw.stages import load_architecture
    from dsonas_hw.task import target_costs

    run = RunDirectory(run_path)
    config = run.load_config()
    architecture, budgets = load_architecture(run)
    changes = {"runtime": runtime, "precision": precision}
    target = config.target.model_copy(update={k: v for k, v in changes.items() if v is not None})
    if target.runtime is not None:
        check_runtime(target.runtime, target.precision)
    costs = target_costs(target, profiles_directory=profiles_directory)
    with run.lock():
        validation = validate_network(run, architecture, budgets, costs, target)
    if as_json:
        print_json(validation.to_json())
    else:
        describe_validation(validation)
    leave(exit_code(validation))


def exit_code(validation: Validation) -> int:
    """0 all hold, 1 one is missed, 3 only an estimate was possible (or no answer at all)."""
    if validation.missed:
        return EXIT_NO
    return 0 if validation.is_measured and validation.holds else EXIT_ESTIMATED


def describe_validation(validation: Validation) -> None:
    """The verdict as a small table, for people."""
    from dsonas_hw.budget import format_quantity

    for budget in validation.budgets:
        answer = {True: "holds", False: "MISSED", None: "unknown"}[budget.holds]
        value = budget.measured if budget.measured is not None else budget.predicted
        counted = budget.name in ("flops", "mac", "params", "memory")
        how = "counted" if counted else (validation.source if budget.measured is None else "measured")
        text = "?" if value is None else format_quantity(budget.name, value)
        share = "" if value is None else f" ({value / budget.limit:.1%})"
        click.echo(
            f"  {budget.name:8} {text:>10} of {format_quantity(budget.name, budget.limit)}{share}"
            f"  {how}  {answer}"
        )
    latency_ms = validation.costs["latency_ms"]
    if latency_ms is not None and all(budget.name != "latency" for budget in validation.budgets):
        click.echo(f"  latency  {format_quantity('latency', latency_ms):>10}  {validation.source}")
    where = f"{validation.device} ({validation.runtime or 'no runtime'}, {validation.precision}, "
    where += f"batch {validation.batch_size})"
    if not validation.is_measured:
        click.echo(f"{validation.source}, not validated: {validation.device} is not here")
        if validation.caution:
            click.echo(validation.caution)
    elif validation.holds:
        click.echo(
            f"every budget holds, measured on {where}" if validation.budgets else f"measured on {where}"
        )
    else:
        click.echo(f"not every budget holds on {where}")
    for text in validation.warnings:
        click.echo(f"warning: {text}", err=True)
