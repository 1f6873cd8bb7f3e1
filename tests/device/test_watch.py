"""Watching a GPU through the real bindings and a stub of the driver's library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
    assert clocks == {"sm_mhz": 1582, "memory_mhz": 5505, "locked_sm_mhz": None}
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
