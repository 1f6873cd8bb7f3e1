"""The verdict: what the exported network costs, against every budget.

    model.onnx ─┬─ counted ──▶ flops, mac, params, memory ─┐
                └─ measured on the device ▶ latency, energy ─┴─▶ budgets hold? ──▶ validation.json

If the device is not here, latency is what the device's profile predicts, and `source` says so.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.costs import BYTES_PER_ELEMENT, TargetCosts
from dsonas_hw.budget import Budget
from dsonas_hw.config import DeviceConfig
from dsonas_hw.deploy.export import read_metadata
from dsonas_hw.deploy.measure import TargetMeasurement, measure_on_target
from dsonas_hw.errors import ModelFileError, RunError, command_line
from dsonas_hw.files import read_json, write_json
from dsonas_hw.kernel.costs import count_costs
from dsonas_hw.kernel.from_onnx import kernels_from_onnx
from dsonas_hw.profile.measured import MeasuredLatency
from dsonas_hw.run_directory import versions

SCHEMA = 1
NUM_ATTEMPTS = 3
"""Measurements at most while the latency budget is missed; whatever disturbs a timing makes it longer."""
PAUSE_SECONDS = 2.0
"""Between two of them."""

Measure = Callable[[Path, DeviceConfig], TargetMeasurement | None]


@dataclass(frozen=True, kw_only=True)
class BudgetVerdict:
    """One budget and its answer, in the budget's unit (`budget.QUANTITIES`)."""

    name: str
    limit: float
    predicted: float | None
    """By counting the architecture, or by the device's profile."""
    measured: float | None
    """Counted on the exported file, or measured on the device; None: not measured."""
    holds: bool | None
    """By `measured`, else by `predicted`; None: neither is known."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What validation.json holds."""

    budgets: tuple[BudgetVerdict, ...]
    holds: bool
    """Whether every budget holds."""
    device: str
    runtime: str | None
    precision: str
    batch_size: int
    threads: int
    source: str
    """Of the latency: measured, or what stands in for it (calibrated, imported, estimated)."""
    caution: str
    """What to say of a latency that was not measured; empty if it was."""
    costs: Mapping[str, float | None]
    """Every cost of the exported file: flops, mac, params, memory_bytes, latency_ms, energy_mj."""
    latency: Mapping[str, Any] | None
    """Statistics and raw samples of the measurement that counts."""
    energy: Mapping[str, Any] | None
    warnings: tuple[str, ...]
    max_abs_output_error: float | None
    """Of the exported network's logits against PyTorch's, as its export found."""
    test_accuracy: float | None
    test_error: float | None
    dataset: str | None
    architecture: str
    model_sha256: str
    date: str
    versions: Mapping[str, str]
    schema: int = SCHEMA

    @property
    def missed(self) -> tuple[str, ...]:
        """Names of the budgets that do not hold."""
        return tuple(budget.name for budget in self.budgets if budget.holds is False)

    @property
    def is_measured(self) -> bool:
        return self.source == "measured"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def validate(
    model_path: Path,
    architecture: Architecture,
    budgets: Sequence[Budget],
    costs: TargetCosts,
    target: DeviceConfig,
    *,
    training: Mapping[str, Any] | None = None,
    measure: Measure | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Validation:
    """Count and measure an exported network and answer every budget; writes nothing.

    costs: predicts what cannot be counted.
    training: the object of retrain.json, if there is one.
    measure: stands in for `measure_on_target` in tests.

    Raises:
        RunError: there is no exported network, or it is another architecture's.
        ModelFileError: it cannot be read.
        DeviceError: the device is here, but the runtime cannot run.
    """
    from dsonas_hw.train.weights import architecture_hash

    if not model_path.is_file():
        raise RunError(f"{model_path} does not exist; run: {command_line('export', model_path.parent)}")
    metadata = read_metadata(model_path)
    if metadata.get("architecture_hash") != architecture_hash(architecture):
        raise RunError(
            f"{model_path} is not the run's architecture; export it again: "
            + command_line("export", model_path.parent)
        )
    counted = count_model(model_path, target)
    predicted = costs.costs(architecture).to_dict()
    measured, attempts = _measure_until_held(model_path, budgets, target, measure or measure_on_target, pause)
    known: dict[str, float | None] = {**counted, "latency_ms": None, "energy_mj": None}
    if measured is not None:
        known["latency_ms"] = measured.latency.latency_ms
        known["energy_mj"] = measured.energy.energy_mj if measured.energy else None
    verdicts = tuple(judge(budget, predicted[budget.quantity], known[budget.quantity]) for budget in budgets)
    model = costs.latency_model
    usual_ms = model.yardstick_ms if isinstance(model, MeasuredLatency) else 0.0
    source = (
        "measured" if measured else (model.source if model and model.source != "measured" else "estimated")
    )
    accuracy = (training or {}).get("test_accuracy")
    return Validation(
        budgets=verdicts,
        holds=all(verdict.holds is True for verdict in verdicts),
        device=target.device,
        runtime=measured.runtime if measured else (target.runtime or (model.runtime if model else None)),
        precision=target.precision,
        batch_size=target.batch_size,
        threads=target.threads,
        source=source,
        caution="" if measured else costs.caution,
        costs={**known, "latency_ms": known["latency_ms"] or predicted["latency_ms"]},
        latency=_latency_statistics(measured, attempts) if measured else None,
        energy=_energy_statistics(measured) if measured else None,
        warnings=measured.latency.warnings_at(usual_ms) if measured else (),
        max_abs_output_error=_number(metadata.get("max_abs_output_error")),
        test_accuracy=accuracy,
        test_error=None if accuracy is None else 1 - accuracy,
        dataset=_text(metadata.get("dataset")),
        architecture=architecture_hash(architecture),
        model_sha256=hashlib.sha256(model_path.read_bytes()).hexdigest(),
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        versions={**versions(), **(measured.versions if measured else {})},
    )


def count_model(model_path: Path, target: DeviceConfig) -> dict[str, float | None]:
    """Flops, mac and params of an ONNX file at batch 1; peak activation memory at the target's batch.

    Raises:
        ModelFileError: it holds operations whose cost is not known.
    """
    network = kernels_from_onnx(model_path, batch_size=1)
    if network.unknown:
        raise ModelFileError(f"{model_path} holds operations that cannot be counted: {network.unknown[0]}")
    at_batch = kernels_from_onnx(model_path, batch_size=target.batch_size)
    assert at_batch.peak_activation_elements is not None
    memory_bytes = at_batch.peak_activation_elements * BYTES_PER_ELEMENT[target.precision]
    return {**asdict(count_costs(network.kernels)), "memory_bytes": memory_bytes}


def judge(budget: Budget, predicted: float | None, measured: float | None) -> BudgetVerdict:
    """Hold a cost against its limit."""
    value = measured if measured is not None else predicted
    return BudgetVerdict(
        name=budget.name,
        limit=budget.limit,
        predicted=predicted,
        measured=measured,
        holds=None if value is None else value <= budget.limit,
    )


def save_validation(path: Path, validation: Validation) -> None:
    """Write validation.json."""
    write_json(path, validation.to_json())


def load_training(path: Path) -> dict[str, Any] | None:
    """The object of retrain.json; None if the network has not been trained.

    Raises:
        UserError: a damaged file.
    """
    if not path.is_file():
        return None
    data = read_json(path)
    return data if isinstance(data, dict) else None


def _measure_until_held(
    model_path: Path,
    budgets: Sequence[Budget],
    target: DeviceConfig,
    measure: Measure,
    pause: Callable[[float], None],
) -> tuple[TargetMeasurement | None, int]:
    """The least disturbed of a few measurements, taken until the latency budget holds; and how many."""
    limit_ms = min((b.limit for b in budgets if b.quantity == "latency_ms"), default=None)
    best: TargetMeasurement | None = None
    for attempt in range(1, NUM_ATTEMPTS + 1):
        measured = measure(model_path, target)
        if measured is None:
            return None, 0
        if best is None or measured.latency.latency_ms < best.latency.latency_ms:
            best = measured
        if limit_ms is None or best.latency.latency_ms <= limit_ms or attempt == NUM_ATTEMPTS:
            break
        pause(PAUSE_SECONDS)
    return best, attempt


def _latency_statistics(measured: TargetMeasurement, attempts: int) -> dict[str, Any]:
    latency = measured.latency
    return {
        "latency_ms": latency.latency_ms,
        "minimum_ms": latency.minimum_ms,
        "median_ms": latency.median_ms,
        "mean_ms": latency.mean_ms,
        "coefficient_of_variation": latency.coefficient_of_variation,
        "settled": latency.settled,
        "num_samples": len(latency.samples_ms),
        "num_measurements": attempts,
        "device_title": measured.device_title,
        "samples_ms": [float(f"{sample:.5g}") for sample in latency.samples_ms],
    }


def _energy_statistics(measured: TargetMeasurement) -> dict[str, Any] | None:
    if (energy := measured.energy) is None:
        return None
    return {
        "energy_mj": energy.energy_mj,
        "num_inferences": energy.num_inferences,
        "seconds": energy.seconds,
        "method": energy.method,
    }


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
