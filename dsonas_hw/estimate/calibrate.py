"""Sharpen the estimate of a device with 3 to 50 networks that somebody measured on it.

    log measured ≈ log estimate(factors)       factors: shrunk towards 1, robust to outliers

A factor multiplies the GPU time of one group of kernels, or the launch time of the host; two constants
stand for what every network spends besides (a copy of the input, kernels that an exported file hides). Priors
(`calibrate_fit`) say how far each may plausibly be from 1 (0 for the constants), so that three networks move
little more than the overall scale while thirty also tell pools from convolutions. The error that is stored is
cross-validated: every network is predicted by a calibration that did not see it (nor another measurement of
the same kernels).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dsonas_hw.errors import ProfileError
from dsonas_hw.estimate.calibrate_check import (
    MeasuredNetwork,
    check_consistent,
    check_repeats,
    check_units,
)
from dsonas_hw.estimate.calibrate_fit import (
    FACTORS,
    NO_ADJUSTMENT,
    NOISES,
    Array,
    Streams,
    combined,
    fit_adjustment,
    leave_one_out,
)
from dsonas_hw.estimate.estimate import EstimatedLatency
from dsonas_hw.estimate.kernel_features import sort_of
from dsonas_hw.kernel.spec import Kernel

__all__ = ["MAX_ROWS", "MIN_ROWS", "Calibration", "MeasuredNetwork", "calibrate", "group_of", "streams_of"]

MIN_ROWS, MAX_ROWS = 3, 50


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Factors on an estimate, and how well they predict networks that were left out."""

    device: str
    runtime: str
    precision: str
    factors: Mapping[str, float]
    gpu_constant_ms: float
    """Per image of the batch; may be negative, as the next one."""
    host_constant_ms: float
    """Per network."""
    num_networks: int
    mape: float
    """Cross-validated mean absolute relative error; 0.03 is 3 %."""
    mape_before: float
    """Of the estimate without calibration, on the same networks."""
    relative_sd: float
    """Robust spread of the logarithm of the cross-validated ratios."""
    outliers: tuple[str, ...] = ()
    """Networks that the fit could not explain; their weight was lowered."""
    base: str = ""
    """Fingerprint of the estimate that the factors belong to."""
    created: str = field(default="")
    locked_sm_mhz: int | None = None
    """The SM clock that was held meanwhile; None: the clocks moved as they liked, or nobody knows."""


def group_of(kernel: Kernel) -> str:
    """Which factor a kernel's GPU time is multiplied with, besides "gpu"."""
    sort = sort_of(kernel)
    if sort == "matrix" and kernel.family == "conv":
        if max(kernel.kernel_size) == 1:
            return "point_conv"
        return "thin_conv" if kernel.inputs[0][1] <= 16 else "window_conv"
    if sort == "matrix":
        return "product"
    if sort in ("depthwise", "grouped"):
        return "depthwise"
    if sort in ("pool", "reduce"):
        return "pool"
    return "norm" if sort in ("norm", "softmax") else "elementwise"


def streams_of(model: EstimatedLatency, networks: Sequence[MeasuredNetwork]) -> Streams:
    """The estimate of every network, split into what the factors multiply."""
    gpu = np.zeros((len(networks), len(FACTORS)))
    host = np.zeros(len(networks))
    for index, network in enumerate(networks):
        for kernel, (gpu_ms, host_ms) in zip(network.kernels, model.times(network.kernels), strict=True):
            gpu[index, FACTORS.index(group_of(kernel))] += gpu_ms
            host[index] += host_ms
    batch = np.array([float(network.batch_size) for network in networks])
    return Streams(gpu, host, np.full(len(networks), model.network_ms), batch)


def calibrate(model: EstimatedLatency, networks: Sequence[MeasuredNetwork]) -> Calibration:
    """Fit the factors, and cross-validate.

    Raises:
        ProfileError: too few or too many rows, a unit slip, or rows that contradict each other.
    """
    if not MIN_ROWS <= len(networks) <= MAX_ROWS:
        raise ProfileError(f"{len(networks)} measured networks; a calibration takes {MIN_ROWS} to {MAX_ROWS}")
    streams = streams_of(model, networks)
    measured = np.array([network.latency_ms for network in networks])
    before = combined(*NO_ADJUSTMENT.apply(streams), model.sharpness)
    check_units(networks, before)
    check_repeats(networks)
    groups = [frozenset(Counter(network.kernels).items()) for network in networks]
    tried = {noise: leave_one_out(streams, measured, groups, model.sharpness, noise) for noise in NOISES}
    noise = min(NOISES, key=lambda noise: float(np.mean(np.minimum(np.abs(tried[noise]), 0.5))))
    errors = tried[noise]
    check_consistent(networks, errors)
    found = fit_adjustment(streams, measured, model.sharpness, noise)
    residuals = np.abs(np.log(measured / combined(*found.apply(streams), model.sharpness)))
    limit = max(0.15, 5 * float(np.median(residuals)))
    return Calibration(
        device=model.device,
        runtime=model.runtime,
        precision=model.precision,
        factors={name: float(math.exp(value)) for name, value in zip(FACTORS, found.logs, strict=True)},
        gpu_constant_ms=found.gpu_constant,
        host_constant_ms=found.host_constant,
        num_networks=len(networks),
        mape=float(np.mean(np.abs(np.expm1(-errors)))),
        mape_before=float(np.mean(np.abs(before / measured - 1))),
        relative_sd=spread(errors),
        base=model.fingerprint,
        outliers=tuple(n.name for n, residual in zip(networks, residuals, strict=True) if residual > limit),
    )


def spread(errors: Array) -> float:
    """Robust standard deviation around 0: from the 68th percentile of the absolute values."""
    return max(0.02, float(np.quantile(np.abs(errors), 0.68)))
