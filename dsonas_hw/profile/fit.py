"""From the rows of a table to the numbers that predictions need, written back as its correction row.

    latency = (constant + Σ_groups (scale · cost + per_kernel · kernels)) · exp(residual)

Kernel costs come from timings in whole networks (`kernel_costs`). A scale and a cost per kernel for every
group of kernels, and one constant, are fitted on the same networks as they ran without the profiler; groups
are drawn towards common values, as far as the networks do not tell them apart. What is left over is alike in
networks that are alike: a Gaussian process over their cost, number of kernels and largest tensor carries it
to the networks between (`network_costs.Residual`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.profile.kernel_costs import Array, KernelCosts, fit_coefficients
from dsonas_hw.profile.network_costs import (
    GROUPS,
    Part,
    Place,
    correction_values,
    group_of,
    similarity,
    written_mb,
)
from dsonas_hw.profile.rows import Anchor, CorrectionRow, KernelRow

INTERVAL_SHARE = 0.9
"""Share of the networks that the interval is made to cover."""
MIN_INTERVAL = 0.02
MIN_NETWORKS = 4
NUM_FOLDS = 8
GROUP_SPREADS = (0.15, 0.0008, 0.01)
"""How far a group's scale, its cost per kernel (ms) and the constant (ms) may lie from the common ones."""
RIDGE = 1e-3
"""Variance of the networks' relative errors that the groups need not explain."""
RESIDUAL_SPREAD = 0.05
RESIDUAL_NOISE = 0.02
"""Standard deviations, in logarithms: of what networks nearby share, and of what is each one's own."""


@dataclass(frozen=True, kw_only=True)
class TimedNetwork:
    """A whole network: the kernels that ran, and what it took."""

    kernels: Sequence[Kernel]
    latency_ms: float


def fit_correction(
    rows: Sequence[KernelRow], networks: Sequence[TimedNetwork], *, speed: float = 1.0
) -> CorrectionRow:
    """Coefficients of every sort of kernel, and the numbers of the formula above.

    speed: all latencies are multiplied by it: the table's unit of speed against the machine's usual one.

    Raises:
        ProfileError: too few networks were timed.
    """
    if len(networks) < MIN_NETWORKS:
        raise ProfileError(
            f"{len(networks)} networks were timed; a fit needs {MIN_NETWORKS}: profile a preset too"
        )
    coefficients = fit_coefficients(rows)
    costs = KernelCosts(coefficients, rows)
    matrix = np.array([_design(costs, network) for network in networks])
    places = np.array([_place(costs, network) for network in networks])
    measured = np.array([network.latency_ms for network in networks]) * speed
    solution = _solve_groups(matrix, measured)
    weights = _solve_residual(places, np.log(measured / _positive(matrix @ solution)))
    values = correction_values(
        coefficients,
        scales=dict(zip(GROUPS, map(float, solution), strict=False)),
        per_kernel_ms=dict(zip(GROUPS, map(float, solution[len(GROUPS) :]), strict=False)),
        constant_ms=float(solution[-1]),
        interval=_interval(matrix, places, measured),
    )
    anchors: list[Anchor] = [
        (float(place[0]), float(place[1]), float(place[2]), float(weight))
        for place, weight in zip(places, weights, strict=True)
    ]
    return CorrectionRow(values={**values, "num_networks": float(len(networks))}, anchors=tuple(anchors))


def _design(costs: KernelCosts, network: TimedNetwork) -> list[float]:
    """Costs per group, numbers of kernels per group, one."""
    sums, counts = ([0.0] * len(GROUPS) for _ in range(2))
    for kernel in network.kernels:
        index = GROUPS.index(group_of(kernel))
        sums[index] += costs.latency_ms(kernel)
        counts[index] += 1
    return [*sums, *counts, 1.0]


