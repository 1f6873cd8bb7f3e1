"""Fitting by measurement, before anything is trained: what a network takes does not depend on its weights.

    fit to limit × scale ─▶ export with random weights ─▶ measure ─▶ misses? scale down ─┐
            ▲                                               └─ leaves room? scale up ────┤
            └────────────────────────────────────────────────────────────────────────────┘

Predicted costs choose; measurement decides, with the verdict that `validate` will give after training: on a
percentile of the latency (the median), or the mean energy, and the interval it lies in. A predicted latency
is the quiet value, which lies below. With q the prediction, m the value and h the interval's upper end of
what was measured,

    need = (m + 1.5·(h − m)) / limit      at most 1: h is below the limit, with half as much again to spare
                                          for the next measurement, whose median is another
    scale ← scale / need

so that what is fitted to the predictions is limit × q/m × (1 − margin), whatever this machine's m/q and its
margin 1.5·(h − m)/m, and whatever the predictions are off by. No network is measured twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Generic, TypeVar

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.lower import lower
from dsonas_hw.architecture.onnx import build_onnx
from dsonas_hw.budget import Budget, format_quantity
from dsonas_hw.config import DeviceConfig
from dsonas_hw.deploy.measure import Progress, measure_on_target, silent
from dsonas_hw.errors import BudgetError
from dsonas_hw.kernel.costs import count_costs
from dsonas_hw.measure.reference import Speed
from dsonas_hw.measure.statistics import Estimate
from dsonas_hw.search.candidates import WELL_FILLED

SPARE = 0.5
"""Of what an interval reaches above its value: left free for the next measurement, which is another."""
NUM_TRIALS = 8
"""Architectures that are measured at most."""
MAX_FITS = 50
"""Scales that are looked at, at most: most of them lead to an architecture that is known."""
LARGEST_STEP = 2.0
SMALLEST_STEP = 0.95
"""Of a scale that led to the same network again: widths come in steps."""
CLOSE_SCALES = 1.01
"""Two scales nearer than that need nothing between them."""
Network = TypeVar("Network")
"""An architecture, or any other value that equals only itself."""
Fit = Callable[[float], Network]
"""scale → the architecture fitted to the budgets, with the limits of the timed ones multiplied by scale.
Raises BudgetError when none meets them."""
MeasureArchitecture = Callable[[Network], Mapping[str, Estimate | None]]
"""Measured costs by quantity (`latency_ms`, `energy_mj`); None: not measured."""


@dataclass(frozen=True, kw_only=True)
class Trial(Generic[Network]):
    """One architecture that was measured."""

    scale: float
    architecture: Network
    measured: Mapping[str, Estimate | None]
    ratio: float
    """The largest measured cost / limit."""
    bound: float
    """The largest upper end of a cost's interval / limit: at most 1 if every budget holds."""
    needs: Mapping[str, float]
    """The same by metric, with something to spare."""

    @property
    def need(self) -> float:
        """The largest of these: at most 1 if the next measurement can be expected to hold, too."""
        return max(self.needs.values())


@dataclass(frozen=True, kw_only=True)
class MeasuredFit(Generic[Network]):
    """The largest architecture whose measured costs hold, of those that were tried."""

    architecture: Network
    trial: Trial[Network] | None
    """None: nothing was measured, since no budget is timed or the target is not here."""
    trials: tuple[Trial[Network], ...]


def _count_flops(architecture: Any) -> float:
    return count_costs(lower(architecture)).flops


