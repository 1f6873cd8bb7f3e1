"""From a CSV of measured networks to a stored calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from dsonas_hw.device.spec import LOCAL
from dsonas_hw.errors import DeviceError
from dsonas_hw.kernel.network import NetworkKernels
from dsonas_hw.profile.calibrate import Calibration, calibrate
from dsonas_hw.profile.calibrated import calibration_path, save_calibration
from dsonas_hw.profile.calibration_csv import load_networks, read_calibration_rows
from dsonas_hw.profile.estimate import load_estimate
from dsonas_hw.profile.table import now_utc


def calibrate_device(
    measurements: Path,
    *,
    device: str,
    runtime: str,
    precision: str,
    directory: Path | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> tuple[Calibration, Path]:
    """Fit, check and store; `directory` of profiles: the user's own by default; `progress` of reading models.

    Raises:
        DeviceError: no such device, or no peak for this precision.
        ModelFileError: a model cannot be read.
        ProfileError: the measurements cannot be used, or the result cannot be written.
    """
    from dsonas_hw.kernel.from_onnx import kernels_from_onnx
    from dsonas_hw.profile.open import user_profiles

    if device == LOCAL:
        raise DeviceError("local is this machine's CPU: it is measured, never estimated; name a GPU")
    rows = read_calibration_rows(measurements)
    model = load_estimate(device, runtime=runtime, precision=precision, batch_size=rows[0].batch_size)

    def read(path: Path, batch_size: int) -> NetworkKernels:
        return kernels_from_onnx(path, batch_size=batch_size, fuse=model.fuse)

    calibration = dataclasses.replace(
        calibrate(model, load_networks(rows, read, progress)), created=now_utc()
    )
    path = calibration_path(
        directory or user_profiles(), calibration.device, runtime=runtime, precision=precision
    )
    save_calibration(calibration, path)
    return calibration, path
