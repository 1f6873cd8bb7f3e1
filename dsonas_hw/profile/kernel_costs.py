"""From a table's rows to the cost of any kernel of the same sort: interpolation over channels and resolution.

    cost(kernel) = fit(kernel) · exp(local(kernel))
    fit          = Σ coefficient · feature            per sort of kernel, all coefficients ≥ 0
    local        = mean of log(row / fit) over the sort's rows, weighted by samples and nearness

A row that was timed often decides its own kernel; between rows its neighbours decide; far from all rows the
fit, which grows with the work, does. A sort of kernel without any row has no cost: the caller must say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from dsonas_hw.kernel.spec import Kernel, by
from dsonas_hw.profile.rows import KernelRow

Array = npt.NDArray[np.float64]

CACHE_BYTES = 1_200_000
"""About what a core's own cache keeps of a kernel's tensors; beyond, every byte costs more."""
FEATURES = ("kernel", "input", "elements_in", "elements_out", "weights", "flops", "taps", "spilled")
UNITS = {
    "elements_in": 1e-4,
    "elements_out": 1e-4,
    "weights": 1e-4,
    "flops": 1e-6,
    "taps": 1e-6,
    "spilled": 1e-5,
}
#: How far the residual of a row is carried: in ln(channels in), ln(channels out), ln(pixels), ln(inputs).
REACH = (0.25, 0.25, 0.4, 0.3)
MAX_SAMPLES = 20
"""A row is not trusted beyond this: its timings share a place in the network."""
REACH_OF_FIT = 4.0
"""A kernel that is so many times larger than all of its sort is not known."""
PRIOR_SAMPLES = 1.5
"""Weight of the fit against a row, in samples."""


def sort_of(kernel: Kernel) -> str:
    """Kernels of one sort differ in size only."""
    parts = [kernel.op]
    if kernel.function:
        parts.append(kernel.function)
    if kernel.family in ("conv", "pool"):
        parts.append(f"k{by(kernel.kernel_size)}")
        parts.append(f"s{by(kernel.stride)}")
        if set(kernel.dilation) != {1}:
            parts.append(f"d{by(kernel.dilation)}")
    if kernel.family == "conv" and kernel.groups > 1:
        parts.append("depthwise" if kernel.groups == kernel.inputs[0][1] else "grouped")
    if kernel.op == "mul" and len({*kernel.inputs}) > 1:
        parts.append("broadcast")
    return ".".join(parts) + "".join(f"+{name}" for name in kernel.epilogue)


def features(kernel: Kernel) -> tuple[float, ...]:
    """What the cost of a kernel may grow with; see `FEATURES`."""
    elements_in = sum(prod(shape) for shape in kernel.inputs)
    elements_out = prod(kernel.output)
    spilled = max(0, 4 * (elements_in + elements_out + kernel.num_weights) - CACHE_BYTES)
    flops, taps = kernel.flops, 0
    if kernel.op == "conv":
        taps = elements_out * (kernel.inputs[0][1] // kernel.groups)
    return (
        1.0,
        float(len(kernel.inputs) - 1),
        elements_in * UNITS["elements_in"],
        elements_out * UNITS["elements_out"],
        kernel.num_weights * UNITS["weights"],
        flops * UNITS["flops"],
        taps * UNITS["taps"],
        spilled * UNITS["spilled"],
    )


def place(kernel: Kernel) -> tuple[float, float, float, float]:
    """Where a kernel lies among its sort, in units of `REACH`."""
    shape, output = kernel.inputs[0], kernel.output
    pixels = prod(output[2:]) if len(output) > 2 else 1
    channels_in = shape[1] if len(shape) > 1 else 1
    channels_out = output[1] if len(output) > 1 else 1
    values = (channels_in, channels_out, pixels * output[0], len(kernel.inputs))
    return tuple(math.log(value) / reach for value, reach in zip(values, REACH, strict=True))  # type: ignore[return-value]


class KernelCosts:
    """Costs of single kernels from coefficients and rows."""

    def __init__(self, coefficients: Mapping[str, Sequence[float]], rows: Iterable[KernelRow]) -> None:
        self.coefficients = {sort: tuple(values) for sort, values in coefficients.items()}
        self._cache: dict[Kernel, float] = {}
        grouped: dict[str, list[KernelRow]] = {}
        for row in rows:
            sort = sort_of(row.kernel)
            if sort in self.coefficients:
                grouped.setdefault(sort, []).append(row)
        self._grouped = grouped
        self._largest = {
            sort: tuple(
                REACH_OF_FIT * size for size in np.max([_sizes(row.kernel) for row in members], axis=0)
            )
            for sort, members in grouped.items()
        }
        self._local: dict[str, tuple[Array, Array, Array]] = {}

    def knows(self, kernel: Kernel) -> bool:
        """Whether kernels of its sort were measured, and not only ones that are much smaller."""
        largest = self._largest.get(sort_of(kernel))
        if largest is None:
            return False
        return all(size <= limit for size, limit in zip(_sizes(kernel), largest, strict=True))

    def latency_ms(self, kernel: Kernel) -> float:
        """Cost of a kernel.

        Raises:
            KeyError: no kernel of its sort was measured.
        """
        found = self._cache.get(kernel)
        if found is None:
            sort = sort_of(kernel)
            base = self._fit(self.coefficients[sort], kernel)
            found = self._cache[kernel] = base * math.exp(self._residual(sort, kernel))
        return found

    @staticmethod
    def _fit(coefficients: Sequence[float], kernel: Kernel) -> float:
        total = sum(c * x for c, x in zip(coefficients, features(kernel), strict=True))
        return max(total, 1e-6)

    def _residual(self, sort: str, kernel: Kernel) -> float:
        if sort not in self._grouped:
            return 0.0
        if sort not in self._local:
            rows = self._grouped[sort]
            base = self.coefficients[sort]
            self._local[sort] = (
                np.array([place(row.kernel) for row in rows]),
                np.array([math.log(row.latency_ms / self._fit(base, row.kernel)) for row in rows]),
                np.array([float(min(row.num_samples, MAX_SAMPLES)) for row in rows]),
            )
        places, residuals, samples = self._local[sort]
        distance = np.square(places - np.array(place(kernel))).sum(axis=1)
        weights = samples * np.exp(-0.5 * distance)
        return float(weights @ residuals / (weights.sum() + PRIOR_SAMPLES))


def _sizes(kernel: Kernel) -> tuple[int, int, int]:
    """Elements moved, weights, flops."""
    moved = sum(prod(shape) for shape in kernel.inputs) + prod(kernel.output)
    return moved, kernel.num_weights, kernel.flops


def fit_coefficients(rows: Iterable[KernelRow]) -> dict[str, tuple[float, ...]]:
    """Coefficients of every sort of kernel, by non-negative least squares of relative errors."""
    grouped: dict[str, list[KernelRow]] = {}
    for row in rows:
        grouped.setdefault(sort_of(row.kernel), []).append(row)
    found = {}
    for sort, members in grouped.items():
        matrix = np.array([features(row.kernel) for row in members])
        target = np.array([row.latency_ms for row in members])
        weights = np.sqrt([min(row.num_samples, MAX_SAMPLES) for row in members]) / target
        solution = solve_non_negative(matrix * weights[:, None], target * weights)
        found[sort] = tuple(float(value) for value in solution)
    return found


def solve_non_negative(matrix: Array, target: Array, *, num_sweeps: int = 500) -> Array:
    """argmin |matrix·x − target|² with x ≥ 0, by coordinate descent on the normal equations."""
    gram, right = matrix.T @ matrix, matrix.T @ target
    diagonal = np.diag(gram)
    solution = np.zeros(len(right))
    for _ in range(num_sweeps):
        largest = 0.0
        for index in np.flatnonzero(diagonal > 0):
            step = (right[index] - gram[index] @ solution) / diagonal[index]
            new = max(0.0, solution[index] + step)
            largest = max(largest, abs(new - solution[index]) * math.sqrt(diagonal[index]))
            solution[index] = new
        if largest <= 1e-9 * math.sqrt(float(target @ target) + 1e-300):
            break
    return solution
