"""The interface between a device's profile and everything that asks what a network costs.

    predict(network, metric) → value, interval, source

A measured lookup table (`cost.measured`) and the analytic estimate of an absent device (`estimate.estimate`,
latency only) both answer it; neither needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dsonas_hw.budget import Metric
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.table.rows import Source
from dsonas_hw.target import Target

Z90 = 1.645
"""Half width of an interval that covers 90 % of a normal distribution, in standard deviations."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A metric of one inference of one batch, in ms (latency) or mJ (energy)."""

    value: float
    low: float
    high: float
    """With `low` the interval that the model's check covers 90 % of."""
    source: Source

    def probability_within(self, limit: float) -> float:
        """How likely the cost is to be at most `limit`; its logarithm is taken as normal.

        An interval that begins at zero or has no end says nothing: one half.
        """
        if self.low <= 0 or math.isinf(self.high):
            return 0.5
        sd = math.log(self.high / self.low) / (2 * Z90)
        distance = math.log(limit / self.value)
        return 0.5 * (1 + math.erf(distance / (sd * math.sqrt(2)))) if sd > 0 else float(distance >= 0)


class CostModel(Protocol):
    """Predicts what networks, and single kernels, cost on one target."""

    target: Target
    """Its batch size is that of the kernels it is asked about: their shapes carry the batch."""
    source: Source
    fuse: bool
    """Whether it wants the fused kernels (inference runtimes) or the unfused ones (eager frameworks)."""

    @property
    def disclaimer(self) -> str:
        """What a reader of its predictions must be told first, in one line; empty if it was measured here."""
        ...

    def why_not(self, metric: Metric) -> str:
        """Why it cannot predict a metric, and what to do about it, in one line; empty: it can."""
        ...

    def predict(self, kernels: Sequence[Kernel], metric: Metric = "latency") -> Prediction:
        """The metric of the network that these kernels make up, in the order they run.

        Raises:
            ProfileError: a kernel that this model cannot cost, or a metric that it cannot predict.
        """
        ...

    def kernel_cost(self, kernel: Kernel, metric: Metric = "latency") -> float:
        """The share of a network's metric that this kernel adds; feeds γ (Eq. 9, 10).

        Raises:
            ProfileError: as of `predict`.
        """
        ...
