"""What the driver says about a GPU while it is measured: clocks, heat, throttling; and its clocks held still.

with watch_gpu(0, sm_clock_mhz=1400) as watch:
    …measure…
    watch.look()
watch.remarks      # empty: nothing speaks against what was measured
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from dsonas_hw.device.nvml import Gpu, GpuState, disturbances, open_nvml


@dataclass(kw_only=True)
class GpuWatch:
    """The states of a GPU around measurements."""

    gpu: Gpu
    locked_mhz: int | None = None
    """The SM clock that is held; None: the clocks move as they like."""
    lock_failure: str = ""
    """Why the clocks that were to be held are not."""
    states: list[GpuState] = field(default_factory=list)

    def look(self) -> None:
        """Note the state now."""
        self.states.append(self.gpu.state())

    @property
    def remarks(self) -> tuple[str, ...]:
        """What makes the measurements doubtful; empty when nothing does."""
        failed = (self.lock_failure,) if self.lock_failure else ()
        return (*failed, *disturbances(self.states))

    @property
    def clocks(self) -> Mapping[str, int | None]:
        """For the header of a table: the last state's clocks in MHz, and what was held."""
        last = self.states[-1]
        return {
            "sm_mhz": last.sm_clock_mhz,
            "memory_mhz": last.memory_clock_mhz,
            "locked_sm_mhz": self.locked_mhz,
        }


@contextmanager
def watch_gpu(index: int, *, sm_clock_mhz: int | None = None) -> Iterator[GpuWatch]:
    """Watch the GPU of this number; hold its SM clock at `sm_clock_mhz` if the driver permits.

    Raises:
        DeviceError: the driver does not answer, or the clocks could not be given back.
    """
    with ExitStack() as stack:
        gpu = stack.enter_context(open_nvml()).gpus()[index]
        watch = GpuWatch(gpu=gpu)
        if sm_clock_mhz is not None:
            lock = stack.enter_context(gpu.locked_clocks(sm_clock_mhz))
            watch.lock_failure = lock.reason
            watch.locked_mhz = sm_clock_mhz if lock.locked else None
        watch.look()
        yield watch
