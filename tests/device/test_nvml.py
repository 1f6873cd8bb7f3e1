"""NVML through the real bindings, against a driver library that the tests compile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsonas_hw.device.nvml import CLOCK_REASONS, SLOWDOWNS, Gpu, GpuState, Nvml, disturbances, open_nvml
from dsonas_hw.errors import DeviceError

Scenario = Callable[..., Any]

READ = """
import dataclasses, json
from dsonas_hw.device.nvml import open_nvml
with open_nvml() as nvml:
    gpu = nvml.gpus()[0]
    print(json.dumps({
        "driver": nvml.driver_version, "cuda": nvml.cuda_version, "count": len(nvml.gpus()),
        "name": gpu.name, "uuid": gpu.uuid, "capability": gpu.compute_capability,
        "energy_mj": gpu.energy_counter_mj(), "max_mhz": gpu.max_sm_clock_mhz(),
        "slowdowns": gpu.state().slowdowns, **dataclasses.asdict(gpu.state()),
    }))
"""
FAIL = """
import json
from dsonas_hw.device.nvml import open_nvml
from dsonas_hw.errors import DeviceError
try:
    with open_nvml() as nvml:
        nvml.gpus()[0].state()
    print(json.dumps(None))
except DeviceError as error:
    print(json.dumps(str(error)))
"""
LOCK = """
import json, sys
from dsonas_hw.device.nvml import open_nvml
from dsonas_hw.errors import DeviceError
said, body = None, sys.argv[1:]
try:
    with open_nvml() as nvml, nvml.gpus()[0].locked_clocks(1400, 5000) as lock:
        said = [lock.locked, lock.reason]
        {body}
except (RuntimeError, KeyboardInterrupt, DeviceError) as error:
    said = [*said, f"{{type(error).__name__}}: {{error}}"]
