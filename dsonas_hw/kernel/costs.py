"""What a list of kernels costs, counted exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from dsonas_hw.kernel.spec import Kernel


@dataclass(frozen=True, kw_only=True)
class CountedCosts:
    """Costs that need no device: each the sum over the kernels of what `Kernel` calls by the same name."""

    flops: int
    mac: int
    params: int


COUNTED = tuple(one.name for one in fields(CountedCosts))
"""Names of the counted costs."""


def count_costs(kernels: Iterable[Kernel]) -> CountedCosts:
    """Sum flops (multiply-adds), mac (elements) and params (weights) over the kernels of one network."""
    listed = list(kernels)
    return CountedCosts(**{name: sum(getattr(kernel, name) for kernel in listed) for name in COUNTED})
