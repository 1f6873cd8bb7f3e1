"""Sharpen the estimate of a device with 3 to 50 networks that somebody measured on it.

    log measured ≈ log estimate(factors)       factors: shrunk towards 1, robust to outliers

A factor multiplies the GPU time of one group of kernels, or the launch time of the host. The priors below say
how far each may plausibly be from 1, so that three networks move little more than the overall scale while
thirty also tell pools from convolutions. The error that is stored is cross-validated: every network is
predicted by a calibration that did not see it (nor another measurement of the same kernels).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.profile.estimate import EstimatedLatency
from dsonas_hw.profile.kernel_features import sort_of

Array = NDArray[np.float64]

MIN_ROWS, MAX_ROWS = 3, 50

#: Group of kernels → spread of the logarithm of its factor; "gpu" multiplies all groups, "host" launches.
PRIOR_SPREADS: dict[str, float] = {
    "gpu": 0.25,
    "host": 0.6,
    "window_conv": 0.25,
    "thin_conv": 0.2,
    "point_conv": 0.2,
    "depthwise": 0.25,
    "pool": 0.3,
    "elementwise": 0.15,
    "norm": 0.12,
    "product": 0.2,
    "network": 0.8,
}
FACTORS = tuple(PRIOR_SPREADS)
_NOISE = 0.02
"""Spread of the logarithm of repeated measurements."""
_WILD = 0.35
"""A cross-validated median error above this means that the rows contradict each other."""
_REPEAT = 1.5
"""Two measurements of the same kernels may differ by this factor."""


@dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """One row of the user's measurements."""

    name: str
    kernels: Sequence[Kernel]
    batch_size: int
    latency_ms: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Factors on an estimate, and how well they predict networks that were left out."""

    device: str
    runtime: str
    precision: str
    factors: Mapping[str, float]
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


def group_times_ms(model: EstimatedLatency, kernels: Sequence[Kernel]) -> Array:
    """Estimated time per factor in ms, in the order of `FACTORS`; "gpu" is 0 (it multiplies the others)."""
    times = dict.fromkeys(FACTORS, 0.0)
    times["network"] = model.network_ms
    for kernel, (gpu, host) in zip(kernels, model.times(kernels), strict=True):
        times[group_of(kernel)] += gpu
        times["host"] += host
    return np.array([times[name] for name in FACTORS])


def calibrate(model: EstimatedLatency, networks: Sequence[MeasuredNetwork]) -> Calibration:
    """Fit the factors, and cross-validate.

    Raises:
        ProfileError: too few or too many rows, a unit slip, or rows that contradict each other.
    """
    if not MIN_ROWS <= len(networks) <= MAX_ROWS:
        raise ProfileError(f"{len(networks)} measured networks; a calibration takes {MIN_ROWS} to {MAX_ROWS}")
    times = np.stack([group_times_ms(model, network.kernels) for network in networks])
    measured = np.array([network.latency_ms for network in networks])
    before = np.array([model.combine(*_streams(row, np.zeros(len(FACTORS)))) for row in times])
    check_units(networks, before)
    check_repeats(networks)
    sharpness = model.sharpness
    groups = [tuple(network.kernels) for network in networks]
    predicted = np.empty(len(networks))
    for index, group in enumerate(groups):
        others = np.array([other != group for other in groups])
        logs = fit_factors(times[others], measured[others], sharpness) if others.any() else np.zeros(len(FACTORS))
        predicted[index] = model.combine(*_streams(times[index], logs))
    errors = np.log(measured / predicted)
    check_consistent(networks, errors)
    logs = fit_factors(times, measured, sharpness)
    fitted = np.array([model.combine(*_streams(row, logs)) for row in times])
    residuals = np.abs(np.log(measured / fitted))
    limit = max(0.15, 5 * float(np.median(residuals)))
    return Calibration(
        device=model.device,
        runtime=model.runtime,
        precision=model.precision,
        factors={name: float(math.exp(value)) for name, value in zip(FACTORS, logs, strict=True)},
        num_networks=len(networks),
        mape=float(np.mean(np.abs(predicted / measured - 1))),
        mape_before=float(np.mean(np.abs(before / measured - 1))),
        relative_sd=spread(errors),
        base=model.fingerprint,
        outliers=tuple(n.name for n, residual in zip(networks, residuals, strict=True) if residual > limit),
    )


def fit_factors(times: Array, measured: Array, sharpness: float) -> Array:
    """Logarithms of the factors: iterated, robustly weighted least squares with normal priors around 0.

    times: shape (networks, factors), as `group_times_ms`; measured: shape (networks,), ms.
    """
    priors = np.array([PRIOR_SPREADS[name] for name in FACTORS])
    logs = np.zeros(len(FACTORS))
    scale = 0.15
    for _ in range(40):
        predicted, slopes = _log_latency(times, logs, sharpness)
        residuals = np.log(measured) - predicted
        scale = max(_NOISE, min(scale, 1.5 * float(np.median(np.abs(residuals))) + 1e-9))
        weights = 1 / (1 + (residuals / (3 * scale)) ** 2) / scale**2
        normal = (slopes * weights[:, None]).T @ slopes + np.diag(priors**-2)
        step = np.linalg.solve(normal, slopes.T @ (weights * residuals) - logs / priors**2)
        step *= min(1.0, 0.5 / max(float(np.max(np.abs(step))), 1e-12))
        logs = logs + step
        if float(np.max(np.abs(step))) < 1e-6:
            break
    return logs


def _streams(row: Array, logs: Array) -> tuple[float, float]:
    """(GPU ms, host ms) of a network under factors."""
    scaled = row * np.exp(logs)
    host, network = (FACTORS.index(name) for name in ("host", "network"))
    rest = float(scaled.sum() - scaled[host] - scaled[network])
    return rest * math.exp(logs[FACTORS.index("gpu")]) + float(scaled[network]), float(scaled[host])


def _log_latency(times: Array, logs: Array, sharpness: float) -> tuple[Array, Array]:
    """Log latency of every network and its derivatives by the factors' logarithms."""
    host, network, gpu = (FACTORS.index(name) for name in ("host", "network", "gpu"))
    scaled = times * np.exp(logs)
    kernels = scaled.copy()
    kernels[:, [host, network]] = 0.0
    kernels *= math.exp(logs[gpu])
    streams = np.stack([kernels.sum(axis=1) + scaled[:, network], scaled[:, host]], axis=1)
    high = streams.max(axis=1)
    shares = (streams / high[:, None]) ** sharpness
    total = shares.sum(axis=1)
    shares /= total[:, None]
    on_gpu = shares[:, 0] / np.maximum(streams[:, 0], 1e-30)
    slopes = kernels * on_gpu[:, None]
    slopes[:, gpu] = kernels.sum(axis=1) * on_gpu
    slopes[:, network] = scaled[:, network] * on_gpu
    slopes[:, host] = shares[:, 1]
    return np.log(high) + np.log(total) / sharpness, slopes


