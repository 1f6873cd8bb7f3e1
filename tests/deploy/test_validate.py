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
from dsonas_hw.budget import Metric, parse_budgets
from dsonas_hw.config import DeviceConfig
from dsonas_hw.cost.model import Prediction
from dsonas_hw.deploy.export import export_onnx
from dsonas_hw.deploy.measure import TargetMeasurement
from dsonas_hw.deploy.validate import Validation, load_validation, save_validation, validate
from dsonas_hw.errors import DeviceError, ModelFileError, RunError
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.energy import EnergyMeasurement, EnergyWindow
from dsonas_hw.measure.measurement import LatencyMeasurement, Turn
from dsonas_hw.measure.statistics import REPEATABILITY
from dsonas_hw.target import Target
from dsonas_hw.train.data import Dataset

LOCAL = DeviceConfig()


class Predicts:
    """A latency model that always says the same."""

    target, source, fuse = Target(device="h100", runtime="tensorrt"), "estimated", True
    disclaimer = "ESTIMATED, NOT MEASURED: latencies of h100 may be off by ±34%"

    def __init__(self, latency_ms: float) -> None:
        self.latency_ms = latency_ms

    def predict(self, kernels: Sequence[Kernel], metric: Metric = "latency") -> Prediction:
        return Prediction(value=self.latency_ms, low=0.0, high=9.0, source="estimated")

    def why_not(self, metric: Metric) -> str:
        return "" if metric == "latency" else "nothing tells it"

    def kernel_cost(self, kernel: Kernel, metric: Metric = "latency") -> float:
        return 0.0


