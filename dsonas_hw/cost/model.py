"""The interface between a device's profile and everything that asks what a network costs.

A measured lookup table (`cost.measured`) and the analytic estimate of an absent device
(`estimate.estimate`) both answer it; neither needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.table.rows import Source

Z90 = 1.645
"""Half width of an interval that covers 90 % of a normal distribution, in standard deviations."""


def probability_within(limit: float, value: float, low: float, high: float) -> float:
    """Return how likely a cost is to be at most `limit`; its logarithm is taken as normal.

    low, high: the interval that covers 90 %; one that begins at zero or has no end says nothing: one half.
    """
    if low <= 0 or math.isinf(high):
        return 0.5
    sd = math.log(high / low) / (2 * Z90)
    distance = math.log(limit / value)
    return 0.5 * (1 + math.erf(distance / (sd * math.sqrt(2)))) if sd > 0 else float(distance >= 0)


@dataclass(frozen=True, kw_only=True)
class LatencyPrediction:
    """One inference of one batch, in milliseconds, with the interval that its check covers 90 % of."""

    latency_ms: float
    latency_ms_low: float
    latency_ms_high: float
    source: Source

    def probability_within(self, limit_ms: float) -> float:
        """How likely the latency is to be at most `limit_ms`."""
        return probability_within(limit_ms, self.latency_ms, self.latency_ms_low, self.latency_ms_high)


class LatencyModel(Protocol):
    """Predicts the latency of networks, and of single kernels, on one device, runtime and precision."""

    device: str
    runtime: str
    precision: str
    batch_size: int
    """Of the kernels it is asked about: their shapes carry the batch."""
    source: Source
    fuse: bool
    """Whether it wants the fused kernels (inference runtimes) or the unfused ones (eager frameworks)."""

    @property
    def caution(self) -> str:
        """What a reader of its predictions must be told first, in one line; empty if it was measured here."""
        ...

    def predict(self, kernels: Sequence[Kernel]) -> LatencyPrediction:
        """Latency of the network that these kernels make up, in the order they run.

        Raises:
            ProfileError: a kernel that this model cannot cost.
        """
        ...

    def kernel_latency_ms(self, kernel: Kernel) -> float:
        """The share of a network's latency that this kernel adds; feeds γ (Eq. 9, 10)."""
        ...
