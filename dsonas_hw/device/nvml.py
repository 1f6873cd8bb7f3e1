"""What the NVIDIA driver says about its GPUs, through nvidia-ml-py (the module `pynvml`).

    with open_nvml() as nvml:
        gpu = nvml.gpus()[0]
        with gpu.locked_clocks(1400) as lock:     # always restored; lock.locked says whether it was permitted
            before = gpu.state()
            ...measure...
            remarks = disturbances([before, gpu.state()])

A value that the GPU does not report is `None`. Everything else that goes wrong is a `DeviceError`.
"""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from dsonas_hw.errors import DeviceError, MissingDependencyError

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
CLOCK_DROP = 0.05
"""Relative difference between SM clocks of one measurement that is worth a remark."""


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
class ClockLock:
    """Whether the clocks are locked, and if not, why not."""

    locked: bool
    reason: str = ""


def disturbances(states: Sequence[GpuState]) -> tuple[str, ...]:
    """What makes a measurement doubtful that these states were seen around; empty when nothing does."""
    remarks = []
    slowdowns = sorted({reason for state in states for reason in state.slowdowns})
    if slowdowns:
        remarks.append(f"the GPU was slowed down meanwhile: {', '.join(slowdowns)}")
    clocks = [
        state.sm_clock_mhz
        for state in states
        if state.sm_clock_mhz is not None and "idle" not in (state.clock_reasons or ())
    ]
    if clocks and min(clocks) < max(clocks) * (1 - CLOCK_DROP):
        remarks.append(f"the SM clock moved between {min(clocks)} and {max(clocks)} MHz meanwhile")
    return tuple(remarks)


class Nvml:
    """An initialised NVML; made by `open_nvml`."""

    def __init__(self, library: Any) -> None:
        self._library = library

    @property
    def driver_version(self) -> str:
        return str(self._must(self._library.nvmlSystemGetDriverVersion))

    @property
    def cuda_version(self) -> tuple[int, int] | None:
        """The newest CUDA that the driver can serve: (12, 4)."""
        value = self._ask(self._library.nvmlSystemGetCudaDriverVersion)
        return None if value is None else (value // 1000, value % 1000 // 10)

    def gpus(self) -> list[Gpu]:
        """Every GPU that the driver knows."""
        count = self._must(self._library.nvmlDeviceGetCount)
        return [
            Gpu(self, index, self._must(self._library.nvmlDeviceGetHandleByIndex, index))
            for index in range(count)
        ]

    def _must(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except self._library.NVMLError as error:
            raise DeviceError(f"the NVIDIA driver failed in {function.__name__}: {error}") from error

    def _ask(self, function: Callable[..., Any], *args: Any) -> Any:
        """Like `_must`, but `None` when the GPU or the driver has no such value, or keeps it to root."""
        try:
            return function(*args)
        except self._library.NVMLError as error:
            if error.value in self._unavailable:
                return None
            raise DeviceError(f"the NVIDIA driver failed in {function.__name__}: {error}") from error

    def _ask_first(self, names: Sequence[str], *args: Any) -> Any:
        """What the first of these functions says that binding and driver have: names change over versions."""
        for name in names:
            function = getattr(self._library, name, None)
            value = None if function is None else self._ask(function, *args)
            if value is not None:
                return value
        return None

    @property
    def _unavailable(self) -> tuple[int | None, ...]:
        library = self._library
        return (
            library.NVML_ERROR_NOT_SUPPORTED,
            library.NVML_ERROR_FUNCTION_NOT_FOUND,
            library.NVML_ERROR_NO_PERMISSION,
            getattr(library, "NVML_ERROR_DEPRECATED", None),  # old bindings lack it
        )


class Gpu:
    """One GPU of an open NVML."""

    def __init__(self, nvml: Nvml, index: int, handle: Any) -> None:
        self._nvml, self._library, self._handle = nvml, nvml._library, handle
        self.index = index
        self.name = str(nvml._must(self._library.nvmlDeviceGetName, handle))
        self.uuid: str | None = nvml._ask(self._library.nvmlDeviceGetUUID, handle)
        self.compute_capability: tuple[int, int] | None = nvml._ask(
            self._library.nvmlDeviceGetCudaComputeCapability, handle
        )

    def state(self) -> GpuState:
        """Clocks, temperature, power, and why the clocks are what they are, now."""
        ask, library, handle = self._nvml._ask, self._library, self._handle
        return GpuState(
            sm_clock_mhz=ask(library.nvmlDeviceGetClockInfo, handle, library.NVML_CLOCK_SM),
            memory_clock_mhz=ask(library.nvmlDeviceGetClockInfo, handle, library.NVML_CLOCK_MEM),
            temperature_c=self._nvml._ask_first(
                ("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV"),
                handle,
                library.NVML_TEMPERATURE_GPU,
            ),
            power_w=self.power_w(),
            clock_reasons=self._clock_reasons(),
        )

    def power_w(self) -> float | None:
        """Board power now, as the driver averages it."""
        milliwatts = self._nvml._ask(self._library.nvmlDeviceGetPowerUsage, self._handle)
        return None if milliwatts is None else milliwatts / 1e3

    def energy_counter_mj(self) -> float | None:
        """Energy since the driver was loaded; `None` before Volta. It moves about every 100 ms."""
        value = self._nvml._ask(self._library.nvmlDeviceGetTotalEnergyConsumption, self._handle)
        return None if value is None else float(value)

    def max_sm_clock_mhz(self) -> int | None:
        value = self._nvml._ask(
            self._library.nvmlDeviceGetMaxClockInfo, self._handle, self._library.NVML_CLOCK_SM
        )
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
        bits = self._nvml._ask_first(
            ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"),
            self._handle,
        )
        if bits is None:
            return None
        known = [word for bit, word in CLOCK_REASONS.items() if bits & bit]
        rest = bits & ~sum(CLOCK_REASONS)
        return tuple(known + ([f"unknown reason {rest:#x}"] if rest else []))


@contextmanager
def open_nvml(library: Any = None) -> Iterator[Nvml]:
    """Initialise NVML, and shut it down afterwards. `library` stands in for the module `pynvml`.

    Raises:
        DeviceError: no driver, or it does not answer; the message gives its reason.
        MissingDependencyError: nvidia-ml-py is not installed.
    """
    if library is None:
        try:
            library = importlib.import_module("pynvml")
        except ImportError as error:
            raise MissingDependencyError(
                f"looking at NVIDIA GPUs needs the module pynvml ({error}); pip install nvidia-ml-py"
            ) from error
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        if error.value == library.NVML_ERROR_LIBRARY_NOT_FOUND:
            reason = (
                "no NVIDIA driver: its library libnvidia-ml.so.1 (Windows: nvml.dll) is not on this machine"
            )
        elif error.value == library.NVML_ERROR_DRIVER_NOT_LOADED:
            reason = "the NVIDIA driver is installed but not loaded (try `nvidia-smi`, or reboot)"
        elif error.value == library.NVML_ERROR_NO_PERMISSION:
            reason = "no permission to talk to the NVIDIA driver (in a container: is the GPU passed in?)"
        elif error.value == library.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            reason = "the NVIDIA driver and its library have different versions: reboot"
        else:
            reason = f"the NVIDIA driver does not start: {error}"
        raise DeviceError(reason) from error
    try:
        yield Nvml(library)
    finally:
        library.nvmlShutdown()


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
