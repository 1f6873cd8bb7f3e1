"""How much of the limits of latency and energy networks need, measured in a few seconds each.

A verdict takes half a minute, too long for every candidate. So the first network is measured both ways:

    need(first) = fit_measured's, of each metric: its value, interval and something to spare, over the limit
    need(other) ≈ max over metrics of need(first) · relative(other) / relative(first)

Whoever goes on with a network still asks for its verdict (`verdict`), which takes a measurement of its own
unless the estimate leaves no doubt; the trained network is measured in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.onnx import build_onnx
from dsonas_hw.budget import Budget, Metric
from dsonas_hw.config import DeviceConfig
from dsonas_hw.deploy.fit_measured import MeasureArchitecture, Trial, try_out
from dsonas_hw.deploy.measure import measure_relative

CLEARLY = 0.8
"""A network whose estimated need is at most this holds without a measurement of its own."""

MeasureRelative = Callable[[Architecture], Mapping[Metric, float] | None]
Log = Callable[[Mapping[str, Any]], None]


def relative_costs(target: DeviceConfig, budgets: Sequence[Budget]) -> MeasureRelative:
    """Measures what is budgeted of networks with random weights; see `measure.measure_relative`."""
    metrics = [budget.metric for budget in budgets if budget.metric]

    def measure(architecture: Architecture) -> Mapping[Metric, float] | None:
        model = build_onnx(architecture, batch_size=target.batch_size).SerializeToString()
        return measure_relative(model, target, metrics)

    return measure


def _name(architecture: Architecture) -> str:
    """How a log names a network."""
    from dsonas_hw.train.identity import architecture_hash

    return architecture_hash(architecture)


class MeasuredUse:
    """Tells of each network which fraction of the timed limits it needs; no network is measured twice."""

    def __init__(
        self,
        budgets: Sequence[Budget],
        *,
        measure: MeasureArchitecture[Architecture],
        measure_relative: MeasureRelative,
        known: Sequence[Mapping[str, Any]] = (),
        log: Log = lambda row: None,
        on_trial: Callable[[Trial[Architecture]], None] = lambda trial: None,
    ) -> None:
        """
        measure: for verdicts. measure_relative: in seconds. known: rows that were logged before.
        """
        self.timed = [budget for budget in budgets if budget.metric]
        self._measure, self._measure_relative = measure, measure_relative
        self._log, self._on_trial = log, on_trial
        self._relative: dict[str, Mapping[str, float]] = {}
        self._need: dict[str, float] = {}
        self._factors: Mapping[str, float] = {}
        """Metric → need / relative cost, of the first network that was measured both ways."""
        for row in known:
            self._take(row)

    def __call__(self, architecture: Architecture) -> float | None:
        """Return the fraction of the timed limits that a network needs; None: it cannot be measured here."""
        relative = self._relative_of(architecture)
        if relative is None:
            return None
        if not self._factors:
            return self.verdict(architecture)
        return self._estimate(relative)

    def verdict(self, architecture: Architecture) -> float | None:
        """Return the same, by a measurement where the estimate is not `CLEARLY` below the limits.

        At most 1 if the next measurement can be expected to hold, too.

        None: there is no timed budget, or the target is not here.
        """
        name = _name(architecture)
        if name not in self._need and self.timed:
            relative = self._relative_of(architecture)
            if relative is not None and self._factors and self._estimate(relative) <= CLEARLY:
                return self._estimate(relative)
            trial = try_out(architecture, 1.0, self.timed, self._measure)
            if trial is None or relative is None:
                return None
            self._on_trial(trial)
            self._note({"kind": "verdict", "network": name, "need": trial.need, "needs": dict(trial.needs)})
        return self._need.get(name)

    def _estimate(self, relative: Mapping[str, float]) -> float:
        return max(relative[metric] * factor for metric, factor in self._factors.items())

    def _relative_of(self, architecture: Architecture) -> Mapping[str, float] | None:
        name = _name(architecture)
        if name not in self._relative:
            found = self._measure_relative(architecture)
            if not found:
                return None
            self._note({"kind": "trial", "network": name, "relative": dict(found)})
        return self._relative[name]

    def _note(self, row: Mapping[str, Any]) -> None:
        self._log(row)
        self._take(row)

    def _take(self, row: Mapping[str, Any]) -> None:
        if row["kind"] == "trial":
            self._relative[row["network"]] = row["relative"]
        elif row["kind"] == "verdict":
            self._need[row["network"]] = float(row["need"])
            relative = self._relative.get(row["network"], {})
            self._factors = self._factors or {
                metric: need / relative[metric]
                for metric, need in row.get("needs", {}).items()
                if metric in relative
            }
