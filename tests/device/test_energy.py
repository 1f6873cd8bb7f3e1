"""Energy of an inference, on meters and a clock whose truth is known, and through the real bindings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from dsonas_hw.errors import DeviceError
from dsonas_hw.measure.energy import (
    PATIENCE_SECONDS,
    WINDOW_SECONDS,
    EnergyMeasurement,
    EnergyWindow,
    measure_energy,
)

Scenario = Callable[..., Any]


class Board:
    """A board that spends `power_w`; one inference takes `latency_s`. The counter moves every `tick_s`."""

    def __init__(
        self,
        *,
        power_w: float = 100.0,
        latency_s: float = 0.0007,
        tick_s: float = 0.1,
        counter: bool = True,
        ramp_w: float = 0.0,
    ) -> None:
        self.watts, self.latency_s, self.tick_s = power_w, latency_s, tick_s
        self.counter, self.ramp_w = counter, ramp_w
        self.now_s = 17.03

    def run(self) -> None:
        self.now_s += self.latency_s

    def clock_s(self) -> float:
        return self.now_s

    def power_w(self) -> float | None:
        return self.watts + self.ramp_w * self.now_s

    def energy_counter_mj(self) -> float | None:
        if not self.counter:
            return None
        return 1e3 * self.watts * (self.now_s // self.tick_s) * self.tick_s


def measure(board: Board, *, num_windows: int = 3, **options: float) -> Any:
    return measure_energy(
        board.run, lambda: None, meter=board, clock_s=board.clock_s, num_windows=num_windows, **options
    )


@pytest.mark.parametrize("latency_s", [0.0001, 0.0007, 0.03, 0.25])
def test_counter_windows_are_aligned_with_its_ticks(latency_s: float) -> None:
    measured = measure(Board(latency_s=latency_s), num_windows=6)
    # 100 W × latency, whatever the phase of the tick; polling every 5 ms leaves 2 × 5 ms / 3 s of doubt
    assert measured.energy_mj == pytest.approx(1e5 * latency_s, rel=max(0.005, 0.1 * latency_s))
    assert measured.method == "counter"
    assert 6 * WINDOW_SECONDS <= measured.seconds < 6 * (WINDOW_SECONDS + max(0.11, latency_s))
    assert measured.power_w == pytest.approx(100.0, rel=0.03)


def test_power_is_integrated_where_there_is_no_counter() -> None:
    measured = measure(Board(counter=False), num_windows=4)
    assert measured.method == "power"
    assert measured.energy_mj == pytest.approx(70.0, rel=1e-9)  # 100 W × 0.7 ms
    assert measured.num_inferences * 0.0007 == pytest.approx(measured.seconds)


def test_a_ramp_of_power_is_integrated_exactly() -> None:
    board = Board(counter=False, power_w=0.0, ramp_w=10.0)
    measured = measure(board, num_windows=4)
    end_s = board.now_s
    start_s = end_s - measured.seconds
    # ∫ 10 t dt = 5 (end² − start²) joules; trapezoids are exact on a straight line
    joules = 5 * (end_s**2 - start_s**2)
    assert measured.energy_mj * measured.num_inferences == pytest.approx(1e3 * joules, rel=1e-9)


def test_the_interval_is_that_of_a_mean_over_windows() -> None:
    """Of 1, 2, 3, 1, 2, 3 mJ: standard deviation √0.8 mJ; of five degrees of freedom t is 4.032."""
    windows = tuple(EnergyWindow(energy_mj=10.0 * mj, num_inferences=10, seconds=0.5) for mj in (1, 2, 3) * 2)
    found = EnergyMeasurement(windows=windows, method="counter").estimate
    assert found.value == pytest.approx(2.0)
    assert found.high - found.value == pytest.approx(4.032 * math.sqrt(0.8 / 6), rel=0.01)
    assert found.high - found.value == pytest.approx(found.value - found.low)
    alone = EnergyMeasurement(windows=windows[:1], method="counter").estimate
    assert (alone.value, alone.low, alone.high) == (1.0, 0.0, math.inf)


def test_warm_up_is_not_counted() -> None:
    board = Board(counter=False)
    measured = measure(board, num_windows=2, warmup_seconds=5.0)
    assert board.now_s - measured.seconds >= 17.03 + 5.0


class Broken(Board):
    """A board whose counter is useless."""

    def __init__(self, failure: str, *, has_power: bool = True) -> None:
        super().__init__(tick_s=1e6 if failure == "stuck" else 0.1)
        self.failure, self.has_power = failure, has_power
        self.asked = 0

    def energy_counter_mj(self) -> float | None:
        self.asked += 1
        if self.failure == "gone" and self.asked > 20:
            return None
        value = super().energy_counter_mj()
        return -value if self.failure == "backwards" and value is not None else value

    def power_w(self) -> float | None:
        return self.watts if self.has_power else None


FAILURES = [
    ("stuck", f"stood still for {PATIENCE_SECONDS:g} s"),
    ("backwards", "ran backwards"),
    ("gone", "vanished"),
]


@pytest.mark.parametrize(("failure", "message"), FAILURES)
def test_where_the_counter_is_useless_the_power_is_integrated(failure: str, message: str) -> None:
    measured = measure(Broken(failure))
    assert measured.method == "power"
    assert measured.energy_mj == pytest.approx(70.0, rel=1e-6)  # 100 W × 0.7 ms
    with pytest.raises(DeviceError, match=message):
        measure(Broken(failure, has_power=False))


def test_without_any_meter() -> None:
    board = Board(counter=False)
    board.power_w = lambda: None  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match="neither its energy nor its power"):
        measure(board)


THROUGH_NVML = """
import ctypes, json
from dsonas_hw.measure.energy import measure_energy
from dsonas_hw.device.nvml import open_nvml
stub = ctypes.CDLL("libnvidia-ml.so.1")
now = 0.0
def run():
    global now
    now += 0.002
    stub.stub_set_energy_mj(ctypes.c_ulonglong(int(250_000 * round(now // 0.1) * 0.1)))  # 250 W
    stub.stub_set_power_mw(80_000)
with open_nvml() as nvml:
    measured = measure_energy(run, lambda: None, meter=nvml.gpus()[0], num_windows=4, clock_s=lambda: now)
print(json.dumps([measured.method, measured.energy_mj]))
"""


def test_energy_through_the_bindings(scenario: Scenario) -> None:
    method, energy_mj = scenario(THROUGH_NVML)
    assert method == "counter"
    assert energy_mj == pytest.approx(500, rel=0.01)  # 250 W × 2 ms
    method, energy_mj = scenario(THROUGH_NVML, ENERGY=3)  # Pascal: not supported
    assert method == "power"
    assert energy_mj == pytest.approx(160, rel=1e-6)  # 80 W × 2 ms
