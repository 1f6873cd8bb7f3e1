"""Where a network runs, as one value that travels whole."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Target:
    """A device, what runs networks there, and how: what a lookup table is of."""

    device: str = "local"
    """`local` or the name of a file in `devices/`."""
    runtime: str
    """The name of a registered one (`runtime.registry`)."""
    precision: str = "fp32"
    batch_size: int = 1
    threads: int = 1
    """Of the CPU."""

    def __str__(self) -> str:
        """What makes it different from others on the same device."""
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''}"
        return f"{self.runtime}, {self.precision}, batch {self.batch_size}, {threads}"
