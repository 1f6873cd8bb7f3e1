"""Timing networks on this machine's CPU, in turns with a reference workload."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from dsonas_hw.device.lock import exclusive_device
from dsonas_hw.errors import DeviceError, ProfileError
from dsonas_hw.measure.measurement import LatencyMeasurement
from dsonas_hw.measure.probe import Probe
from dsonas_hw.measure.reference import build_reference
from dsonas_hw.measure.timing import measure_together
from dsonas_hw.profile.network_measurement import NetworkMeasurement, with_energy
from dsonas_hw.runtime.base import NetworkTiming, Session
from dsonas_hw.runtime.registry import get_runtime, open_session
from dsonas_hw.table.rows import Scalar, TableHeader
from dsonas_hw.table.table import now_utc
from dsonas_hw.target import Target

NUM_ROUNDS = 7


@dataclass(frozen=True, kw_only=True)
class CpuBench:
    """This machine's CPU (`bench.Bench`)."""

    target: Target
    networks_at_once: int = 8

    @cached_property
    def header(self) -> TableHeader:
        """Measures the reference workload, which the table's unit of speed is."""
        from dsonas_hw.device.cpu import local_cpu

        cpu = local_cpu()
        runtime = get_runtime(self.target.runtime)
        return TableHeader(
            target=self.target,
            fingerprint=cpu.fingerprint,
            source="measured",
            created=now_utc(),
            versions=runtime.versions(),
            clocks={"maximum_mhz": _maximum_mhz(), "reference_ms": round(self._measure_reference(), 6)},
            settings={
                "device_title": cpu.title,
                **runtime.settings_here(),
                "method": "in situ",
                "num_rounds": NUM_ROUNDS,
            },
        )

    @property
    def clocks(self) -> dict[str, Scalar]:
        return {}

    @property
    def remarks(self) -> tuple[str, ...]:
        return ()

    def measure(self, models: Sequence[bytes]) -> list[NetworkMeasurement]:
        found: list[NetworkMeasurement] = []
        for start in range(0, len(models), self.networks_at_once):
            with self._opened(models[start : start + self.networks_at_once]) as (sessions, reference):
                timings = self._measure([[session.run] for session in sessions], reference)
                found += [
                    self._with_energy(latency, session)
                    for (latency,), session in zip(timings, sessions, strict=True)
                ]
        return found

    def time_kernels(
        self, probes: Sequence[Probe], unit_ms: float | None
    ) -> list[tuple[NetworkMeasurement, NetworkTiming]]:
        models = [probe.build() for probe in probes]
        runtime = get_runtime(self.target.runtime)
        with self._opened(models) as (plain, reference):
            profiled = [
                runtime.open_profiled(model, self.target, session)
                for model, session in zip(models, plain, strict=True)
            ]
            pairs = list(zip(plain, profiled, strict=True))
            timings = self._measure([[session.run for session in pair] for pair in pairs], reference)
            return [
                (self._with_energy(latency, running), session.finish(in_situ.turns, unit_ms))
                for (running, session), (latency, in_situ) in zip(pairs, timings, strict=True)
            ]

    def _measure(
        self, networks: Sequence[Sequence[Callable[[], object]]], reference: Session
    ) -> list[list[LatencyMeasurement]]:
        return measure_together(
            networks,
            reference.synchronize,
            num_rounds=NUM_ROUNDS,
            reference=reference.run,
            cpu_clock_s=cpu_clock(self.target),
        )

    def _with_energy(self, latency: LatencyMeasurement, session: Session) -> NetworkMeasurement:
        return with_energy(latency, session, get_runtime(self.target.runtime).meter)

    @contextlib.contextmanager
    def _opened(self, models: Sequence[bytes]) -> Iterator[tuple[list[Session], Session]]:
        """Sessions of networks, and that of the reference workload; no one else measures meanwhile."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(exclusive_device(self.target.device))
            sessions = [stack.enter_context(open_session(model, self.target)) for model in models]
            yield sessions, stack.enter_context(open_reference(self.target))

    def _measure_reference(self) -> float:
        with open_reference(self.target) as session:
            ((timing,),) = measure_together(
                [[session.run]], session.synchronize, cpu_clock_s=cpu_clock(self.target)
            )
        return timing.latency_ms


def open_cpu(target: Target) -> CpuBench:
    """Return this machine's CPU as a bench; see `open_bench`.

    Raises:
        DeviceError: the runtime cannot time kernels here.
        ProfileError: more threads are asked for than there are cores.
    """
    from dsonas_hw.device.cpu import local_cpu

    if reason := get_runtime(target.runtime).why_untimed(target):
        raise DeviceError(f"{target.device} cannot be profiled with {target.runtime}: {reason}")
    if target.threads > (num_cores := local_cpu().num_cores):
        raise ProfileError(f"{target.threads} threads were asked for; this machine has {num_cores} cores")
    return CpuBench(target=target)


def open_reference(target: Target) -> Session:
    """The reference workload, ready to run as what it is compared with, but for one image."""
    return open_session(build_reference(), replace(target, batch_size=1))


def cpu_clock(target: Target) -> Callable[[], float] | None:
    """The CPU clock of the thread that does the work, where that is the calling one."""
    return time.thread_time if get_runtime(target.runtime).runs_in_caller and target.threads == 1 else None


def _maximum_mhz() -> float | None:
    """The CPU's highest clock, where the system tells."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").read_text()
        return int(text) / 1e3
    except (OSError, ValueError):
        return None
