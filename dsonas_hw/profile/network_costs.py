"""From the costs of single kernels to a network's latency: the formula of `fit.py`, applied.

Sums over kernels can be kept for parts of networks (`Part`) and added up, so that a search that meets the
same blocks again and again pays for each once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.profile.context import context_factor, largest_tensor_mb
from dsonas_hw.profile.kernel_costs import FEATURES, KernelCosts
from dsonas_hw.profile.rows import KernelRow

SORT_PREFIX = "sort:"
SMALL_MS = 0.01
GROUPS = ("pointwise", "conv", "depthwise", "scale", "pool", "sum", "concat", "copy", "elementwise", "other")


def group_of(kernel: Kernel) -> str:
    """Kernels that are corrected alike."""
    if kernel.op == "conv":
        if kernel.groups > 1:
            return "scale" if kernel.kernel_size == (1, 1) else "depthwise"
        return "pointwise" if kernel.kernel_size == (1, 1) else "conv"
    if kernel.family == "pool":
        return "pool"
    if kernel.op in ("sum", "concat", "copy"):
        return kernel.op
    if kernel.op in ("batchnorm", "unary", "mul"):
        return "elementwise"
    return "other"


def smallness_ms(cost_ms: float) -> float:
    """The cost of a small kernel, fading out for large ones: those two are not corrected alike."""
    return cost_ms * math.exp(-cost_ms / SMALL_MS)


@dataclass(frozen=True, slots=True)
class Part:
    """What some kernels contribute to a network; parts add up."""

    cost_ms: float = 0.0
    """Costs as in the table."""
    scaled_ms: float = 0.0
    """The same as corrected by each kernel's group."""
    fixed_ms: float = 0.0
    """Costs per kernel."""
    largest_mb: float = 0.0

    def __add__(self, other: Part) -> Part:
        return Part(
            self.cost_ms + other.cost_ms,
            self.scaled_ms + other.scaled_ms,
            self.fixed_ms + other.fixed_ms,
            max(self.largest_mb, other.largest_mb),
        )


class NetworkCosts:
    """The correction of a table.

    Raises:
        KeyError: a number is missing.
    """

    def __init__(self, values: Mapping[str, float], rows: Iterable[KernelRow]) -> None:
        self.kernels = KernelCosts(_coefficients(values), rows)
        self._constant_ms = values["constant_ms"]
        self._tensor_exponent = values["tensor_exponent"]
        self._total_exponent = values["total_exponent"]
        self._scales = {group: values[f"scale:{group}"] for group in GROUPS}
        self._small = {group: values[f"small:{group}"] for group in GROUPS}
        self._per_kernel_ms = {group: values[f"per_kernel_ms:{group}"] for group in GROUPS}
        self.interval = values["interval_low"], values["interval_high"]
        self._known: dict[Kernel, Part] = {}

    def part(self, kernels: Sequence[Kernel]) -> Part:
        """The sums over some kernels.

        Raises:
            KeyError: a kernel of a sort that was never measured.
        """
        known = self._known
        cost = scaled = fixed = largest = 0.0
        for kernel in kernels:
            part = known.get(kernel)
            if part is None:
                part = known[kernel] = self._one(kernel)
            cost += part.cost_ms
            scaled += part.scaled_ms
            fixed += part.fixed_ms
            largest = max(largest, part.largest_mb)
        return Part(cost, scaled, fixed, largest)

    def _one(self, kernel: Kernel) -> Part:
        group = group_of(kernel)
        cost_ms = self.kernels.latency_ms(kernel)
        return Part(
            cost_ms,
            cost_ms * self._scales[group] + smallness_ms(cost_ms) * self._small[group],
            self._per_kernel_ms[group],
            largest_tensor_mb([kernel]),
        )

    def latency_ms(self, part: Part) -> float:
        """Latency of the network that consists of this part."""
        factor = context_factor(
            part.largest_mb,
            part.cost_ms,
            tensor_exponent=self._tensor_exponent,
            total_exponent=self._total_exponent,
        )
        return max(part.scaled_ms * factor + part.fixed_ms + self._constant_ms, 1e-6)

    def share_ms(self, part: Part) -> float:
        """What a part adds to a small network; always positive."""
        return max(part.scaled_ms + part.fixed_ms, 0.1 * part.scaled_ms)


def correction_values(
    coefficients: Mapping[str, Sequence[float]],
    *,
    scales: Mapping[str, float] | None = None,
    small: Mapping[str, float] | None = None,
    per_kernel_ms: Mapping[str, float] | None = None,
    constant_ms: float = 0.0,
    tensor_exponent: float = 0.0,
    total_exponent: float = 0.0,
    interval: tuple[float, float],
) -> dict[str, float]:
    """The numbers of a table's correction row; by default costs add up as they are.

    coefficients: per sort of kernel, in the order of `FEATURES`.
    interval: factors on a prediction between which 90 % of the measurements are expected.
    """
    values = {
        "constant_ms": constant_ms,
        "tensor_exponent": tensor_exponent,
        "total_exponent": total_exponent,
        "interval_low": interval[0],
        "interval_high": interval[1],
    }
    for group in GROUPS:
        values[f"scale:{group}"] = (scales or {}).get(group, 1.0)
        values[f"small:{group}"] = (small or {}).get(group, 0.0)
        values[f"per_kernel_ms:{group}"] = (per_kernel_ms or {}).get(group, 0.0)
    for sort, numbers in sorted(coefficients.items()):
        for feature, value in zip(FEATURES, numbers, strict=True):
            if value:
                values[f"{SORT_PREFIX}{sort}/{feature}"] = value
    return values


def _coefficients(values: Mapping[str, float]) -> dict[str, tuple[float, ...]]:
    """Sort → coefficients from the flat names of a correction row."""
    found: dict[str, list[float]] = {}
    for name, value in values.items():
        if name.startswith(SORT_PREFIX):
            sort, _, feature = name.removeprefix(SORT_PREFIX).rpartition("/")
            if feature in FEATURES:
                found.setdefault(sort, [0.0] * len(FEATURES))[FEATURES.index(feature)] = value
    return {sort: tuple(coefficients) for sort, coefficients in found.items()}
