"""ONNX Runtime's execution providers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One of ONNX Runtime's execution providers."""

    name: str
    runtime: str
    """What a user calls it."""
    device: str = "cuda"
    """Where tensors live: cpu or cuda."""
    library: str | None = None
    """Shared library that holds it; None: it is always there."""
    brought_by: str | None = None
    """Module whose import loads what the library needs."""

    @property
    def is_cpu(self) -> bool:
        return self.device == "cpu"
