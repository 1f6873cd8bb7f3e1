"""`dsonas-hw run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dsonas_hw.cli.advice import interruptible
from dsonas_hw.cli.common import json_option, leave, print_json, say
from dsonas_hw.cli.open_run import open_run
from dsonas_hw.cli.options import configuration_options, profiles_option
from dsonas_hw.cli.progress import progress_bar

EXAMPLES = """\b
Examples:
  dsonas-hw run --dataset digits --budget mac=150k,latency=0.2ms
  dsonas-hw run --preset cifar10-small --data-dir ~/cifar --budget mac=600k,latency=0.5ms
  dsonas-hw run --resume runs/digits-1

\b
Exit codes: 0 every budget holds, 1 one is missed or undecided, 2 bad usage or input, 3 the device is not
here: what it would take is only estimated.
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
    """Do the whole job: profile, search, select, retrain, export, validate, report.

    Predicted costs choose the network; measurement decides: in the place of a network that does not hold its
    budget on the device, a smaller one is made and measured, until one holds. None is measured until it fits.
    """
    run, config, resuming = open_run(out, resume, options)
    if dry_run:
        from dsonas_hw.cli.dry_run import show_dry_run

        show_dry_run(config, profiles_directory=profiles_directory, as_json=as_json, measures=True)
        return
    run.check_usable(config, resume=resuming)
    from dsonas_hw.cli.dry_run import image_lines
    from dsonas_hw.cli.validate import describe_validation, exit_code, next_commands
    from dsonas_hw.pipeline import run_all
    from dsonas_hw.train.images import describe_images

    for line in image_lines(describe_images(config)):
        say(line)
    with interruptible("run", run, profiles_directory):
        outcome = run_all(
            run, config, resume=resuming, download=download, profiles_directory=profiles_directory, say=say,
            bar=progress_bar,
        )  # fmt: skip
    validation = outcome.validation
    if as_json:
        print_json({"run": str(run.path), **validation.to_json()})
    else:
        describe_validation(validation)
        for line in next_commands(
            run, validation, config.target, profiles_directory, exhausted=outcome.exhausted
        ):
            click.echo(f"next: {line}")
    leave(exit_code(validation))
