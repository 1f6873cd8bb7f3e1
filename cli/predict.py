"""`dsonas-hw predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dsonas_hw.cli.common import EXIT_ESTIMATED, json_option, leave, print_json, say
from dsonas_hw.cli.options import input_shape_option, profiles_option

EXAMPLES = """\b
Examples:
  dsonas-hw predict model.onnx
  dsonas-hw predict a.onnx b.onnx --device 1080ti --json
  dsonas-hw predict model.onnx --runtime ort-cpu --batch-size 8 --threads 2
  dsonas-hw predict detector.onnx --input-shape images=1x3x640x480
"""


@click.command(epilog=EXAMPLES)
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODEL.onnx …")
@click.option("--device", default="local", show_default=True, help="Device to predict for (see: devices).")
@click.option("--runtime", help="What runs them (see: dsonas-hw devices).")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="What it runs in.  [default: what the file computes in]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    metavar="N",
    help="Replaces the file's batch.  [default: the file's own; 1 where it is open]",
)
@input_shape_option
@click.option(
    "--threads", type=click.IntRange(1), metavar="N", default=1, show_default=True, help="CPU threads."
)
@profiles_option
@json_option
def command(
    models: tuple[Path, ...],
    device: str,
    runtime: str | None,
    precision: str | None,
    batch_size: int | None,
    input_shapes: dict[str, tuple[int, ...]],
    threads: int,
    profiles_directory: Path | None,
    as_json: bool,
) -> None:
    """Latency, energy (where it was measured) and counted costs of ONNX networks on a device.

    They are not run, except where this machine's table does not know a kernel: then the network is timed
    first, and its kernels are known from then on. A kernel that stays unknown is listed. Where what is
    unknown may change the answer there is no latency (exit 2), and counts that lack something say "at
    least". Estimates exit with 3.
    """
    from dsonas_hw.errors import ProfileError, UserError, one_line
    from dsonas_hw.kernel.onnx.from_onnx import check_input_names
    from dsonas_hw.profile.open import Models, resolve
    from dsonas_hw.profile.predict_onnx import predict_onnx
    from dsonas_hw.runtime.registry import get_runtime

    name, wanted = resolve(device, runtime)
    get_runtime(wanted, precision or "fp32")
    target = Models(
        device=name,
        runtime=wanted,
        precision=precision,
        threads=threads,
        profiles_directory=profiles_directory,
    )
    check_input_names(input_shapes, models)
    sources = set()
    failures: list[UserError] = []
    for path in models:
        try:
            result = predict_onnx(path, target, batch_size=batch_size, input_shapes=input_shapes, say=say)
        except UserError as error:
            failures.append(error)
            if len(models) > 1:
                say(f"no prediction of {path}: {one_line(error)}")
            continue
        if as_json:
            print_json(result.to_json())
        else:
            _show(result.to_json())
        if result.why_no_latency is not None:
            failures.append(ProfileError(result.why_no_latency))
            if len(models) > 1:
                say(f"no latency of {path}: {result.why_no_latency}")
        sources.add(result.source)
    for disclaimer in target.disclaimers if sources - {None} else ():
        say(disclaimer)
    if len(models) == 1 and failures:
        raise failures[0]
    if failures:
        raise UserError(f"{len(failures)} of {len(models)} files could not be predicted")
    if sources and ("estimated" in sources or not target.is_measured_here):
        leave(EXIT_ESTIMATED)


def _show(values: dict[str, Any]) -> None:
    from dsonas_hw.budget import COST_LABELS, METRICS, QUANTITIES, format_interval, format_quantity

    at_least = "at least " if values["at_least"] else ""
    counts = ", ".join(
        f"{COST_LABELS[name]} {at_least}{format_quantity(name, values[name])}"
        for name in ("flops", "mac", "params")
    )
    precision = values["precision"]
    if values["file_precision"] != precision:
        precision += f" (file: {values['file_precision']})"
    where = f"{values['device']}, {values['runtime']}, {precision}, batch {values['batch_size']}"
    if values["latency_ms"] is None:
        click.echo(f"{values['model']}: no latency, {counts}; for {where}")
    else:
        metrics = ", ".join(
            f"{format_quantity(metric, values[quantity])} "
            f"({format_interval(metric, values[f'{quantity}_low'], values[f'{quantity}_high'])})"
            for metric in METRICS
            if values[quantity := QUANTITIES[metric]] is not None
        )
        source = f"predicted from {values['source']} kernels of {where}"
        click.echo(f"{values['model']}: {metrics}, {counts}; {source}")
    for note in values["notes"]:
        say(f"  {note}")
    for name in values["unknown_kernels"]:
        say(f"  unknown{'' if values['latency_ms'] is None else ', not in the latency'}: {name}")
