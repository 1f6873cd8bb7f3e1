"""What a list of kernels costs, counted exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dsonas_hw.kernel.spec import Kernel


@dataclass(frozen=True, kw_only=True)
class CountedCosts:
    """Costs that need no device. Units as in the module that defines them: counts and elements."""

    flops: int
    mac: int
    params: int


def count_costs(kernels: Iterable[Kernel]) -> CountedCosts:
    """Sum flops (multiply-adds), mac (elements) and params (weights) over the kernels of one network."""
    flops = mac = params = 0
    for kernel in kernels:
        flops += kernel.flops
        mac += kernel.mac
        params += kernel.params
    return CountedCosts(flops=flops, mac=mac, params=params)