def spread(errors: Array) -> float:
    """Robust standard deviation around 0: from the 68th percentile of the absolute values."""
    return max(_NOISE, float(np.quantile(np.abs(errors), 0.68)))


def check_units(networks: Sequence[MeasuredNetwork], estimated: Array) -> None:
    """Refuse seconds or microseconds given for milliseconds: all rows, or one.

    Raises:
        ProfileError: names the unit that the numbers look like.
    """
    ratios = np.log10([n.latency_ms / e for n, e in zip(networks, estimated, strict=True)])
    middle = float(np.median(ratios))
    for name, power in (("seconds", -3), ("microseconds", 3)):
        if abs(middle - power) < 1.1:
            raise ProfileError(
                f"latency_ms looks like {name}: the median row is {10**middle:.2g} × the estimate "
                f"({networks[0].name}: {networks[0].latency_ms:g} given, about {estimated[0]:.3g} ms expected); "
                f"convert it to milliseconds"
            )
    if abs(middle) > 1.3:
        raise ProfileError(
            f"the measured latencies are {10**middle:.2g} × the estimate; check the device, the runtime, the "
            f"batch size and the unit (milliseconds per batch)"
        )
    for network, ratio in zip(networks, ratios, strict=True):
        if abs(abs(ratio - middle) - 3) < 0.6:
            slip = "seconds" if ratio < middle else "microseconds"
            raise ProfileError(
                f"{network.name}: {network.latency_ms:g} ms is {10 ** abs(ratio - middle):.0f} × "
                f"{'below' if ratio < middle else 'above'} what the other rows suggest; is it in {slip}?"
            )


def check_repeats(networks: Sequence[MeasuredNetwork]) -> None:
    """Refuse two measurements of the same kernels that are far apart.

    Raises:
        ProfileError: names both rows.
    """
    seen: dict[tuple[Kernel, ...], MeasuredNetwork] = {}
    for network in networks:
        other = seen.setdefault(tuple(network.kernels), network)
        ratio = network.latency_ms / other.latency_ms
        if not 1 / _REPEAT <= ratio <= _REPEAT:
            raise ProfileError(
                f"{other.name} ({other.latency_ms:g} ms) and {network.name} ({network.latency_ms:g} ms) are the "
                f"same network at batch {network.batch_size}; measure it again and keep one row"
            )


def check_consistent(networks: Sequence[MeasuredNetwork], errors: Array) -> None:
    """Refuse rows that no calibration explains.

    Raises:
        ProfileError: names the rows that fit worst.
    """
    if float(np.median(np.abs(errors))) <= _WILD:
        return
    worst = sorted(zip(np.abs(errors), networks, strict=True), key=lambda pair: -pair[0])[:3]
    named = ", ".join(f"{network.name} (off by {math.exp(error):.1f} ×)" for error, network in worst)
    raise ProfileError(
        f"the measurements contradict each other: left out in turn, half of the networks are off by more than "
        f"{100 * (math.exp(_WILD) - 1):.0f} %; worst: {named}. Check that all rows are of one device, runtime and "
        f"precision, in milliseconds per batch"
    )
