"""A network to measure a device with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dsonas_hw.kernel.network import Schedule


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Built when its turn comes: a hundred networks need not be in memory at once."""

    name: str
    """The same network every time: what a resumed profile skips."""
    build: Callable[[], bytes]
    """The ONNX model."""
    schedule: Schedule
    """Its kernels, fused."""
    batch_size: int = 1

    @property
    def flops(self) -> int:
        return sum(step.kernel.flops for step in self.schedule.kernels)
