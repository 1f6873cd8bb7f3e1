"""`dsonas-hw select`."""

from __future__ import annotations

from pathlib import Path

import click

from dsonas_hw.cli.advice import free_beside, refuse_trained
from dsonas_hw.cli.common import json_option, print_json, say
from dsonas_hw.cli.options import profiles_option
from dsonas_hw.cli.progress import progress_bar

EXAMPLES = """\b
Examples:
  dsonas-hw select runs/cifar10-1
  dsonas-hw select runs/fashion-mnist-1 --profiles measured --json
"""


@click.command(epilog=EXAMPLES)
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--download", is_flag=True, help="Fetch the dataset if it is not there.")
@profiles_option
@json_option
def command(run_path: Path, download: bool, profiles_directory: Path | None, as_json: bool) -> None:
    """Choose the network of a finished search by training several briefly.

    Candidates of several widths that fill the run's budgets are measured, if the target is here, and trained
    on a part of the training images; the better half of them goes on twice as long, until one is left. A
    selection that was interrupted goes on where it was. `derive` chooses by rule, without training.
    """
    from dsonas_hw.cli.derive import derived_json, describe_derived
    from dsonas_hw.deploy.select_measured import select_measured, selects
    from dsonas_hw.errors import UserError, command_line
    from dsonas_hw.run_directory import RunDirectory
    from dsonas_hw.search.choose import save_architecture
    from dsonas_hw.search.progress import refuse_unfinished
    from dsonas_hw.task import prepare_task
    from dsonas_hw.train.images import load_data, space_of_config

    run = RunDirectory(run_path)
    config = run.load_config()
    task = prepare_task(config, space_of_config(config), profiles_directory=profiles_directory, say=say)
    if not selects(task):
        what = "no budget" if not task.budgets else "select.candidates=0"
        raise UserError(
            f"{run.path} has {what}, so nothing is selected by training; choose by rule: "
            f"{command_line('derive', run.path)}"
        )
    refuse_unfinished(run, "derive", run_path)
    if task.target.disclaimer:
        say(task.target.disclaimer)
    dataset = load_data(config, download=download)
    with run.lock():
        derived = select_measured(run, task, dataset, say=say, bar=progress_bar)
        copy = command_line("derive", run.path, "--out", free_beside(run.path, "selected"))
        refuse_trained(run, derived.architecture, f"select in a new run, made by: {copy}")
        save_architecture(run, derived, task)
    if as_json:
        print_json(derived_json(run, derived, task))
        return
    describe_derived(derived, task)
    click.echo(f"next: {command_line('retrain', run.path)}")
