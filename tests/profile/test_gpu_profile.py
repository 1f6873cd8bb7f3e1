"""Profiling a GPU that is here, with stand-ins for its driver and for the networks' sessions.

A network takes 1.3 times what the estimate of a 1080 Ti says, which the calibration has to find.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dsonas_hw.deploy.measure import profiled_clock_mhz
from dsonas_hw.device.gpu import GpuSettings, GpuState
from dsonas_hw.device.spec import load_device
from dsonas_hw.device.watch import GpuWatch
from dsonas_hw.errors import ProfileError
from dsonas_hw.estimate.estimate import load_estimate
from dsonas_hw.measure import loaded
from dsonas_hw.measure.loaded import measure_loaded
from dsonas_hw.measure.measurement import LatencyMeasurement
from dsonas_hw.profile.probes import probe_networks
from dsonas_hw.profile.profile_gpu import measure_gpu
from dsonas_hw.runtime.base import Runtime
from dsonas_hw.runtime.detect import DetectedDevice, RuntimeStatus
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.table.table import load_table
from dsonas_hw.target import Target

SPACE = SearchSpace(levels=2, stages=(1, 1), channels=16, input_shape=(3, 16, 16), num_classes=10)
TARGET = Target(device="1080ti", runtime="ort-cuda")
NUM_NETWORKS = 12
SLOWER = 1.3


def detected(reason: str = "", *, version: str = "1.26.0") -> DetectedDevice:
    device = load_device("1080ti")
    return DetectedDevice(
        name="1080ti",
        title=device.title,
        fingerprint=device.fingerprint,
        device=device,
        index=0,
        uuid="GPU-0",
        driver_version="550.54.14",
        compute_capability=(6, 1),
        runtimes=(RuntimeStatus(runtime="ort-cuda", usable=not reason, reason=reason, version=version),),
    )


class Driver:
    """A GPU that gets hot."""

    def __init__(self, slowdown: str = "") -> None:
        self.reasons = (slowdown,) if slowdown else ()

    def settings(self) -> GpuSettings:
        return GpuSettings(
            power_limit_w=250.0, default_power_limit_w=250.0, persistence=True, ecc=None, other_processes=()
        )

    def violations_s(self) -> dict[str, float]:
        return {}

    def state(self) -> GpuState:
        return GpuState(
            sm_clock_mhz=1582,
            memory_clock_mhz=5505,
            temperature_c=83,
            power_w=250.0,
            clock_reasons=self.reasons,
        )

    @contextmanager
    def watch(self, index: int, *, sm_clock_mhz: int | None = None) -> Iterator[GpuWatch]:
        assert index == 0
        yield GpuWatch(gpu=self, locked_mhz=sm_clock_mhz)  # type: ignore[arg-type]


class Networks:
    """Sessions that wait as long as the network is to take."""

    def __init__(self) -> None:
        estimate = load_estimate(Target(device="1080ti", runtime="ort-cuda"))
        self.latency_ms = {
            probe.build(): SLOWER * estimate.predict([s.kernel for s in probe.schedule.kernels]).value
            for probe in probe_networks(SPACE, num_networks=NUM_NETWORKS)
        }
        self.opened: list[bytes] = []
        self.fail_at: int | None = None

    def __call__(self, model: bytes, conditions: Target) -> Any:
        if self.fail_at == len(self.opened):
            raise KeyboardInterrupt
        self.opened.append(model)
        return Waiting(self.latency_ms[model])


class Waiting:
    """A session whose runs move the clock, and nothing else does."""

    runtime = "ort-cuda"
    returns_early = False
    now_s = 0.0

    def __init__(self, latency_ms: float) -> None:
        self.latency_s = latency_ms / 1e3

    def run(self) -> None:
        Waiting.now_s += self.latency_s

    def synchronize(self) -> None:
        """Nothing runs on by itself."""

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *args: object) -> None:
        """Nothing to give back."""


def measure(runtime: Runtime, session: Waiting, *, look: Any) -> LatencyMeasurement:
    return measure_loaded(
        session, returns_early=session.returns_early, look=look, clock_s=lambda: Waiting.now_s
    )


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "measure", measure)


def profile(tmp_path: Path, networks: Networks, driver: Driver | None = None, **options: Any) -> Any:
    return measure_gpu(
        [SPACE],
        TARGET,
        options.pop("gpu", detected()),
        profiles_directory=tmp_path,
        num_networks=NUM_NETWORKS,
        open_network=networks,
        watch=(driver or Driver()).watch,
        **options,
    )


def test_measured_networks_calibrate_the_estimate_and_the_table_says_so(tmp_path: Path) -> None:
    done = profile(tmp_path, Networks(), sm_clock_mhz=1400)
    assert done.source == "calibrated"
    assert done.remarks == ()
    table = load_table(done.path)
    assert table.header.clocks == {  # under load: nothing was looked at before
        "sm_mhz": 1582, "memory_mhz": 5505, "locked_sm_mhz": 1400, "power_limit_w": 250.0,
        "persistence": True, "ecc": None,
    }  # fmt: skip
    assert table.header.settings["locked_sm_mhz"] == 1400
    assert len(table.networks) == NUM_NETWORKS
    assert {row.source for row in table.kernels.values()} == {"calibrated"}
    (check,) = table.checks.values()
    assert check.error.mape == pytest.approx(done.expected_error)
    estimate = load_estimate(Target(device="1080ti", runtime="ort-cuda"))
    kernels = sorted(table.kernels.values(), key=lambda row: row.latency_ms)
    largest = kernels[-1]
    assert largest.latency_ms > 1.1 * estimate.kernel_cost(largest.kernel)


def test_a_profile_that_was_interrupted_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    networks = Networks()
    networks.fail_at = 5
    with pytest.raises(KeyboardInterrupt):
        profile(tmp_path, networks)
    networks.fail_at = None
    profile(tmp_path, networks)
    assert len(networks.opened) == NUM_NETWORKS == len(set(networks.opened))


def test_timings_of_two_versions_of_the_runtime_are_not_mixed(tmp_path: Path) -> None:
    networks = Networks()
    networks.fail_at = 5
    with pytest.raises(KeyboardInterrupt):
        profile(tmp_path, networks)
    with pytest.raises(ProfileError, match=r"onnxruntime 1\.26\.0 there, onnxruntime 1\.27\.0 now"):
        profile(tmp_path, Networks(), gpu=detected(version="1.27.0"))


def test_timings_under_another_clock_are_not_mixed(tmp_path: Path) -> None:
    networks = Networks()
    networks.fail_at = 3
    with pytest.raises(KeyboardInterrupt):
        profile(tmp_path, networks, sm_clock_mhz=1400)
    with pytest.raises(ProfileError, match=r"locked_sm_mhz 1400 there, locked_sm_mhz None now"):
        profile(tmp_path, Networks())


def test_what_is_measured_later_is_measured_at_the_clock_of_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSONAS_HW_HOME", str(tmp_path))
    assert profiled_clock_mhz(TARGET) is None
    profile(tmp_path / "profiles", Networks(), sm_clock_mhz=1400)
    assert profiled_clock_mhz(TARGET) == 1400
    assert profiled_clock_mhz(Target(device="1080ti", runtime="eager")) is None


def test_what_is_doubtful_travels_with_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = "bound by the host: the CPU takes 90% of an inference to start it"
    monkeypatch.setattr(Waiting, "returns_early", True)
    monkeypatch.setattr(loaded, "host_fraction", lambda network, clock_s: 0.9)
    done = profile(tmp_path, Networks())
    assert all(slow in row.remarks for row in load_table(done.path).networks)
    (remark,) = [remark for remark in done.remarks if "bound by the host" in remark]
    assert remark.startswith(f"{NUM_NETWORKS} of {NUM_NETWORKS} networks are doubtful, such as ")


def test_throttling_meanwhile_is_remarked(tmp_path: Path) -> None:
    done = profile(tmp_path, Networks(), Driver("hardware thermal limit"))
    assert "slowed down" in done.remarks[0]


def test_a_runtime_that_cannot_serve_the_gpu_is_refused_with_its_reason(tmp_path: Path) -> None:
    from dsonas_hw.errors import DeviceError

    with pytest.raises(DeviceError, match="is here, but ort-cuda cannot run: no CUDA library"):
        profile(tmp_path, Networks(), gpu=detected("no CUDA library"))
    assert not list(tmp_path.iterdir())
