"""From a CSV of measured networks to a stored calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from dsonas_hw.device.spec import LOCAL
from dsonas_hw.errors import DeviceError, ModelFileError, ProfileError
from dsonas_hw.estimate.calibrate import Calibration, calibrate
from dsonas_hw.estimate.calibrated import calibration_path, save_calibration
from dsonas_hw.estimate.calibration_csv import load_networks, read_calibration_rows
from dsonas_hw.estimate.estimate import load_estimate
from dsonas_hw.kernel.onnx.from_onnx import OnnxNetwork, check_input_names, network_from_onnx
from dsonas_hw.kernel.spec import Shape
from dsonas_hw.profile.model_precision import precision_of_model
from dsonas_hw.runtime.registry import get_runtime
from dsonas_hw.table.table import now_utc
from dsonas_hw.target import Target


def calibrate_device(
    measurements: Path,
    *,
    device: str,
    runtime: str,
    precision: str | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    directory: Path | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> tuple[Calibration, Path]:
    """Fit, check and store.

    precision: what the networks ran in; None for what their files compute in.
    input_shapes: shapes of inputs by name, for what the files leave open.
    directory: of profiles; the user's own by default. progress: of reading models.

    Raises:
        DeviceError: no such device, or no peak for this precision.
        ModelFileError: a model cannot be read.
        ProfileError: the measurements cannot be used, or the result cannot be written.
    """
    from dsonas_hw.profile.open import resolve, user_profiles

    if device == LOCAL:
        raise DeviceError("local is this machine's CPU: it is measured, never estimated; name a GPU")
    device, runtime = resolve(device, runtime)
    get_runtime(runtime, precision or "fp32")
    rows = read_calibration_rows(measurements)
    precisions: dict[Path, str] = {}

    def read(path: Path, batch_size: int) -> OnnxNetwork:
        network = network_from_onnx(
            path, batch_size=batch_size, input_shapes=input_shapes, fuse=get_runtime(runtime).fuses
        )
        precisions[path], _ = precision_of_model(
            str(path), network.precision, asked=precision, runtime=runtime
        )
        return network

    try:
        check_input_names(input_shapes or {}, dict.fromkeys(row.model for row in rows))
        networks = load_networks(rows, read, progress)
        target = Target(
            device=device, runtime=runtime, precision=_only(precisions), batch_size=rows[0].batch_size
        )
        calibration = dataclasses.replace(calibrate(load_estimate(target), networks), created=now_utc())
    except (ModelFileError, ProfileError) as error:
        raise type(error)(f"{measurements}: {error}") from error
    path = calibration_path(directory or user_profiles(), target)
    save_calibration(calibration, path)
    return calibration, path


def _only(precisions: Mapping[Path, str]) -> str:
    """The precision of all networks.

    Raises:
        ProfileError: they have several.
    """
    found = {precision: path for path, precision in precisions.items()}
    if len(found) > 1:
        (first, a), (second, b), *_ = found.items()
        raise ProfileError(
            f"{a} computes in {first} and {b} in {second}: calibrate with the networks of one precision, "
            "or say what all of them ran in with --precision"
        )
    return next(iter(found))
