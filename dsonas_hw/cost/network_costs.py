"""From the costs of single kernels to a network's latency or energy: the formula of `fit.py`, applied.

    value    = (constant + Σ_groups (scale · cost + per_kernel · kernels)) · exp(residual)
    residual = Σ_points weight · exp(−½ |vector − point|²)
    interval = value · exp(± half width · widening)

A kernel's cost is its latency, which is known kernel by kernel; so the scale of an energy is a power (W).

A network's feature vector holds the logarithms of its cost, number of kernels and largest tensor: networks
that are alike in these share what the sum of their kernels misses (caches, address translation, memory).
So the half width of the interval is theirs, too; it grows where the kernels' own costs are more uncertain
than usual (`kernel_costs.KernelCost.deviation`). Sums over kernels can be kept for parts of networks (`Part`)
and added up, so that a search that meets the same blocks again and again pays for each once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from dsonas_hw.budget import QUANTITIES, Metric
from dsonas_hw.cost.kernel_costs import (
    DIMENSIONS,
    FEATURES,
    Array,
    Category,
    CategoryFit,
    KernelCosts,
    similarity,
)
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.table.rows import Anchor, CorrectionRow, KernelRow

KERNEL_PREFIX = "kernel:"


def unit_of(metric: Metric) -> str:
    """The unit that ends the names of a metric's numbers: `ms`, `mj`."""
    return QUANTITIES[metric].rpartition("_")[2]


GROUPS = ("pointwise", "conv", "depthwise", "scale", "pool", "sum", "concat", "copy", "elementwise", "other")


def group_of(kernel: Kernel) -> str:
    """Kernels that are corrected alike."""
    if kernel.op == "conv":
        if kernel.groups > 1:
            return "scale" if kernel.kernel_size == (1, 1) else "depthwise"
        return "pointwise" if kernel.kernel_size == (1, 1) else "conv"
    if kernel.kind == "pool":
        return "pool"
    if kernel.op in ("sum", "concat", "copy"):
        return kernel.op
    if kernel.op in ("batchnorm", "unary", "mul"):
        return "elementwise"
    return "other"


MIN_LENGTH_SCALE = 1e-3
USUAL_WEIGHT = 5.0
"""How many networks the usual half width counts for beside those nearby."""
MIN_HALF_WIDTH = 0.02
LENGTH_SCALE = 2.0
"""How far, in logarithms, networks tell about each other."""
FeatureVector = tuple[float, float, float]


def written_mb(kernel: Kernel) -> float:
    """What a kernel writes, in MB, four bytes an element."""
    return 4e-6 * prod(kernel.output)


@dataclass(frozen=True, slots=True)
class Part:
    """What some kernels contribute to a network; parts add up."""

    cost_ms: float = 0.0
    """Latencies as in the table."""
    scaled: float = 0.0
    """Each times the scale of its kernel's group, in the metric's unit."""
    fixed: float = 0.0
    """What each kernel adds whatever its latency, in that unit."""
    num_kernels: int = 0
    largest_mb: float = 0.0
    """The largest tensor written, at four bytes an element."""
    uncertain_ms: float = 0.0
    """Costs, each times the standard deviation of its logarithm."""

    def __add__(self, other: Part) -> Part:
        return Part(
            self.cost_ms + other.cost_ms,
            self.scaled + other.scaled,
            self.fixed + other.fixed,
            self.num_kernels + other.num_kernels,
            max(self.largest_mb, other.largest_mb),
            self.uncertain_ms + other.uncertain_ms,
        )

    @property
    def vector(self) -> FeatureVector:
        """Where such a network lies among others, in units of `LENGTH_SCALE`."""
        return (
            math.log(max(self.cost_ms, 1e-6)) / LENGTH_SCALE,
            math.log(max(self.num_kernels, 1)) / LENGTH_SCALE,
            math.log(max(self.largest_mb, 1e-6)) / LENGTH_SCALE,
        )

    @property
    def deviation(self) -> float:
        """Mean standard deviation of the kernels' logarithms, weighted by their costs."""
        return self.uncertain_ms / self.cost_ms if self.cost_ms > 0 else 0.0


def kernel_costs(latency: CorrectionRow, rows: Iterable[KernelRow]) -> KernelCosts:
    """Return the kernels' latencies; their coefficients stand in the latency's correction."""
    return KernelCosts(_category_fits(latency.values), rows)


