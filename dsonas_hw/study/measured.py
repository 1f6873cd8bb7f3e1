"""A network of a study measured on the target: what is stored of it."""

from __future__ import annotations

from math import isfinite

from pydantic import BaseModel, ConfigDict

from dsonas_hw.config import RunConfig
from dsonas_hw.cost.model import CostModel
from dsonas_hw.deploy import measure
from dsonas_hw.errors import UserError
from dsonas_hw.measure.statistics import STATISTICS


class Measured(BaseModel):
    """A measurement, in ms and mJ."""

    model_config = ConfigDict(frozen=True)

    latency_ms: float
    """The percentile that budgets limit, with its interval."""
    latency_ms_low: float
    latency_ms_high: float | None
    """None: no bound is known."""
    statistic: str = "p50"
    """Which percentile that is."""
    p50_ms: float | None = None
    p50_ms_low: float | None = None
    p50_ms_high: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    quiet_ms: float | None = None
    """When nothing disturbs it."""
    energy_mj: float | None = None
    """None, like its bounds: the device has no meter."""
    energy_mj_low: float | None = None
    energy_mj_high: float | None = None
    num_samples: int | None = None
    remarks: tuple[str, ...] = ()
    runtime: str = ""
    versions: dict[str, str] = {}


def measure_target(model: bytes, config: RunConfig) -> measure.TargetMeasurement:
    """Measure an ONNX model on the target.

    Raises:
        UserError: the target is not here.
    """
    found = measure.measure_on_target(model, config.target)
    if found is None:
        raise UserError(f"{config.target.device} is not on this machine, so latency cannot be measured")
    return found


def describe(found: measure.TargetMeasurement, config: RunConfig, cost_model: CostModel | None) -> Measured:
    """Return what is stored of a measurement, stated at the usual speed of the machine."""
    usual = measure.usual_speed_of(cost_model)
    percentiles = {name: found.latency.estimate(name, usual) for name in STATISTICS}
    median, budgeted = percentiles["p50"], percentiles[config.target.statistic]
    energy = found.energy.estimate if found.energy else None
    return Measured(
        latency_ms=budgeted.value,
        latency_ms_low=budgeted.low,
        latency_ms_high=_finite(budgeted.high),
        statistic=config.target.statistic,
        **{f"{name}_ms": estimate.value for name, estimate in percentiles.items()},
        p50_ms_low=median.low,
        p50_ms_high=_finite(median.high),
        quiet_ms=found.latency.latency_at(usual),
        energy_mj=energy.value if energy else None,
        energy_mj_low=energy.low if energy else None,
        energy_mj_high=_finite(energy.high) if energy else None,
        num_samples=len(found.latency.samples_ms),
        remarks=found.latency.remarks,
        runtime=found.runtime,
        versions=dict(found.versions),
    )


def _finite(bound: float) -> float | None:
    return bound if isfinite(bound) else None
