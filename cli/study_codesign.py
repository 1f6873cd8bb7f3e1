"""`dsonas-hw study codesign`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsonas_hw.cli.common import EXIT_NO, leave, print_json, say
from dsonas_hw.cli.options import config_from_options
from dsonas_hw.cli.progress import progress_bar
from dsonas_hw.device.spec import LOCAL

if TYPE_CHECKING:
    from dsonas_hw.config import RunConfig
    from dsonas_hw.study.codesign import Codesign
    from dsonas_hw.study.scheduler import JobFailure
    from dsonas_hw.study.spec import Job

MAX_SEEDS = 1000
RunJobs = Callable[[Path, "list[Job]"], "list[JobFailure]"]


def plan(
    *,
    devices: tuple[str, ...],
    budget: tuple[str, ...],
    seeds: str | None,
    search_per_budget: bool,
    skip_infeasible: bool,
    dry_run: bool,
    **options: Any,
) -> Codesign:
    """The checked study of these options; this machine is measured first if it is one of the devices.

    Raises:
        UserError: whatever is wrong with them.
    """
    from dsonas_hw.budget import budget_levels
    from dsonas_hw.study.codesign_plan import device_names, plan_codesign
    from dsonas_hw.train.images import load_data

    given = [name.strip() for text in devices for name in text.split(",") if name.strip()]
    if not given:
        raise click.UsageError("study codesign needs --devices, e.g. --devices 1080ti,v100,local")
    names = device_names(given)
    levels = budget_levels(budget)
    # Unless told otherwise, γ follows latency: what each device is slow at is what its search avoids.
    options["settings"] = ("search.adaptive_cost=latency", *options["settings"])
    config = config_from_options(budget=(), device=LOCAL, **options)
    load_data(config)  # what is missing is said now, not by the first job
    if LOCAL in names and not dry_run:
        _measure_this_machine(config, () if skip_infeasible else levels)
    return plan_codesign(
        names, levels, config.model_dump(mode="json"), seeds=seed_numbers("1" if seeds is None else seeds),
        search_per_budget=search_per_budget, skip_infeasible=skip_infeasible,
    )  # fmt: skip


def _measure_this_machine(config: RunConfig, budgets: Sequence[str]) -> None:
    """Unless it has a profile already, or a counted budget would be refused anyway."""
    from dsonas_hw.pipeline import check_counted_budgets, ensure_profile
    from dsonas_hw.train.images import space_of_config

    space = space_of_config(config)
    for budget in budgets:
        check_counted_budgets(config.model_copy(update={"budget": (budget,)}), space)
    ensure_profile(config, space, profiles_directory=None, say=say, bar=progress_bar)


def seed_numbers(text: str) -> tuple[int, ...]:
    """The seeds that `--seeds` names: so many from 0 on, or a comma list of them.

    Raises:
        BadParameter: no whole numbers, none at all, or one twice.
    """
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a whole number nor a list of such, e.g. 5 or 0,1,2", param_hint="--seeds"
        ) from None
    if "," not in text:
        if not 1 <= numbers[0] <= MAX_SEEDS:
            raise click.BadParameter(f"give 1 to {MAX_SEEDS} seeds, not {text}", param_hint="--seeds")
        return tuple(range(numbers[0]))
    if min(numbers) < 0 or len(set(numbers)) != len(numbers):
        raise click.BadParameter("seeds are different numbers from 0 on", param_hint="--seeds")
    return numbers


def list_jobs(jobs: Sequence[Job], as_json: bool) -> None:
    """A line for each job with what it costs, and one for all."""
    from dsonas_hw.search.effort import Effort
    from dsonas_hw.study.effort import count_effort

    total = Effort()
    for job in jobs:
        effort = count_effort(job)
        total += effort
        if as_json:
            print_json({"name": job.name, "budgets": list(job.budgets), **asdict(effort)})
        else:
            cost = f": {effort}" if effort.images else ""
            click.echo(f"{job.name}  ({', '.join(job.budgets) or 'shared by all searches'}){cost}")
    if not as_json:
        click.echo(f"in all {len(jobs)} jobs: {total}")


def show_jobs(study: Codesign, as_json: bool) -> None:
    """What would run."""
    from dsonas_hw.study.codesign_jobs import search_jobs

    list_jobs(search_jobs(study), as_json)
    if as_json:
        return
    here = [device.name for device in study.devices if device.is_here]
    click.echo(
        "then: each distinct network trained once" + (f", measured on {', '.join(here)}" if here else "")
    )


def run(study: Codesign, path: Path, run_jobs: RunJobs, *, as_json: bool) -> None:
    """Do what is not done yet, write the page and its table, print the table."""
    from dsonas_hw.report.codesign_cross import cross_table
    from dsonas_hw.report.codesign_tables import answer_sentences, answer_table
    from dsonas_hw.report.write import write_report
    from dsonas_hw.study.codesign import save_codesign
    from dsonas_hw.study.codesign_jobs import finished_derivations, network_jobs, search_jobs
    from dsonas_hw.study.codesign_result import load_result
    from dsonas_hw.study.scheduler import describe_jobs

    searches = search_jobs(study)
    describe_jobs(path, searches)
    save_codesign(path, study)
    failures = run_jobs(path, searches)
    networks = network_jobs(study, finished_derivations(path, searches))
    failures += run_jobs(path, networks)
    result = load_result(path)
    page = write_report(path)
    if as_json:
        print_json({"study": str(path), "report": str(page), "networks": cross_table(result).to_records(),
                    "answers": answer_table(result).to_records(),
                    "failed": [asdict(failure) for failure in failures]})  # fmt: skip
    else:
        table = cross_table(result)
        click.echo("\n".join([table.to_markdown(), "", table.caption, "", *answer_sentences(result)]))
    say(f"report: {page}")
    for failure in failures:
        say(f"failed: {failure.name}: {failure.reason}")
    if failures:
        leave(EXIT_NO)
