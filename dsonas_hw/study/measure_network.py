"""The latency of one network of a study, measured once."""

from __future__ import annotations

from math import isfinite
from typing import Any

from dsonas_hw.config import RunConfig
from dsonas_hw.cost.model import CostModel
from dsonas_hw.deploy.measure import TargetMeasurement, measure_on_target, repeatability_of
from dsonas_hw.errors import UserError


def measure_network(model: bytes, config: RunConfig, cost_model: CostModel | None) -> dict[str, Any]:
    """Measure the latency of an ONNX model on the target.

    Returns ms: percentiles, the intervals that budgets are held against (of the median, and of the percentile
    that the target names), and the quiet value.

    Raises:
        UserError: the target is not here.
    """
    found = measure_on_target(model, config.target)
    if found is None:
        raise UserError(f"{config.target.device} is not on this machine; set measure: false")
    return describe_latency(found, config, cost_model)


def describe_latency(
    found: TargetMeasurement, config: RunConfig, cost_model: CostModel | None
) -> dict[str, Any]:
    """Return what `measure_network` tells of a measurement."""
    repeatability = repeatability_of(cost_model)
    median = found.latency.estimate("p50").widened(repeatability)
    judged = found.latency.estimate(config.target.statistic).widened(repeatability)
    return {
        **{f"{name}_ms": value for name, value in found.latency.percentiles_ms().items()},
        "p50_ms_low": median.low, "p50_ms_high": median.high, "quiet_ms": found.latency.quiet_ms,
        "judged_ms": judged.value, "judged_ms_low": judged.low,
        "judged_ms_high": judged.high if isfinite(judged.high) else None,
    }  # fmt: skip
