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
from dsonas_hw.cost.model import Z90, Prediction
from dsonas_hw.device.datasheet import Device
from dsonas_hw.device.spec import load_device
from dsonas_hw.errors import ProfileError, RunError
from dsonas_hw.estimate.calibrate import Calibration, group_of, million_image_elements
from dsonas_hw.estimate.calibrate_fit import FACTORS, Array
from dsonas_hw.estimate.calibrate_residual import Residual, feature_vectors
from dsonas_hw.estimate.calibrate_trust import Evidence, Moments, mixed, work_vector
from dsonas_hw.estimate.constants import EstimateConstants
from dsonas_hw.estimate.estimate import EstimatedLatency
from dsonas_hw.files import read_regular, write_text
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.table.rows import Source
from dsonas_hw.target import Target

SCHEMA_VERSION = 3
_MAX_BYTES = 64 * 1024
_MOST_POINTS = 1000
_FACTOR_RANGE = (1e-3, 1e3)
_ELSEWHERE = "networks of much more or less work than those are estimated"


class CalibratedLatency(EstimatedLatency):
    """The estimate of a device with the factors of a calibration, as far as that carries."""

    source: Source = "calibrated"

    def __init__(
        self,
        device: Device,
        *,
        batch_size: int,
        calibration: Calibration,
        constants: EstimateConstants | None = None,
    ) -> None:
        target = replace(calibration.target, batch_size=batch_size)
        super().__init__(device, target, constants=constants)
        if calibration.base != self.fingerprint or calibration.device != device.name:
            raise ProfileError(
                f"this calibration of {calibration.device} belongs to another estimate (another version of "
                f"dsonas-hw or of the device file); calibrate {device.name} again"
            )
        self.calibration = calibration
        self._estimate = EstimatedLatency(device, target, constants=constants)
        self._factors = calibration.factors
        self.network_ms *= self._factors["gpu"]
        rows = np.array(calibration.anchors)
        self._residual = Residual(rows[:, :-1], rows[:, -1]) if len(rows) else Residual()
        self.evidence = Evidence(np.array(calibration.work), calibration.reach)
        self._groups: dict[Kernel, int] = {}

    @property
    def disclaimer(self) -> str:
        """Says that the network itself was not measured, and how far off others were."""
        found = self.calibration
        error = f"each was off by {found.mape:.1%} (mean) when held out"
        if not found.measured_by:
            return (
                f"CALIBRATED, NOT MEASURED: latencies of {self.target.device} come from {self._provenance} "
                f"and {found.num_networks} measured networks; {error}; {_ELSEWHERE}"
            )
        if found.mape_other_family is not None:
            error += f", by {found.mape_other_family:.1%} with all of its family"
        return (
            f"CALIBRATED BY OTHERS, NOT MEASURED HERE: latencies of {self.target.device} are calibrated on "
            f"{found.num_networks} networks measured by others ({found.measured_by}); {error}; "
            f"{_ELSEWHERE}"
        )

    def predict(self, kernels: Sequence[Kernel], metric: Metric = "latency") -> Prediction:
        """As the estimate's; corrected by what was measured, as far as the network's work is near to that.

        Its source is "estimated" where the estimate counts for more than the calibration.

        Raises:
            ProfileError: there is no kernel, or another metric is asked for.
        """
        calibrated = _moments(super().predict(kernels, metric))
        if len(kernels) > 1 and len(self._residual.weights):
            z = self._feature_vector(kernels)
            # Near what was measured the interval is that of networks held out, far from it that of families.
            narrow = self._relative_sd(float(self._residual.nearness(z)[0])) / self._relative_sd(0.0)
            calibrated = calibrated[0] + float(self._residual.at(z)[0]), calibrated[1] * narrow**2
        trust = float(self.evidence.trust(np.array([work_vector(kernels)]))[0])
        mean, variance = mixed(trust, calibrated, _moments(self._estimate.predict(kernels, metric)))
        half = Z90 * math.sqrt(variance)
        return Prediction(
            value=math.exp(mean),
            low=math.exp(mean - half),
            high=math.exp(mean + half),
            source=self.source if trust >= 0.5 else self._estimate.source,
        )

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
        """As the estimate's, with the constants of the calibration; a single kernel has none."""
        gpu, host, squares = super().totals(kernels)
        if len(kernels) > 1:
            gpu += self.calibration.image_ms * million_image_elements(kernels)
            host += self.calibration.network_ms
        return gpu, host, squares

    def _compute(self, kernels: Sequence[Kernel]) -> list[tuple[float, float]]:
        gpu_factor, host_factor = self._factors["gpu"], self._factors["host"]
        return [
            (gpu * gpu_factor * self._factors[group_of(kernel)], host * host_factor)
            for kernel, (gpu, host) in zip(kernels, self._estimate.times(kernels), strict=True)
        ]

    def _variance(self, gpu_share: float, concentration: float) -> float:
        # What was measured stays uncertain by the cross-validated spread; a network whose time sits in few
        # kernels, unlike those that were measured, keeps part of the uncertainty of a single kernel.
        known = self._relative_sd(0.0) ** 2
        return known + (0.5 * self._sd["kernel"] * gpu_share) ** 2 * concentration**2


def _moments(prediction: Prediction) -> Moments:
    return math.log(prediction.value), (math.log(prediction.high / prediction.value) / Z90) ** 2


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
    for name in ("image_ms", "network_ms"):
        _check_number(name, data[name], 0.0, 1e6)
    _check_number("reach", data["reach"], 1e-3, 1e3)
    if not isinstance(data["measured_by"], str):
        raise ValueError("measured_by must be text")
    for name in ("mape_other_family", "relative_sd_far"):
        if data[name] is not None:
            _check_number(name, data[name], 0.0, 1e6)
    outliers = data["outliers"]
    if not isinstance(outliers, list) or not all(isinstance(name, str) for name in outliers):
        raise ValueError("outliers must be a list of names")
    length = feature_vectors(np.ones((1, len(FACTORS))), np.ones(1), np.ones(1)).shape[1] + 1
    points = {name: _points(name, data[name], width) for name, width in (("anchors", length), ("work", 2))}
    return Calibration(**(data | {"outliers": tuple(outliers)} | points))


def _points(name: str, rows: Any, length: int) -> tuple[tuple[float, ...], ...]:
    """Rows of `length` numbers."""
    if not isinstance(rows, list) or len(rows) > _MOST_POINTS:
        raise ValueError(f"{name} is not a short list")
    for row in rows:
        if not isinstance(row, list) or len(row) != length:
            raise ValueError(f"a row of {name} has {length} numbers")
        for value in row:
            _check_number(name, value, -1e6, 1e6)
    return tuple(tuple(map(float, row)) for row in rows)


def _check_number(name: str, value: Any, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}, not a number from {low:g} to {high:g}")
