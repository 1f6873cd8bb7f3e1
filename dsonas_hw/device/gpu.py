"""One GPU, as the NVIDIA driver reports it: what it is, how it is set, its state now, its clocks held still.

A value that the GPU does not report is `None`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from dsonas_hw.device.nvml_calls import Calls
from dsonas_hw.errors import DeviceError

#: Bits of nvmlDeviceGetCurrentClocksEventReasons (formerly …ThrottleReasons), from nvml.h.
CLOCK_REASONS: dict[int, str] = {
    0x001: "idle",
    0x002: "application clocks set",
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal limit",
    0x040: "hardware thermal limit",
    0x080: "power brake",
    0x100: "display clocks set",
    0x200: "board limit",
    0x400: "reliability voltage limit",
}
SLOWDOWNS = frozenset(
    {
        "power cap",
        "hardware slowdown",
        "software thermal limit",
        "hardware thermal limit",
        "power brake",
        "board limit",
    }
)
"""The reasons that make a timing doubtful."""
VIOLATIONS: dict[str, str] = {
    "NVML_PERF_POLICY_POWER": "the power cap",
    "NVML_PERF_POLICY_THERMAL": "a thermal limit",
    "NVML_PERF_POLICY_BOARD_LIMIT": "the board limit",
}
"""Policies of nvmlDeviceGetViolationStatus, which adds up the time that each has held the clocks down."""
_POWER_INSTANT = 186
"""NVML_FI_DEV_POWER_INSTANT: the power now, where nvmlDeviceGetPowerUsage averages over a second."""
_UNSIGNED_INT = 1
"""NVML_VALUE_TYPE_UNSIGNED_INT."""


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """A GPU at one moment; what it does not report is `None`."""

    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    temperature_c: int | None
    power_w: float | None
    clock_reasons: tuple[str, ...] | None
    """Why the clocks are what they are, in words."""

    @property
    def slowdowns(self) -> tuple[str, ...]:
        """The reasons among them that slow the GPU down."""
        return tuple(reason for reason in self.clock_reasons or () if reason in SLOWDOWNS)


@dataclass(frozen=True, kw_only=True)
class GpuSettings:
    """How an administrator has set a GPU, and who else uses it; what it does not report is `None`."""

    power_limit_w: float | None
    """The limit that is enforced now."""
    default_power_limit_w: float | None
    persistence: bool | None
    """Whether the driver stays loaded between programs."""
    ecc: bool | None
    other_processes: tuple[int, ...] | None
    """Process ids of other programs that compute on it, as the driver numbers processes."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What of it makes timings differ from those of another card of the model; empty: nothing known."""
        found = []
        limit, default = self.power_limit_w, self.default_power_limit_w
        if limit is not None and default is not None and limit < 0.99 * default:
            found.append(f"the power limit is set to {limit:g} W, below the card's default of {default:g} W")
        if self.other_processes:
            ids = ", ".join(map(str, self.other_processes))
            found.append(f"other programs use the GPU meanwhile (process {ids})")
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class ClockLock:
    """Whether the clocks are locked, and if not, why not."""

    locked: bool
    reason: str = ""


