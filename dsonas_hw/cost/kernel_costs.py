"""The cost of one kernel inside a network, from the rows of a table and the numbers fitted on them.

    cost = base · exp(residual)
    base     = Σ coefficient · feature                 of the kernel's category, every coefficient ≥ 0
    residual = Gaussian process over the category's rows, in logarithms; 0 far from all of them

Kernels of one category differ in size only, or in little (kernel size, stride, activation). A category is a
path from general to special, e.g. conv/depthwise/blocked: a kernel of a category that was never measured
costs what the base of the nearest ancestor says. Every cost has a standard deviation in logarithms: small
beside rows, that of the category between them, larger beyond the largest row, larger still where only an
ancestor answers.

`kernel_fit` makes the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import numpy.typing as npt

from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.table.rows import KernelRow

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
DIMENSIONS = ("channels_in", "channels_out", "pixels", "window", "stride", "dilation", "inputs", "activation")
"""Of the space in which rows are near each other; logarithms, but for the last, which is 0 or 1."""
MAX_SAMPLES = 20
"""A row is not trusted beyond this: its timings come from few networks."""
KNOWN_EXCESS = math.log(4)
"""A kernel that exceeds every row of its category by more than this, in logarithms, is not known."""
EXCESS_DEVIATION = 0.25
"""Standard deviation that a cost gains per unit of excess."""
ANCESTOR_DEVIATION = 0.5
"""The least standard deviation where an ancestor of the category answers."""
CHEAP_ACTIVATIONS = frozenset({"relu", "add", "bn"})
CONTEXT_NOISE = 0.5
"""What a kernel takes differs from network to network by this fraction of one timing's standard deviation."""
LEAST_MS = 1e-6

Category = tuple[str, ...]


def category_of(kernel: Kernel) -> Category:
    """Return the kernel's category, from general to special."""
    own = (kernel.function,) if kernel.function else ()
    match kernel.op:
        case "conv":
            layout = "volume" if len(kernel.kernel_size) > 2 else "plain"
            return ("conv", _geometry(kernel), kernel.function or layout)
        case "maxpool" | "avgpool" | "global_avgpool" | "global_maxpool":
            return ("pool", kernel.op, kernel.function or "plain")
        case "gemm" | "matmul":
            return ("product", kernel.op if len(kernel.inputs) == 1 else "two_inputs", *own)
        case "softmax":
            return ("other", kernel.op, *own)
        case "sum" | "mul" | "sub" | "div":
            return ("elementwise", kernel.op, "broadcast" if len({*kernel.inputs}) > 1 else "equal")
        case "unary" | "copy":
            return (kernel.op, kernel.function)
        case "concat":
            return ("copy", "concat")
        case "rnn":
            return ("recurrent", kernel.function)
    return ("other", kernel.op)


def _geometry(kernel: Kernel) -> str:
    is_pointwise = set(kernel.kernel_size) == {1}
    if kernel.groups == 1:
        return "pointwise" if is_pointwise else "dense"
    if kernel.groups != kernel.inputs[0][1]:
        return "grouped"
    return "scale" if is_pointwise else "depthwise"


def ancestors(category: Category) -> Iterator[Category]:
    """Yield the categories that hold this one, the nearest first, the one of all kernels last."""
    for length in range(len(category) - 1, -1, -1):
        yield category[:length]


