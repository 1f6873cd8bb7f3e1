"""The lines of a lookup table, one record type for each kind; `read_rows` reads them back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Strict

from dsonas_hw.budget import Metric
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.reference import Speed
from dsonas_hw.target import Target

Source = Literal["measured", "calibrated", "imported", "estimated"]

SCHEMA_VERSION = 3
ESTIMATE = "share of a network"
"""The statistic of every estimated row: what the model says a kernel adds to a network."""
MAX_ITEMS = 20_000

Text = Annotated[str, Strict(), Field(max_length=2_000)]
Count = Annotated[int, Strict(), Field(ge=0, le=2**62)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
NotNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Scalar = str | int | float | bool | None
Scalars = Annotated[Mapping[Text, Scalar], Field(max_length=MAX_ITEMS)]


class _Line:
    """A line of the file: an object that says which kind of row it is."""

    row: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        return {"row": self.row, **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True, kw_only=True)
class TableHeader(_Line):
    """Where the numbers of a table come from. First line of the file."""

    row: ClassVar[str] = "header"

    target: Target
    fingerprint: Text
    """What identifies the machine measured: another machine's table is refused."""
    source: Source
    created: Text
    """ISO 8601, UTC."""
    versions: Annotated[Mapping[Text, str], Field(max_length=MAX_ITEMS)] = field(default_factory=dict)
    clocks: Scalars = field(default_factory=dict)
    settings: Scalars = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        values = super().to_json()
        return {"row": values.pop("row"), "schema": SCHEMA_VERSION, **values.pop("target"), **values}


@dataclass(frozen=True, kw_only=True)
class KernelRow(_Line):
    """What one kernel costs on this device."""

    row: ClassVar[str] = "kernel"

    kernel: Kernel
    latency_ms: Positive
    source: Source
    num_samples: Annotated[Count, Field(ge=1)] = 1
    """Timings behind `latency_ms`; several rows of one kernel are averaged with these as weights."""
    statistic: Text = "minimum"
    """Which statistic of the samples `latency_ms` is."""
    latency_ms_std: NotNegative | None = None
    """Spread between the places (networks) the kernel was timed in."""
    energy_mj: NotNegative | None = None
    """What it adds to a network's energy, as fitted on whole networks; None: no energy was measured."""

    def to_json(self) -> dict[str, Any]:
        """The kernel's fields beside the row's, and what follows from them, so that damage shows."""
        kernel = {"row": self.row, "key": self.kernel.key, **kernel_to_json(self.kernel)}
        if self.source == "estimated":  # nothing was timed: no statistics to keep
            return kernel | {"latency_ms": self.latency_ms, "source": self.source}
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "kernel"}
        return kernel | {name: getattr(self.kernel, name) for name in ("flops", "mac", "params")} | own


@dataclass(frozen=True, kw_only=True)
class NetworkRow(_Line):
    """One whole network that was timed: what corrections are fitted on, and what a resume skips."""

    row: ClassVar[str] = "network"

    name: Text
    latency_ms: Positive
    energy_mj: NotNegative | None = None
    """None: not measured."""
    flops: Count = 0
    relative_standard_error: NotNegative | None = None
    """Of the latency."""
    in_situ_ms: NotNegative | None = None
    """Sum of its kernels under the profiler."""
    speed: Speed | None = None
    """Of the machine meanwhile."""
    remarks: Annotated[tuple[Text, ...], Field(max_length=50)] = ()
    """What makes its timing doubtful, or says what limits it."""
    kernels: Annotated[Mapping[Text, Annotated[Count, Field(ge=1)]], Field(max_length=MAX_ITEMS)]
    """Key → how often it runs."""

    def to_json(self) -> dict[str, Any]:
        """The speed's numbers stand beside the row's."""
        values = super().to_json()
        del values["speed"]
        return (self.speed.to_values() if self.speed else {}) | values


Anchor = tuple[Number, Number, Number, Number, Number]
"""A network's feature vector (`network_costs.Part.vector`), its weight, and the interval's half width."""


@dataclass(frozen=True, kw_only=True)
class CorrectionRow(_Line):
    """Numbers fitted on whole networks that turn kernel latencies into a metric of a network.

    The last row of each metric counts.
    """

    row: ClassVar[str] = "correction"

    metric: Metric = "latency"
    values: Annotated[Mapping[Text, Number], Field(max_length=MAX_ITEMS)]
    anchors: Annotated[tuple[Anchor, ...], Field(max_length=MAX_ITEMS)] = ()
    """Networks timed, and what each says of those near it."""


@dataclass(frozen=True, kw_only=True)
class ErrorSummary:
    """How far predictions were from measurements."""

    mape: NotNegative
    """Mean absolute relative error; 0.03 is 3 %."""
    share_within_10: NotNegative
    """Share of networks within ±10 %."""
    kendall_tau: Annotated[Number, Field(ge=-1)] | None
    """Rank correlation; None when there are too few networks."""


@dataclass(frozen=True, kw_only=True)
class CheckRow(_Line):
    """Result of a check on networks that were not used for fitting. The last row of each space counts."""

    row: ClassVar[str] = "check"

    space: Text
    num_networks: Annotated[Count, Field(ge=1)]
    error: ErrorSummary
    interval_coverage: NotNegative | None = None
    """Share of networks whose measurement lay in the predicted interval (90 % is aimed at)."""
    baselines: Annotated[Mapping[Text, ErrorSummary], Field(max_length=MAX_ITEMS)] = field(
        default_factory=dict
    )
    relative_speed: NotNegative | None = None
    """Speed of the machine during the check, 1 = as in the profile; measurements are stated at 1."""
    raw_error: ErrorSummary | None = None
    """The error against the measurements as they were, the machine's change of speed included."""
    energy_error: ErrorSummary | None = None
    """Of the predicted energies; None: none was measured. All the rest is of latencies."""
    created: Text = ""

    def to_json(self) -> dict[str, Any]:
        """The error's fields stand beside the row's."""
        values = super().to_json()
        error: dict[str, Any] = values.pop("error")
        return values | error


Row = KernelRow | NetworkRow | CorrectionRow | CheckRow


def kernel_to_json(kernel: Kernel) -> dict[str, Any]:
    """A kernel's fields, without those that have their default value."""
    values = {one.name: getattr(kernel, one.name) for one in fields(kernel)}
    return {one.name: values[one.name] for one in fields(kernel) if values[one.name] != one.default}
