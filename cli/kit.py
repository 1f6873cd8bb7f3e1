"""`dsonas-hw kit`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from dsonas_hw.cli.advice import profiles_arguments
from dsonas_hw.cli.common import json_option, print_json
from dsonas_hw.cli.options import profiles_option
from dsonas_hw.runtime.kit_measure import GPU_RUNTIMES

EXAMPLES = """\b
Examples:
  dsonas-hw kit runs/cifar10-1 --device jetson-orin
  dsonas-hw kit runs/cifar10-1 --device jetson-orin --runtime tensorrt --precision fp16
"""


@click.command(epilog=EXAMPLES)
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--device", help="The GPU of the board (default: the run's target).")
@click.option(
    "--runtime",
    type=click.Choice(GPU_RUNTIMES),
    help="What times the networks there (default: what the device is estimated for).",
)
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), help="Instead of the run's.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder (default: RUN/kit-DEVICE).")
@profiles_option
@json_option
def command(
    run_path: Path,
    device: str | None,
    runtime: str | None,
    precision: str | None,
    out: Path | None,
    profiles_directory: Path | None,
    as_json: bool,
) -> None:
    """Write what turns the estimate of a board into a calibrated one: carry it there, run one script.

    The folder holds ONNX files of a few networks of the search's path and measure.py, which needs Python 3.8
    and either trtexec or onnxruntime, and not this tool. What it writes is read back by `calibrate`.
    """
    from dsonas_hw.deploy.kit import CSV_NAME, SCRIPT_NAME, write_kit
    from dsonas_hw.errors import command_line
    from dsonas_hw.profile.open import resolve
    from dsonas_hw.run_directory import RunDirectory
    from dsonas_hw.search.choose import load_architecture
    from dsonas_hw.task import target_costs

    run = RunDirectory(run_path)
    target = run.load_config().target
    if device is not None and device != target.device:
        target = target.model_copy(update={"device": device, "runtime": None})
    changes = {"runtime": runtime, "precision": precision}
    target = target.model_copy(update={k: v for k, v in changes.items() if v is not None})
    architecture, _ = load_architecture(run)
    folder = out or run_path / f"kit-{resolve(target.device, target.runtime)[0]}"
    costs = target_costs(target, profiles_directory=profiles_directory)
    kit = write_kit(run, architecture, target, costs, folder)
    read_back = command_line(
        "calibrate", "--device", kit.device, "--runtime", kit.runtime, "--precision", kit.precision,
        *profiles_arguments(profiles_directory), folder / CSV_NAME,
    )  # fmt: skip
    if as_json:
        print_json({**asdict(kit), "folder": str(folder), "calibrate": read_back})
        return
    click.echo(f"{folder}: {len(kit.networks)} networks, batch {kit.batch_size}, for {kit.device}")
    click.echo(f"next: carry the folder to the board and run there: python3 {SCRIPT_NAME}")
    click.echo(f"then bring {CSV_NAME} back into the folder, and: {read_back}")
    click.echo(f"and again: {command_line('validate', run_path)}")
