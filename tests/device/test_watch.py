"""Watching a GPU through the real bindings and a stub of the driver's library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsonas_hw.device.gpu import GpuSettings, GpuState
from dsonas_hw.device.watch import GpuWatch

Scenario = Callable[..., Any]


WATCH = """
import json
from dsonas_hw.device.watch import watch_gpu
with watch_gpu(0, sm_clock_mhz={clock}) as watch:
    watch.look()
print(json.dumps([watch.clocks, watch.remarks]))
"""


def test_clocks_are_noted_and_left_alone(scenario: Scenario, tmp_path: Path) -> None:
    log = tmp_path / "log"
    clocks, remarks = scenario(WATCH.format(clock=None), LOG=log)
    assert clocks == {
        "sm_mhz": 1582, "memory_mhz": 5505, "locked_sm_mhz": None, "power_limit_w": 250.0,
        "persistence": True, "ecc": None, "temperature_c": 64, "power_w": 55.0,
    }  # fmt: skip
    assert remarks == []
    assert log.read_text() == "shutdown\n"


def test_clocks_that_were_asked_for_are_held_and_given_back(scenario: Scenario, tmp_path: Path) -> None:
    log = tmp_path / "log"
    clocks, remarks = scenario(WATCH.format(clock=1400), LOG=log)
    assert clocks["locked_sm_mhz"] == 1400
    assert remarks == []
    assert log.read_text().split() == ["lock", "sm", "1400", "1400", "reset", "sm", "shutdown"]


def test_without_permission_it_is_measured_all_the_same_and_said(scenario: Scenario) -> None:
    clocks, remarks = scenario(WATCH.format(clock=1400), LOCK=4)
    assert clocks["locked_sm_mhz"] is None
    assert remarks == ["the SM clock could not be locked: Insufficient Permissions"]


@pytest.mark.parametrize("reasons", [0x20, 0x40])
def test_throttling_is_remarked(scenario: Scenario, reasons: int) -> None:
    _, (remark,) = scenario(WATCH.format(clock=None), REASONS=reasons)
    assert remark.startswith("the GPU was slowed down meanwhile: ")


class Card:
    """A GPU whose state and counters the test sets."""

    def __init__(self) -> None:
        self.clock_mhz, self.reasons, self.capped_s = 300, ("idle",), 0.0

    def settings(self) -> GpuSettings:
        return GpuSettings(
            power_limit_w=None, default_power_limit_w=None, persistence=None, ecc=None, other_processes=None
        )

    def state(self) -> GpuState:
        return GpuState(
            sm_clock_mhz=self.clock_mhz, memory_clock_mhz=None, temperature_c=None, power_w=None,
            clock_reasons=self.reasons,
        )  # fmt: skip

    def violations_s(self) -> dict[str, float]:
        return {"the power cap": self.capped_s}


def test_a_gpu_at_rest_says_nothing_about_its_clocks() -> None:
    card, now_s = Card(), [0.0]
    watch = GpuWatch(gpu=card, clock_s=lambda: now_s[0])  # type: ignore[arg-type]
    watch.look()  # idle
    card.clock_mhz, card.reasons = 1980, ()
    watch.look()
    card.clock_mhz = 1965
    watch.look()
    assert watch.remarks == ()
    assert watch.clocks["sm_mhz"] == 1972.5  # the median of 1965 and 1980, without the idle 300
    card.clock_mhz = 1400
    watch.look()
    assert watch.remarks == ("the SM clock moved between 1400 and 1980 MHz meanwhile",)


def test_throttling_between_two_looks_is_found() -> None:
    card, now_s = Card(), [0.0]
    watch = GpuWatch(gpu=card, clock_s=lambda: now_s[0])  # type: ignore[arg-type]
    card.reasons = ()
    now_s[0], card.capped_s = 10.0, 0.05  # half a percent of the time
    watch.look()
    assert watch.remarks == ()
    now_s[0], card.capped_s = 20.0, 5.0
    watch.look()
    assert watch.remarks == ("the power cap held the clocks down for 25% of the time",)


THROUGH_NVML = """
import ctypes, json, time
from dsonas_hw.device.watch import watch_gpu
stub = ctypes.CDLL("libnvidia-ml.so.1")
with watch_gpu(0) as watch:
    stub.stub_set_violation_ns(ctypes.c_ulonglong(10**12))
    watch.look()
print(json.dumps(watch.remarks))
"""


def test_the_driver_s_counters_are_read(scenario: Scenario) -> None:
    (remark,) = scenario(THROUGH_NVML)
    assert remark.startswith("the power cap held the clocks down for ")
    assert scenario(THROUGH_NVML, MORE=3) == []
