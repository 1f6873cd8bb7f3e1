"""The verdict: exact where it can be counted, measured where the device is, honest where it is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.onnx import Array
from dsonas_hw.budget import parse_budgets
from dsonas_hw.config import DeviceConfig
from dsonas_hw.cost.model import LatencyPrediction
from dsonas_hw.deploy.export import export_onnx
from dsonas_hw.deploy.measure import TargetMeasurement
from dsonas_hw.deploy.validate import Validation, save_validation, validate
from dsonas_hw.device.energy import EnergyMeasurement
from dsonas_hw.errors import DeviceError, ModelFileError, RunError
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.profile.measurement import LatencyMeasurement
from dsonas_hw.train.data import Dataset

LOCAL = DeviceConfig()


class Predicts:
    """A latency model that always says the same."""

    device, runtime, precision, batch_size, source, fuse = "h100", "tensorrt", "fp32", 1, "estimated", True
    caution = "ESTIMATED, NOT MEASURED: latencies of h100 may be off by ±34%"

    def __init__(self, latency_ms: float) -> None:
        self.latency_ms = latency_ms

    def predict(self, kernels: Sequence[Kernel]) -> LatencyPrediction:
        return LatencyPrediction(
            latency_ms=self.latency_ms, latency_ms_low=0.0, latency_ms_high=9.0, source="estimated"
        )

    def kernel_latency_ms(self, kernel: Kernel) -> float:
        return 0.0


class Clock:
    """Measurements that come out as told, one after the other."""

    def __init__(self, *latencies_ms: float, energy_mj: float | None = None) -> None:
        self.latencies_ms = list(latencies_ms)
        self.energy_mj = energy_mj
        self.num_calls = 0

    def __call__(self, model: Path, target: DeviceConfig) -> TargetMeasurement:
        latency_ms = self.latencies_ms[self.num_calls]
        self.num_calls += 1
        energy = None
        if self.energy_mj is not None:
            energy = EnergyMeasurement(
                energy_mj=self.energy_mj, num_inferences=10, seconds=3.0, method="counter", samples=()
            )
        return TargetMeasurement(
            latency=LatencyMeasurement(samples_ms=(latency_ms,) * 9, settled=True),
            energy=energy,
            runtime="ort-cpu",
            versions={"onnxruntime": "1"},
            device_title="test",
        )


@pytest.fixture(scope="session")
def model_path(
    tmp_path_factory: pytest.TempPathFactory,
    architecture: Architecture,
    arrays: dict[str, Array],
    digits: Dataset,
) -> Path:
    path = tmp_path_factory.mktemp("run") / "model.onnx"
    export_onnx(path, architecture, arrays, digits)
    return path


@pytest.fixture
def check(model_path: Path, architecture: Architecture) -> Any:
    """check("mac=1M", measure=…) → the validation, without pauses."""

    def run(*budgets: str, target: DeviceConfig = LOCAL, **options: Any) -> Validation:
        costs = TargetCosts(options.pop("model", None), batch_size=target.batch_size)
        options.setdefault("pause", lambda seconds: None)
        return validate(model_path, architecture, parse_budgets(budgets), costs, target, **options)

    return run


def test_counted_costs_are_the_architecture_s(check: Any, architecture: Architecture) -> None:
    expected = TargetCosts().costs(architecture)
    validation = check(measure=Clock(1.0))
    for quantity in ("flops", "mac", "params", "memory_bytes"):
        assert validation.costs[quantity] == getattr(expected, quantity)
    assert validation.holds  # there is nothing to hold


def test_a_limit_is_held_to_the_last_element(check: Any, architecture: Architecture) -> None:
    mac = TargetCosts().costs(architecture).mac
    assert check(f"mac={mac}", measure=Clock(1.0)).holds
    missed = check(f"mac={mac - 1},latency=2ms", measure=Clock(1.0))
    assert not missed.holds
    assert missed.missed == ("mac",)
    (mac_verdict, latency_verdict) = missed.budgets
    assert (mac_verdict.predicted, mac_verdict.measured) == (mac, mac)
    assert latency_verdict.holds


def test_memory_is_that_of_the_target_s_batch(check: Any) -> None:
    one = check(measure=Clock(1.0)).costs["memory_bytes"]
    four = check(measure=Clock(1.0), target=DeviceConfig(batch_size=4)).costs["memory_bytes"]
    assert four == 4 * one
    assert check(measure=Clock(1.0), target=DeviceConfig(precision="fp16")).costs["memory_bytes"] == one / 2


def test_latency_is_measured_and_the_prediction_kept_beside_it(check: Any) -> None:
    validation = check("latency=2ms", measure=Clock(1.5), model=Predicts(1.2))
    (verdict,) = validation.budgets
    assert (verdict.predicted, verdict.measured, verdict.holds) == (1.2, 1.5, True)
    assert (validation.source, validation.runtime) == ("measured", "ort-cpu")
    assert validation.caution == ""  # the device has answered: the prediction's no longer matters
    assert validation.latency["num_measurements"] == 1
    assert validation.latency["samples_ms"] == [1.5] * 9


def test_a_miss_is_measured_again_before_it_is_believed(check: Any) -> None:
    clock = Clock(2.4, 1.9)
    validation = check("latency=2ms", measure=clock)
    assert validation.holds
    assert clock.num_calls == 2
    clock = Clock(2.4, 2.2, 2.3, 1.0)
    validation = check("latency=2ms", measure=clock)
    assert not validation.holds
    assert clock.num_calls == 3
    assert validation.costs["latency_ms"] == 2.2
    assert validation.missed == ("latency",)


def test_energy_is_answered_if_the_device_tells(check: Any) -> None:
    assert check("energy=5mJ", measure=Clock(1.0, energy_mj=4.0)).holds
    unknown = check("energy=5mJ", measure=Clock(1.0))
    assert unknown.budgets[0].holds is None
    assert not unknown.holds
    assert unknown.missed == ()


def test_an_absent_device_is_estimated_and_says_so(check: Any) -> None:
    target = DeviceConfig(device="h100", runtime="tensorrt")
    validation = check("latency=2ms", target=target, model=Predicts(1.2))
    assert (validation.source, validation.holds) == ("estimated", True)
    assert validation.budgets[0].measured is None
    assert validation.latency is None
    assert validation.costs["latency_ms"] == 1.2
    assert validation.caution == Predicts.caution
    assert validation.to_json()["caution"] == Predicts.caution
    assert not check("latency=1ms", target=target, model=Predicts(1.2)).holds
    assert not check("latency=1ms", target=target).holds  # nothing is known


def test_a_present_device_with_an_unusable_runtime_is_an_error(check: Any) -> None:
    with pytest.raises(DeviceError, match="cannot run"):
        check("latency=2ms", target=DeviceConfig(runtime="ort-cuda"))


def test_it_is_really_measured_here(check: Any, tmp_path: Path) -> None:
    training = {"test_accuracy": 0.75}
    validation = check("latency=1000s,mac=1T", training=training)
    assert validation.holds
    assert validation.is_measured
    assert validation.runtime == "ort-cpu"
    assert "onnxruntime" in validation.versions
    save_validation(tmp_path / "validation.json", validation)
    stored = json.loads((tmp_path / "validation.json").read_text())
    assert {"budgets", "holds", "device", "runtime", "max_abs_output_error", "source"} <= stored.keys()
    assert {"name", "limit", "predicted", "measured", "holds"} == stored["budgets"][0].keys()
    assert stored["device"] == "local"
    assert stored["holds"] is True
    assert stored["max_abs_output_error"] < 1e-3
    assert (stored["test_accuracy"], stored["test_error"]) == (0.75, 0.25)
    assert stored["latency"]["latency_ms"] > 0
    assert len(stored["latency"]["samples_ms"]) == stored["latency"]["num_samples"]


def test_other_files_are_refused(tmp_path: Path, model_path: Path, architecture: Architecture) -> None:
    def run(path: Path, architecture: Architecture) -> Validation:
        return validate(path, architecture, (), TargetCosts(), LOCAL, measure=Clock(1.0))

    with pytest.raises(RunError, match="run: dsonas-hw export"):
        run(tmp_path / "model.onnx", architecture)
    with pytest.raises(RunError, match="not the run's architecture; export it again"):
        run(model_path, architecture.with_width(4))
    (tmp_path / "model.onnx").write_bytes(model_path.read_bytes()[:500])
    with pytest.raises(ModelFileError):
        run(tmp_path / "model.onnx", architecture)
