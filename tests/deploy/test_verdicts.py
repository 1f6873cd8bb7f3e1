"""Verdicts in a row, on simulated machines: what a limit beside the median is told again and again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from simulated_machine import KINDS, SimulatedMachine

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.onnx import Array
from dsonas_hw.budget import Budget
from dsonas_hw.config import DeviceConfig
from dsonas_hw.deploy import validate as validating
from dsonas_hw.deploy.export import export_onnx
from dsonas_hw.deploy.measure import TargetMeasurement
from dsonas_hw.deploy.validate import Validation, validate
from dsonas_hw.train.data import Dataset

SEEDS = range(4)


class Bench:
    """A machine that has been profiled, and a network that is validated there."""

    def __init__(
        self, kind: str, seed: int, model: Path, architecture: Architecture, patch: pytest.MonkeyPatch
    ) -> None:
        self.machine = SimulatedMachine(kind, seed=seed)
        self._model, self._architecture = model, architecture
        self.usual = self.machine.usual_speed()
        patch.setattr(validating, "usual_speed_of", lambda model: self.usual)

    def validate(self, limit_ms: float) -> Validation:
        """One measurement on the machine's clock, held against a limit."""

        def measure(model: Path, target: DeviceConfig) -> TargetMeasurement:
            return TargetMeasurement(
                latency=self.machine.measure(2.0), energy=None, runtime="ort-cpu", versions={},
                device_title="simulated",
            )  # fmt: skip

        budgets = [Budget(name="latency", limit=limit_ms)]
        return validate(
            self._model, self._architecture, budgets, TargetCosts(), DeviceConfig(), measure=measure
        )

    def five(self, relative_limit: float) -> Counter[str | None]:
        """Verdicts of five validations in a row, with the limit beside the median of one before them."""
        median_ms = self.validate(1e9).budgets[0].measured
        assert median_ms is not None
        limit_ms = relative_limit * median_ms
        return Counter(self.validate(limit_ms).budgets[0].verdict for _ in range(5))


@pytest.fixture(scope="module")
def model(
    tmp_path_factory: pytest.TempPathFactory,
    architecture: Architecture,
    arrays: dict[str, Array],
    digits: Dataset,
) -> Path:
    path = tmp_path_factory.mktemp("run") / "model.onnx"
    export_onnx(path, architecture, arrays, digits)
    return path


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_below_the_median_is_never_said_to_hold(
    kind: str, seed: int, model: Path, architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where the machine drifts for longer than a measurement lasts."""
    bench = Bench(kind, seed, model, architecture, monkeypatch)
    assert "holds" not in bench.five(0.995)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_limit_above_the_median_of_a_quiet_machine_always_holds(
    seed: int, model: Path, architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Bench("quiet", seed, model, architecture, monkeypatch).five(1.02) == {"holds": 5}


@pytest.mark.parametrize("kind", ["quiet", "noisy", "drifting"])
def test_limits_far_from_the_median_are_decided_everywhere(
    kind: str, model: Path, architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(kind, 0, model, architecture, monkeypatch)
    assert bench.five(1.4) == {"holds": 5}
    assert bench.five(0.7) == {"missed": 5}


@pytest.mark.parametrize("seed", SEEDS)
def test_what_holds_was_below_the_limit_both_as_it_was_seen_and_at_the_usual_speed(
    seed: int, model: Path, architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that drifts by 2 %: its speed does not move the median, but may leave the verdict open."""
    bench = Bench("drifting", seed, model, architecture, monkeypatch)
    for _ in range(5):
        validation = bench.validate(2.03)
        (verdict,) = validation.budgets
        assert verdict.measured == pytest.approx(2.0 * bench.usual.large_ms / 0.5, rel=0.01)
        assert validation.latency is not None
        if verdict.verdict == "holds":
            assert max(validation.latency["seen_p50_ms"], verdict.measured) <= 2.03
