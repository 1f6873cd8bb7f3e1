"""A runtime that only this file knows profiles, searches, validates and reports, on the CPU and on a GPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from stand_in import CARD, NAME, TINY, Clock, StandIn, StandInSession, write_card

from dsonas_hw.deploy.measure import profiled_clock_mhz
from dsonas_hw.device.gpu import GpuSettings, GpuState
from dsonas_hw.device.spec import load_device
from dsonas_hw.device.watch import GpuWatch
from dsonas_hw.errors import DeviceError, ProfileError
from dsonas_hw.estimate.estimate import load_estimate
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.loaded import measure_loaded
from dsonas_hw.measure.measurement import LatencyMeasurement
from dsonas_hw.measure.rounds import measure_rounds
from dsonas_hw.measure.timing import measure_together
from dsonas_hw.profile import gpu_bench
from dsonas_hw.profile import open as profile_open
from dsonas_hw.profile.open import open_cost_model
from dsonas_hw.profile.profile_space import profile_space
from dsonas_hw.runtime import detect
from dsonas_hw.runtime.base import ProfiledSession, Session
from dsonas_hw.runtime.detect import DetectedDevice, Detection, RuntimeStatus
from dsonas_hw.runtime.registry import register, unregister
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.table.table import load_table
from dsonas_hw.target import Target

CPU, GPU = NAME, "stand-in-gpu"
CONSTANT_MS = 0.02
"""What a network takes besides its kernels."""


def made_up_ms(kernel: Kernel) -> float:
    """Of each multiply-add half a nanosecond, of each element moved two, of each kernel five microseconds."""
    return 0.005 + 5e-7 * kernel.flops + 2e-6 * kernel.mac


CLOCK = Clock()


def open_stand_in(model: bytes, target: Target) -> StandInSession:
    return StandInSession(model, target, CLOCK, made_up_ms, CONSTANT_MS)


class StandInCpu(StandIn):
    on_cpu = True
    on_gpu = False

    def open_stand_in(self, model: bytes, target: Target) -> StandInSession:
        return open_stand_in(model, target)


class StandInGpu(StandInCpu):
    """The same on a GPU, whose driver and clock are made up; what is set below goes wrong."""

    name = GPU
    on_cpu = False
    on_gpu = True
    estimated_as = "eager"
    untimed = ""
    taken_away_after: int | None = None
    is_incomplete = False
    waits_ms = 0.0
    num_opened = 0

    def open_session(self, model: bytes, target: Target) -> Session:
        self.num_opened += 1
        if self.taken_away_after is not None and self.num_opened > self.taken_away_after:
            raise RuntimeError("CUDA error: device is lost\nCompile with TORCH_USE_CUDA_DSA")
        session = open_stand_in(model, target)
        session.seconds += 1e-3 * self.waits_ms
        return session

    def why_untimed(self, target: Target) -> str:
        return self.untimed

    def open_profiled(self, model: bytes, target: Target, plain: Session) -> ProfiledSession:
        if self.is_incomplete:
            raise ProfileError("the trace has no time of 1 of 9 kernels")
        return open_stand_in(model, target)

    def measure(self, session: Session, **options: Any) -> LatencyMeasurement:
        taken = {name: options[name] for name in ("plan", "look", "progress") if options.get(name)}
        return measure_loaded(session, clock_s=CLOCK, **taken)


@dataclass(frozen=True, kw_only=True)
class Driver:
    """Of a GPU that gets hot, or not."""

    reasons: tuple[str, ...] = ()

    def settings(self) -> GpuSettings:
        return GpuSettings(
            power_limit_w=100.0, default_power_limit_w=100.0, persistence=True, ecc=None, other_processes=()
        )

    def violations_s(self) -> dict[str, float]:
        return {}

    def state(self) -> GpuState:
        return GpuState(
            sm_clock_mhz=1500,
            memory_clock_mhz=5000,
            temperature_c=83,
            power_w=99.0,
            clock_reasons=self.reasons,
        )

    @contextmanager
    def watch(self, index: int, *, sm_clock_mhz: int | None = None) -> Iterator[GpuWatch]:
        yield GpuWatch(gpu=self, locked_mhz=sm_clock_mhz, clock_s=CLOCK)  # type: ignore[arg-type]


def detected(*, reason: str = "", version: str = "1.0") -> Detection:
    """A machine with the card, which the runtime can serve unless there is a reason."""
    device = load_device(CARD)
    status = RuntimeStatus(runtime=GPU, usable=not reason, reason=reason, version=version)
    card = DetectedDevice(
        name=CARD, title=device.title, fingerprint=device.fingerprint, device=device, index=0, uuid="GPU-0",
        driver_version="550.54.14", compute_capability=(8, 6), runtimes=(status,),
    )  # fmt: skip
    return Detection(devices=(card,), no_gpu_reason="")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory, a profile of few networks, and the made-up clock wherever something is timed."""
    from dsonas_hw.deploy import measure
    from dsonas_hw.profile import cpu_bench
    from dsonas_hw.profile import profile_space as profiling

    folder = tmp_path_factory.mktemp("home")
    write_card(folder, has_energy_counter=False)
    register(StandInCpu())
    register(StandInGpu())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSONAS_HW_HOME", str(folder))
        patch.setattr(cpu_bench, "measure_together", partial(measure_together, clock_s=CLOCK))
        patch.setattr(measure, "measure_rounds", partial(measure_rounds, clock_s=CLOCK, rest=CLOCK.advance))
        patch.setattr(profiling, "profile_space", partial(profile_space, num_networks=8, num_checked=4))
        yield folder
    unregister(CPU)
    unregister(GPU)


