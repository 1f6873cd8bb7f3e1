"""`dsonas-hw validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dsonas_hw.cli.advice import profiles_arguments
from dsonas_hw.cli.common import EXIT_ESTIMATED, EXIT_NO, json_option, leave, print_json
from dsonas_hw.cli.options import profiles_option
from dsonas_hw.cli.progress import progress_bar

if TYPE_CHECKING:
    from dsonas_hw.config import DeviceConfig
    from dsonas_hw.deploy.validate import BudgetVerdict, Validation
    from dsonas_hw.run_directory import RunDirectory

EXAMPLES = """\b
Examples:
  dsonas-hw validate runs/cifar10-1
  dsonas-hw validate runs/cifar10-1 --runtime tensorrt
  dsonas-hw validate runs/cifar10-1 --statistic p95
  dsonas-hw validate runs/cifar10-1 --json | jq .holds

\b
Exit codes: 0 every budget holds, 1 a budget is missed or undecided (the limit lies within the interval of
what was measured), 2 bad usage or input, 3 the device is not here: what it would take is only estimated.
"""


@click.command(epilog=EXAMPLES)
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--runtime", help="Instead of the run's (see: dsonas-hw devices).")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), help="Instead of the run's.")
@click.option(
    "--statistic",
    type=click.Choice(["p50", "p95", "p99"]),
    help="Of the measured latency, what its budget limits, instead of the run's (p50, the median).",
)
@profiles_option
@json_option
def command(
    run_path: Path,
    runtime: str | None,
    precision: str | None,
    statistic: str | None,
    profiles_directory: Path | None,
    as_json: bool,
) -> None:
    """Count and measure the exported network, and hold it against every budget.

    Flops, mac, params and memory are counted on model.onnx; latency (and energy, where the driver counts it)
    is measured on the device, once, for half a minute. A latency budget is held against the median of all
    timings at the machine's usual speed, an energy budget against the mean, and the interval of either.
    Writes validation.json.
    """
    from dsonas_hw.deploy.export_and_validate import validate_network
    from dsonas_hw.run_directory import RunDirectory
    from dsonas_hw.runtime.registry import get_runtime
    from dsonas_hw.search.choose import load_architecture
    from dsonas_hw.task import target_costs

    run = RunDirectory(run_path)
    config = run.load_config()
    architecture, budgets = load_architecture(run)
    changes = {"runtime": runtime, "precision": precision, "statistic": statistic}
    target = config.target.model_copy(update={k: v for k, v in changes.items() if v is not None})
    if target.runtime is not None:
        get_runtime(target.runtime, target.precision)
    costs = target_costs(target, profiles_directory=profiles_directory)
    with run.lock(), progress_bar("validate") as report:
        validation = validate_network(
            run, architecture, budgets, costs, target, progress=lambda done, total: report(done, total, "")
        )
    if as_json:
        print_json(validation.to_json())
    else:
        describe_validation(validation)
        for line in next_commands(run, validation, target, profiles_directory):
            click.echo(f"next: {line}")
    leave(exit_code(validation))


def next_commands(
    run: RunDirectory,
    validation: Validation,
    target: DeviceConfig,
    profiles_directory: Path | None,
    *,
    exhausted: bool = False,
) -> list[str]:
    """What to type after a verdict: what repairs one that does not hold, what measures an estimated one.

    exhausted: the search is known to have no other network for these budgets.
    """
    from dsonas_hw.errors import command_line

    found, profiles = [], profiles_arguments(profiles_directory)
    if validation.missed or validation.undecided:
        found.append(repair_command(run, validation, target, profiles_directory, exhausted=exhausted))
    if validation.source != "measured":
        found.append(command_line("kit", run.path, "--device", validation.device, *profiles))
    return found


def repair_command(
    run: RunDirectory,
    validation: Validation,
    target: DeviceConfig,
    profiles_directory: Path | None,
    *,
    exhausted: bool = False,
) -> str:
    """The command that takes another network in the place of one that does not hold its budgets.

    `run` makes smaller ones and measures them until one holds, as the run's target is; where the search has
    none, another search does, under limits that are tighter by what this network was measured to miss them
    by. Held against another runtime, precision or percentile, or only estimated, or with weights that were
    trained elsewhere, it is a new run from the same path, under such limits.
    """
    from dsonas_hw.budget import Budget
    from dsonas_hw.cli.advice import derive_command, free_beside
    from dsonas_hw.deploy.fit_measured import scale_timed
    from dsonas_hw.deploy.validate import load_training
    from dsonas_hw.errors import command_line
    from dsonas_hw.pipeline import NARROWER, worst_use

    profiles = profiles_arguments(profiles_directory)
    saved = (load_training(run.path / "retrain.json") or {}).get("saved") is True
    same_target = validation.is_measured and target == run.load_config().target
    if same_target and not saved and not exhausted:
        return command_line("run", "--resume", run.path, *profiles)
    budgets = [Budget(name=b.name, limit=b.limit) for b in validation.budgets]
    scale = NARROWER / worst_use(validation) if validation.is_measured else 1.0
    limits = ",".join(map(str, scale_timed(budgets, scale)))
    if exhausted:
        again = ("--config", run.config_path, "--budget", limits, "--out", free_beside(run.path, limits))
        return command_line("run", *again, *profiles)
    return derive_command(run, limits, profiles_directory)


def exit_code(validation: Validation) -> int:
    """0 all hold, 1 one is missed or undecided, 3 only an estimate was possible (or no answer at all)."""
    if validation.missed or validation.undecided:
        return EXIT_NO
    return 0 if validation.is_measured and validation.holds else EXIT_ESTIMATED


def describe_validation(validation: Validation) -> None:
    """The verdict as a small table, for people."""
    for budget in validation.budgets:
        click.echo(_budget_line(budget, validation))
    for line in [*latency_lines(validation), *energy_lines(validation)]:
        click.echo(line)
    where = f"{validation.device} ({validation.runtime or 'no runtime'}, {validation.precision}, "
    where += f"batch {validation.batch_size})"
    if validation.source != "measured":
        click.echo(f"{validation.source}, not validated: {validation.device} is not here")
        if validation.disclaimer:
            click.echo(validation.disclaimer)
    elif not validation.is_measured:
        missing = ", ".join(budget.name for budget in validation.budgets if budget.measured is None)
        click.echo(f"not validated: {missing} was not measured on {where}")
    elif validation.holds:
        click.echo(
            f"every budget holds, measured on {where}" if validation.budgets else f"measured on {where}"
        )
    else:
        click.echo(f"not every budget holds on {where}")
    for budget in validation.budgets:
        if budget.verdict == "undecided":
            click.echo(_what_would_decide(budget))
    for text in validation.warnings:
        click.echo(f"warning: {text}", err=True)


def _budget_line(budget: BudgetVerdict, validation: Validation) -> str:
    from dsonas_hw.budget import COST_LABELS, METRICS, format_interval, format_quantity, holds_with

    answer = {"holds": "holds", "missed": "MISSED", "undecided": "UNDECIDED", None: "unknown"}[budget.verdict]
    if budget.probability is not None:
        answer = holds_with(budget.probability)
    value = budget.measured if budget.measured is not None else budget.predicted
    if budget.name not in METRICS:
        how = "counted"
    elif budget.measured is None:
        how = validation.source
    else:
        assert budget.statistic is not None
        interval = format_interval(budget.name, budget.low, budget.high)
        how = f"measured, {_TITLES[budget.statistic]} ({interval})"
    text = "?" if value is None else format_quantity(budget.name, value)
    share = "" if value is None else f" ({value / budget.limit:.1%})"
    limit = format_quantity(budget.name, budget.limit)
    return f"  {COST_LABELS[budget.name]:26}{text:>10} of {limit}{share}  {how}  {answer}"


_TITLES = {"p50": "median", "p95": "p95", "p99": "p99", "mean": "mean"}


def latency_lines(validation: Validation) -> list[str]:
    """All that is known of the latency beside its budget."""
    from dsonas_hw.budget import format_interval, format_quantity
    from dsonas_hw.measure.statistics import STATISTICS

    latency, latency_ms = validation.latency, validation.costs["latency_ms"]
    if latency is None:
        if latency_ms is None or any(budget.name == "latency" for budget in validation.budgets):
            return []
        return [f"  latency  {format_quantity('latency', latency_ms):>10}  {validation.source}"]
    names = ", ".join(f"{name} {format_quantity('latency', latency[f'{name}_ms'])}" for name in STATISTICS)
    interval = format_interval("latency", latency["p50_ms_low"], latency["p50_ms_high"])
    seen, speed = format_quantity("latency", latency["seen_p50_ms"]), latency["relative_speed"]
    at_usual = "" if speed is None else f" at the machine's usual speed (now {speed:.0%}: median {seen})"
    return [
        f"  latency measured: {names}{at_usual}; the median lies within {interval}; undisturbed "
        f"{format_quantity('latency', latency['quiet_ms'])}"
    ]


def energy_lines(validation: Validation) -> list[str]:
    """The measured energy and how it was measured; nothing where it was not."""
    from dsonas_hw.budget import format_interval, format_quantity

    if (energy := validation.energy) is None:
        return []
    how = {"counter": "the driver's counter", "power": "the driver's power readings, integrated"}
    interval = format_interval("energy", energy["energy_mj_low"], energy["energy_mj_high"])
    return [
        f"  energy measured: {format_quantity('energy', energy['energy_mj'])} ({interval}) at "
        f"{energy['power_w']:.4g} W, by {how[energy['method']]} over {energy['num_inferences']} inferences"
    ]


def _what_would_decide(budget: BudgetVerdict) -> str:
    """One line about an undecided budget."""
    from dsonas_hw.budget import format_interval, format_quantity

    assert budget.statistic is not None
    what = f"undecided: the {_TITLES[budget.statistic]} lies within "
    what += format_interval(budget.name, budget.low, budget.high)
    if budget.high is None:
        return f"{what}; too few runs for a bound: a lower percentile would have one"
    return (
        f"{what}, and the limit too. {budget.name}={format_quantity(budget.name, budget.high * 1.001)} would "
        "hold; a smaller network or a machine with less else to do may hold this one"
    )
