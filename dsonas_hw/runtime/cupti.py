"""What a GPU ran, from CUPTI's records, as PyTorch's profiler collects them for every library in the process.

    span of a node ──contains──▶ launch ──correlation──▶ kernel (or copy, or fill) on the GPU
    (the CPU's time)             (cuda_runtime,           its time
                                 cuda_driver)

The records are read in Chrome's trace format, which PyTorch documents and writes (`export_chrome_trace`):
microseconds, complete events (`ph` X) with `cat`, `name`, `ts`, `dur`, `args.correlation`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from dsonas_hw.errors import ProfileError
from dsonas_hw.measure.timing import GarbageCollectionOff
from dsonas_hw.runtime.base import Session

Event = Mapping[str, Any]
RUN = "dsonas-hw run"
"""Annotates every inference."""
GPU_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCHES = ("cuda_runtime", "cuda_driver")
NO_RECORDS = (
    "the driver gives this user no times of kernels (CUPTI_ERROR_INSUFFICIENT_PRIVILEGES, or no CUPTI): "
    "run as root, or let root set NVreg_RestrictProfilingToAdminUsers=0 for the module nvidia "
    "(https://developer.nvidia.com/ERR_NVGPUCTRPERM)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """When the CPU was at work on something, in microseconds."""

    name: str
    begin_us: float
    end_us: float

    def shifted(self, by_us: float) -> Span:
        """The same by another clock."""
        return Span(name=self.name, begin_us=self.begin_us + by_us, end_us=self.end_us + by_us)


@dataclass(kw_only=True)
class Recorder:
    """Collects records from `start` to `stop`; one at a time in a process."""

    _profile: Any = field(default=None, repr=False)

    def start(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        self._profile = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
        self._profile.start()

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Annotate what the CPU does inside."""
        from torch.profiler import record_function

        with record_function(name):
            yield

    def run(self, session: Session) -> object:
        """Annotate one inference, to its end."""
        with self.span(RUN):
            result = session.run()
        session.synchronize()
        return result

    def stop(self) -> Trace:
        """What was recorded.

        Raises:
            ProfileError: the trace cannot be read.
        """
        self._profile.stop()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            self._profile.export_chrome_trace(str(path))
            self._profile = None
            with GarbageCollectionOff():  # it would look through all events again and again
                return read_trace(path)


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuWork:
    """One kernel, copy or fill on the GPU."""

    name: str
    launched_us: float
    """When the CPU started it."""
    latency_ms: float


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The complete events that PyTorch's profiler recorded."""

    events: Sequence[Event]
    epoch_us: float = 0.0
    """What its microseconds count from, since 1970."""

    def spans(self, prefix: str) -> list[Span]:
        """What was annotated with a name that begins so, in the order it began; named by the rest."""
        found = [
            Span(
                name=event["name"].removeprefix(prefix),
                begin_us=float(event["ts"]),
                end_us=float(event["ts"]) + float(event["dur"]),
            )
            for event in self.events
            if event.get("cat") == "user_annotation" and event["name"].startswith(prefix)
        ]
        return sorted(found, key=lambda span: span.begin_us)

    def gpu_work(self) -> list[GpuWork]:
        """All that was launched, in that order.

        Raises:
            ProfileError: nothing was recorded, for want of permission.
        """
        launches = {
            event["args"]["correlation"]: float(event["ts"])
            for event in self.events
            if event.get("cat") in LAUNCHES and "correlation" in event.get("args", {})
        }
        found = [
            GpuWork(
                name=event["name"],
                launched_us=launches[event["args"]["correlation"]],
                latency_ms=float(event["dur"]) / 1e3,
            )
            for event in self.events
            if event.get("cat") in GPU_WORK and event.get("args", {}).get("correlation") in launches
        ]
        if not found:
            raise ProfileError(f"kernels cannot be timed one by one: {NO_RECORDS}")
        return sorted(found, key=lambda work: work.launched_us)


def read_trace(path: Path) -> Trace:
    """Read a trace file.

    Raises:
        ProfileError: it is not what PyTorch's profiler writes.
    """
    try:
        values = json.loads(path.read_text())
        events = [event for event in values["traceEvents"] if event.get("ph") == "X"]
        return Trace(events=events, epoch_us=float(values.get("baseTimeNanoseconds", 0)) / 1e3)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProfileError(
            f"PyTorch's profiler wrote something that is not understood ({error!r})"
        ) from error


@cache
def why_no_records() -> str:
    """Why kernels cannot be timed one by one on the GPU that is here; empty: they can. Runs one to see."""
    import torch

    if not torch.cuda.is_available():
        return f"PyTorch's profiler times the kernels, and torch {torch.__version__} finds no usable GPU"
    recorder = Recorder()
    recorder.start()
    torch.zeros(1, device="cuda").add_(1)
    torch.cuda.synchronize()
    try:
        recorder.stop().gpu_work()
    except ProfileError:
        return NO_RECORDS
    return ""
