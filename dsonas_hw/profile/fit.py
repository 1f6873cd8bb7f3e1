"""From the rows of a table to the numbers that predictions need, written back as its correction row.

Kernel costs come from in-situ timings (`kernel_costs`). In a network the profiler's own work is in them, and
the session's is not: three numbers (a scale, a cost per kernel, a constant), fitted on whole networks,
account for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.profile.kernel_costs import FEATURES, Array, KernelCosts, fit_coefficients
from dsonas_hw.profile.measured import SORT_PREFIX
from dsonas_hw.profile.rows import CorrectionRow, KernelRow

INTERVAL_SHARE = 0.9
"""Share of the networks that the interval is made to cover."""
INTERVAL_MARGIN = 1.25
"""The networks of the fit lie nearer than new ones do."""
MIN_NETWORKS = 4


@dataclass(frozen=True, kw_only=True)
class TimedNetwork:
    """A whole network: the kernels that ran, and what it took."""

    kernels: Sequence[Kernel]
    latency_ms: float


def fit_correction(rows: Sequence[KernelRow], networks: Sequence[TimedNetwork]) -> CorrectionRow:
    """Coefficients of every sort, and the three numbers.

    Raises:
        ProfileError: too few networks were timed.
    """
    if len(networks) < MIN_NETWORKS:
        raise ProfileError(f"{len(networks)} networks were timed; a fit needs at least {MIN_NETWORKS}")
    coefficients = fit_coefficients(rows)
    costs = KernelCosts(coefficients, rows)
    measured = np.array([network.latency_ms for network in networks])
    matrix = np.array(
        [
            [sum(costs.latency_ms(kernel) for kernel in network.kernels), len(network.kernels), 1.0]
            for network in networks
        ]
    )
    scale, per_kernel_ms, constant_ms = _solve_relative(matrix, measured)
    predicted = matrix @ np.array([scale, per_kernel_ms, constant_ms])
    ratios = measured / np.maximum(predicted, 1e-9)
    tail = (1 - INTERVAL_SHARE) / 2
    low, high = np.quantile(ratios, tail), np.quantile(ratios, 1 - tail)
    values = {
        "scale": scale,
        "per_kernel_ms": per_kernel_ms,
        "constant_ms": constant_ms,
        "interval_low": float(np.exp(INTERVAL_MARGIN * min(np.log(low), -0.01))),
        "interval_high": float(np.exp(INTERVAL_MARGIN * max(np.log(high), 0.01))),
        "num_networks": float(len(networks)),
    }
    for sort, numbers in sorted(coefficients.items()):
        for feature, value in zip(FEATURES, numbers, strict=True):
            if value:
                values[f"{SORT_PREFIX}{sort}/{feature}"] = value
    return CorrectionRow(values=values)


def _solve_relative(matrix: Array, measured: Array) -> tuple[float, float, float]:
    """Least absolute relative errors, by reweighting: single networks that were disturbed count less."""
    weights = np.ones(len(measured))
    solution = np.array([1.0, 0.0, 0.0])
    # Pulled towards "no correction" where the networks do not tell the three apart.
    prior = np.diag([0.05, 0.0, 0.0]), np.array([0.05, 0.0, 0.0])
    for _ in range(10):
        relative = matrix / measured[:, None] * weights[:, None]
        stacked = np.vstack([relative, prior[0]])
        solution = np.linalg.lstsq(stacked, np.concatenate([weights, prior[1]]), rcond=None)[0]
        errors = np.abs(matrix @ solution / measured - 1)
        weights = 1 / np.sqrt(np.maximum(errors, 0.01))
        weights /= weights.max()
    return float(solution[0]), float(solution[1]), float(solution[2])