class Clock:
    """A measurement that comes out as told: of 6 rounds of 90 samples, all of them `latency_ms`; in the first
    2 rounds `slow_ms`, if that is given."""

    def __init__(
        self, latency_ms: float, *, slow_ms: float | None = None, energy_mj: float | None = None
    ) -> None:
        rounds = [latency_ms if slow_ms is None else slow_ms] * 2 + [latency_ms] * 4
        self.samples_ms = tuple(ms for ms in rounds for _ in range(90))
        self.energy_mj = energy_mj
        self.num_calls = 0

    def __call__(self, model: Path, target: DeviceConfig) -> TargetMeasurement:
        self.num_calls += 1
        turn = Turn(num_warmup=1, num_samples=90, low_ms=min(self.samples_ms))
        energy = None
        if self.energy_mj is not None:
            window = EnergyWindow(energy_mj=10 * self.energy_mj, num_inferences=10, seconds=0.5)
            energy = EnergyMeasurement(windows=(window,) * 12, method="counter")
        return TargetMeasurement(
            latency=LatencyMeasurement(samples_ms=self.samples_ms, converged=True, turns=(turn,) * 6),
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
    """check("mac=1M", measure=…) → the validation."""

    def run(*budgets: str, target: DeviceConfig = LOCAL, **options: Any) -> Validation:
        where = Target(runtime="any", precision=target.precision, batch_size=target.batch_size)
        costs = TargetCosts(options.pop("model", None), target=where)
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
    # All samples agree; what is known of how machines repeat themselves is 1 %.
    assert (verdict.statistic, verdict.low, verdict.high) == ("p50", 1.5 * 0.99, 1.5 * 1.01)
    assert (validation.source, validation.runtime) == ("measured", "ort-cpu")
    assert validation.disclaimer == ""  # the device has answered: the prediction's no longer matters


def test_all_of_a_measurement_is_kept(check: Any) -> None:
    latency = check(measure=Clock(1.5, slow_ms=3.0)).latency
    assert (latency["num_rounds"], latency["num_samples"]) == (6, 540)
    assert latency["samples_ms"] == [3.0] * 180 + [1.5] * 360
    assert latency["round_medians_ms"] == [3.0, 3.0, 1.5, 1.5, 1.5, 1.5]
    assert (latency["quiet_ms"], latency["p50_ms"]) == (1.5, 1.5)
    assert (latency["p95_ms"], latency["p99_ms"]) == (3.0, 3.0)
    assert latency["mean_ms"] == pytest.approx(2.0)  # (2·3 + 4·1.5) / 6
    assert latency["std_ms"] == pytest.approx(0.5**0.5)  # √((2·1 + 4·0.25) / 6)
    assert latency["p50_ms_low"] <= 1.5 * 0.99
    assert latency["p50_ms_high"] == 3.0  # two of six rounds: it might have been half of them


@pytest.mark.parametrize(
    ("limit", "verdict", "holds"),
    [("1.6ms", "holds", True), ("1.51ms", "undecided", None), ("1.495ms", "undecided", None),
     ("1.48ms", "missed", False)],
)  # fmt: skip
def test_there_are_three_verdicts(check: Any, limit: str, verdict: str, holds: bool | None) -> None:
    """The interval is 1.5 ms ± 1 %: 1.485 to 1.515 ms."""
    validation = check(f"latency={limit}", measure=Clock(1.5))
    (found,) = validation.budgets
    assert (found.verdict, found.holds) == (verdict, holds)
    assert validation.holds == (verdict == "holds")
    assert validation.missed == (("latency",) if verdict == "missed" else ())
    assert validation.undecided == (("latency",) if verdict == "undecided" else ())


@pytest.mark.parametrize("latency_ms", [1.9, 2.0, 2.4])
def test_nothing_is_measured_twice(check: Any, latency_ms: float) -> None:
    clock = Clock(latency_ms)
    assert check("latency=2ms", measure=clock).budgets[0].measured == latency_ms
    assert clock.num_calls == 1


@pytest.mark.parametrize(("statistic", "verdict"), [("p50", "holds"), ("p95", "missed")])
def test_the_statistic_is_the_user_s(check: Any, statistic: Any, verdict: str) -> None:
    """One run in three takes 2.5 or 3 ms, the others 1.5 ms."""
    target = DeviceConfig(statistic=statistic)
    clock = Clock(1.5)
    clock.samples_ms = tuple({0: 2.5, 3: 3.0}.get(i % 6, 1.5) for i in range(540))
    validation = check("latency=2ms", measure=clock, target=target)
    assert validation.statistic == statistic
    (found,) = validation.budgets
    assert (found.statistic, found.verdict) == (statistic, verdict)
    assert validation.costs["latency_ms"] == found.measured == (1.5 if statistic == "p50" else 3.0)


def test_a_percentile_of_too_few_runs_is_undecided(check: Any) -> None:
    """Of 540 runs, 1 % are 5.4: two in each of six rounds do not say what the 99th percentile is at most."""
    clock = Clock(1.0)
    clock.samples_ms = tuple(5.0 if i % 90 < 2 else 1.0 for i in range(540))
    (found,) = check("latency=50ms", measure=clock, target=DeviceConfig(statistic="p99")).budgets
    assert (found.verdict, found.holds, found.high) == ("undecided", None, None)


def test_a_stored_verdict_is_the_one_that_was_written(check: Any, model_path: Path, tmp_path: Path) -> None:
    budgets = parse_budgets(["latency=2ms", "mac=1M"])
    validation = check("latency=2ms", "mac=1M", measure=Clock(1.5))
    path = tmp_path / "validation.json"
    assert load_validation(path) is None
    save_validation(path, validation)
    stored = load_validation(path)
    assert stored is not None
    save_validation(tmp_path / "again.json", stored)
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(path.read_text())
    assert stored.answers(model_path, budgets, LOCAL)
    assert not stored.answers(model_path, budgets[:1], LOCAL)
    assert not stored.answers(model_path, budgets, DeviceConfig(statistic="p95"))
    assert not stored.answers(model_path, budgets, DeviceConfig(runtime="eager"))
    other = tmp_path / "other.onnx"
    other.write_bytes(b"another network")
    assert not stored.answers(other, budgets, LOCAL)
    for damage in ({"schema": 1}, {"budgets": [{"name": 3}]}, {"costs": None}):
        path.write_text(json.dumps({**validation.to_json(), **damage}))
        assert load_validation(path) is None
    path.write_text("{")
    assert load_validation(path) is None


def test_energy_is_answered_if_the_device_tells(check: Any) -> None:
    answered = check("energy=5mJ", measure=Clock(1.0, energy_mj=4.0))
    assert answered.holds
    assert (answered.budgets[0].statistic, answered.budgets[0].measured) == ("mean", pytest.approx(4.0))
    assert answered.budgets[0].high == pytest.approx(4.0 * (1 + REPEATABILITY))
    assert check("energy=4.02mJ", measure=Clock(1.0, energy_mj=4.0)).undecided == ("energy",)
    assert check("energy=3.9mJ", measure=Clock(1.0, energy_mj=4.0)).missed == ("energy",)
    unknown = check("energy=5mJ", measure=Clock(1.0))
    assert not unknown.is_measured
    assert unknown.budgets[0].holds is None
    assert not unknown.holds
    assert unknown.missed == ()


def test_an_absent_device_is_estimated_and_says_so(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsonas_hw.deploy.measure.find_target", lambda target: None)  # one may be here
    target = DeviceConfig(device="h100", runtime="tensorrt")
    validation = check("latency=2ms", target=target, model=Predicts(1.2))
    assert (validation.source, validation.holds) == ("estimated", True)
    assert validation.budgets[0].measured is None
    assert validation.latency is None
    assert validation.costs["latency_ms"] == 1.2
    assert validation.disclaimer == Predicts.disclaimer
    assert validation.to_json()["disclaimer"] == Predicts.disclaimer
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
    keys = {"name", "limit", "predicted", "measured", "verdict", "holds", "statistic", "low", "high"}
    keys |= {"probability"}
    assert keys == stored["budgets"][0].keys()
    assert stored["budgets"][0]["low"] < stored["budgets"][0]["measured"] < stored["budgets"][0]["high"]
    assert stored["device"] == "local"
    assert stored["holds"] is True
    assert stored["max_abs_output_error"] < 1e-3
    assert (stored["test_accuracy"], stored["test_error"]) == (0.75, 0.25)
    latency = stored["latency"]
    assert 0 < latency["quiet_ms"] <= latency["p50_ms"] <= latency["p95_ms"] <= latency["p99_ms"]
    assert len(latency["samples_ms"]) == latency["num_samples"]
    assert len(latency["round_medians_ms"]) == latency["num_rounds"] > 1


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
