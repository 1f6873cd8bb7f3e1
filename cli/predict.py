"""`dsonas-hw predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dsonas_hw.cli.common import EXIT_ESTIMATED, json_option, leave, print_json, say
from dsonas_hw.cli.options import profiles_option

EXAMPLES = """\b
Examples:
  dsonas-hw predict model.onnx
  dsonas-hw predict a.onnx b.onnx --device 1080ti --json
  dsonas-hw predict model.onnx --runtime ort-cpu --batch-size 8 --threads 2
"""


@click.command(epilog=EXAMPLES)
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODEL.onnx …")
@click.option("--device", default="local", show_default=True, help="Device to predict for (see: devices).")
@click.option("--runtime", help="ort-cpu, ort-cuda, ort-tensorrt, tensorrt or eager.")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), default="fp32", show_default=True)
@click.option("--batch-size", type=click.IntRange(1), metavar="N", default=1, show_default=True)
@click.option(
    "--threads", type=click.IntRange(1), metavar="N", default=1, show_default=True, help="CPU threads."
)
@profiles_option
@json_option
def command(
    models: tuple[Path, ...],
    device: str,
    runtime: str | None,
    precision: str,
    batch_size: int,
    threads: int,
    profiles_directory: Path | None,
    as_json: bool,
) -> None:
    """Latency, flops, mac and params of ONNX networks on a device, without running them.

    A kernel that the device's table does not know is listed, and missing from the latency; when most are
    unknown there is no prediction (exit 2; other files are still predicted). Estimates exit with 3.
    """
    from dsonas_hw.errors import UserError, one_line
    from dsonas_hw.profile.open import is_measured_here, open_latency_model
    from dsonas_hw.profile.predict_onnx import predict_onnx

    model = open_latency_model(
        device,
        runtime=runtime,
        precision=precision,
        batch_size=batch_size,
        threads=threads,
        profiles_directory=profiles_directory,
    )
    sources = set()
    failures: list[UserError] = []
    for path in models:
        try:
            result = predict_onnx(path, model)
        except UserError as error:
            failures.append(error)
            if len(models) > 1:
                say(f"no prediction of {path}: {one_line(error)}")
            continue
        sources.add(result.source)
        if as_json:
            print_json(result.to_json())
        else:
            _show(result.to_json())
    if sources and model.caution:
        say(model.caution)
    if len(models) == 1 and failures:
        raise failures[0]
    if failures:
        raise UserError(f"{len(failures)} of {len(models)} files could not be predicted")
    if sources and not is_measured_here(model):
        leave(EXIT_ESTIMATED)


def _show(values: dict[str, Any]) -> None:
    from dsonas_hw.budget import format_quantity

    low, high = (format_quantity("latency", values[f"latency_ms_{end}"]) for end in ("low", "high"))
    counts = (f"{name} {format_quantity(name, values[name])}" for name in ("flops", "mac", "params"))
    click.echo(
        f"{values['model']}: {format_quantity('latency', values['latency_ms'])} ({low} to {high}), "
        f"{', '.join(counts)}; predicted from {values['source']} kernels of {values['device']}, "
        f"{values['runtime']}, {values['precision']}, batch {values['batch_size']}"
    )
    for name in values["unknown_kernels"]:
        say(f"  unknown, not in the latency: {name}")