def not_counted(*args: Any, **options: Any) -> Any:
    raise DeviceError("the card does not count energy")


@pytest.fixture(scope="module")
def card(home: Path) -> Iterator[None]:
    """The card is in this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detect, "detect_devices", detected)
        patch.setattr(gpu_bench, "detect_devices", detected)
        patch.setattr(gpu_bench, "watch_gpu", Driver().watch)
        patch.setattr("dsonas_hw.device.watch.watch_gpu", Driver().watch)
        patch.setattr("dsonas_hw.measure.energy.measure_energy", not_counted)
        yield


@dataclass(frozen=True, kw_only=True)
class Finished:
    run: Path
    done: Any
    target: Target


@pytest.fixture(scope="module", params=[CPU, GPU])
def finished(home: Path, dsonas: Any, request: pytest.FixtureRequest) -> Finished:
    """A run through every stage, under a budget that its predictions, then its measurement, decide."""
    target = Target(runtime=CPU) if request.param == CPU else Target(device=CARD, runtime=GPU)
    if request.param == GPU:
        request.getfixturevalue("card")
    config, run = home / f"{request.param}.yaml", home / request.param
    where = {"runtime": target.runtime, "device": target.device}
    config.write_text(yaml.safe_dump({**TINY, "target": where}))
    done = dsonas("run", "--config", config, "--budget", "mac=20k,latency=0.15ms", "--out", run)
    return Finished(run=run, done=done, target=target)


def test_it_is_listed_with_the_others(home: Path, dsonas: Any) -> None:
    (row,) = [row for row in dsonas("devices", "local", "--json").json["runtimes"] if row["runtime"] == CPU]
    assert (row["usable"], row["version"]) == (True, "1.0")
    assert CPU in dsonas("predict", "x.onnx", "--runtime", "stand-inn").refused()


def test_it_profiles_searches_validates_and_reports(finished: Finished) -> None:
    assert finished.done.code == 0, finished.done
    found = json.loads((finished.run / "validation.json").read_text())
    assert (found["runtime"], found["source"], found["holds"]) == (finished.target.runtime, "measured", True)
    assert finished.target.runtime in (finished.run / "report.html").read_text()
    assert "γ by latency" in finished.done.err  # of the table's rows, which are measured


def test_its_table_tells_the_made_up_times(home: Path, finished: Finished) -> None:
    target = finished.target
    table = load_table(home / "profiles" / target.device / f"{target.runtime}-fp32-b1.jsonl")
    assert (table.header.target, table.header.source) == (target, "measured")
    for row in table.kernels.values():
        assert (row.source, row.num_samples > 0) == ("measured", True)
        assert row.latency_ms == pytest.approx(made_up_ms(row.kernel), rel=0.1)
    for network in table.networks:  # what the kernels took, and what every network takes besides
        assert network.in_situ_ms is not None
        assert network.in_situ_ms + CONSTANT_MS == pytest.approx(network.latency_ms, rel=0.1)
    for check in table.checks.values():
        assert check.num_networks == 4
        assert check.error.mape < 0.05
        assert {"isolated timings, summed", "a line in flops"} >= set(check.baselines)


def test_a_prediction_is_what_the_network_takes(finished: Finished, dsonas: Any) -> None:
    model, target = finished.run / "model.onnx", finished.target
    predicted = dsonas(
        "predict", model, "--device", target.device, "--runtime", target.runtime, "--json"
    ).json
    takes_ms = 1e3 * open_stand_in(model.read_bytes(), target).seconds
    assert predicted["source"] == "measured"
    assert predicted["unknown_kernels"] == []
    assert predicted["latency_ms"] == pytest.approx(takes_ms, rel=0.15)


# -- what is a GPU's alone --------------------------------------------------------------------------------

SPACE = SearchSpace(
    levels=2, stages=(1, 1), channels=8, input_shape=(1, 8, 8), num_classes=10, operations=("sep3", "max3")
)
TARGET = Target(device=CARD, runtime=GPU)


@pytest.fixture
def gpu(card: None) -> StandInGpu:
    """The runtime, as it goes wrong in one test."""
    runtime = StandInGpu()
    register(runtime)
    return runtime


@pytest.fixture
def estimated(gpu: StandInGpu, monkeypatch: pytest.MonkeyPatch) -> StandInGpu:
    """The runtime, estimated with the constants of another."""
    from dsonas_hw.estimate import estimate

    def as_cuda(target: Target) -> Any:
        return load_estimate(replace(target, runtime="ort-cuda"))

    monkeypatch.setattr(estimate, "load_estimate", as_cuda)
    return gpu


def profile(folder: Path, **options: Any) -> Any:
    return profile_space(SPACE, TARGET, num_networks=6, num_checked=0, profiles_directory=folder, **options)


def networks(folder: Path) -> int:
    return len(load_table(folder / CARD / f"{GPU}-fp32-b1.jsonl").networks)


def test_a_gpu_taken_away_loses_nothing(tmp_path: Path, gpu: StandInGpu) -> None:
    gpu.taken_away_after = 3
    with pytest.raises(DeviceError, match=r"nobody makes .* taken away .*: CUDA error: device is"):
        profile(tmp_path)
    assert networks(tmp_path) == 3
    gpu.taken_away_after = None
    profile(tmp_path)
    assert gpu.num_opened == networks(tmp_path) + 1  # the one that failed was opened twice


def test_a_trace_that_is_not_complete_loses_nothing(tmp_path: Path, gpu: StandInGpu) -> None:
    gpu.is_incomplete = True
    with pytest.raises(ProfileError, match="no time of 1 of 9 kernels"):
        profile(tmp_path)
    gpu.is_incomplete = False
    assert profile(tmp_path).source == "measured"


def test_where_kernels_are_not_timed_networks_calibrate_the_estimate(
    tmp_path: Path, estimated: StandInGpu
) -> None:
    gpu = estimated
    gpu.untimed = "the driver gives this user no times of kernels"
    done = profile(tmp_path)
    assert (done.source, done.remarks[0]) == ("calibrated", f"kernels were not timed: {gpu.untimed}")
    table = load_table(done.path)
    assert table.header.settings["method"] == f"whole networks: {gpu.untimed}"
    assert {row.source for row in table.kernels.values()} == {"estimated"}
    model = open_cost_model(TARGET, profiles_directory=tmp_path)
    assert model.source == "calibrated"
    assert model.disclaimer.startswith("CALIBRATED: stand-in-gpu does not time kernels")
    network = table.networks[0]
    kernels = [table.kernels[key].kernel for key, count in network.kernels.items() for _ in range(count)]
    assert model.predict(kernels).value == pytest.approx(network.latency_ms, rel=0.2)


def test_a_clock_that_is_held_is_a_condition_of_the_table_and_of_a_verdict(
    tmp_path: Path, gpu: StandInGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = load_table(profile(tmp_path, sm_clock_mhz=1400).path).header
    assert header.settings["locked_sm_mhz"] == 1400
    assert (header.clocks["sm_mhz"], header.clocks["locked_sm_mhz"]) == (1500, 1400)  # under load
    with pytest.raises(ProfileError, match=r"locked_sm_mhz 1400 there, locked_sm_mhz None now"):
        profile(tmp_path)
    monkeypatch.setattr(profile_open, "user_profiles", lambda: tmp_path)
    assert profiled_clock_mhz(TARGET) == 1400
    assert profiled_clock_mhz(replace(TARGET, batch_size=2)) is None


def test_timings_of_two_versions_of_the_runtime_are_not_mixed(
    tmp_path: Path, gpu: StandInGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile(tmp_path)
    monkeypatch.setattr(gpu_bench, "detect_devices", partial(detected, version="2.0"))
    with pytest.raises(ProfileError, match=r"stand_in 1\.0 there, stand_in 2\.0 now"):
        profile(tmp_path)


def test_what_is_doubtful_travels_with_the_row(
    tmp_path: Path, gpu: StandInGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_bench, "watch_gpu", Driver(reasons=("hardware thermal limit",)).watch)
    done = profile(tmp_path)
    slow = "the GPU was slowed down meanwhile: hardware thermal limit"
    assert slow in done.remarks
    assert all(slow in row.remarks for row in load_table(done.path).networks)


def test_a_network_that_waits_for_its_launches_is_named(tmp_path: Path, gpu: StandInGpu) -> None:
    gpu.waits_ms = 100.0
    done = profile(tmp_path)
    networks = load_table(done.path).networks
    waiting = "bound by the host: its kernels take"
    assert all(any(waiting in remark for remark in row.remarks) for row in networks)
    (remark,) = [remark for remark in done.remarks if waiting in remark]
    assert remark.startswith(f"{len(networks)} of {len(networks)} networks, such as fit-")


def test_a_runtime_that_cannot_serve_the_gpu_is_refused_with_its_reason(
    tmp_path: Path, gpu: StandInGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_bench, "detect_devices", partial(detected, reason="no CUDA library"))
    with pytest.raises(DeviceError, match="is here, but stand-in-gpu cannot run: no CUDA library"):
        profile(tmp_path)
    assert not list(tmp_path.iterdir())


def test_estimates_give_way_to_measurements_and_never_replace_them(
    tmp_path: Path, estimated: StandInGpu
) -> None:
    from dsonas_hw.profile.estimate_table import estimate_gpu

    estimate_gpu([SPACE], TARGET, profiles_directory=tmp_path)
    assert profile(tmp_path).source == "measured"
    with pytest.raises(ProfileError, match="holds measurements"):
        estimate_gpu([SPACE], TARGET, profiles_directory=tmp_path)
