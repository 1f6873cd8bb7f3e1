"""The interface between a device's profile and everything that asks what a network costs.

A measured lookup table (`cost.measured`) and the analytic estimate of an absent device
(`estimate.estimate`) both answer it; neither needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.table.rows import Source


@dataclass(frozen=True, kw_only=True)
class LatencyPrediction:
    """One inference of one batch, in milliseconds, with the interval that its check covers 90 % of."""

    latency_ms: float
    latency_ms_low: float
    latency_ms_high: float
    source: Source


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
