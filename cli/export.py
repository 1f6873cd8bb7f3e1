"""`dsonas-hw export`."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

import click

from dsonas_hw.cli.common import json_option, print_json
from dsonas_hw.runtime.registry import all_runtimes

EXAMPLES = """\b
Examples:
  dsonas-hw export runs/cifar10-1
  dsonas-hw export runs/cifar10-1 --dynamic-batch
  dsonas-hw export runs/cifar10-1 --with-preprocessing --softmax
  dsonas-hw export runs/cifar10-1 --format tensorrt --precision fp16
"""


@click.command(epilog=EXAMPLES)
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["onnx", *(runtime.name for runtime in all_runtimes() if runtime.makes_engines)]),
    default="onnx",
    show_default=True,
    help="Any but onnx also builds an engine, on the GPU that is here.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), metavar="N", help="Fixed batch (default: the run's target's)."
)
@click.option("--dynamic-batch", is_flag=True, help="Leave the batch open in the ONNX file.")
@click.option(
    "--with-preprocessing",
    is_flag=True,
    help="The file takes pixels, uint8 (N, H, W, C) of the network's size, and normalises them.",
)
@click.option("--softmax", is_flag=True, help="The file gives probabilities instead of logits.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="Of the engine (default: the run's target's). ONNX files are fp32: runtimes convert on loading.",
)
@json_option
def command(
    run_path: Path,
    file_format: str,
    batch_size: int | None,
    dynamic_batch: bool,
    with_preprocessing: bool,
    softmax: bool,
    precision: str | None,
    as_json: bool,
) -> None:
    """Write the retrained network as ONNX, batch norms folded, its output checked against PyTorch's.

    Writes model.onnx, and infer.py that classifies images with it where only numpy and onnxruntime are
    installed; with --format tensorrt also model.engine and timing.cache, which belong to this GPU and
    TensorRT version. What the file's metadata say is in docs/files.md.
    """
    from dsonas_hw.errors import UserError, command_line
    from dsonas_hw.run_directory import RunDirectory
    from dsonas_hw.search.choose import load_architecture

    if dynamic_batch and batch_size is not None:
        raise UserError("--batch-size fixes the batch, --dynamic-batch leaves it open; give one of them")
    if file_format == "onnx" and precision not in (None, "fp32"):
        raise UserError(
            f"ONNX files are written in fp32, and a runtime converts them to {precision} on loading "
            f"(validate --precision {precision}); engines are built in it: --format tensorrt"
        )
    if file_format != "onnx" and with_preprocessing:
        raise UserError("engines take normalised images; give --with-preprocessing or --format tensorrt")
    run = RunDirectory(run_path)
    config = run.load_config()
    architecture, _ = load_architecture(run)
    target = config.target
    changes = {"batch_size": batch_size, "precision": precision}
    target = target.model_copy(update={k: v for k, v in changes.items() if v is not None})
    from dsonas_hw.deploy.export import INFER_NAME
    from dsonas_hw.deploy.export_and_validate import build_engine, export_network
    from dsonas_hw.train.images import load_data

    with run.lock():
        fixed = None if dynamic_batch else target.batch_size
        result = export_network(
            run, architecture, load_data(config), batch_size=fixed, with_preprocessing=with_preprocessing,
            softmax=softmax,
        )  # fmt: skip
        engine = build_engine(run, target, file_format) if file_format != "onnx" else None
    if as_json:
        summary = {"run": str(run.path), **asdict(result), "path": str(result.path)}
        print_json({**summary, "engine": None if engine is None else asdict(engine)})
        return
    outputs = "probabilities" if softmax else "logits"
    click.echo(
        f"{result.path}: {result.num_bytes / 1e6:.3g} MB; {outputs} within {result.max_abs_output_error:.2g} "
        f"of PyTorch's on {result.num_checked_images} test images"
    )
    if engine is not None:
        click.echo(f"model.engine: {engine.precision}, batch {engine.batch_size}, built on {engine.gpu}")
    click.echo(f"classify images with it: python {shlex.quote(str(run.path / INFER_NAME))} IMAGE")
    click.echo(f"next: {command_line('validate', run.path)}")
