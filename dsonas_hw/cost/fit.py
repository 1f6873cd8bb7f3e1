"""From the rows of a table to the numbers that predictions need, written back as its correction row.

    value = (constant + Σ_groups (scale · cost + per_kernel · kernels)) · exp(residual)

Kernel costs come from timings in whole networks (`kernel_costs`). A scale and a cost per kernel for every
group of kernels, and one constant, are fitted on the same networks as they ran without the profiler; groups
are drawn towards common values, as far as the networks do not tell them apart. What is left over is alike
in networks that are alike: a Gaussian process over their cost, number of kernels and largest tensor carries
it to the networks between (`network_costs.Residual`).

An energy is measured of whole networks only, since meters move ten times a second. It is fitted like a
latency, in units of the networks' median power: a group's scale times that power is what its kernels draw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsonas_hw.budget import Metric
from dsonas_hw.cost.kernel_costs import Array, Category, CategoryFit, KernelCosts, similarity
from dsonas_hw.cost.kernel_fit import fit_categories
from dsonas_hw.cost.network_costs import (
    GROUPS,
    Part,
    correction_values,
    group_of,
    local_means,
    widening,
    written_mb,
)
from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.table.rows import Anchor, CorrectionRow, KernelRow

INTERVAL_FRACTION = 0.9
"""Fraction of the networks that the interval is made to cover."""
MIN_NETWORKS = 4
NUM_FOLDS = 5
Deviations = tuple[float, float, float]
GROUP_DEVIATIONS: dict[Metric, Deviations] = {
    "latency": (0.15, 0.0008, 0.01), "energy": (0.5, 0.0008, 0.01),
}  # fmt: skip
"""How far a group's scale, its cost per kernel (ms) and the constant (ms) may lie from the common ones. The
power of a group may be half or twice another's; a latency's scale only corrects what the kernels took."""
RIDGE = 1e-3
"""Variance of the networks' relative errors that the groups need not explain."""
RESIDUAL_DEVIATION = 0.05
RESIDUAL_NOISE = 0.02
"""Standard deviations, in logarithms: of what networks nearby share, and of what is each one's own."""


@dataclass(frozen=True, kw_only=True)
class TimedNetwork:
    """A whole network: the kernels that ran, and what it took."""

    kernels: Sequence[Kernel]
    latency_ms: float
    relative_standard_error: float = 0.0
    """Of that latency."""
    energy_mj: float | None = None
    """None: not measured."""


def fit_corrections(rows: Sequence[KernelRow], networks: Sequence[TimedNetwork]) -> list[CorrectionRow]:
    """Coefficients of every category of kernel, and the numbers of the formula above, for every metric.

    Raises:
        ProfileError: too few networks were timed.
    """
    if len(networks) < MIN_NETWORKS:
        raise ProfileError(
            f"{len(networks)} networks were timed; a fit needs {MIN_NETWORKS}: profile a preset too"
        )
    fits = fit_categories(rows)
    latencies_ms = np.array([network.latency_ms for network in networks])
    found = [_fit_metric("latency", fits, rows, networks, latencies_ms)]
    metered = [network for network in networks if network.energy_mj is not None]
    if len(metered) >= MIN_NETWORKS:
        energies_mj = np.array([network.energy_mj for network in metered], dtype=float)
        found.append(_fit_metric("energy", fits, rows, metered, energies_mj))
    return found


def _fit_metric(
    metric: Metric,
    fits: dict[Category, CategoryFit],
    rows: Sequence[KernelRow],
    networks: Sequence[TimedNetwork],
    measured: Array,
) -> CorrectionRow:
    """measured: of each network, in the metric's unit."""
    counts = _count_kernels(networks)
    design = _design(KernelCosts(fits, rows), counts)
    unit = 1.0 if metric == "latency" else float(np.median(measured / design.costs_ms))
    measured = measured / unit
    deviations = GROUP_DEVIATIONS[metric]
    solution, weights = _solve(design, measured, deviations)
    timing_errors = np.array([network.relative_standard_error for network in networks])
    half_widths, usual_deviation = _half_widths(
        fits, rows, counts, measured, deviations, timing_errors if metric == "latency" else 0 * timing_errors
    )
    solution = solution * unit
    values = correction_values(
        fits if metric == "latency" else {},
        metric=metric,
        scales=dict(zip(GROUPS, map(float, solution), strict=False)),
        per_kernel=dict(zip(GROUPS, map(float, solution[len(GROUPS) :]), strict=False)),
        constant=float(solution[-1]),
        interval=float(half_widths.mean()),
        usual_deviation=usual_deviation,
    )
    anchors: list[Anchor] = [
        (float(cost), float(kernels), float(largest), float(weight), float(half_width))
        for (cost, kernels, largest), weight, half_width in zip(
            design.vectors, weights, half_widths, strict=True
        )
    ]
    values |= {"num_networks": float(len(networks))}
    return CorrectionRow(metric=metric, values=values, anchors=tuple(anchors))


@dataclass(frozen=True, kw_only=True)
class _Design:
    """What is known of every network before it is timed."""

    matrix: Array
    """Costs per group, numbers of kernels per group, one; shape (networks, 2 · groups + 1)."""
    vectors: Array
    """Feature vectors, shape (networks, 3)."""
    deviations: Array
    """Mean standard deviation of the kernels' logarithms."""

    @property
    def costs_ms(self) -> Array:
        """Sum of the kernels' latencies of every network."""
        return np.asarray(self.matrix[:, : len(GROUPS)].sum(axis=1))

    def of(self, chosen: Array) -> _Design:
        """The same of some of the networks."""
        return _Design(
            matrix=self.matrix[chosen], vectors=self.vectors[chosen], deviations=self.deviations[chosen]
        )


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """How often every kernel runs in every network."""

    kernels: list[Kernel]
    counts: Array
    """Shape (networks, kernels)."""
    groups: Array
    """One column per group, 1 where a kernel belongs to it; shape (kernels, groups)."""
    largest_mb: list[float]
    """What the network's kernels write at most."""


