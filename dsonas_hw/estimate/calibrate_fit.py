"""The fit of a calibration: factors and constants that explain measured latencies, shrunk to "no change".

    gpu  = factor_gpu · Σ_g factor_g · gpu_g + network + constant_gpu · batch       g: groups of kernels
    host = factor_host · host + constant_host
    latency = (gpu^s + host^s)^(1/s)                                                s: sharpness

The logarithm of the latency is fitted by iterated least squares; weights fall with the residual, so that an
outlier moves nothing; normal priors hold what the networks do not tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

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
}
FACTORS = tuple(PRIOR_SPREADS)
_CONSTANT_SPREAD = 0.08
"""Of the constants, as a share of the median network's GPU time (per image) and host time."""
_LEAST = 0.1
"""Constants may be negative, but leave this share of a stream."""
NOISES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.3)
"""Spreads of measured around adjusted estimates that are tried; large ones move the factors less."""


@dataclass(frozen=True)
class Streams:
    """Estimated times of networks in ms, as the fit sees them; one row or entry per network."""

    gpu: Array
    """Shape (networks, factors): by group of kernels; 0 for "gpu" and "host"."""
    host: Array
    network: Array
    """What a network costs besides its kernels."""
    batch: Array

    def pick(self, chosen: Array) -> Streams:
        return Streams(self.gpu[chosen], self.host[chosen], self.network[chosen], self.batch[chosen])


@dataclass(frozen=True)
class Adjustment:
    """Logarithms of the factors, and the constants in ms (GPU: per image)."""

    logs: Array
    gpu_constant: float = 0.0
    host_constant: float = 0.0

    def apply(self, streams: Streams) -> tuple[Array, Array]:
        """GPU and host time of every network in ms."""
        kernels = (streams.gpu * np.exp(self.logs)).sum(axis=1) * math.exp(self.logs[_GPU])
        host = streams.host * math.exp(self.logs[_HOST])
        return (
            adjusted(kernels + streams.network, self.gpu_constant * streams.batch),
            adjusted(host, self.host_constant),
        )


_GPU, _HOST = FACTORS.index("gpu"), FACTORS.index("host")
NO_ADJUSTMENT = Adjustment(np.zeros(len(FACTORS)))


def adjusted(stream_ms: Array | float, constant_ms: Array | float) -> Array:
    """A stream and its constant; a negative constant never eats the stream."""
    return np.maximum(stream_ms + constant_ms, _LEAST * stream_ms)


def fit_adjustment(streams: Streams, measured: Array, sharpness: float, noise: float) -> Adjustment:
    """Iterated, robustly weighted least squares with normal priors around "no adjustment".

    measured: shape (networks,), ms; noise: spread of log(measured / adjusted estimate), where the estimate's
    own error for each network counts more than the noise of the timing.
    """
    gpu_ms, host_ms = NO_ADJUSTMENT.apply(streams)
    unit_gpu = float(np.median(gpu_ms / streams.batch))
    unit_host = float(np.median(host_ms)) or 1.0
    priors = np.array([*PRIOR_SPREADS.values(), _CONSTANT_SPREAD, _CONSTANT_SPREAD])
    x = np.zeros(len(priors))
    for _ in range(60):
        now = Adjustment(x[:-2], float(x[-2]) * unit_gpu, float(x[-1]) * unit_host)
        gpu_ms, host_ms = now.apply(streams)
        residuals = np.log(measured / combined(gpu_ms, host_ms, sharpness))
        slopes = _slopes(streams, now, gpu_ms, host_ms, sharpness, unit_gpu, unit_host)
        weights = 1 / (1 + (residuals / (3 * noise)) ** 2) / noise**2
        normal = (slopes * weights[:, None]).T @ slopes + np.diag(priors**-2)
        step = np.linalg.solve(normal, slopes.T @ (weights * residuals) - x / priors**2)
        step *= min(1.0, 0.5 / max(float(np.max(np.abs(step))), 1e-12))
        x = x + step
        if float(np.max(np.abs(step))) < 1e-6:
            break
    return Adjustment(x[:-2], float(x[-2]) * unit_gpu, float(x[-1]) * unit_host)


def leave_one_out(
    streams: Streams, measured: Array, groups: Sequence[object], sharpness: float, noise: float
) -> Array:
    """log(measured / predicted) of every network, predicted without it and without others of its group."""
    errors = np.empty(len(measured))
    for index, group in enumerate(groups):
        others = np.array([other != group for other in groups])
        found = (
            fit_adjustment(streams.pick(others), measured[others], sharpness, noise)
            if others.any()
            else NO_ADJUSTMENT
        )
        alone = streams.pick(np.arange(len(groups)) == index)
        errors[index] = math.log(measured[index] / combined(*found.apply(alone), sharpness)[0])
    return errors


def combined(gpu_ms: Array, host_ms: Array, sharpness: float) -> Array:
    """As `EstimatedLatency.combine`, for many networks."""
    high = np.maximum(gpu_ms, host_ms)
    return np.asarray(
        high * ((gpu_ms / high) ** sharpness + (host_ms / high) ** sharpness) ** (1 / sharpness)
    )


def _slopes(
    streams: Streams,
    now: Adjustment,
    gpu_ms: Array,
    host_ms: Array,
    sharpness: float,
    unit_gpu: float,
    unit_host: float,
) -> Array:
    """Derivatives of the logarithm of the latency, shape (networks, factors + 2)."""
    high = np.maximum(gpu_ms, host_ms)
    on_gpu, on_host = (gpu_ms / high) ** sharpness, (host_ms / high) ** sharpness
    total = on_gpu + on_host
    by_gpu = on_gpu / total / np.maximum(gpu_ms, 1e-30)
    by_host = on_host / total / np.maximum(host_ms, 1e-30)
    kernels = streams.gpu * np.exp(now.logs) * math.exp(now.logs[_GPU])
    slopes = kernels * by_gpu[:, None]
    slopes[:, _GPU] = kernels.sum(axis=1) * by_gpu
    slopes[:, _HOST] = streams.host * math.exp(now.logs[_HOST]) * by_host
    constants = np.stack([unit_gpu * streams.batch * by_gpu, unit_host * by_host], axis=1)
    return np.concatenate([slopes, constants], axis=1)
