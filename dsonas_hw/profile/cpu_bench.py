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
from dsonas_hw.measure.reference import References, Speed, build_large, build_small
from dsonas_hw.measure.timing import measure_together
from dsonas_hw.profile.network_measurement import NetworkMeasurement, with_energy
from dsonas_hw.runtime.base import NetworkTiming, Session
from dsonas_hw.runtime.registry import get_runtime, open_session
from dsonas_hw.table.rows import Scalar, TableHeader
from dsonas_hw.table.table import now_utc
from dsonas_hw.target import Target

NUM_ROUNDS, WHOLE_ROUNDS = 7, 14
"""Of networks whose kernels are timed too, each of which tells of many others; and of whole ones alone."""


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
            clocks={"maximum_mhz": _maximum_mhz(), **self._measure_speed().to_values()},
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
            with self._opened(models[start : start + self.networks_at_once]) as (sessions, references):
                timings = self._measure([[session.run] for session in sessions], references, WHOLE_ROUNDS)
                found += [
                    self._with_energy(latency, session)
                    for (latency,), session in zip(timings, sessions, strict=True)
                ]
        return found

    def time_kernels(
        self, probes: Sequence[Probe], unit: Speed | None
    ) -> list[tuple[NetworkMeasurement, NetworkTiming]]:
        models = [probe.build() for probe in probes]
        runtime = get_runtime(self.target.runtime)
        with self._opened(models) as (plain, references):
            profiled = [
                runtime.open_profiled(model, self.target, session)
                for model, session in zip(models, plain, strict=True)
            ]
            pairs = list(zip(plain, profiled, strict=True))
            timings = self._measure(
                [[session.run for session in pair] for pair in pairs], references, NUM_ROUNDS
            )
            return [
                (self._with_energy(latency, running), session.finish(in_situ.turns, _speeds(latency, unit)))
                for (running, session), (latency, in_situ) in zip(pairs, timings, strict=True)
            ]

    def _measure(
        self, networks: Sequence[Sequence[Callable[[], object]]], references: References, num_rounds: int
    ) -> list[list[LatencyMeasurement]]:
        return measure_together(
            networks,
            lambda: None,
            num_rounds=num_rounds,
            references=references,
            cpu_clock_s=cpu_clock(self.target),
        )

    def _with_energy(self, latency: LatencyMeasurement, session: Session) -> NetworkMeasurement:
        return with_energy(latency, session, get_runtime(self.target.runtime).meter)

    @contextlib.contextmanager
    def _opened(self, models: Sequence[bytes]) -> Iterator[tuple[list[Session], References]]:
        """Sessions of networks, and the reference workloads; no one else measures meanwhile."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(exclusive_device(self.target.device))
            sessions = [stack.enter_context(open_session(model, self.target)) for model in models]
            yield sessions, stack.enter_context(open_references(self.target))

    def _measure_speed(self) -> Speed:
        with open_references(self.target) as references:
            runs = [[references.small], [references.large]]
            (small,), (large,) = measure_together(runs, lambda: None, cpu_clock_s=cpu_clock(self.target))
        return Speed(small_ms=small.latency_ms, large_ms=large.latency_ms)


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


@contextlib.contextmanager
def open_references(target: Target) -> Iterator[References]:
    """The reference workloads, running as what they are compared with, but one image, and in fp32."""
    where = replace(target, batch_size=1, precision="fp32")
    with open_session(build_small(), where) as small, open_session(build_large(), where) as large:
        yield References(small=small.run, large=large.run)


def _speeds(latency: LatencyMeasurement, unit: Speed | None) -> list[float]:
    """What the timings of each turn of a network are multiplied by to be those at the unit of speed."""
    return [
        unit.relative_time(turn.speed, turn.low_ms) if unit and turn.speed else 1.0 for turn in latency.turns
    ]


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