@lru_cache(maxsize=1 << 16)
def features(kernel: Kernel) -> tuple[float, ...]:
    """Return what the cost of a kernel may grow with; see `FEATURES`."""
    elements_in = sum(prod(shape) for shape in kernel.inputs)
    elements_out = prod(kernel.output)
    spilled = max(0, 4 * (elements_in + elements_out + kernel.num_weights) - CACHE_BYTES)
    taps = elements_out * (kernel.inputs[0][1] // kernel.groups) if kernel.op == "conv" else 0
    return (
        1.0,
        float(len(kernel.inputs) - 1),
        elements_in * UNITS["elements_in"],
        elements_out * UNITS["elements_out"],
        kernel.num_weights * UNITS["weights"],
        kernel.flops * UNITS["flops"],
        taps * UNITS["taps"],
        spilled * UNITS["spilled"],
    )


@lru_cache(maxsize=1 << 16)
def coordinates(kernel: Kernel) -> tuple[float, ...]:
    """Return where a kernel lies among its category; see `DIMENSIONS`."""
    shape, output = kernel.inputs[0], kernel.output
    if kernel.kind in ("gemm", "recurrent"):
        channels_in, channels_out, pixels = shape[-1], output[-1], prod(output[:-1])
    else:
        channels_in = (shape[1] if len(shape) > 1 else 1) // kernel.groups
        channels_out = output[1] if len(output) > 1 else 1
        pixels = prod(output) // channels_out
    return (
        math.log(max(channels_in, 1)),
        math.log(channels_out),
        math.log(pixels),
        math.log(prod(kernel.kernel_size)),
        math.log(max(kernel.stride)),
        math.log(max(kernel.dilation)),
        math.log(max(len(kernel.inputs), 1)),
        0.0 if CHEAP_ACTIVATIONS.issuperset(kernel.epilogue) else 1.0,
    )


def similarity(first: Array, second: Array) -> Array:
    """Return exp(−½ distance²) of points, shapes (n, d) and (m, d) → (n, m)."""
    squares = np.square(first).sum(axis=1)[:, None] + np.square(second).sum(axis=1)[None, :]
    return np.asarray(np.exp(-0.5 * np.maximum(squares - 2 * first @ second.T, 0.0)))


def row_noise(row: KernelRow, noise: float) -> float:
    """Return the variance of a row's logarithm: few samples, and a clock of whole microseconds."""
    resolution = 0.0003 / row.latency_ms
    return noise**2 * (0.25 + 1.0 / min(row.num_samples, MAX_SAMPLES)) + resolution**2


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryFit:
    """The numbers of one category."""

    coefficients: tuple[float, ...]
    """In the order of `FEATURES`."""
    length_scales: tuple[float, ...] = (1.0,) * len(DIMENSIONS)
    deviation: float = 0.0
    """Standard deviation of the logarithms around the base."""
    noise: float = 0.05
    """Standard deviation of one timing, in logarithms."""

    def bases_ms(self, kernels: Sequence[Kernel]) -> Array:
        """Return the kernels' costs without the residual."""
        matrix = np.array([features(kernel) for kernel in kernels])
        return np.asarray(np.maximum(matrix @ np.array(self.coefficients), LEAST_MS))


@dataclass(frozen=True, slots=True)
class KernelCost:
    """What a kernel costs in a network, and the standard deviation of its logarithm."""

    latency_ms: float
    deviation: float


class KernelCosts:
    """Costs of single kernels from fits and rows."""

    def __init__(self, fits: Mapping[Category, CategoryFit], rows: Iterable[KernelRow]) -> None:
        """Keep the rows; what they imply is computed category by category, when it is asked for."""
        self.fits = dict(fits)
        self._rows: dict[Category, list[KernelRow]] = {}
        for row in rows:
            self._rows.setdefault(category_of(row.kernel), []).append(row)
        self._residuals: dict[Category, _Residual] = {}
        self._cache: dict[Kernel, KernelCost] = {}

    def knows(self, kernel: Kernel) -> bool:
        """Whether kernels of its category were measured, and not only ones that are much smaller."""
        category = category_of(kernel)
        if category not in self._rows or category not in self.fits:
            return False
        return bool(self._residual(category).excess([kernel])[0] <= KNOWN_EXCESS)

    def latency_ms(self, kernel: Kernel) -> float:
        """Return the cost of a kernel.

        Raises:
            KeyError: the table has no rows at all.
        """
        return self.cost(kernel).latency_ms

    def cost(self, kernel: Kernel) -> KernelCost:
        """Return the cost of a kernel and how certain it is.

        Raises:
            KeyError: the table has no rows at all.
        """
        if kernel not in self._cache:
            self.add([kernel])
        return self._cache[kernel]

    def add(self, kernels: Iterable[Kernel]) -> None:
        """Compute the costs of many kernels at once, for later calls of `cost`.

        Raises:
            KeyError: the table has no rows at all.
        """
        grouped: dict[Category, list[Kernel]] = {}
        for kernel in dict.fromkeys(kernels):
            if kernel not in self._cache:
                grouped.setdefault(category_of(kernel), []).append(kernel)
        for category, members in grouped.items():
            self._cache.update(zip(members, self._costs(category, members), strict=True))

    def _costs(self, category: Category, kernels: list[Kernel]) -> list[KernelCost]:
        if category in self.fits and category in self._rows:
            return self._residual(category).costs(kernels)
        for ancestor in ancestors(category):
            if (nearest := self.fits.get(ancestor)) is not None:
                deviation = max(nearest.deviation, ANCESTOR_DEVIATION)
                return [KernelCost(float(base_ms), deviation) for base_ms in nearest.bases_ms(kernels)]
        raise KeyError(kernels[0].key)

    def _residual(self, category: Category) -> _Residual:
        found = self._residuals.get(category)
        if found is None:
            found = self._residuals[category] = _Residual(self.fits[category], self._rows[category])
        return found


class _Residual:
    """The Gaussian process of one category."""

    def __init__(self, fit: CategoryFit, rows: list[KernelRow]) -> None:
        self._fit = fit
        self._scales = np.array(fit.length_scales)
        self._variance = fit.deviation**2
        kernels = [row.kernel for row in rows]
        self._points = np.array([coordinates(kernel) for kernel in kernels]) / self._scales
        logs = np.log(np.array([row.latency_ms for row in rows]) / fit.bases_ms(kernels))
        noise = np.diag([row_noise(row, fit.noise) for row in rows])
        covariance = self._variance * similarity(self._points, self._points) + noise
        self._inverse = np.linalg.inv(np.linalg.cholesky(covariance))
        self._weights = self._inverse.T @ (self._inverse @ logs)
        self._largest = np.log(np.max([_sizes(kernel) for kernel in kernels], axis=0))

    def costs(self, kernels: list[Kernel]) -> list[KernelCost]:
        """Costs of kernels of this category."""
        points = np.array([coordinates(kernel) for kernel in kernels]) / self._scales
        near = self._variance * similarity(points, self._points)
        explained = np.square(self._inverse @ near.T).sum(axis=0)
        variances = np.maximum(self._variance - explained, 0.0) + (CONTEXT_NOISE * self._fit.noise) ** 2
        variances += np.square(EXCESS_DEVIATION * np.maximum(self.excess(kernels), 0.0))
        costs_ms = self._fit.bases_ms(kernels) * np.exp(near @ self._weights)
        deviations = np.sqrt(variances)
        return [KernelCost(*pair) for pair in zip(costs_ms.tolist(), deviations.tolist(), strict=True)]

    def excess(self, kernels: list[Kernel]) -> Array:
        """How far kernels exceed the largest rows, in logarithms; negative within them."""
        sizes = np.log([_sizes(kernel) for kernel in kernels])
        return np.asarray((sizes - self._largest).max(axis=1))


def _sizes(kernel: Kernel) -> tuple[int, int, int]:
    """Elements moved, weights, flops; at least 1 each."""
    moved = sum(prod(shape) for shape in kernel.inputs) + prod(kernel.output)
    return moved, max(kernel.num_weights, 1), max(kernel.flops, 1)
