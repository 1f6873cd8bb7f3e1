"""Energy of one inference, from what the driver reports.

Volta and newer count the energy; the counter moves about every 100 ms, so a window starts and ends at a
movement and lasts at least half a second:

    warm-up ──┐tick            tick            tick┌── at the next movement    energy = counter difference
              │ run run run run run run run run run │   window 1, 2, … without a gap      / inferences

Before Volta (a GTX 1080 Ti), or where the counter stands still, there is only the power: it is read
every few milliseconds and integrated (trapezoids). Some drivers tell its average over the last second, so the
warm-up is longer than that. Both are the whole board's energy while it works, idle power included.

An energy is a mean, of all inferences together: a meter adds up, so single ones are never seen. The windows
tell how far it can be trusted: value ± t · their standard deviation / √windows, 99 % (Student's t).
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import stdev
from typing import Literal, Protocol

from dsonas_hw.errors import DeviceError
from dsonas_hw.measure.statistics import REPEATABILITY, Estimate, student_t
from dsonas_hw.target import Target

NO_ENERGY = "energy was not measured: "
"""How the remark of a measurement begins that tells why."""
WINDOW_SECONDS, WARMUP_SECONDS = 0.5, 1.5
PROFILE_WINDOWS, VERDICT_WINDOWS = 6, 12
"""How many windows a network is measured for while a device is profiled, and for a verdict."""
POLL_SECONDS = 0.005
"""How often the driver is asked: often against 100 ms, rarely against an inference."""
PATIENCE_SECONDS = 2.0
"""A counter that has not moved for so long does not work."""


def energy_unknown(target: Target, remarks: Iterable[str] = ()) -> str:
    """Why the energy of networks on a target is not known, in one line.

    remarks: of measurements there; the first of `energy_or_reason` is the reason.
    """
    said = [remark.removeprefix(NO_ENERGY) for remark in remarks if remark.startswith(NO_ENERGY)]
    reason = said[0] if said else "only NVIDIA GPUs are asked for it, through their driver (NVML)"
    return f"energy of {target.device} with {target.runtime} is not known: {reason}"


class CounterError(DeviceError):
    """The energy counter does not count."""


class EnergyMeter(Protocol):
    """What is needed of a GPU (`nvml.Gpu`)."""

    def energy_counter_mj(self) -> float | None: ...

    def power_w(self) -> float | None: ...


@dataclass(frozen=True, kw_only=True)
class EnergyWindow:
    """Energy of the board over some inferences."""

    energy_mj: float
    """Of all of them."""
    num_inferences: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class EnergyMeasurement:
    """Energy of the board over windows of inferences that follow each other."""

    windows: tuple[EnergyWindow, ...]
    method: Literal["counter", "power"]

    @property
    def num_inferences(self) -> int:
        return sum(window.num_inferences for window in self.windows)

    @property
    def seconds(self) -> float:
        return sum(window.seconds for window in self.windows)

    @property
    def energy_mj(self) -> float:
        """Of one inference: the mean over all."""
        return sum(window.energy_mj for window in self.windows) / self.num_inferences

    @property
    def power_w(self) -> float:
        """Mean power."""
        return self.energy_mj * self.num_inferences / self.seconds / 1e3

    @property
    def estimate(self) -> Estimate:
        """The mean in mJ and its 99 % interval over the windows; of a single one, without a bound.

        It reaches at least `REPEATABILITY` to both sides.
        """
        each = [window.energy_mj / window.num_inferences for window in self.windows]
        if len(each) < 2:
            return Estimate(value=self.energy_mj, low=0.0, high=math.inf)
        reach = student_t(len(each) - 1) * stdev(each) / math.sqrt(len(each))
        value = self.energy_mj
        interval = Estimate(value=value, low=max(value - reach, 0.0), high=value + reach)
        return interval.widened(REPEATABILITY)


def measure_energy(
    run: Callable[[], object],
    synchronize: Callable[[], None],
    *,
    meter: EnergyMeter,
    num_windows: int,
    warmup_seconds: float = WARMUP_SECONDS,
    clock_s: Callable[[], float] = time.perf_counter,
) -> EnergyMeasurement:
    """Energy of one inference, measured over windows of at least `WINDOW_SECONDS` each.

    Raises:
        DeviceError: the GPU reports no power, and no energy either or by a counter that does not count.
    """
    loop = _Loop(run, synchronize, clock_s)
    loop.run_for(warmup_seconds)
    failure = DeviceError("this GPU reports neither its energy nor its power; its energy cannot be measured")
    if meter.energy_counter_mj() is not None:
        try:
            return _by_counter(loop, meter, num_windows)
        except CounterError as error:
            failure = error
    if meter.power_w() is not None:
        return _by_power(loop, meter, num_windows)
    raise failure


def energy_or_reason(
    run: Callable[[], object],
    synchronize: Callable[[], None],
    *,
    meter: EnergyMeter | None,
    num_windows: int,
) -> tuple[EnergyMeasurement | None, tuple[str, ...]]:
    """Energy of one inference as of `measure_energy`, or why it is not known, as a remark.

    meter: None: the device has none, which needs no remark.
    """
    if meter is None:
        return None, ()
    try:
        return measure_energy(run, synchronize, meter=meter, num_windows=num_windows), ()
    except DeviceError as error:
        return None, (f"{NO_ENERGY}{error}",)


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


def _by_counter(loop: _Loop, meter: EnergyMeter, num_windows: int) -> EnergyMeasurement:
    _wait_for_movement(loop, meter)
    windows: list[EnergyWindow] = []
    before_mj, start_s, before = _read_counter(meter), loop.clock_s(), loop.count
    while len(windows) < num_windows:
        _wait_for_movement(loop, meter)
        now_mj, now_s, count = _read_counter(meter), loop.clock_s(), loop.count
        if now_s - start_s < WINDOW_SECONDS:
            continue
        if now_mj < before_mj:
            raise CounterError(f"the GPU's energy counter ran backwards, from {before_mj:g} to {now_mj:g} mJ")
        windows.append(
            EnergyWindow(energy_mj=now_mj - before_mj, num_inferences=count - before, seconds=now_s - start_s)
        )
        before_mj, start_s, before = now_mj, now_s, count
    return EnergyMeasurement(windows=tuple(windows), method="counter")


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


def _by_power(loop: _Loop, meter: EnergyMeter, num_windows: int) -> EnergyMeasurement:
    return EnergyMeasurement(
        windows=tuple(_integrate_power(loop, meter) for _ in range(num_windows)), method="power"
    )


def _integrate_power(loop: _Loop, meter: EnergyMeter) -> EnergyWindow:
    before = loop.count
    samples = [(loop.clock_s(), _read_power(meter))]
    while samples[-1][0] - samples[0][0] < WINDOW_SECONDS:
        loop.run_for(POLL_SECONDS)
        samples.append((loop.clock_s(), _read_power(meter)))
    joules = sum(
        (later_s - earlier_s) * (earlier_w + later_w) / 2
        for (earlier_s, earlier_w), (later_s, later_w) in itertools.pairwise(samples)
    )
    return EnergyWindow(
        energy_mj=1e3 * joules,
        num_inferences=loop.count - before,
        seconds=samples[-1][0] - samples[0][0],
    )


def _read_power(meter: EnergyMeter) -> float:
    value = meter.power_w()
    if value is None:
        raise DeviceError("the GPU stopped reporting its power during the measurement")
    return value