def _count_kernels(networks: Sequence[TimedNetwork]) -> _Counts:
    numbers: dict[Kernel, int] = {}
    found = [Counter(network.kernels) for network in networks]
    for network in found:
        for kernel in network:
            numbers.setdefault(kernel, len(numbers))
    counts = np.zeros((len(networks), len(numbers)))
    for index, network in enumerate(found):
        for kernel, count in network.items():
            counts[index, numbers[kernel]] = count
    groups = np.zeros((len(numbers), len(GROUPS)))
    for kernel, number in numbers.items():
        groups[number, GROUPS.index(group_of(kernel))] = 1.0
    largest_mb = [max(written_mb(kernel) for kernel in network) for network in found]
    return _Counts(kernels=list(numbers), counts=counts, groups=groups, largest_mb=largest_mb)


def _design(costs: KernelCosts, of: _Counts) -> _Design:
    costs.add(of.kernels)
    found = [costs.cost(kernel) for kernel in of.kernels]
    costs_ms = np.array([cost.latency_ms for cost in found])
    uncertain_ms = of.counts @ np.array([cost.latency_ms * cost.deviation for cost in found])
    sums, numbers = of.counts @ (costs_ms[:, None] * of.groups), of.counts @ of.groups
    parts = [
        Part(cost_ms=total, num_kernels=int(count), largest_mb=mb, uncertain_ms=uncertain)
        for total, count, mb, uncertain in zip(
            sums.sum(axis=1), numbers.sum(axis=1), of.largest_mb, uncertain_ms, strict=True
        )
    ]
    return _Design(
        matrix=np.column_stack([sums, numbers, np.ones(len(sums))]),
        vectors=np.array([part.vector for part in parts]),
        deviations=np.array([part.deviation for part in parts]),
    )


def _solve(design: _Design, measured: Array, deviations: Deviations) -> tuple[Array, Array]:
    """The groups' numbers, and the weights of the residual."""
    solution = _solve_groups(design.matrix, measured, deviations)
    residuals = np.log(measured / _positive(design.matrix @ solution))
    return solution, _solve_residual(design.vectors, residuals)


def _solve_groups(matrix: Array, measured: Array, deviations: Deviations) -> Array:
    """Common scale, cost per kernel and constant; then how each group differs, ridge against the spreads."""
    num_groups = len(GROUPS)
    common = np.column_stack(
        [matrix[:, :num_groups].sum(axis=1), matrix[:, num_groups:-1].sum(axis=1), matrix[:, -1]]
    )
    scale, per_kernel, constant = _solve_relative(common, measured)
    base = np.repeat([scale, per_kernel, constant], [num_groups, num_groups, 1])
    spreads = np.repeat(deviations, [num_groups, num_groups, 1])
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


def _solve_residual(vectors: Array, logs: Array) -> Array:
    """Weights of a Gaussian process; outliers are clipped at three standard deviations."""
    logs = np.clip(logs, -3 * RESIDUAL_DEVIATION, 3 * RESIDUAL_DEVIATION)
    covariance = RESIDUAL_DEVIATION**2 * similarity(vectors, vectors)
    weights = np.linalg.solve(covariance + RESIDUAL_NOISE**2 * np.eye(len(vectors)), logs)
    return np.asarray(RESIDUAL_DEVIATION**2 * weights)


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


def _half_widths(
    fits: dict[Category, CategoryFit],
    rows: Sequence[KernelRow],
    counts: _Counts,
    measured: Array,
    deviations: Deviations,
    timing_errors: Array,
) -> tuple[Array, float]:
    """Half widths of the interval beside every network, in logarithms, and the kernels' usual deviation.

    A fold of networks is held out together with the rows of the kernels that no other network has, because a
    network that is predicted later brings kernels of its own. What its own timing is likely to have erred by
    is no error of its prediction.
    """
    folds = np.arange(len(measured)) % min(NUM_FOLDS, len(measured))
    logs, uncertain = np.zeros(len(measured)), np.ones(len(measured))
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        used = counts.counts[~out].sum(axis=0) > 0
        own = {kernel for kernel, elsewhere in zip(counts.kernels, used, strict=True) if not elsewhere}
        kept = [row for row in rows if row.kernel not in own]
        if not kept:
            continue
        design = _design(KernelCosts(fit_categories(kept, like=fits), kept), counts)
        solution, weights = _solve(design.of(~out), measured[~out], deviations)
        near = similarity(design.vectors[out], design.vectors[~out])
        predicted = _positive(design.matrix[out] @ solution) * np.exp(near @ weights)
        logs[out] = np.log(measured[out] / predicted)
        uncertain[out] = design.deviations[out]
    usual = float(uncertain.mean())
    errors = np.sqrt(np.maximum(logs**2 - timing_errors**2, 0.0)) / widening(uncertain, usual)
    return _calibrate_half_widths(errors, design.vectors), usual


def _calibrate_half_widths(errors: Array, vectors: Array) -> Array:
    """Errors of held-out networks, times what makes the local means of these hold 90 % of them.

    A network's own error has no say in its local mean.
    """
    near = similarity(vectors, vectors) - np.eye(len(vectors))
    means = local_means(near, errors, float(errors.mean()))
    factor = float(np.quantile(errors / np.maximum(means, 1e-9), INTERVAL_FRACTION))
    return np.asarray(errors * factor * (1 + 2 / len(errors)))  # a quantile of few comes out too small


def _positive(values: Array) -> Array:
    return np.asarray(np.maximum(values, 1e-6))
