"""A calibrated estimate as a latency model, and its file, <runtime>-<precision>.calibration.json."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsonas_hw.device.datasheet import Device
from dsonas_hw.device.spec import load_device
from dsonas_hw.errors import ProfileError, RunError
from dsonas_hw.estimate.calibrate import Calibration, group_of
from dsonas_hw.estimate.calibrate_fit import FACTORS, adjusted
from dsonas_hw.estimate.constants import EstimateConstants, load_constants
from dsonas_hw.estimate.estimate import EstimatedLatency
from dsonas_hw.files import read_regular, write_text
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.table.rows import Source

SCHEMA_VERSION = 1
_MAX_BYTES = 64 * 1024
_FACTOR_RANGE = (1e-3, 1e3)


class CalibratedLatency(EstimatedLatency):
    """The estimate of a device with the factors of a calibration."""

    source: Source = "calibrated"

    def __init__(
        self,
        device: Device,
        *,
        batch_size: int,
        calibration: Calibration,
        constants: EstimateConstants | None = None,
    ) -> None:
        super().__init__(
            device,
            runtime=calibration.runtime,
            precision=calibration.precision,
            batch_size=batch_size,
            constants=constants or load_constants(),
        )
        if calibration.base != self.fingerprint or calibration.device != device.name:
            raise ProfileError(
                f"this calibration of {calibration.device} belongs to another estimate (another version of "
                f"dsonas-hw or of the device file); calibrate {device.name} again"
            )
        self.calibration = calibration
        self._factors = calibration.factors

    @property
    def caution(self) -> str:
        """Says that the network itself was not measured, and how far off others were."""
        found = self.calibration
        return (
            f"CALIBRATED, NOT MEASURED: latencies of {self.device} come from its datasheet and "
            f"{found.num_networks} measured networks; each was off by {found.mape:.1%} (mean) when left out"
        )

    def totals(self, kernels: Sequence[Kernel]) -> tuple[float, float, float]:
        """As the estimate's, with the constants that every network has."""
        gpu, host, squares = super().totals(kernels)
        gpu_constant = self.calibration.gpu_constant_ms * self.batch_size
        host_constant = self.calibration.host_constant_ms
        return float(adjusted(gpu, gpu_constant)), float(adjusted(host, host_constant)), squares

    def _compute(self, kernels: Sequence[Kernel]) -> list[tuple[float, float]]:
        gpu_factor, host_factor = self._factors["gpu"], self._factors["host"]
        return [
            (gpu * gpu_factor * self._factors[group_of(kernel)], host * host_factor)
            for kernel, (gpu, host) in zip(kernels, super()._compute(kernels), strict=True)
        ]

    def _variance(self, gpu_share: float, concentration: float) -> float:
        # What was measured stays uncertain by the cross-validated spread; a network whose time sits in few
        # kernels, unlike those that were measured, keeps part of the uncertainty of a single kernel.
        known = (self.calibration.relative_sd * (1 + 4 / self.calibration.num_networks)) ** 2
        return known + (0.5 * self._sd["kernel"] * gpu_share) ** 2 * concentration**2


def calibration_path(directory: Path, device: str, *, runtime: str, precision: str) -> Path:
    """Where the calibration of a device lies below a directory of profiles."""
    return directory / device / f"{runtime}-{precision}.calibration.json"


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration (temporary file, sync, rename).

    Raises:
        ProfileError: it cannot be written; what was there before is untouched.
    """
    data = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(calibration)}
    try:
        write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    except RunError as error:
        raise ProfileError(f"cannot write the calibration: {error}") from None


def load_calibration(path: Path) -> Calibration:
    """Read and check a calibration; the file is not trusted.

    Raises:
        ProfileError: missing, damaged, or of another schema version.
    """
    try:
        text = read_regular(path, max_bytes=_MAX_BYTES)
    except OSError as error:
        raise ProfileError(f"cannot read the calibration {path}: {error.strerror or error}") from error
    try:
        return _parse(json.loads(text))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ProfileError(f"the calibration {path} is damaged ({error}); calibrate again") from error


def open_calibrated(
    device: str,
    *,
    runtime: str,
    precision: str,
    batch_size: int,
    directory: Path,
) -> CalibratedLatency | None:
    """The calibrated model of a device, None if it was never calibrated.

    Raises:
        ProfileError: the file is damaged, or belongs to another estimate.
    """
    found = load_device(device)
    path = calibration_path(directory, found.name, runtime=runtime, precision=precision)
    if not path.exists():
        return None
    calibration = load_calibration(path)
    if (calibration.device, calibration.runtime, calibration.precision) != (found.name, runtime, precision):
        raise ProfileError(
            f"{path} holds a calibration of {calibration.device}, {calibration.runtime}, "
            f"{calibration.precision}; it does not belong there"
        )
    return CalibratedLatency(found, batch_size=batch_size, calibration=calibration)


def _parse(data: Any) -> Calibration:
    if not isinstance(data, dict) or data.pop("schema_version", None) != SCHEMA_VERSION:
        raise ValueError(f"not schema version {SCHEMA_VERSION}")
    names = {field.name for field in dataclasses.fields(Calibration)}
    if set(data) != names:
        raise ValueError(f"fields {sorted(set(data) ^ names)} missing or unknown")
    for name in ("device", "runtime", "precision", "base", "created"):
        if not isinstance(data[name], str):
            raise ValueError(f"{name} must be text")
    for name in ("mape", "mape_before", "relative_sd"):
        _check_number(name, data[name], 0.0, 1e6)
    if isinstance(data["num_networks"], bool) or not isinstance(data["num_networks"], int):
        raise ValueError("num_networks must be a whole number")
    _check_number("num_networks", data["num_networks"], 1, 1e6)
    if not isinstance(data["factors"], dict) or set(data["factors"]) != set(FACTORS):
        raise ValueError(f"factors must be {', '.join(FACTORS)}")
    for name, value in data["factors"].items():
        _check_number(f"factor {name}", value, *_FACTOR_RANGE)
    for name in ("gpu_constant_ms", "host_constant_ms"):
        _check_number(name, data[name], -1e6, 1e6)
    if data["locked_sm_mhz"] is not None:
        _check_number("locked_sm_mhz", data["locked_sm_mhz"], 1, 1e5)
    outliers = data["outliers"]
    if not isinstance(outliers, list) or not all(isinstance(name, str) for name in outliers):
        raise ValueError("outliers must be a list of names")
    return Calibration(**(data | {"outliers": tuple(outliers)}))


def _check_number(name: str, value: Any, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}, not a number from {low:g} to {high:g}")
