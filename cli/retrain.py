"""`dsonas-hw retrain`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from dsonas_hw.cli.advice import check_finished, unfinished_option
from dsonas_hw.cli.common import json_option, print_json, say
from dsonas_hw.cli.open_run import was_restarted
from dsonas_hw.cli.progress import progress_bar

EXAMPLES = """\b
Examples:
  dsonas-hw retrain runs/cifar10-1
  dsonas-hw retrain runs/cifar10-1 --resume         # go on after Ctrl-C, a kill or a power cut
  dsonas-hw retrain runs/cifar10-1 --epochs 60 --train-on cuda:1
"""


@click.command(epilog=EXAMPLES)
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--resume", is_flag=True, help="Go on from the newest good checkpoint.")
@click.option("--restart", is_flag=True, help="Drop an earlier retraining of this run and start over.")
@click.option(
    "--epochs",
    type=click.IntRange(1),
    metavar="N",
    help="Instead of the preset's; its schedule is stretched.",
)
@click.option("--train-on", help="cpu, cuda, cuda:1 (default: the run's own, else CUDA if there).")
@click.option("--download", is_flag=True, help="Fetch the dataset if it is not there.")
@unfinished_option
@json_option
def command(
    run_path: Path,
    resume: bool,
    restart: bool,
    epochs: int | None,
    train_on: str | None,
    download: bool,
    unfinished: bool,
    as_json: bool,
) -> None:
    """Train the derived architecture from scratch, with the preset's recipe.

    Writes weights.npz, retrain.json and confusion.csv (what the test images were taken for). Interrupted with
    Ctrl-C or SIGTERM it finishes the step, writes a checkpoint, and --resume ends with the same weights as an
    uninterrupted run.
    """
    from dsonas_hw.errors import RunError, UserError, command_line
    from dsonas_hw.run_directory import RunDirectory
    from dsonas_hw.search.choose import load_architecture

    if resume and restart:
        raise UserError("--resume goes on, --restart starts over; give one of them")
    if was_restarted():
        resume, restart = True, False
    run = RunDirectory(run_path)
    config = run.load_config()
    architecture, _ = load_architecture(run)
    goes_on = resume and bool(run.list_checkpoints("retrain"))  # of a retraining that was begun knowingly
    check_finished(run, unfinished or goes_on)
    with run.lock():
        if run.list_checkpoints("retrain") and not (resume or restart):
            raise RunError(
                f"{run.path} holds a retraining already; go on with --resume or start over with --restart"
            )
        from dsonas_hw.search.teacher import open_teacher
        from dsonas_hw.train.images import load_data
        from dsonas_hw.train.loop import resolve_train_device
        from dsonas_hw.train.retrain import retrain

        device = resolve_train_device(train_on or config.train_on)
        dataset = load_data(config, download=download)
        teacher = open_teacher(run, config, dataset, device=device)
        with progress_bar("retrain") as report:
            result = retrain(
                run,
                config,
                architecture,
                dataset,
                device=device,
                resume=resume,
                epochs=epochs,
                teacher=teacher,
                progress=report,
            )
    if as_json:
        print_json({"run": str(run.path), **asdict(result)})
        return
    click.echo(
        f"test accuracy {result.test_accuracy:.2%} after {result.epochs} epochs and {result.seconds:.0f} s"
    )
    if advice := result.advice(run):
        say(f"warning: {advice}")
    click.echo(f"next: {command_line('export', run.path)}")
