"""The same kernel is slower in a larger network: caches are colder, address translation misses more.

    in a network, cost = cost alone in a small one · (largest tensor)^a · (sum of all costs)^b

with the largest tensor in MB and the sum in ms. On one server core, networks of 30 to 1,400 kernels, a = 0.05
and b = 0.04: the kernels of a 20 ms network take 13 % longer than the same kernels in a 1 ms network. Which
property drives it was looked for among number of kernels, weights, activations, largest tensor, width and
latency: these two explain most (docs/profiles.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from dsonas_hw.kernel.spec import Kernel

DEFAULT_TENSOR_EXPONENT = 0.05
DEFAULT_TOTAL_EXPONENT = 0.04


def context_factor(
    largest_mb: float, total_ms: float, *, tensor_exponent: float, total_exponent: float
) -> float:
    """How much slower kernels are in such a network; total_ms: the sum of their costs without this factor."""
    return float(max(largest_mb, 1e-3) ** tensor_exponent * max(total_ms, 1e-3) ** total_exponent)


def context_factor_of_sum(in_situ_ms: float, largest_mb: float) -> float:
    """The same, by default exponents, from the sum of the costs as they are there: factor included."""
    a, b = DEFAULT_TENSOR_EXPONENT, DEFAULT_TOTAL_EXPONENT
    return float((max(largest_mb, 1e-3) ** a * max(in_situ_ms, 1e-3) ** b) ** (1 / (1 + b)))


def largest_tensor_mb(kernels: Sequence[Kernel]) -> float:
    """The largest tensor that a kernel of a network writes, in MB, four bytes an element."""
    return max((4e-6 * prod(kernel.output) for kernel in kernels), default=0.0)
