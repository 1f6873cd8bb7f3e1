"""`dsonas-hw profile --device <GPU>`: measured if it is here, estimated if not, never one for the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsonas_hw.cli.common import EXIT_ESTIMATED, leave, print_json, say
from dsonas_hw.cli.progress import progress_bar
from dsonas_hw.errors import DeviceError

if TYPE_CHECKING:
    from dsonas_hw.space.space import SearchSpace


def profile_gpu(
    conditions: Any,
    mode: str,
    profiles_directory: Path | None,
    spaces: Sequence[SearchSpace],
    options: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Measure or estimate, and say which.

    Raises:
        DeviceError: `--mode measure` without the device, or a runtime that cannot serve it.
    """
    from dsonas_hw.device.cuda_order import as_cuda_gives_it
    from dsonas_hw.device.detect import detect_devices
    from dsonas_hw.estimate.calibrated import open_calibrated
    from dsonas_hw.profile.open import user_profiles
    from dsonas_hw.profile.profile_gpu import estimate_gpu, measure_gpu
    from dsonas_hw.profile.profile_space import NUM_NETWORKS

    if conditions.device == "local":
        raise DeviceError("local is this machine's CPU: it is measured, never estimated")
    detection = detect_devices()
    detected = detection.find(conditions.device)
    if detected is None and mode == "measure":
        raise DeviceError(
            f"{conditions.device} is not here ({detection.no_gpu_reason or 'another GPU is'}), "
            "so it cannot be measured; --mode estimate lists what its datasheet lets expect"
        )
    if detected is None or mode == "estimate":
        done = estimate_gpu(spaces, conditions, profiles_directory=profiles_directory)
        why = "not asked for" if detected is not None else "not here"
        say(
            f"ESTIMATED, NOT MEASURED: {conditions.device} is {why}; a network's latency may be off by about "
            f"±{done.expected_error:.0%} (90 % interval)"
        )
        calibrated = open_calibrated(
            conditions.device,
            runtime=conditions.runtime,
            precision=conditions.precision,
            batch_size=conditions.batch_size,
            directory=profiles_directory or user_profiles(),
        )
        if calibrated is not None:
            say(f"predict and search use your calibration instead. {calibrated.caution}")
    else:
        with progress_bar(f"profile {conditions.device}") as report:
            done = measure_gpu(
                spaces,
                conditions,
                as_cuda_gives_it(detection, detected),
                profiles_directory=profiles_directory,
                num_networks=options["num_networks"] or NUM_NETWORKS,
                sm_clock_mhz=options["sm_clock_mhz"],
                progress=report,
            )
        for remark in done.remarks:
            say(f"warning: {remark}")
        say(f"calibrated on measured networks; cross-validated error {done.expected_error:.1%}")
    if as_json:
        print_json(
            {
                "device": conditions.device,
                "table": str(done.path),
                "source": done.source,
                "expected_error": done.expected_error,
                "num_kernels": done.num_kernels,
                "remarks": list(done.remarks),
            }
        )
    else:
        click.echo(f"table: {done.path} ({done.num_kernels} kernels, {done.source})")
    if done.source == "estimated":
        leave(EXIT_ESTIMATED)
