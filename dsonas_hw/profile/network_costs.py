"""From the costs of single kernels to a network's latency: the formula of `fit.py`, applied.

    latency  = (constant + Σ_groups (scale · cost + per_kernel · kernels)) · exp(residual)
    residual = Σ_anchors weight · exp(−½ |place − anchor|²)

A place is the network's logarithms of cost, number of kernels and largest tensor: networks that are alike in
these share what the sum of their kernels misses (caches, address translation, memory).
Sums over kernels can be kept for parts of networks (`Part`) and added up, so that a search that meets the
same blocks again and again pays for each once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.profile.kernel_costs import FEATURES, Array, KernelCosts
from dsonas_hw.profile.rows import Anchor, CorrectionRow, KernelRow

SORT_PREFIX = "sort:"
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


REACH = 2.0
"""How far, in logarithms, networks tell about each other."""
Place = tuple[float, float, float]


def written_mb(kernel: Kernel) -> float:
    """What a kernel writes, in MB, four bytes an element."""
    return 4e-6 * prod(kernel.output)


@dataclass(frozen=True, slots=True)
class Part:
    """What some kernels contribute to a network; parts add up."""

    cost_ms: float = 0.0
    """Costs as in the table."""
    scaled_ms: float = 0.0
    """The same as corrected by each kernel's group."""
    fixed_ms: float = 0.0
    """Costs per kernel."""
    num_kernels: int = 0
    largest_mb: float = 0.0
    """The largest tensor written, at four bytes an element."""

    def __add__(self, other: Part) -> Part:
        return Part(
            self.cost_ms + other.cost_ms,
            self.scaled_ms + other.scaled_ms,
            self.fixed_ms + other.fixed_ms,
            self.num_kernels + other.num_kernels,
            max(self.largest_mb, other.largest_mb),
        )

    @property
    def place(self) -> Place:
        """Where such a network lies among others, in units of `REACH`."""
        return (
            math.log(max(self.cost_ms, 1e-6)) / REACH,
            math.log(max(self.num_kernels, 1)) / REACH,
            math.log(max(self.largest_mb, 1e-6)) / REACH,
        )


class NetworkCosts:
    """The correction of a table.

    Raises:
        KeyError: a number is missing.
    """

    def __init__(self, correction: CorrectionRow, rows: Iterable[KernelRow]) -> None:
        values = correction.values
        self.kernels = KernelCosts(_coefficients(values), rows)
        self._constant_ms = values["constant_ms"]
        self._scales = {group: values[f"scale:{group}"] for group in GROUPS}
        self._per_kernel_ms = {group: values[f"per_kernel_ms:{group}"] for group in GROUPS}
        self._residual = Residual(correction.anchors)
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
            if part.largest_mb > largest:
                largest = part.largest_mb
        return Part(cost, scaled, fixed, len(kernels), largest)

    def _one(self, kernel: Kernel) -> Part:
        group = group_of(kernel)
        cost_ms = self.kernels.latency_ms(kernel)
        scaled_ms = cost_ms * self._scales[group]
        return Part(cost_ms, scaled_ms, self._per_kernel_ms[group], 1, written_mb(kernel))

    def latency_ms(self, part: Part) -> float:
        """Latency of the network that consists of this part."""
        total_ms = max(part.scaled_ms + part.fixed_ms + self._constant_ms, 0.1 * part.scaled_ms, 1e-6)
        return total_ms * math.exp(self._residual.at(part.place))

    def share_ms(self, part: Part) -> float:
        """What a part adds to a small network; always positive."""
        return max(part.scaled_ms + part.fixed_ms, 0.1 * part.scaled_ms)


class Residual:
    """What sums of kernels miss, in logarithms, from the networks nearby; 0 far from all of them."""

    def __init__(self, anchors: Sequence[Anchor]) -> None:
        self._places = np.array([anchor[:3] for anchor in anchors], dtype=np.float64).reshape(-1, 3)
        self._weights = np.array([anchor[3] for anchor in anchors], dtype=np.float64)

    def at(self, place: Place) -> float:
        return float(similarity(np.array([place]), self._places)[0] @ self._weights)


def similarity(first: Array, second: Array) -> Array:
    """exp(−½ distance²) of places, (first, second)."""
    distance = np.square(first[:, None, :] - second[None, :, :]).sum(axis=2)
    return np.asarray(np.exp(-0.5 * distance))


def correction_values(
    coefficients: Mapping[str, Sequence[float]],
    *,
    scales: Mapping[str, float] | None = None,
    per_kernel_ms: Mapping[str, float] | None = None,
    constant_ms: float = 0.0,
    interval: tuple[float, float],
) -> dict[str, float]:
    """The numbers of a table's correction row; by default costs add up as they are.

    coefficients: per sort of kernel, in the order of `FEATURES`.
    interval: factors on a prediction between which 90 % of the measurements are expected.
    """
    values = {
        "constant_ms": constant_ms,
        "interval_low": interval[0],
        "interval_high": interval[1],
    }
    for group in GROUPS:
        values[f"scale:{group}"] = (scales or {}).get(group, 1.0)
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
