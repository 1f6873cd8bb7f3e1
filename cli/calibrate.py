"""`dsonas-hw calibrate`."""

from __future__ import annotations

from pathlib import Path

import click

from dsonas_hw.cli.common import json_option, print_json, say
from dsonas_hw.cli.options import input_shape_option, profiles_option
from dsonas_hw.cli.progress import progress_bar
from dsonas_hw.runtime.registry import all_runtimes

RUNTIMES = [runtime.name for runtime in all_runtimes() if runtime.estimated_as]
"""Those with an estimate to sharpen; the last one needs least to be installed, and is the default."""

EXAMPLES = """\b
Examples:
  dsonas-hw calibrate --device 1080ti measured.csv
  dsonas-hw calibrate --device v100 --runtime tensorrt --precision fp16 measured.csv
  dsonas-hw calibrate --device v100 --runtime tensorrt --operators --batch-size 32 convolutions.csv
  dsonas-hw predict model.onnx --device 1080ti --runtime eager

\b
measured.csv, 3 to 50 rows, milliseconds per batch, model paths relative to the file:
  model,batch_size,latency_ms
  resnet18.onnx,64,21.3


convolutions.csv (--operators), one convolution a row, becomes a profile marked imported:
  batch,cin,hin,win,cout,k,stride,latency_ms
"""


@click.command(epilog=EXAMPLES)
@click.argument("measurements", type=click.Path(path_type=Path, dir_okay=False), metavar="MEASURED.csv")
@click.option("--device", required=True, help="GPU that the networks were measured on (see: devices).")
@click.option(
    "--runtime",
    default=RUNTIMES[-1],
    show_default=True,
    type=click.Choice(RUNTIMES),
    help="What ran the networks.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="What they ran in.  [default: what the files compute in; fp32 with --operators]",
)
@click.option(
    "--operators", is_flag=True, help="The file holds single operators, not networks: import it as a profile."
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    metavar="N",
    help="Which rows of --operators to import.  [default: 1]",
)
@input_shape_option
@profiles_option
@json_option
def command(
    measurements: Path,
    device: str,
    runtime: str,
    precision: str | None,
    operators: bool,
    batch_size: int | None,
    input_shapes: dict[str, tuple[int, ...]],
    profiles_directory: Path | None,
    as_json: bool,
) -> None:
    """Sharpen the estimate of a GPU with a few networks that were measured on it.

    From then on `predict` and `search` on this device, runtime and precision use the calibrated estimate.
    Rows that contradict each other wildly, or that are not in milliseconds, are refused.
    """
    if operators:
        if input_shapes:
            raise click.UsageError("--input-shape is for networks, not for --operators")
        _import(
            measurements,
            device,
            runtime,
            precision or "fp32",
            batch_size or 1,
            profiles_directory,
            as_json=as_json,
        )
        return
    from dsonas_hw.profile.calibrate_device import calibrate_device

    with progress_bar("reading networks") as report:
        calibration, path = calibrate_device(
            measurements,
            device=device,
            runtime=runtime,
            precision=precision,
            input_shapes=input_shapes,
            directory=profiles_directory,
            progress=report,
        )
    if as_json:
        print_json(
            {
                "device": calibration.device,
                "runtime": runtime,
                "precision": calibration.precision,
                "num_networks": calibration.num_networks,
                "mape": calibration.mape,
                "mape_before": calibration.mape_before,
                "factors": dict(calibration.factors),
                "outliers": list(calibration.outliers),
                "image_ms": calibration.image_ms,
                "network_ms": calibration.network_ms,
                "calibration": str(path),
            }
        )
        return
    click.echo(
        f"{calibration.device}, {runtime}, {calibration.precision}: {calibration.num_networks} networks; "
        f"error {calibration.mape_before:.1%} before, {calibration.mape:.1%} after (each network predicted "
        f"without itself)"
    )
    moved = {name: f for name, f in calibration.factors.items() if abs(f - 1) >= 0.03}
    if moved:
        click.echo("  time × " + ", ".join(f"{factor:.2f} {name}" for name, factor in moved.items()))
    if calibration.mape >= calibration.mape_before:
        say("these networks do not sharpen the estimate; measure others, or more of them")
    for name in calibration.outliers:
        say(f"  outlier, given little weight: {name}")
    click.echo(f"calibration: {path}")


def _import(
    source: Path,
    device: str,
    runtime: str,
    precision: str,
    batch_size: int,
    profiles_directory: Path | None,
    *,
    as_json: bool,
) -> None:
    from dsonas_hw.profile.import_table import import_table
    from dsonas_hw.profile.open import user_profiles
    from dsonas_hw.target import Target

    done = import_table(
        source,
        Target(device=device, runtime=runtime, precision=precision, batch_size=batch_size),
        profiles_directory or user_profiles(),
    )
    if as_json:
        print_json(
            {
                "table": str(done.path),
                "num_rows": done.num_rows,
                "num_passed_over": done.num_passed_over,
                "mape": done.mape,
                "source": "imported",
            }
        )
        return
    click.echo(
        f"{done.num_rows} operators imported ({done.num_passed_over} of another precision or batch size); "
        f"each predicted by the others: {done.mape:.1%} error"
    )
    click.echo(f"table: {done.path}")
