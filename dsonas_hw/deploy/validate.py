"""The verdict: what the exported network costs, against every budget.

    model.onnx ─┬─ counted ──▶ flops, mac, params, memory ─┐
                └─ measured on the device ▶ latency, energy ─┴─▶ a verdict each ──▶ validation.json

A measured latency is a percentile, a measured energy the mean, and the interval that it lies in, so that
there are three verdicts: holds, missed, and undecided where the limit lies within the interval. Both are
measured once: nothing is measured again until it fits. If the device is not here, they are what the device's
profile predicts, and `source` says so.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.costs import BYTES_PER_ELEMENT, TargetCosts
from dsonas_hw.budget import Budget, Verdict, judge_interval
from dsonas_hw.config import DeviceConfig
from dsonas_hw.deploy.export import read_metadata
from dsonas_hw.deploy.measure import TargetMeasurement, measure_on_target, usual_speed_of
from dsonas_hw.errors import ModelFileError, RunError, UserError, command_line
from dsonas_hw.files import read_json, write_json
from dsonas_hw.kernel.costs import count_costs
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.measure.measurement import quantile
from dsonas_hw.measure.reference import Speed
from dsonas_hw.measure.statistics import STATISTICS, Estimate, Statistic
from dsonas_hw.run_directory import versions

SCHEMA = 3

Measure = Callable[[Path, DeviceConfig], TargetMeasurement | None]


@dataclass(frozen=True, kw_only=True)
class BudgetVerdict:
    """One budget and its answer, in the budget's unit (`budget.QUANTITIES`)."""

    name: str
    limit: float
    predicted: float | None
    """By counting the architecture, or by the device's profile; of a latency it is the quiet value."""
    measured: float | None
    """Counted on the exported file, or measured on the device; None: not measured."""
    verdict: Verdict | None
    """By the interval of `measured`, else by `predicted`; None: neither is known."""
    holds: bool | None
    """The verdict in short; None: undecided, or nothing is known."""
    statistic: Statistic | Literal["mean"] | None = None
    """Of what was measured: which percentile of the latency, or the mean energy."""
    low: float | None = None
    high: float | None = None
    """The interval of what was measured; None: there is no bound, or the cost is exact."""
    probability: float | None = None
    """Of a metric that is only estimated: how likely it is to lie within the limit."""


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
    """Of latency and energy: measured, or what stands in for it (calibrated, imported, estimated)."""
    disclaimer: str
    """What to say of a latency that was not measured; empty if it was."""
    costs: Mapping[str, float | None]
    """Every cost of the exported file: flops, mac, params, memory_bytes, latency_ms, energy_mj.

    A measured latency is the percentile that `target.statistic` names: the median, unless told otherwise.
    """
    statistic: Statistic
    """That percentile."""
    latency: Mapping[str, Any] | None
    """Percentiles, interval, rounds and raw samples of the measurement (`_latency_statistics`)."""
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
        """Names of the budgets whose cost lies above the limit."""
        return tuple(budget.name for budget in self.budgets if budget.verdict == "missed")

    @property
    def undecided(self) -> tuple[str, ...]:
        """Names of the budgets whose limit lies within what is not known of the cost."""
        return tuple(budget.name for budget in self.budgets if budget.verdict == "undecided")

    @property
    def is_measured(self) -> bool:
        """Whether the device answered every budget that only a device can answer."""
        return self.source == "measured" and all(b.measured is not None for b in self.budgets)

    def answers(self, model_path: Path, budgets: Sequence[Budget], target: DeviceConfig) -> bool:
        """Whether this is the measured verdict on that file, those budgets and that target."""
        return (
            self.is_measured
            and [(b.name, b.limit) for b in self.budgets] == [(b.name, b.limit) for b in budgets]
            and self.runtime == (target.runtime or self.runtime)
            and all(
                getattr(self, name) == getattr(target, name)
                for name in ("device", "precision", "batch_size", "threads", "statistic")
            )
            and self.model_sha256 == hashlib.sha256(model_path.read_bytes()).hexdigest()
        )

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
    measure: Measure = measure_on_target,
) -> Validation:
    """Count and measure an exported network and answer every budget; writes nothing.

    costs: predicts what cannot be counted.
    training: the object of retrain.json, if there is one.
    measure: called once.

    Raises:
        RunError: there is no exported network, or it is another architecture's.
        ModelFileError: it cannot be read.
        DeviceError: the device is here, but the runtime cannot run.
    """
    from dsonas_hw.train.identity import architecture_hash

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
    measured = measure(model_path, target)
    usual = usual_speed_of(costs.cost_model)
    known: dict[str, Estimate | None] = {"latency_ms": None, "energy_mj": None, **_exact(counted)}
    if measured is not None:
        known |= measured.costs(target.statistic, usual)
    values = {quantity: estimate.value if estimate else None for quantity, estimate in known.items()}
    verdicts = tuple(
        judge(
            budget, predicted[budget.quantity], known[budget.quantity], statistic=target.statistic,
            probability=None if measured else costs.probability_within(architecture, budget),
        )
        for budget in budgets
    )  # fmt: skip
    model = costs.cost_model
    source = (
        "measured" if measured else (model.source if model and model.source != "measured" else "estimated")
    )
    accuracy = (training or {}).get("test_accuracy")
    return Validation(
        budgets=verdicts,
        holds=all(verdict.holds is True for verdict in verdicts),
        device=target.device,
        runtime=measured.runtime
        if measured
        else (target.runtime or (model.target.runtime if model else None)),
        precision=target.precision,
        batch_size=target.batch_size,
        threads=target.threads,
        statistic=target.statistic,
        source=source,
        disclaimer="" if measured else costs.disclaimer,
        costs={**values, **{q: values[q] or predicted[q] for q in ("latency_ms", "energy_mj")}},
        latency=_latency_statistics(measured, usual) if measured else None,
        energy=_energy_statistics(measured) if measured else None,
        warnings=measured.latency.warnings_at(usual) if measured else (),
        max_abs_output_error=_number(metadata.get("max_abs_output_error")),
        test_accuracy=accuracy,
        test_error=None if accuracy is None else 1 - accuracy,
        dataset=_text(metadata.get("dataset")),
        architecture=architecture_hash(architecture),
        model_sha256=hashlib.sha256(model_path.read_bytes()).hexdigest(),
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        versions={**versions(), **(measured.versions if measured else {})},
    )


