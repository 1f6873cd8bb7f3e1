"""The fit of a calibration: factors and constants that explain latencies, shrunk to one scale factor.

    gpu  = factor_gpu · (Σ_g factor_g · gpu_g + network) + image_ms · images          g: groups of kernels
    host = factor_host · host + network_ms
    latency = (gpu^s + host^s)^(1/s)                                                s: sharpness

The logarithm of the latency is fitted by iterated least squares; weights fall with the residual, so that an
outlier moves nothing; normal priors hold what the networks do not tell apart. They are centred on the scale
factor (`scale_only`), so that a large assumed noise ends in it. The constants are never negative: what is
timed besides the kernels takes time, and a larger batch is not faster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

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
"""Of the constants, as fractions of the median network's GPU and host time."""
NOISES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.3, 0.6)
"""Spreads of measured around adjusted estimates that are tried; large ones stay close to one scale factor."""


@dataclass(frozen=True)
class Streams:
    """Estimated times of networks in ms, as the fit sees them; one row or entry per network."""

    gpu: Array
    """Shape (networks, factors): by group of kernels; 0 for "gpu" and "host"."""
    host: Array
    network: Array
    """What a network costs besides its kernels."""
    batch: Array
    images: Array
    """Millions of elements of the images that networks take, which some timings copy."""

    def pick(self, chosen: Array) -> Streams:
        return Streams(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True)
class Adjustment:
    """Logarithms of the factors, and the constants."""

    logs: Array
    image_ms: float = 0.0
    """Per million elements of the images."""
    network_ms: float = 0.0

    def apply(self, streams: Streams) -> tuple[Array, Array]:
        """GPU and host time of every network in ms."""
        kernels = (streams.gpu * np.exp(self.logs)).sum(axis=1) + streams.network
        host = streams.host * math.exp(self.logs[_HOST])
        gpu = kernels * math.exp(self.logs[_GPU])
        return gpu + self.image_ms * streams.images, host + self.network_ms


_GPU, _HOST = FACTORS.index("gpu"), FACTORS.index("host")
NO_ADJUSTMENT = Adjustment(np.zeros(len(FACTORS)))


def fit_adjustment(
    streams: Streams, measured: Array, sharpness: float, noise: float, importance: Array | None = None
) -> Adjustment:
    """Iterated, robustly weighted least squares with normal priors around the scale factor.

    measured: shape (networks,), ms; noise: standard deviation of log(measured / adjusted estimate), where the
    estimate's own error for each network counts more than the noise of the timing; importance: of every
    network, 1 each by default.
    """
    if importance is None:
        importance = np.ones(len(measured))
    gpu_ms, host_ms = NO_ADJUSTMENT.apply(streams)
    unit_gpu = float(np.median(gpu_ms)) / (float(np.median(streams.images)) or 1.0)
    unit_host = float(np.median(host_ms)) or 1.0
    priors = np.array([*PRIOR_SPREADS.values(), _CONSTANT_SPREAD, _CONSTANT_SPREAD])
    centre = np.append(scale_only(streams, measured, sharpness, importance).logs, [0.0, 0.0])
    x = centre
    for _ in range(60):
        now = Adjustment(x[:-2], float(x[-2]) * unit_gpu, float(x[-1]) * unit_host)
        gpu_ms, host_ms = now.apply(streams)
        residuals = np.log(measured / combined(gpu_ms, host_ms, sharpness))
        slopes = _slopes(streams, now, gpu_ms, host_ms, sharpness, unit_gpu, unit_host)
        weights = importance / (1 + (residuals / (3 * noise)) ** 2) / noise**2
        normal = (slopes * weights[:, None]).T @ slopes + np.diag(priors**-2)
        towards = slopes.T @ (weights * residuals) - (x - centre) / priors**2
        # A constant at zero stays there while the fit would have it negative.
        free = np.append(np.full(len(FACTORS), True), (x[-2:] > 0) | (towards[-2:] > 0))
        step = np.zeros(len(x))
        step[free] = np.linalg.solve(normal[np.ix_(free, free)], towards[free])
        step *= min(1.0, 0.5 / max(float(np.max(np.abs(step))), 1e-12))
        x = np.append(x[:-2] + step[:-2], np.maximum(x[-2:] + step[-2:], 0.0))
        if float(np.max(np.abs(step))) < 1e-6:
            break
    return Adjustment(x[:-2], float(x[-2]) * unit_gpu, float(x[-1]) * unit_host)


def scale_only(streams: Streams, measured: Array, sharpness: float, importance: Array) -> Adjustment:
    """The weighted median of measured over estimated; a stream that bounds no network is left alone."""
    gpu_ms, host_ms = NO_ADJUSTMENT.apply(streams)
    estimated = combined(gpu_ms, host_ms, sharpness)
    logs = np.log(measured / estimated)
    order = np.argsort(logs)
    reached = np.cumsum(importance[order])
    low = int(np.searchsorted(reached, 0.5 * reached[-1] * (1 - 1e-9)))
    high = int(np.searchsorted(reached, 0.5 * reached[-1] * (1 + 1e-9)))
    scale = float(logs[order][low] + logs[order][min(high, len(logs) - 1)]) / 2
    factors = np.zeros(len(FACTORS))
    for index, stream_ms in ((_GPU, gpu_ms), (_HOST, host_ms)):
        largest_share = float(np.max((stream_ms / estimated) ** sharpness))
        factors[index] = scale * min(1.0, 4 * largest_share)
    return Adjustment(factors)


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
    scale = math.exp(now.logs[_GPU])
    kernels = streams.gpu * np.exp(now.logs) * scale
    slopes = kernels * by_gpu[:, None]
    slopes[:, _GPU] = (kernels.sum(axis=1) + streams.network * scale) * by_gpu
    slopes[:, _HOST] = streams.host * math.exp(now.logs[_HOST]) * by_host
    constants = np.stack([unit_gpu * streams.images * by_gpu, unit_host * by_host], axis=1)
    return np.concatenate([slopes, constants], axis=1)
