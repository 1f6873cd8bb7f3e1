"""`dsonas-hw transfer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dsonas_hw.cli.common import json_option, print_json, say
from dsonas_hw.cli.open_run import next_run
from dsonas_hw.cli.options import config_from_options, configuration_options, profiles_option
from dsonas_hw.errors import command_line

EXAMPLES = """\b
Examples:
  dsonas-hw transfer runs/cifar10-1 --preset imagenet --budget flops=600M --out runs/imagenet-1
  dsonas-hw transfer runs/cifar10-1 --preset imagenet --device 1080ti --budget latency=3ms
  dsonas-hw transfer runs/digits-1 --block 2 --dataset folder:~/pictures
"""


@click.command(epilog=EXAMPLES)
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@configuration_options
@click.option(
    "--block",
    type=click.IntRange(1),
    metavar="N",
    help="Which block, counted from the stem, where the blocks differ.",
)
@click.option("--out", type=click.Path(path_type=Path), help="New run (default: runs/<dataset>-<n>).")
@profiles_option
@json_option
def command(
    run_path: Path,
    block: int | None,
    out: Path | None,
    profiles_directory: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Carry a searched block into another preset's network, and fit its width to the budgets.

    The block of RUN becomes every block of the new network (CIFAR to ImageNet, as in the paper). The new run
    has an architecture, ready for retrain, export and validate.
    """
    from dsonas_hw.architecture.transfer import choose_block, receiving_space
    from dsonas_hw.cli.derive import derived_json, describe_derived
    from dsonas_hw.run_directory import RunDirectory
    from dsonas_hw.search.choose import load_architecture, transfer
    from dsonas_hw.task import prepare_task
    from dsonas_hw.train.images import space_of_config

    if not (options["preset"] or options["dataset"] or options["config_file"]):
        raise click.UsageError("name the network to carry the block into: --preset imagenet, or --dataset")
    architecture, _ = load_architecture(RunDirectory(run_path))
    chosen = choose_block(architecture, block)
    config = config_from_options(**options)
    config = config.model_copy(update={"space": receiving_space(config.space, architecture.space)})
    task = prepare_task(config, space_of_config(config), profiles_directory=profiles_directory, say=say)
    if task.target.disclaimer:
        say(task.target.disclaimer)
    run = RunDirectory(out or next_run(config.data.dataset))
    derived = transfer(run, task, chosen)
    if as_json:
        print_json(derived_json(run, derived, task))
        return
    describe_derived(derived, task)
    click.echo(f"next: {command_line('retrain', run.path)}")
