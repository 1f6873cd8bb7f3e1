"""What the driver says about a GPU while it is measured: clocks, heat, throttling; and its clocks held still.

    with watch_gpu(0, sm_clock_mhz=1400) as watch:
        …measure, and call watch.look() while the GPU is at work…
    watch.remarks      # empty: nothing speaks against what was measured

A GPU at rest lowers its clocks and its power, so a look between two measurements says nothing about either.
Throttling between two looks is found all the same: the driver adds up how long each limit held the clocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median

from dsonas_hw.device.gpu import Gpu, GpuSettings, GpuState
from dsonas_hw.device.nvml import open_nvml

CLOCK_DROP = 0.05
"""Relative difference between SM clocks of one measurement that is worth a remark."""
HELD_BACK = 0.01
"""Fraction of the time for which a limit may hold the clocks down before it is worth a remark."""


@dataclass(kw_only=True)
class GpuWatch:
    """The states of a GPU during measurements."""

    gpu: Gpu
    locked_mhz: int | None = None
    """The SM clock that is held; None: the clocks move as they like."""
    lock_failure: str = ""
    """Why the clocks that were to be held are not."""
    clock_s: Callable[[], float] = time.monotonic
    states: list[GpuState] = field(default_factory=list)
    """Those seen while it was at work."""

    def __post_init__(self) -> None:
        self.settings: GpuSettings = self.gpu.settings()
        self._begin_s = self.clock_s()
        self._begin_violations_s = self.gpu.violations_s()
        self._held_back: dict[str, float] = {}

    def look(self) -> None:
        """Note the state now; to be called while the GPU is at work."""
        state = self.gpu.state()
        if "idle" not in (state.clock_reasons or ()):
            self.states.append(state)
        elapsed_s = self.clock_s() - self._begin_s
        if elapsed_s > 0:
            now_s = self.gpu.violations_s()
            self._held_back = {
                limit: (now_s[limit] - begin_s) / elapsed_s
                for limit, begin_s in self._begin_violations_s.items()
                if limit in now_s
            }

    @property
    def remarks(self) -> tuple[str, ...]:
        """What makes the measurements doubtful; empty when nothing does."""
        failed = (self.lock_failure,) if self.lock_failure else ()
        held = tuple(
            f"{limit} held the clocks down for {fraction:.0%} of the time"
            for limit, fraction in self._held_back.items()
            if fraction > HELD_BACK
        )
        return (*failed, *self.settings.remarks, *disturbances(self.states), *held)

    @property
    def clocks(self) -> Mapping[str, str | float | bool | None]:
        """For the header of a table: clocks, heat and power under load, what was held, how it is set."""
        return {
            "sm_mhz": _middle([state.sm_clock_mhz for state in self.states]),
            "memory_mhz": _middle([state.memory_clock_mhz for state in self.states]),
            "temperature_c": _middle([state.temperature_c for state in self.states]),
            "power_w": _middle([state.power_w for state in self.states]),
            "locked_sm_mhz": self.locked_mhz,
            "power_limit_w": self.settings.power_limit_w,
            "persistence": self.settings.persistence,
            "ecc": self.settings.ecc,
        }


def disturbances(states: Sequence[GpuState]) -> tuple[str, ...]:
    """What makes a measurement doubtful that these states were seen in; empty when nothing does."""
    remarks = []
    slowdowns = sorted({reason for state in states for reason in state.slowdowns})
    if slowdowns:
        remarks.append(f"the GPU was slowed down meanwhile: {', '.join(slowdowns)}")
    clocks = [state.sm_clock_mhz for state in states if state.sm_clock_mhz is not None]
    if clocks and min(clocks) < max(clocks) * (1 - CLOCK_DROP):
        remarks.append(f"the SM clock moved between {min(clocks)} and {max(clocks)} MHz meanwhile")
    return tuple(remarks)


def _middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


@contextmanager
def watch_gpu(index: int, *, sm_clock_mhz: int | None = None) -> Iterator[GpuWatch]:
    """Watch the GPU of this number; hold its SM clock at `sm_clock_mhz` if the driver permits.

    Raises:
        DeviceError: the driver does not answer, or the clocks could not be given back.
    """
    with ExitStack() as stack:
        gpu = stack.enter_context(open_nvml()).gpu(index)
        locked_mhz, lock_failure = None, ""
        if sm_clock_mhz is not None:
            lock = stack.enter_context(gpu.locked_clocks(sm_clock_mhz))
            locked_mhz, lock_failure = (sm_clock_mhz if lock.locked else None), lock.reason
        yield GpuWatch(gpu=gpu, locked_mhz=locked_mhz, lock_failure=lock_failure)