class NetworkCosts:
    """A table's correction for one metric.

    Raises:
        KeyError: a number is missing.
    """

    def __init__(self, correction: CorrectionRow, kernels: KernelCosts) -> None:
        values, unit = correction.values, unit_of(correction.metric)
        self._kernels = kernels
        self._constant = values[f"constant_{unit}"]
        self._scales = {group: values[f"scale:{group}"] for group in GROUPS}
        self._per_kernel = {group: values[f"per_kernel_{unit}:{group}"] for group in GROUPS}
        self._residual = Residual(correction.anchors)
        self._usual_half_width = values["interval"]
        self._usual_deviation = values["usual_deviation"]
        self._known: dict[Kernel, Part] = {}

    def part(self, kernels: Sequence[Kernel]) -> Part:
        """Return the sums over some kernels.

        Raises:
            KeyError: the table has no rows at all.
        """
        known = self._known
        cost = scaled = fixed = largest = uncertain = 0.0
        for kernel in kernels:
            part = known.get(kernel)
            if part is None:
                part = known[kernel] = self._one(kernel)
            cost += part.cost_ms
            scaled += part.scaled
            fixed += part.fixed
            uncertain += part.uncertain_ms
            if part.largest_mb > largest:
                largest = part.largest_mb
        return Part(cost, scaled, fixed, len(kernels), largest, uncertain)

    def _one(self, kernel: Kernel) -> Part:
        group = group_of(kernel)
        cost = self._kernels.cost(kernel)
        return Part(
            cost.latency_ms,
            cost.latency_ms * self._scales[group],
            self._per_kernel[group],
            1,
            written_mb(kernel),
            cost.latency_ms * cost.deviation,
        )

    def value(self, part: Part) -> float:
        """Return the metric of the network that consists of this part."""
        total = max(part.scaled + part.fixed + self._constant, 0.1 * part.scaled, 1e-6)
        return total * math.exp(self._residual.at(part.vector))

    def interval(self, part: Part) -> tuple[float, float]:
        """Return the factors on that value between which 90 % of the measurements are expected."""
        half_width = self._residual.half_width_at(part.vector, self._usual_half_width)
        half_width *= float(widening(np.array(part.deviation), self._usual_deviation))
        return math.exp(-half_width), math.exp(half_width)

    def share(self, part: Part) -> float:
        """What a part adds to a small network; always positive."""
        return max(part.scaled + part.fixed, 0.1 * part.scaled)


class Residual:
    """What sums of kernels miss, in logarithms, from the networks nearby; 0 far from all of them."""

    def __init__(self, anchors: Sequence[Anchor]) -> None:
        rows = np.array(anchors, dtype=np.float64).reshape(-1, 5)
        self._points, self._weights, self._half_widths = rows[:, :3], rows[:, 3], rows[:, 4]

    def at(self, vector: FeatureVector) -> float:
        return float(similarity(np.array([vector]), self._points)[0] @ self._weights)

    def half_width_at(self, vector: FeatureVector, usual: float) -> float:
        """Of the interval, from the networks nearby; the usual one far from all of them."""
        near = similarity(np.array([vector]), self._points)
        return max(float(local_means(near, self._half_widths, usual)[0]), MIN_HALF_WIDTH)


def local_means(near: Array, values: Array, usual: float) -> Array:
    """Means of values, weighted by how near each is (one row per mean), drawn towards the usual one."""
    return np.asarray((near @ values + USUAL_WEIGHT * usual) / (near.sum(axis=1) + USUAL_WEIGHT))


def widening(deviations: Array, usual: float) -> Array:
    """How much wider intervals are for networks whose kernels are less certain than usual; 0: never."""
    return np.maximum(deviations / usual, 1.0) if usual > 0 else np.ones_like(deviations)


def correction_values(
    fits: Mapping[Category, CategoryFit],
    *,
    metric: Metric = "latency",
    scales: Mapping[str, float] | None = None,
    per_kernel: Mapping[str, float] | None = None,
    constant: float = 0.0,
    interval: float,
    usual_deviation: float = 0.0,
) -> dict[str, float]:
    """Return the numbers of a table's correction row; by default latencies add up as they are.

    scales, per_kernel: by group; per_kernel and constant in the metric's unit.
    interval: half the width, in logarithms, of the interval that 90 % of the measurements are expected in.
    usual_deviation: the kernels' mean standard deviation up to which it is not wider.
    """
    unit = unit_of(metric)
    values = {f"constant_{unit}": constant, "interval": interval, "usual_deviation": usual_deviation}
    for group in GROUPS:
        values[f"scale:{group}"] = (scales or {}).get(group, 1.0)
        values[f"per_kernel_{unit}:{group}"] = (per_kernel or {}).get(group, 0.0)
    for category, fit in sorted(fits.items()):
        values |= {f"{KERNEL_PREFIX}{'/'.join(category)}:{name}": value for name, value in _numbers(fit)}
    return values


_NAMES = (
    *(f"coefficient {feature}" for feature in FEATURES),
    *(f"length scale {dimension}" for dimension in DIMENSIONS),
    "deviation",
    "noise",
)


def _numbers(fit: CategoryFit) -> Iterable[tuple[str, float]]:
    """The numbers of a category by name; those that are 0 are left out."""
    numbers = (*fit.coefficients, *fit.length_scales, fit.deviation, fit.noise)
    return [(name, number) for name, number in zip(_NAMES, numbers, strict=True) if number]


def _category_fits(values: Mapping[str, float]) -> dict[Category, CategoryFit]:
    """Categories from the flat names of a correction row."""
    found: dict[Category, dict[str, float]] = {}
    for key, value in values.items():
        if key.startswith(KERNEL_PREFIX):
            path, _, name = key.removeprefix(KERNEL_PREFIX).rpartition(":")
            found.setdefault(tuple(path.split("/")) if path else (), {})[name] = value
    fits = {}
    for category, numbers in found.items():
        ordered = [numbers.get(name, 0.0) for name in _NAMES]
        first, second = len(FEATURES), len(FEATURES) + len(DIMENSIONS)
        fits[category] = CategoryFit(
            coefficients=tuple(ordered[:first]),
            length_scales=tuple(max(scale, MIN_LENGTH_SCALE) for scale in ordered[first:second]),
            deviation=ordered[second],
            noise=ordered[second + 1],
        )
    return fits