def count_model(model_path: Path, target: DeviceConfig) -> dict[str, float]:
    """Flops, mac and params of an ONNX file at batch 1; peak activation memory at the target's batch.

    Raises:
        ModelFileError: it holds operations whose cost is not known.
    """
    network = network_from_onnx(model_path, batch_size=1)
    if network.unknown:
        raise ModelFileError(f"{model_path} holds operations that cannot be counted: {network.unknown[0]}")
    at_batch = network_from_onnx(model_path, batch_size=target.batch_size)
    assert at_batch.peak_activation_elements is not None
    memory_bytes = at_batch.peak_activation_elements * BYTES_PER_ELEMENT[target.precision]
    return {**asdict(count_costs(network.kernels)), "memory_bytes": memory_bytes}


def judge(
    budget: Budget,
    predicted: float | None,
    known: Estimate | None,
    *,
    statistic: Statistic = "p50",
    probability: float | None = None,
) -> BudgetVerdict:
    """Hold a cost against its limit: what is known of it, else what is predicted.

    statistic: of a latency, which percentile is known. probability: of an estimate, how likely it is to hold.
    """
    value = known or (Estimate.exact(predicted) if predicted is not None else None)
    verdict = judge_interval(value.low, value.high, budget.limit) if value else None
    metered = known if budget.metric else None
    return BudgetVerdict(
        name=budget.name,
        limit=budget.limit,
        predicted=predicted,
        measured=known.value if known else None,
        verdict=verdict,
        holds=None if verdict in (None, "undecided") else verdict == "holds",
        statistic=(statistic if budget.metric == "latency" else "mean") if metered else None,
        low=metered.low if metered else None,
        high=_bound(metered.high) if metered else None,
        probability=probability,
    )


def _exact(counted: Mapping[str, float]) -> dict[str, Estimate]:
    return {quantity: Estimate.exact(value) for quantity, value in counted.items()}


def save_validation(path: Path, validation: Validation) -> None:
    """Write validation.json."""
    write_json(path, validation.to_json())


def load_validation(path: Path) -> Validation | None:
    """The verdict in validation.json; None if there is none, or none that this version wrote."""
    from pydantic import TypeAdapter, ValidationError

    try:
        found = TypeAdapter(Validation).validate_python(read_json(path)) if path.is_file() else None
    except (UserError, ValidationError):
        return None
    return found if found is not None and found.schema == SCHEMA else None


def load_training(path: Path) -> dict[str, Any] | None:
    """The object of retrain.json; None if the network has not been trained.

    Raises:
        UserError: a damaged file.
    """
    if not path.is_file():
        return None
    data = read_json(path)
    return data if isinstance(data, dict) else None


def _latency_statistics(measured: TargetMeasurement, usual: Speed | None) -> dict[str, Any]:
    """The object `latency` of validation.json, in ms; each percentile's interval beside it.

    Percentiles and the quiet value are those at the machine's usual speed; samples are as they were seen.
    """
    latency = measured.latency
    percentiles: dict[str, float | None] = {}
    for name in STATISTICS:
        estimate = latency.estimate(name, usual)
        percentiles |= {
            f"{name}_ms": estimate.value, f"{name}_ms_low": estimate.low,
            f"{name}_ms_high": _bound(estimate.high),
        }  # fmt: skip
    return {
        **percentiles,
        "seen_p50_ms": latency.percentile_ms("p50"),
        "quiet_ms": latency.latency_at(usual),
        "mean_ms": latency.mean_ms,
        "std_ms": latency.std_ms,
        "relative_speed": latency.relative_speed(usual),
        "num_rounds": len(latency.rounds_ms),
        "num_samples": len(latency.samples_ms),
        "device_title": measured.device_title,
        "round_medians_ms": [_short(quantile(samples, 0.5)) for samples in latency.rounds_ms],
        "samples_ms": [_short(sample) for sample in latency.samples_ms],
    }


def _bound(value: float) -> float | None:
    """A bound as JSON has it: None where there is none."""
    return value if isfinite(value) else None


def _short(value_ms: float) -> float:
    return float(f"{value_ms:.5g}")


def _energy_statistics(measured: TargetMeasurement) -> dict[str, Any] | None:
    """The object `energy` of validation.json: the mean in mJ and its interval."""
    if (energy := measured.energy) is None:
        return None
    estimate = energy.estimate
    return {
        "energy_mj": estimate.value,
        "energy_mj_low": estimate.low,
        "energy_mj_high": _bound(estimate.high),
        "power_w": energy.power_w,
        "num_windows": len(energy.windows),
        "num_inferences": energy.num_inferences,
        "seconds": energy.seconds,
        "method": energy.method,
    }


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
