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
    target: Any,
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
    from dsonas_hw.profile.open import open_estimate, user_profiles
    from dsonas_hw.profile.profile_gpu import estimate_gpu, measure_gpu
    from dsonas_hw.profile.profile_space import NUM_NETWORKS
    from dsonas_hw.runtime.cuda_order import as_cuda_gives_it
    from dsonas_hw.runtime.detect import detect_devices

    if target.device == "local":
        raise DeviceError("local is this machine's CPU: it is measured, never estimated")
    detection = detect_devices()
    detected = detection.find(target.device)
    if detected is None and mode == "measure":
        raise DeviceError(
            f"{target.device} is not here ({detection.no_gpu_reason or 'another GPU is'}), "
            "so it cannot be measured; --mode estimate lists what its datasheet lets expect"
        )
    if detected is None or mode == "estimate":
        done = estimate_gpu(spaces, target, profiles_directory=profiles_directory)
        why = "not asked for" if detected is not None else "not here"
        say(
            f"ESTIMATED, NOT MEASURED: {target.device} is {why}; a network's latency may be off by about "
            f"±{done.expected_error:.0%} (90 % interval)"
        )
        used = open_estimate(target, profiles_directory or user_profiles())
        if used.source == "calibrated":
            say(f"predict and search use a calibration instead. {used.caution}")
    else:
        with progress_bar(f"profile {target.device}") as report:
            done = measure_gpu(
                spaces,
                target,
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
                "device": target.device,
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