def fit_until_measured(
    fit: Fit[Network],
    budgets: Sequence[Budget],
    measure: MeasureArchitecture[Network],
    *,
    refused: Collection[Network] = (),
    max_trials: int = NUM_TRIALS,
    count_flops: Callable[[Network], float] = _count_flops,
    on_trial: Callable[[Trial[Network]], None] = lambda trial: None,
) -> MeasuredFit[Network]:
    """Refit with the timed limits scaled by what was measured until the measured costs hold.

    If the first fit leaves room (its costs were predicted too high), wider ones are tried as well. The result
    is the widest that was measured to hold with something to spare (see the module's text).

    refused: architectures that were measured before and did not hold; they are neither measured nor taken.
    count_flops: which of two that hold is the larger.

    Raises:
        BudgetError: not even the narrowest network holds when measured.
    """
    timed = [budget for budget in budgets if budget.metric]
    if not timed:
        return MeasuredFit(architecture=fit(1.0), trial=None, trials=())
    trials: list[Trial[Network]] = []
    scale = 1.0
    low, high = 0.0, inf  # the largest scale that held (or fitted nothing), the smallest that missed
    for _ in range(MAX_FITS):
        if len(trials) == max_trials or high <= low * CLOSE_SCALES:
            break
        architecture = _try_fit(fit, scale, is_first=high == inf and not trials)
        if architecture is None:
            if high == inf:
                break
            low = max(low, scale)
            scale = (low + high) / 2
            continue
        if architecture in refused:
            high = min(high, scale)
            scale = scale * SMALLEST_STEP if low == 0 else (low + high) / 2
            continue
        trial = next((t for t in trials if t.architecture == architecture), None)
        is_new = trial is None
        if trial is None:
            trial = try_out(architecture, scale, timed, measure)
            if trial is None:
                return MeasuredFit(architecture=architecture, trial=None, trials=tuple(trials))
            trials.append(trial)
            on_trial(trial)
        if trial.need <= 1:
            low = max(low, scale)
            if trial.need >= WELL_FILLED or (high == inf and not is_new):
                break  # full enough, or something else than the timed budgets keeps it from growing
        else:
            high = min(high, scale)
        # What was fitted to scale × limit needs need × limit.
        step = min(1 / trial.need, LARGEST_STEP)
        scale *= step if is_new else min(step, SMALLEST_STEP)
        if not low < scale < high:
            scale = (low + high) / 2
    return _best(trials, timed, count_flops)


def scale_timed(budgets: Sequence[Budget], scale: float) -> tuple[Budget, ...]:
    """The budgets to fit to at a scale: the limits of those that are measured, times scale."""
    return tuple(replace(b, limit=b.limit * scale) if b.metric else b for b in budgets)


def measure_architecture(
    target: DeviceConfig, *, usual: Speed | None = None, progress: Progress = silent
) -> MeasureArchitecture[Architecture]:
    """Measures architectures on a target, with random weights.

    usual: its usual speed (`measure.usual_speed_of`).
    """

    def measure(architecture: Architecture) -> Mapping[str, Estimate | None]:
        model = build_onnx(architecture, batch_size=target.batch_size).SerializeToString()
        found = measure_on_target(model, target, progress=progress)
        return found.costs(target.statistic, usual) if found else {}

    return measure


def _try_fit(fit: Fit[Network], scale: float, *, is_first: bool) -> Network | None:
    """The fit at a scale; None when it fails after others have been measured."""
    try:
        return fit(scale)
    except BudgetError:
        if is_first:
            raise
        return None


def try_out(
    architecture: Network, scale: float, timed: Sequence[Budget], measure: MeasureArchitecture[Network]
) -> Trial[Network] | None:
    """Measure an architecture, once; None if none of the budgeted costs can be measured.

    Raises:
        BudgetError: so few runs were timed that no interval bounds the percentile.
    """
    measured = measure(architecture)
    known = [(b, estimate) for b in timed if (estimate := measured.get(b.quantity)) is not None]
    if not known:
        return None
    if any(e.high == inf for _, e in known):
        raise BudgetError(
            "this network is so slow that too few runs of it were timed to bound so high a percentile of its "
            "latency; take a lower one, e.g. --statistic p50"
        )
    return Trial(
        scale=scale,
        architecture=architecture,
        measured=measured,
        ratio=max(e.value / b.limit for b, e in known),
        bound=max(e.high / b.limit for b, e in known),
        needs={b.name: (e.high + SPARE * (e.high - e.value)) / b.limit for b, e in known},
    )


def _best(
    trials: Sequence[Trial[Network]], timed: Sequence[Budget], count_flops: Callable[[Network], float]
) -> MeasuredFit[Network]:
    """The largest network that holds: with something to spare if there is one, else without.

    Not the slowest: runtimes work on blocks of channels, so that a wider network can be the faster one.
    """
    for holding in ([t for t in trials if t.need <= 1], [t for t in trials if t.bound <= 1]):
        if holding:
            best = max(holding, key=lambda trial: count_flops(trial.architecture))
            return MeasuredFit(architecture=best.architecture, trial=best, trials=tuple(trials))
    if not trials:
        raise BudgetError(
            "every network of this search that fits the budget has been measured and does not hold it"
        )
    nearest = min(trials, key=lambda trial: trial.bound)
    taken = ", ".join(
        f"{b.name} {format_quantity(b.name, estimate.value)} (up to "
        f"{format_quantity(b.name, estimate.high)}) of {format_quantity(b.name, b.limit)}"
        for b in timed
        if (estimate := nearest.measured.get(b.quantity)) is not None
    )
    raise BudgetError(
        f"no network of this search holds the budget when it is measured: the nearest of {len(trials)} takes "
        f"{taken}; allow more, or search again under a tighter budget"
    )
