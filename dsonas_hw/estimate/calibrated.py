"""A calibrated estimate as a latency model, and its file, <runtime>-<precision>.calibration.json."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dsonas_hw.budget import Metric
from dsonas_hw.cost.model import Prediction
from dsonas_hw.device.datasheet import Device
from dsonas_hw.device.spec import load_device
from dsonas_hw.errors import ProfileError, RunError
from dsonas_hw.estimate.calibrate import Calibration, group_of
from dsonas_hw.estimate.calibrate_fit import FACTORS, Array, adjusted
from dsonas_hw.estimate.calibrate_residual import Residual, feature_vectors
from dsonas_hw.estimate.constants import EstimateConstants
from dsonas_hw.estimate.estimate import EstimatedLatency
from dsonas_hw.files import read_regular, write_text
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.table.rows import Source
from dsonas_hw.target import Target

SCHEMA_VERSION = 2
_MAX_BYTES = 64 * 1024
_MOST_ANCHORS = 1000
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
        super().__init__(device, replace(calibration.target, batch_size=batch_size), constants=constants)
        if calibration.base != self.fingerprint or calibration.device != device.name:
            raise ProfileError(
                f"this calibration of {calibration.device} belongs to another estimate (another version of "
                f"dsonas-hw or of the device file); calibrate {device.name} again"
            )
        self.calibration = calibration
        self._factors = calibration.factors
        self.network_ms *= self._factors["gpu"]
        rows = np.array(calibration.anchors)
        self._residual = Residual(rows[:, :-1], rows[:, -1]) if len(rows) else Residual()
        self._groups: dict[Kernel, int] = {}

    @property
    def disclaimer(self) -> str:
        """Says that the network itself was not measured, and how far off others were."""
        found = self.calibration
        error = f"each was off by {found.mape:.1%} (mean) when left out"
        if not found.measured_by:
            return (
                f"CALIBRATED, NOT MEASURED: latencies of {self.target.device} come from {self._provenance} "
                f"and {found.num_networks} measured networks; {error}"
            )
        if found.mape_other_family is not None:
            error += f", by {found.mape_other_family:.1%} with all of its family"
        return (
            f"CALIBRATED BY OTHERS, NOT MEASURED HERE: latencies of {self.target.device} are calibrated on "
            f"{found.num_networks} networks measured by others ({found.measured_by}); {error}"
        )

    def predict(self, kernels: Sequence[Kernel], metric: Metric = "latency") -> Prediction:
        """As the estimate's; corrected by what the factors missed on measured networks nearby.

        Raises:
            ProfileError: there is no kernel, or another metric is asked for.
        """
        prediction = super().predict(kernels, metric)
        if len(kernels) == 1 or not len(self._residual.weights):
            return prediction
        z = self._feature_vector(kernels)
        factor = math.exp(float(self._residual.at(z)[0]))
        # Near what was measured the interval is that of networks left out, far from it that of families.
        narrow = self._relative_sd(float(self._residual.nearness(z)[0])) / self._relative_sd(0.0)
        widths = ((end / prediction.value) ** narrow for end in (prediction.low, prediction.high))
        latency_ms = prediction.value * factor
        low, high = (latency_ms * width for width in widths)
        return Prediction(value=latency_ms, low=low, high=high, source=self.source)

    def _feature_vector(self, kernels: Sequence[Kernel]) -> Array:
        gpu, host = np.zeros((1, len(FACTORS))), 0.0
        for kernel, (gpu_ms, host_ms) in zip(kernels, self.times(kernels), strict=True):
            group = self._groups.get(kernel)
            if group is None:
                group = self._groups[kernel] = FACTORS.index(group_of(kernel))
            gpu[0, group] += gpu_ms
            host += host_ms
        return feature_vectors(gpu, np.array([host]), np.array([float(kernels[0].batch_size)]))

    def _relative_sd(self, nearness: float) -> float:
        """Standard deviation of the logarithm of measured over predicted; nearness: 1 beside an anchor."""
        near = self.calibration.relative_sd * (1 + 4 / self.calibration.num_networks)
        far = max(self.calibration.relative_sd_far or near, near)
        return math.sqrt(nearness * near**2 + (1 - nearness) * far**2)

    def totals(self, kernels: Sequence[Kernel]) -> tuple[float, float, float]:
        """As the estimate's, with the constants that every network has."""
        gpu, host, squares = super().totals(kernels)
        gpu_constant = self.calibration.gpu_constant_ms * self.target.batch_size
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
        known = self._relative_sd(0.0) ** 2
        return known + (0.5 * self._sd["kernel"] * gpu_share) ** 2 * concentration**2


def calibration_path(directory: Path, target: Target) -> Path:
    """Where the calibration of a target lies below a directory of profiles; it is of any batch size."""
    return directory / target.device / f"{target.runtime}-{target.precision}.calibration.json"


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
        raise ProfileError(
            f"the calibration {path} cannot be used: {error}; calibrate again, or delete it"
        ) from error


def open_calibrated(target: Target, directory: Path) -> CalibratedLatency | None:
    """The calibrated model of a target from a directory of profiles, None if it was never calibrated.

    target: its device by its own name.

    Raises:
        ProfileError: the file is damaged, or belongs to another estimate.
    """
    path = calibration_path(directory, target)
    if not path.exists():
        return None
    calibration = load_calibration(path)
    if calibration.target != replace(target, batch_size=1):
        raise ProfileError(
            f"{path} holds a calibration of {calibration.device}, {calibration.runtime}, "
            f"{calibration.precision}, not of {target.device}, {target.runtime}, {target.precision}; "
            f"calibrate again, or delete it"
        )
    try:
        return CalibratedLatency(
            load_device(target.device), batch_size=target.batch_size, calibration=calibration
        )
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}, or delete it") from None


def _parse(data: Any) -> Calibration:
    if not isinstance(data, dict):
        raise ValueError("it is no JSON object")
    if (version := data.pop("schema_version", None)) != SCHEMA_VERSION:
        raise ValueError(f"it has schema version {version!r}, this program reads {SCHEMA_VERSION}")
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
    if not isinstance(data["measured_by"], str):
        raise ValueError("measured_by must be text")
    for name in ("mape_other_family", "relative_sd_far"):
        if data[name] is not None:
            _check_number(name, data[name], 0.0, 1e6)
    if data["locked_sm_mhz"] is not None:
        _check_number("locked_sm_mhz", data["locked_sm_mhz"], 1, 1e5)
    outliers = data["outliers"]
    if not isinstance(outliers, list) or not all(isinstance(name, str) for name in outliers):
        raise ValueError("outliers must be a list of names")
    return Calibration(**(data | {"outliers": tuple(outliers), "anchors": _anchors(data["anchors"])}))


def _anchors(rows: Any) -> tuple[tuple[float, ...], ...]:
    """Anchors of the residual, each with as many numbers as a feature vector and its weight."""
    if not isinstance(rows, list) or len(rows) > _MOST_ANCHORS:
        raise ValueError("anchors is not a short list")
    length = feature_vectors(np.ones((1, len(FACTORS))), np.ones(1), np.ones(1)).shape[1] + 1
    for row in rows:
        if not isinstance(row, list) or len(row) != length:
            raise ValueError(f"an anchor has {length} numbers")
        for value in row:
            _check_number("anchor", value, -1e6, 1e6)
    return tuple(tuple(map(float, row)) for row in rows)


def _check_number(name: str, value: Any, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}, not a number from {low:g} to {high:g}")
