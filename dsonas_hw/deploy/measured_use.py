"""How much of the timed limits networks need, measured in a second each.

A verdict takes half a minute, too long for every candidate. So the first network is measured both ways:

    need(first) = fit_measured's: the median, its interval and something to spare, over the limit
    need(other) ≈ need(first) · relative latency(other) / relative latency(first)

Whoever goes on with a network still asks for its verdict (`verdict`), which takes a measurement of its own
unless the estimate leaves no doubt; the trained network is measured in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.onnx import build_onnx
from dsonas_hw.budget import Budget
from dsonas_hw.config import DeviceConfig
from dsonas_hw.deploy.fit_measured import TIMED, MeasureArchitecture, Trial, try_out
from dsonas_hw.deploy.measure import measure_relative_latency

CLEARLY = 0.8
"""A network whose estimated need is at most this holds without a measurement of its own."""

Log = Callable[[Mapping[str, Any]], None]


def relative_latency(target: DeviceConfig) -> Callable[[Architecture], float | None]:
    """Measures networks with random weights, for comparison; see `measure.measure_relative_latency`."""

    def measure(architecture: Architecture) -> float | None:
        model = build_onnx(architecture, batch_size=target.batch_size).SerializeToString()
        return measure_relative_latency(model, target)

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
        measure_relative: Callable[[Architecture], float | None],
        known: Sequence[Mapping[str, Any]] = (),
        log: Log = lambda row: None,
        on_trial: Callable[[Trial[Architecture]], None] = lambda trial: None,
    ) -> None:
        """
        measure: for verdicts. measure_relative: in a second. known: rows that were logged before.
        """
        self.timed = [budget for budget in budgets if budget.name in TIMED]
        self._measure, self._measure_relative = measure, measure_relative
        self._log, self._on_trial = log, on_trial
        self._relative: dict[str, float] = {}
        self._need: dict[str, float] = {}
        self._factor: float | None = None
        for row in known:
            self._take(row)

    def __call__(self, architecture: Architecture) -> float | None:
        """Return the fraction of the timed limits that a network needs; None: it cannot be measured here."""
        relative = self._relative_of(architecture)
        if relative is None:
            return None
        if self._factor is None and self.verdict(architecture) is None:
            return None
        assert self._factor is not None
        return relative * self._factor

    def verdict(self, architecture: Architecture) -> float | None:
        """Return the same, by a measurement where the estimate is not `CLEARLY` below the limits.

        At most 1 if the next measurement can be expected to hold, too.

        None: there is no timed budget, or the target is not here.
        """
        name = _name(architecture)
        if name not in self._need and self.timed:
            relative = self._relative_of(architecture)
            if relative is not None and self._factor is not None and relative * self._factor <= CLEARLY:
                return relative * self._factor
            trial = try_out(architecture, 1.0, self.timed, self._measure)
            if trial is None or relative is None:
                return None
            self._on_trial(trial)
            self._note(
                {"kind": "verdict", "network": name, "need": trial.need, "measured_ratio": trial.ratio}
            )
        return self._need.get(name)

    def _relative_of(self, architecture: Architecture) -> float | None:
        name = _name(architecture)
        if name not in self._relative:
            found = self._measure_relative(architecture)
            if found is None:
                return None
            self._note({"kind": "trial", "network": name, "relative_latency": found})
        return self._relative[name]

    def _note(self, row: Mapping[str, Any]) -> None:
        self._log(row)
        self._take(row)

    def _take(self, row: Mapping[str, Any]) -> None:
        if row["kind"] == "trial":
            self._relative[row["network"]] = float(row["relative_latency"])
        elif row["kind"] == "verdict":
            self._need[row["network"]] = need = float(row["need"])
            if self._factor is None and row["network"] in self._relative:
                self._factor = need / self._relative[row["network"]]
