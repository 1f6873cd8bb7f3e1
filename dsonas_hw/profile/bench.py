"""Where networks are timed: this machine's CPU, or a GPU that is here. One profiler works on either.

with open_bench(target) as bench:
    bench.measure(models)           whole networks
    bench.time_kernels(probes)      whole networks, and their kernels in situ
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dsonas_hw.measure.probe import Probe
from dsonas_hw.measure.reference import Speed
from dsonas_hw.profile.network_measurement import NetworkMeasurement
from dsonas_hw.runtime.base import NetworkTiming
from dsonas_hw.table.rows import Scalar, TableHeader
from dsonas_hw.table.table import LookupTable

LOCKED = "locked_sm_mhz"
"""The setting of a table that names the SM clock which was held."""


class Bench(Protocol):
    """A target that is here, and nothing else is measured on meanwhile."""

    @property
    def networks_at_once(self) -> int:
        """How many are timed in turns."""
        ...

    @property
    def header(self) -> TableHeader:
        """Of a table that is measured here."""
        ...

    @property
    def clocks(self) -> dict[str, Scalar]:
        """Those seen under load so far; empty: the header has them."""
        ...

    @property
    def remarks(self) -> tuple[str, ...]:
        """What makes all that was measured so far doubtful."""
        ...

    def measure(self, models: Sequence[bytes]) -> list[NetworkMeasurement]:
        """Measure whole networks, without any profiler.

        Raises:
            DeviceError: the device failed, or was taken away.
        """
        ...

    def time_kernels(
        self, probes: Sequence[Probe], unit: Speed | None
    ) -> list[tuple[NetworkMeasurement, NetworkTiming]]:
        """Measure whole networks, and every kernel inside of them.

        unit: the speed of the machine at which to state what kernels took; None: as it is.

        Raises:
            DeviceError: the device failed, or was taken away.
            ProfileError: what its profiler says is not complete.
        """
        ...


def clock_of(table: LookupTable) -> int | None:
    """The SM clock that was held while a table was measured; None: it moved as it liked."""
    clock = table.header.settings.get(LOCKED)
    return clock if isinstance(clock, int) else None