print(json.dumps(said))
"""


def test_present(scenario: Scenario) -> None:
    assert scenario(READ) == {
        "driver": "550.54.14",
        "cuda": [12, 4],
        "count": 1,
        "name": "NVIDIA GeForce GTX 1080 Ti",
        "uuid": "GPU-00000000-1111-2222-3333-000000000001",
        "capability": [6, 1],
        "energy_mj": 0.0,
        "max_mhz": 1911,
        "sm_clock_mhz": 1582,
        "memory_clock_mhz": 5505,
        "temperature_c": 64,
        "power_w": 55.0,
        "clock_reasons": [],
        "slowdowns": [],
    }


def test_counter_missing_and_nothing_reported(scenario: Scenario) -> None:
    read = scenario(READ, ENERGY=3, POWER=3, STATE=3)
    for key in ("energy_mj", "power_w", "sm_clock_mhz", "temperature_c", "clock_reasons"):
        assert read[key] is None, key
    assert scenario(READ, STATE=4)["sm_clock_mhz"] is None  # kept to root


def test_throttling_in_words(scenario: Scenario, old_stub_folder: Path) -> None:
    read = scenario(READ, REASONS=0x1 | 0x4 | 0x40 | 0x8000)
    assert read["clock_reasons"] == ["idle", "power cap", "hardware thermal limit", "unknown reason 0x8000"]
    assert read["slowdowns"] == ["power cap", "hardware thermal limit"]
    assert scenario(READ, folder=old_stub_folder, REASONS=0x8)["clock_reasons"] == ["hardware slowdown"]


def test_reasons_are_those_of_the_bindings() -> None:
    pynvml = pytest.importorskip("pynvml")
    for name, bit in vars(pynvml).items():
        is_reason = name.startswith(("nvmlClocksEventReason", "nvmlClocksThrottleReason"))
        if is_reason and bit and not name.endswith("All"):
            assert bit in CLOCK_REASONS, name
    assert set(CLOCK_REASONS.values()) > SLOWDOWNS


@pytest.mark.parametrize(
    ("stub", "message"),
    [
        ({"INIT": 9}, "installed but not loaded"),
        ({"INIT": 4}, "no permission to talk to the NVIDIA driver"),
        ({"INIT": 18}, "different versions: reboot"),
        ({"INIT": 999}, "does not start: Unknown Error"),
        ({"STATE": 15}, "nvmlDeviceGetClockInfo: GPU is lost"),
    ],
)
def test_a_driver_that_fails_is_one_line(scenario: Scenario, stub: dict[str, int], message: str) -> None:
    assert message in scenario(FAIL, **stub)


def test_absent(tmp_path: Path, scenario: Scenario) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    assert "no NVIDIA driver: its library libnvidia-ml.so.1" in scenario(FAIL, folder=tmp_path)


def test_bindings_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(Exception, match="pip install nvidia-ml-py"), open_nvml():
        pass


@pytest.mark.parametrize(
    ("body", "ending"),
    [
        ("pass", []),
        ("raise RuntimeError('measuring failed')", ["RuntimeError: measuring failed"]),
        ("raise KeyboardInterrupt", ["KeyboardInterrupt: "]),
    ],
)
def test_locked_clocks_are_always_restored(
    scenario: Scenario, tmp_path: Path, body: str, ending: list[str]
) -> None:
    log = tmp_path / "log"
    assert scenario(LOCK.format(body=body), LOG=log) == [True, "", *ending]
    assert log.read_text().split("\n")[:-1] == [
        *("lock sm 1400 1400", "lock memory 5000 5000"),
        *("reset memory", "reset sm", "shutdown"),
    ]


def test_locking_without_permission(scenario: Scenario, tmp_path: Path) -> None:
    log = tmp_path / "log"
    locked, reason = scenario(LOCK.format(body="pass"), LOG=log, LOCK=4)
    assert not locked
    assert reason == "the SM clock could not be locked: Insufficient Permissions"
    assert log.read_text() == "shutdown\n"


def test_half_a_lock_is_given_back(scenario: Scenario, tmp_path: Path) -> None:
    log = tmp_path / "log"
    locked, reason = scenario(LOCK.format(body="pass"), LOG=log, LOCK_MEMORY=3)
    assert (locked, "memory clock could not be locked" in reason) == (False, True)
    assert log.read_text().split("\n")[:-1] == ["lock sm 1400 1400", "reset sm", "shutdown"]


def test_a_lock_that_stays_is_reported(scenario: Scenario) -> None:
    said = scenario(LOCK.format(body="pass"), RESET=999)
    assert "the SM clock of GPU 0 is still locked" in said[-1]
    assert "nvidia-smi -i 0 -rgc" in said[-1]


def test_sigterm_restores_the_clocks(
    stub_environment: Callable[..., dict[str, str]], stub_folder: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = subprocess.Popen(
        [sys.executable, "-c", LOCK.format(body="print('locked', flush=True); import time; time.sleep(60)")],
        env=stub_environment(stub_folder, LOG=log),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.returncode == 128 + signal.SIGTERM
    assert "reset sm" in log.read_text()


def state(clock_mhz: int | None, *reasons: str) -> GpuState:
    return GpuState(
        sm_clock_mhz=clock_mhz, memory_clock_mhz=None, temperature_c=None, power_w=None, clock_reasons=reasons
    )


def test_disturbances() -> None:
    assert disturbances([]) == ()
    assert disturbances([state(1500), state(1480), state(None)]) == ()
    assert disturbances([state(300, "idle"), state(1500)]) == ()
    (moved,) = disturbances([state(1500), state(1300)])
    assert "between 1300 and 1500 MHz" in moved
    (slowed,) = disturbances([state(1500, "power cap"), state(1500, "power cap", "power brake")])
    assert slowed == "the GPU was slowed down meanwhile: power brake, power cap"


def test_an_error_of_a_call_is_a_device_error() -> None:
    class Library:
        NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_FUNCTION_NOT_FOUND, NVML_ERROR_NO_PERMISSION = 3, 13, 4
        NVML_ERROR_LIBRARY_NOT_FOUND, NVML_ERROR_DRIVER_NOT_LOADED, NVML_ERROR_LIB_RM_VERSION_MISMATCH = (
            12,
            9,
            18,
        )

        class NVMLError(Exception):
            value = 15

        def nvmlInit(self) -> None:  # noqa: N802
            return None

        def nvmlShutdown(self) -> None:  # noqa: N802
            return None

        def nvmlDeviceGetCount(self) -> int:  # noqa: N802
            raise self.NVMLError("GPU is lost")

    with pytest.raises(DeviceError, match="GPU is lost"), open_nvml(Library()) as nvml:
        nvml.gpus()


def test_a_function_that_the_driver_has_given_up_is_asked_by_its_new_name() -> None:
    """As NVML 13 announces it for the temperature and the throttle reasons."""

    class Library:
        NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_FUNCTION_NOT_FOUND, NVML_ERROR_NO_PERMISSION = 3, 13, 4
        NVML_ERROR_DEPRECATED = 26
        NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

        class NVMLError(Exception):
            value = 26

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("nvmlDeviceGet") or name == "nvmlDeviceGetCurrentClocksThrottleReasons":
                raise AttributeError(name)

            def call(*args: object) -> object:
                if name == "nvmlDeviceGetTemperature":
                    raise self.NVMLError("deprecated")
                return {"nvmlDeviceGetTemperatureV": 61, "nvmlDeviceGetCurrentClocksEventReasons": 4}.get(
                    name
                )

            return call

    state = Gpu(Nvml(Library()), 0, handle=None).state()
    assert state.temperature_c == 61
    assert state.clock_reasons == ("power cap",)


THROUGH_THE_COMMAND = "from dsonas_hw.cli.main import main; main(['devices', {name!r}, '--json'])"


def test_the_command_sees_the_driver(scenario: Callable[..., Any]) -> None:
    row = scenario(THROUGH_THE_COMMAND.format(name="1080ti"))
    assert row["here"]
    assert row["uuid"].startswith("GPU-")
    assert {status["runtime"] for status in row["runtimes"]} == {
        "ort-cuda",
        "ort-tensorrt",
        "tensorrt",
        "eager",
    }
    assert not scenario(THROUGH_THE_COMMAND.format(name="titan-xp"))["here"]
    local = scenario(THROUGH_THE_COMMAND.format(name="local"), INIT=9)
    assert local["here"]
    failed = scenario(THROUGH_THE_COMMAND.format(name="1080ti"), INIT=9)
    assert "not loaded" in failed["why_not_here"]
