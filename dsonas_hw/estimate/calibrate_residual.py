"""What the factors of a calibration leave over, learned from the measured networks nearby.

    log latency = log (factors and constants) + Σ_anchors weight · exp(−½ |z − anchor|²)

z describes a network as the calibrated estimate sees it: logarithms of its GPU time, its host time and its
batch, and which fraction of the GPU time each group of kernels takes, each in units of a length scale.
Networks that are alike in these share what a sum over kernels misses: caches, the state of the host in one
session of measurements, the algorithms that a library chose. Far from all anchors the sum is 0 and the
factors stand."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LENGTH_SCALES = {"gpu": 1.5, "host": 0.7, "batch": 2.0, "fraction": 0.25}
RESIDUAL_SPREAD = 0.12
"""Prior standard deviation of what the factors leave over."""
MAX_ANCHORS = 60


@dataclass(frozen=True)
class Residual:
    """Weighted anchors; without any it is 0 everywhere."""

    anchors: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """Shape (anchors, features)."""
    weights: Array = field(default_factory=lambda: np.zeros(0))

    def at(self, z: Array) -> Array:
        """The residual of feature vectors, shape (networks, features)."""
        if not len(self.weights):
            return np.zeros(len(z))
        return np.asarray(similarity(z, self.anchors) @ self.weights)

    def nearness(self, z: Array) -> Array:
        """1 beside an anchor, 0 far from all."""
        if not len(self.weights):
            return np.zeros(len(z))
        return np.asarray(similarity(z, self.anchors).max(axis=1))


def feature_vectors(gpu_by_group: Array, host_ms: Array, batch: Array) -> Array:
    """Feature vectors of networks from their calibrated times.

    gpu_by_group: shape (networks, groups), ms; host_ms, batch: shape (networks,).
    """
    gpu_ms = np.maximum(gpu_by_group.sum(axis=1), 1e-9)
    logs = [
        np.log(gpu_ms) / LENGTH_SCALES["gpu"],
        np.log(np.maximum(host_ms, 1e-4)) / LENGTH_SCALES["host"],
        np.log(batch) / LENGTH_SCALES["batch"],
    ]
    fractions = gpu_by_group / gpu_ms[:, None] / LENGTH_SCALES["fraction"]
    return np.concatenate([np.stack(logs, axis=1), fractions], axis=1)


def similarity(first: Array, second: Array) -> Array:
    """exp(−½ distance²) of feature vectors, shape (first, second)."""
    distance = np.square(first[:, None, :] - second[None, :, :]).sum(axis=2)
    return np.asarray(np.exp(-0.5 * distance))


def fit_residual(z: Array, logs: Array, importance: Array, noise: float) -> Residual:
    """Kernel ridge regression of `logs` on at most `MAX_ANCHORS` anchors.

    noise: standard deviation of `logs` around what neighbours share, of a network of importance 1.
    """
    anchors = z[spread_out(z, MAX_ANCHORS)]
    among = similarity(anchors, anchors) + 1e-6 * np.eye(len(anchors))
    across = similarity(z, anchors)
    clipped = np.clip(logs, -3 * RESIDUAL_SPREAD, 3 * RESIDUAL_SPREAD)
    normal = (across * importance[:, None]).T @ across / noise**2 + among / RESIDUAL_SPREAD**2
    weights = np.linalg.solve(normal, across.T @ (importance * clipped) / noise**2)
    return Residual(anchors, np.asarray(weights, dtype=np.float64))


def spread_out(z: Array, count: int) -> list[int]:
    """Indices of at most `count` points, each the farthest from those before, until all are close to one."""
    chosen = [int(np.argmin(np.square(z - z.mean(axis=0)).sum(axis=1)))]
    distance = np.square(z - z[chosen[0]]).sum(axis=1)
    while len(chosen) < min(count, len(z)) and distance.max() > 0.05:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.square(z - z[chosen[-1]]).sum(axis=1))
    return chosen
