"""The lines of a lookup table, as dataclasses and as JSON; `read_rows` reads them back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from dsonas_hw.budget import Metric
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.reference import Speed
from dsonas_hw.target import Target

Source = Literal["measured", "calibrated", "imported", "estimated"]

SCHEMA_VERSION = 3
SOURCES: tuple[Source, ...] = get_args(Source)
ESTIMATE = "share of a network"
"""The statistic of every estimated row: what the model says a kernel adds to a network."""

Scalar = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class TableHeader:
    """Where the numbers of a table come from. First line of the file."""

    target: Target
    fingerprint: str
    """What identifies the machine measured: another machine's table is refused."""
    source: Source
    created: str
    """ISO 8601, UTC."""
    versions: Mapping[str, str] = field(default_factory=dict)
    clocks: Mapping[str, Scalar] = field(default_factory=dict)
    settings: Mapping[str, Scalar] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "row": "header",
            "schema": SCHEMA_VERSION,
            "device": self.target.device,
            "fingerprint": self.fingerprint,
            "runtime": self.target.runtime,
            "precision": self.target.precision,
            "batch_size": self.target.batch_size,
            "threads": self.target.threads,
            "source": self.source,
            "created": self.created,
            "versions": dict(self.versions),
            "clocks": dict(self.clocks),
            "settings": dict(self.settings),
        }


@dataclass(frozen=True, kw_only=True)
class KernelRow:
    """What one kernel costs on this device."""

    kernel: Kernel
    latency_ms: float
    source: Source
    num_samples: int = 1
    """Timings behind `latency_ms`; several rows of one kernel are averaged with these as weights."""
    statistic: str = "minimum"
    """Which statistic of the samples `latency_ms` is."""
    latency_ms_std: float | None = None
    """Spread between the places (networks) the kernel was timed in."""
    energy_mj: float | None = None
    """What it adds to a network's energy, as fitted on whole networks; None: no energy was measured."""

    def to_json(self) -> dict[str, Any]:
        kernel: dict[str, Any] = {"row": "kernel", "key": self.kernel.key, **kernel_to_json(self.kernel)}
        if self.source == "estimated":  # nothing was timed: no statistics to keep
            return kernel | {"latency_ms": self.latency_ms, "source": self.source}
        return kernel | {
            "flops": self.kernel.flops,
            "mac": self.kernel.mac,
            "params": self.kernel.params,
            "latency_ms": self.latency_ms,
            "statistic": self.statistic,
            "num_samples": self.num_samples,
            "latency_ms_std": self.latency_ms_std,
            "energy_mj": self.energy_mj,
            "source": self.source,
        }


@dataclass(frozen=True, kw_only=True)
class NetworkRow:
    """One whole network that was timed: what corrections are fitted on, and what a resume skips."""

    name: str
    latency_ms: float
    kernels: Mapping[str, int]
    """Key → how often it runs."""
    energy_mj: float | None = None
    """None: not measured."""
    flops: int = 0
    relative_noise: float | None = None
    """Coefficient of variation of the timing."""
    in_situ_ms: float | None = None
    """Sum of its kernels under the profiler."""
    speed: Speed | None = None
    """Of the machine meanwhile."""
    remarks: tuple[str, ...] = ()
    """What makes its timing doubtful, or says what limits it."""

    def to_json(self) -> dict[str, Any]:
        return {
            "row": "network",
            "name": self.name,
            "latency_ms": self.latency_ms,
            "energy_mj": self.energy_mj,
            "flops": self.flops,
            "relative_noise": self.relative_noise,
            "in_situ_ms": self.in_situ_ms,
            **(self.speed.to_values() if self.speed else {}),
            "remarks": list(self.remarks),
            "kernels": dict(self.kernels),
        }


Anchor = tuple[float, float, float, float, float]
"""A network's feature vector (`network_costs.Part.vector`), its weight, and the interval's half width."""


@dataclass(frozen=True, kw_only=True)
class CorrectionRow:
    """Numbers fitted on whole networks that turn kernel latencies into a metric of a network.

    The last row of each metric counts.
    """

    metric: Metric = "latency"
    values: Mapping[str, float]
    anchors: tuple[Anchor, ...] = ()
    """Networks timed, and what each says of those near it."""

    def to_json(self) -> dict[str, Any]:
        return {
            "row": "correction",
            "metric": self.metric,
            "values": dict(self.values),
            "anchors": [list(a) for a in self.anchors],
        }


@dataclass(frozen=True, kw_only=True)
class ErrorSummary:
    """How far predictions were from measurements."""

    mape: float
    """Mean absolute relative error; 0.03 is 3 %."""
    share_within_10: float
    """Share of networks within ±10 %."""
    kendall_tau: float | None
    """Rank correlation; None when there are too few networks."""

    def to_json(self) -> dict[str, Any]:
        return {"mape": self.mape, "share_within_10": self.share_within_10, "kendall_tau": self.kendall_tau}


@dataclass(frozen=True, kw_only=True)
class CheckRow:
    """Result of a check on networks that were not used for fitting. The last row of each space counts."""

    space: str
    num_networks: int
    error: ErrorSummary
    interval_coverage: float | None = None
    """Share of networks whose measurement lay in the predicted interval (90 % is aimed at)."""
    baselines: Mapping[str, ErrorSummary] = field(default_factory=dict)
    relative_speed: float | None = None
    """Speed of the machine during the check, 1 = as in the profile; measurements are stated at 1."""
    raw_error: ErrorSummary | None = None
    """The error against the measurements as they were, the machine's change of speed included."""
    energy_error: ErrorSummary | None = None
    """Of the predicted energies; None: none was measured. All the rest is of latencies."""
    created: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "row": "check",
            "space": self.space,
            "num_networks": self.num_networks,
            **self.error.to_json(),
            "interval_coverage": self.interval_coverage,
            "baselines": {name: error.to_json() for name, error in self.baselines.items()},
            "relative_speed": self.relative_speed,
            "raw_error": self.raw_error.to_json() if self.raw_error is not None else None,
            "energy_error": self.energy_error.to_json() if self.energy_error is not None else None,
            "created": self.created,
        }


Row = KernelRow | NetworkRow | CorrectionRow | CheckRow


def kernel_to_json(kernel: Kernel) -> dict[str, Any]:
    """A kernel's fields, without those that have their default value."""
    values: dict[str, Any] = {
        "op": kernel.op,
        "inputs": [list(shape) for shape in kernel.inputs],
        "output": list(kernel.output),
    }
    for name in ("kernel_size", "stride", "dilation"):
        if getattr(kernel, name) != (1, 1):
            values[name] = list(getattr(kernel, name))
    if kernel.groups != 1:
        values["groups"] = kernel.groups
    for name in ("num_weights", "num_bias", "function"):
        if getattr(kernel, name):
            values[name] = getattr(kernel, name)
    if kernel.epilogue:
        values["epilogue"] = list(kernel.epilogue)
    return values
