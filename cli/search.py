"""`dsonas-hw search`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dsonas_hw.cli.advice import interruptible
from dsonas_hw.cli.common import json_option, print_json, say
from dsonas_hw.cli.open_run import open_run
from dsonas_hw.cli.options import configuration_options, profiles_option
from dsonas_hw.cli.progress import progress_bar
from dsonas_hw.errors import command_line

EXAMPLES = """\b
Examples:
  dsonas-hw search --budget mac=200k
  dsonas-hw search --dataset imagenet --budget mac=40M --device 1080ti --dry-run
  dsonas-hw search --preset cifar10-small --data-dir ~/cifar --budget mac=3M,latency=2ms
  dsonas-hw search --resume runs/cifar10-1
"""


@click.command(epilog=EXAMPLES)
@configuration_options
@profiles_option
@click.option("--out", type=click.Path(path_type=Path), help="Run directory (default: runs/<dataset>-<n>).")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with this run.")
@click.option("--dry-run", is_flag=True, help="Show configuration, space and costs; train nothing.")
@click.option("--download", is_flag=True, help="Fetch the dataset if it is not there.")
@json_option
def command(
    out: Path | None,
    resume: Path | None,
    dry_run: bool,
    download: bool,
    profiles_directory: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Search an architecture under a budget: pretrain, then prune edges with APG-NAG.

    The run directory then holds the path: every architecture the search passed. `derive` serves any budget
    from it.
    """
    run, config, resuming = open_run(out, resume, options)
    if dry_run:
        from dsonas_hw.cli.dry_run import show_dry_run

        show_dry_run(config, profiles_directory=profiles_directory, as_json=as_json)
        return
    run.check_usable(config, resume=resuming)
    from dsonas_hw.architecture.fit import find_loose
    from dsonas_hw.cli.derive import derived_json, describe_derived
    from dsonas_hw.cli.dry_run import image_lines
    from dsonas_hw.pipeline import check_counted_budgets
    from dsonas_hw.search.duration import estimate_run
    from dsonas_hw.search.parts import check_dataset
    from dsonas_hw.task import prepare_task
    from dsonas_hw.train.images import describe_images, load_data, space_of_config

    for line in image_lines(describe_images(config)):
        say(line)
    space = space_of_config(config)
    check_counted_budgets(config, space)
    task = prepare_task(config, space, profiles_directory=profiles_directory, say=say)
    for sentence in find_loose(task.space, task.budgets, task.target):
        say(sentence)
    dataset = load_data(config, download=download)
    check_dataset(config, dataset)
    estimate = estimate_run(config, task.space, len(dataset.train))
    estimate.check()
    say(str(estimate))
    if task.target.disclaimer:
        say(task.target.disclaimer)
    run.create(config, resume=resuming)
    with run.lock():
        from dsonas_hw.deploy.select_measured import selects
        from dsonas_hw.report.write import write_report
        from dsonas_hw.search.choose import (
            derive,
            load_derived,
            search_path,
            steering_note,
            take_architecture,
        )
        from dsonas_hw.search.progress import unfinished_search

        was_finished = resuming and run.architecture_path.exists() and unfinished_search(run) is None
        say(f"run directory: {run.path}")
        if note := steering_note(config):
            say(note)
        with interruptible("search", run, profiles_directory), progress_bar("search") as report:
            result = search_path(run, task, dataset, resume=resuming, progress=report)
        if was_finished:
            derived = load_derived(run, task)
            say("this search has ended before; its architecture stays as it is")
        else:
            derived = derive(run, task, task.budgets)
            take_architecture(run, derived, task, say=say)
            if run.report_path.exists():
                write_report(run.path, profiles_directory=profiles_directory)
    if as_json:
        print_json(
            {
                **derived_json(run, derived, task),
                "num_points": result.num_points,
                "gamma_cost": result.gamma_cost,
                "seconds": round(result.seconds, 1),
            }
        )
        return
    steered = f", γ by {result.gamma_cost}" if result.gamma_cost else ""
    click.echo(f"{result.num_points} architectures on the path, {result.seconds:.0f} s{steered}")
    describe_derived(derived, task)
    click.echo(f"next: {command_line('select' if selects(task) else 'retrain', run.path)}")