def _place(costs: KernelCosts, network: TimedNetwork) -> Place:
    return Part(
        cost_ms=sum(costs.latency_ms(kernel) for kernel in network.kernels),
        num_kernels=len(network.kernels),
        largest_mb=max(written_mb(kernel) for kernel in network.kernels),
    ).place


def _solve_groups(matrix: Array, measured: Array) -> Array:
    """Common scale, cost per kernel and constant; then how each group differs, ridge against the spreads."""
    num_groups = len(GROUPS)
    common = np.column_stack(
        [matrix[:, :num_groups].sum(axis=1), matrix[:, num_groups:-1].sum(axis=1), matrix[:, -1]]
    )
    scale, per_kernel, constant = _solve_relative(common, measured)
    base = np.repeat([scale, per_kernel, constant], [num_groups, num_groups, 1])
    spreads = np.repeat(GROUP_SPREADS, [num_groups, num_groups, 1])
    relative = matrix * spreads / measured[:, None]
    errors = 1 - matrix @ base / measured
    weights = np.ones(len(measured))
    change = np.zeros(len(base))
    for _ in range(8):
        weighted = relative * weights[:, None]
        gram = weighted.T @ weighted + RIDGE * np.eye(len(base))
        change = np.linalg.solve(gram, weighted.T @ (errors * weights))
        weights = _robust_weights(errors - relative @ change)
    return np.asarray(base + spreads * change)


def _solve_residual(places: Array, logs: Array) -> Array:
    """Weights of a Gaussian process through the residuals; what no neighbours could share is not believed."""
    logs = np.clip(logs, -3 * RESIDUAL_SPREAD, 3 * RESIDUAL_SPREAD)
    covariance = RESIDUAL_SPREAD**2 * similarity(places, places)
    weights = np.linalg.solve(covariance + RESIDUAL_NOISE**2 * np.eye(len(places)), logs)
    return np.asarray(RESIDUAL_SPREAD**2 * weights)


def _solve_relative(matrix: Array, measured: Array) -> tuple[float, float, float]:
    """Least absolute relative errors, by reweighting: single networks that were disturbed count less."""
    weights = np.ones(len(measured))
    # Drawn towards "no correction" where the networks do not tell the three apart.
    prior = np.diag([0.05, 0.0, 0.0]), np.array([0.05, 0.0, 0.0])
    solution = np.array([1.0, 0.0, 0.0])
    for _ in range(10):
        relative = matrix / measured[:, None] * weights[:, None]
        stacked = np.vstack([relative, prior[0]])
        solution = np.linalg.lstsq(stacked, np.concatenate([weights, prior[1]]), rcond=None)[0]
        weights = _robust_weights(matrix @ solution / measured - 1)
    return float(solution[0]), float(solution[1]), float(solution[2])


def _robust_weights(errors: Array) -> Array:
    weights = 1 / np.sqrt(np.maximum(np.abs(errors), 0.01))
    return np.asarray(weights / weights.max())


def _interval(matrix: Array, places: Array, measured: Array) -> tuple[float, float]:
    """Factors on a prediction between which the share of networks lies, from folds that were left out.

    The kernels' rows stay in: the margin for that is what a network adds to a table of many.
    """
    logs = np.zeros(len(measured))
    folds = np.arange(len(measured)) % min(NUM_FOLDS, len(measured))
    for fold in range(int(folds.max()) + 1):
        rest, out = folds != fold, folds == fold
        solution = _solve_groups(matrix[rest], measured[rest])
        left = np.log(measured / _positive(matrix @ solution))
        logs[out] = left[out] - similarity(places[out], places[rest]) @ _solve_residual(
            places[rest], left[rest]
        )
    half = float(np.quantile(np.abs(logs), INTERVAL_SHARE))
    half = max(half * (1 + 2 / len(measured)), MIN_INTERVAL)
    return float(np.exp(-half)), float(np.exp(half))


def _positive(values: Array) -> Array:
    return np.asarray(np.maximum(values, 1e-6))