class Gpu:
    """One GPU of an open NVML.

    Raises:
        DeviceError: it does not answer.
    """

    def __init__(self, calls: Calls, index: int, handle: Any) -> None:
        self._calls, self._library, self._handle = calls, calls.nvml, handle
        self.index = index
        self.name = str(calls.must(self._library.nvmlDeviceGetName, handle))
        self.uuid: str | None = calls.ask("nvmlDeviceGetUUID", handle)
        self.compute_capability: tuple[int, int] | None = calls.ask(
            "nvmlDeviceGetCudaComputeCapability", handle
        )

    @property
    def memory_bytes(self) -> int | None:
        """Its memory, of which the driver keeps a part."""
        found = self._calls.ask("nvmlDeviceGetMemoryInfo", self._handle)
        return None if found is None else int(found.total)

    @property
    def num_cores(self) -> int | None:
        """Its CUDA cores: SMs times cores per SM."""
        return self._calls.ask("nvmlDeviceGetNumGpuCores", self._handle) or None

    @property
    def is_divided(self) -> bool:
        """Whether MIG is enabled: programs get a slice of it."""
        found = self._calls.ask("nvmlDeviceGetMigMode", self._handle)
        return found is not None and bool(found[0])

    def settings(self) -> GpuSettings:
        """Power limit, persistence, ECC, and the other programs on it."""
        ask, handle = self._calls.ask, self._handle
        ecc = ask("nvmlDeviceGetEccMode", handle)
        persistence = ask("nvmlDeviceGetPersistenceMode", handle)
        running = ask("nvmlDeviceGetComputeRunningProcesses", handle)
        return GpuSettings(
            power_limit_w=_watts(ask("nvmlDeviceGetEnforcedPowerLimit", handle)),
            default_power_limit_w=_watts(ask("nvmlDeviceGetPowerManagementDefaultLimit", handle)),
            persistence=None if persistence is None else bool(persistence),
            ecc=None if ecc is None else bool(ecc[0]),
            other_processes=None if running is None else _others([process.pid for process in running]),
        )

    def state(self) -> GpuState:
        """Clocks, temperature, power, and why the clocks are what they are, now."""
        ask, library, handle = self._calls.ask, self._library, self._handle
        return GpuState(
            sm_clock_mhz=ask("nvmlDeviceGetClockInfo", handle, library.NVML_CLOCK_SM),
            memory_clock_mhz=ask("nvmlDeviceGetClockInfo", handle, library.NVML_CLOCK_MEM),
            temperature_c=self._calls.ask_first(
                ("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV"),
                handle,
                library.NVML_TEMPERATURE_GPU,
            ),
            power_w=self.power_w(),
            clock_reasons=self._clock_reasons(),
        )

    def violations_s(self) -> Mapping[str, float]:
        """How long each limit, of those counted, has held the clocks down since the driver was loaded."""
        found = {}
        for policy, words in VIOLATIONS.items():
            number = getattr(self._library, policy, None)
            if number is not None:
                status = self._calls.ask("nvmlDeviceGetViolationStatus", self._handle, number)
                if status is not None:
                    found[words] = status.violationTime / 1e9
        return found

    def power_w(self) -> float | None:
        """Board power now: the instant's where the driver tells it, else its average over a second."""
        values = self._calls.ask("nvmlDeviceGetFieldValues", self._handle, [_POWER_INSTANT])
        if values is not None and values[0].nvmlReturn == 0 and values[0].valueType == _UNSIGNED_INT:
            return _watts(values[0].value.uiVal)
        return _watts(self._calls.ask("nvmlDeviceGetPowerUsage", self._handle))

    def energy_counter_mj(self) -> float | None:
        """Energy since the driver was loaded; `None` before Volta. It moves about every 100 ms."""
        value = self._calls.ask("nvmlDeviceGetTotalEnergyConsumption", self._handle)
        return None if value is None else float(value)

    def max_sm_clock_mhz(self) -> int | None:
        value = self._calls.ask("nvmlDeviceGetMaxClockInfo", self._handle, self._library.NVML_CLOCK_SM)
        return None if value is None else int(value)

    @contextmanager
    def locked_clocks(self, sm_clock_mhz: int, memory_clock_mhz: int | None = None) -> Iterator[ClockLock]:
        """Hold the clocks while the block runs, if the driver permits; give them back whatever happens.

        An exception, Ctrl-C and SIGTERM all give them back; only kill -9 cannot.
        """
        library, handle = self._library, self._handle
        undo: list[tuple[Callable[..., Any], str]] = []
        with _terminate_as_exception():
            try:
                try:
                    library.nvmlDeviceSetGpuLockedClocks(handle, sm_clock_mhz, sm_clock_mhz)
                    undo.append((library.nvmlDeviceResetGpuLockedClocks, "SM clock"))
                    if memory_clock_mhz is not None:
                        library.nvmlDeviceSetMemoryLockedClocks(handle, memory_clock_mhz, memory_clock_mhz)
                        undo.append((library.nvmlDeviceResetMemoryLockedClocks, "memory clock"))
                except library.NVMLError as error:
                    what = "memory clock" if undo else "SM clock"
                    yield ClockLock(locked=False, reason=f"the {what} could not be locked: {error}")
                else:
                    yield ClockLock(locked=True)
            finally:
                self._restore(undo)

    def _restore(self, undo: list[tuple[Callable[..., Any], str]]) -> None:
        failures = []
        for reset, what in reversed(undo):
            try:
                reset(self._handle)
            except self._library.NVMLError as error:
                failures.append(f"the {what} of GPU {self.index} is still locked ({error})")
        if failures:
            raise DeviceError(f"{'; '.join(failures)}: run `nvidia-smi -i {self.index} -rgc -rmc` as root")

    def _clock_reasons(self) -> tuple[str, ...] | None:
        bits = self._calls.ask_first(
            ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"),
            self._handle,
        )
        if bits is None:
            return None
        known = [word for bit, word in CLOCK_REASONS.items() if bits & bit]
        rest = bits & ~sum(CLOCK_REASONS)
        return tuple(known + ([f"unknown reason {rest:#x}"] if rest else []))


def _others(running: list[int]) -> tuple[int, ...]:
    """Those of the processes that are not this one.

    In a container the driver still says the host's numbers, which do not exist here: one of those may be us.
    """
    if os.getpid() in running or not os.path.isdir("/proc"):
        return tuple(sorted(set(running) - {os.getpid()}))
    here = [pid for pid in running if os.path.exists(f"/proc/{pid}")]
    return tuple(sorted({*here, *sorted(set(running) - set(here))[1:]}))


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1e3


@contextmanager
def _terminate_as_exception() -> Iterator[None]:
    """Let SIGTERM unwind the stack like Ctrl-C does (only the main thread may ask for that)."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
