"""Energy of one inference, from what the driver reports.

Volta and newer count the energy; the counter moves about every 100 ms, so the window starts and ends at a
movement and lasts seconds:

    warm-up ──┐tick            tick            tick┌── after min_seconds, at the next movement
              │ run run run run run run run run run │        energy = counter difference / inferences

Before Volta (a GTX 1080 Ti), or where the counter stands still, there is only the power: it is read
every few milliseconds and integrated (trapezoids). Some drivers tell its average over the last second, so the
warm-up is longer than that. Both are the whole board's energy while it works, idle power included.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from dsonas_hw.errors import DeviceError

NO_ENERGY = "energy was not measured: "
"""How the remark of a measurement begins that tells why."""
POLL_SECONDS = 0.005
"""How often the driver is asked: often against 100 ms, rarely against an inference."""
PATIENCE_SECONDS = 2.0
"""A counter that has not moved for so long does not work."""


class CounterError(DeviceError):
    """The energy counter does not count."""


class EnergyMeter(Protocol):
    """What is needed of a GPU (`nvml.Gpu`)."""

    def energy_counter_mj(self) -> float | None: ...

    def power_w(self) -> float | None: ...


@dataclass(frozen=True, kw_only=True)
class EnergyMeasurement:
    """Energy of the board over a window of inferences."""

    energy_mj: float
    """Of one inference."""
    num_inferences: int
    seconds: float
    method: Literal["counter", "power"]
    samples: tuple[tuple[float, float], ...]
    """(seconds, mJ) for the counter, (seconds, W) for the power, as read."""

    @property
    def power_w(self) -> float:
        """Mean power over the window."""
        return self.energy_mj * self.num_inferences / self.seconds / 1e3


def measure_energy(
    run: Callable[[], object],
    synchronize: Callable[[], None],
    *,
    meter: EnergyMeter,
    min_seconds: float = 3.0,
    warmup_seconds: float = 1.5,
    clock_s: Callable[[], float] = time.perf_counter,
) -> EnergyMeasurement:
    """Energy of one inference, measured over a window of at least `min_seconds`.

    Raises:
        DeviceError: the GPU reports no power, and no energy either or by a counter that does not count.
    """
    loop = _Loop(run, synchronize, clock_s)
    loop.run_for(warmup_seconds)
    failure = DeviceError("this GPU reports neither its energy nor its power; its energy cannot be measured")
    if meter.energy_counter_mj() is not None:
        try:
            return _by_counter(loop, meter, min_seconds)
        except CounterError as error:
            failure = error
    if meter.power_w() is not None:
        return _by_power(loop, meter, min_seconds)
    raise failure


class _Loop:
    """Runs inferences, counts them, and knows the time."""

    def __init__(
        self, run: Callable[[], object], synchronize: Callable[[], None], clock_s: Callable[[], float]
    ) -> None:
        self._run, self._synchronize, self.clock_s = run, synchronize, clock_s
        self.count = 0

    def run_for(self, seconds: float) -> None:
        """At least one inference, and as many as fill the time; all finished on return."""
        end_s = self.clock_s() + seconds
        while True:
            self._run()
            self._synchronize()
            self.count += 1
            if self.clock_s() >= end_s:
                return


def _by_counter(loop: _Loop, meter: EnergyMeter, min_seconds: float) -> EnergyMeasurement:
    _wait_for_movement(loop, meter)
    first_mj, first_s, first_count = _read_counter(meter), loop.clock_s(), loop.count
    samples = [(first_s, first_mj)]
    while loop.clock_s() - first_s < min_seconds or len(samples) < 2:
        _wait_for_movement(loop, meter)
        samples.append((loop.clock_s(), _read_counter(meter)))
    last_s, last_mj = samples[-1]
    if last_mj < first_mj:
        raise CounterError(f"the GPU's energy counter ran backwards, from {first_mj:g} to {last_mj:g} mJ")
    count = loop.count - first_count
    return EnergyMeasurement(
        energy_mj=(last_mj - first_mj) / count,
        num_inferences=count,
        seconds=last_s - first_s,
        method="counter",
        samples=tuple(samples),
    )


def _wait_for_movement(loop: _Loop, meter: EnergyMeter) -> None:
    before_mj, start_s = _read_counter(meter), loop.clock_s()
    while _read_counter(meter) == before_mj:
        if loop.clock_s() - start_s > PATIENCE_SECONDS:
            raise CounterError(f"the GPU's energy counter has stood still for {PATIENCE_SECONDS:g} s")
        loop.run_for(POLL_SECONDS)


def _read_counter(meter: EnergyMeter) -> float:
    value = meter.energy_counter_mj()
    if value is None:
        raise CounterError("the GPU's energy counter vanished during the measurement")
    return value


def _by_power(loop: _Loop, meter: EnergyMeter, min_seconds: float) -> EnergyMeasurement:
    first_count = loop.count
    samples = [(loop.clock_s(), _read_power(meter))]
    while samples[-1][0] - samples[0][0] < min_seconds:
        loop.run_for(POLL_SECONDS)
        samples.append((loop.clock_s(), _read_power(meter)))
    joules = sum(
        (later_s - earlier_s) * (earlier_w + later_w) / 2
        for (earlier_s, earlier_w), (later_s, later_w) in itertools.pairwise(samples)
    )
    count = loop.count - first_count
    return EnergyMeasurement(
        energy_mj=1e3 * joules / count,
        num_inferences=count,
        seconds=samples[-1][0] - samples[0][0],
        method="power",
        samples=tuple(samples),
    )


def _read_power(meter: EnergyMeter) -> float:
    value = meter.power_w()
    if value is None:
        raise DeviceError("the GPU stopped reporting its power during the measurement")
    return value
