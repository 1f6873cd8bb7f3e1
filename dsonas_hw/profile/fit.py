"""From the rows of a table to the numbers that predictions need, written back as its correction row.

    latency = constant + Σ_groups ((scale · cost + small · smallness) · context + per_kernel · kernels)

Kernel costs come from in-situ timings (`kernel_costs`), stated for a small network; `context` puts them into
theirs. The profiler's own work is in those timings and the session's is not, to a different degree for
different groups of kernels, small and large ones: three numbers of each group, and one constant, are fitted
on whole networks that ran without the profiler. The groups are drawn towards common values, as far as the
networks do not tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.profile.context import (
    DEFAULT_TENSOR_EXPONENT,
    DEFAULT_TOTAL_EXPONENT,
    context_factor,
    largest_tensor_mb,
)
from dsonas_hw.profile.kernel_costs import Array, KernelCosts, fit_coefficients
from dsonas_hw.profile.network_costs import GROUPS, correction_values, group_of, smallness_ms
from dsonas_hw.profile.rows import CorrectionRow, KernelRow

INTERVAL_SHARE = 0.9
"""Share of the networks that the interval is made to cover."""
MIN_INTERVAL = 0.02
MIN_NETWORKS = 4
NUM_FOLDS = 8
GROUP_SPREADS = (0.3, 1.0, 0.002, 0.02)
"""How far a group's scale, its `small`, its cost per kernel (ms) and the constant (ms) may lie from the
common ones (for `small`: from none)."""
RIDGE = 1e-4
"""Weight of those spreads against the networks' relative errors."""


@dataclass(frozen=True, kw_only=True)
class TimedNetwork:
    """A whole network: the kernels that ran, and what it took."""

    kernels: Sequence[Kernel]
    latency_ms: float
    in_situ_ms: float | None = None
    """Sum of its kernels under the profiler."""


def fit_correction(
    rows: Sequence[KernelRow], networks: Sequence[TimedNetwork], *, speed: float = 1.0
) -> CorrectionRow:
    """Coefficients of every sort of kernel, and the numbers of the formula above.

    speed: all latencies are multiplied by it: the table's unit of speed against the machine's usual one.

    Raises:
        ProfileError: too few networks were timed.
    """
    if len(networks) < MIN_NETWORKS:
        raise ProfileError(f"{len(networks)} networks were timed; a fit needs at least {MIN_NETWORKS}")
    coefficients = fit_coefficients(rows)
    costs = KernelCosts(coefficients, rows)
    exponents = _fit_context(costs, networks)
    matrix = np.array([_design(costs, network, exponents) for network in networks])
    measured = np.array([network.latency_ms for network in networks]) * speed
    solution = _solve_groups(matrix, measured)
    values = correction_values(
        coefficients,
        scales=dict(zip(GROUPS, map(float, solution), strict=False)),
        small=dict(zip(GROUPS, map(float, solution[len(GROUPS) :]), strict=False)),
        per_kernel_ms=dict(zip(GROUPS, map(float, solution[2 * len(GROUPS) :]), strict=False)),
        constant_ms=float(solution[-1]),
        tensor_exponent=exponents[0],
        total_exponent=exponents[1],
        interval=_interval(matrix, measured),
    )
    return CorrectionRow(values={**values, "num_networks": float(len(networks))})


def _fit_context(costs: KernelCosts, networks: Sequence[TimedNetwork]) -> tuple[float, float]:
    """Exponents of the context from in-situ sums; drawn to the default, which the rows were stated with."""
    default = np.array([DEFAULT_TENSOR_EXPONENT, DEFAULT_TOTAL_EXPONENT])
    logs, ratios = [], []
    for network in networks:
        if network.in_situ_ms:
            total = sum(costs.latency_ms(kernel) for kernel in network.kernels)
            logs.append([np.log(max(largest_tensor_mb(network.kernels), 1e-3)), np.log(total), 1.0])
            ratios.append(np.log(network.in_situ_ms / total) - np.array(logs[-1])[:2] @ default)
    if len(ratios) < MIN_NETWORKS:
        return float(default[0]), float(default[1])
    prior = np.diag([0.5, 0.5, 0.0])
    change = np.linalg.lstsq(np.vstack([logs, prior]), np.concatenate([ratios, np.zeros(3)]), rcond=None)[0]
    found = np.clip(default + change[:2], 0.0, 0.2)
    return float(found[0]), float(found[1])


def _design(costs: KernelCosts, network: TimedNetwork, exponents: tuple[float, float]) -> list[float]:
    """Costs and smallness per group in context, numbers of kernels per group, one."""
    sums, small, counts = ([0.0] * len(GROUPS) for _ in range(3))
    for kernel in network.kernels:
        index = GROUPS.index(group_of(kernel))
        cost_ms = costs.latency_ms(kernel)
        sums[index] += cost_ms
        small[index] += smallness_ms(cost_ms)
        counts[index] += 1
    factor = context_factor(
        largest_tensor_mb(network.kernels),
        sum(sums),
        tensor_exponent=exponents[0],
        total_exponent=exponents[1],
    )
    return [*(value * factor for value in (*sums, *small)), *counts, 1.0]


def _solve_groups(matrix: Array, measured: Array) -> Array:
    """Common scale, cost per kernel and constant; then how each group differs, ridge against the spreads."""
    num_groups = len(GROUPS)
    common = np.column_stack(
        [
            matrix[:, :num_groups].sum(axis=1),
            matrix[:, 2 * num_groups : -1].sum(axis=1),
            matrix[:, -1],
        ]
    )
    scale, per_kernel, constant = _solve_relative(common, measured)
    base = np.repeat([scale, 0.0, per_kernel, constant], [num_groups, num_groups, num_groups, 1])
    spreads = np.repeat(GROUP_SPREADS, [num_groups, num_groups, num_groups, 1])
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


def _interval(matrix: Array, measured: Array) -> tuple[float, float]:
    """Factors on a prediction between which the share of networks lies, from folds that were left out.

    The kernels' rows stay in: the margin for that is what a network adds to a table of many.
    """
    logs = np.zeros(len(measured))
    folds = np.arange(len(measured)) % min(NUM_FOLDS, len(measured))
    for fold in range(int(folds.max()) + 1):
        rest = folds != fold
        predicted = matrix[~rest] @ _solve_groups(matrix[rest], measured[rest])
        logs[~rest] = np.log(measured[~rest] / np.maximum(predicted, 1e-9))
    half = float(np.quantile(np.abs(logs), INTERVAL_SHARE))
    half = max(half * (1 + 2 / len(measured)), MIN_INTERVAL)
    return float(np.exp(-half)), float(np.exp(half))
