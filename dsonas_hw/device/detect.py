"""What is here."""

from __future__ import annotations

from dsonas_hw.device.cpu import LocalCpu, local_cpu

__all__ = ["LocalCpu", "local_cpu"]
