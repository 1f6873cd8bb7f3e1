"""Fitting by measurement, before anything is trained: a network's latency does not depend on its weights.

    fit to limit × scale ─▶ export with random weights ─▶ measure ─▶ misses? scale down ─┐
            ▲                                               └─ leaves room? scale up ────┤
            └────────────────────────────────────────────────────────────────────────────┘

Predicted costs choose; measurement decides. `validate` measures again after training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.lower import lower
from dsonas_hw.architecture.onnx import build_onnx
from dsonas_hw.budget import Budget, format_quantity
from dsonas_hw.config import DeviceConfig
from dsonas_hw.deploy.measure import TargetMeasurement, measure_on_target
from dsonas_hw.errors import BudgetError
from dsonas_hw.kernel.costs import count_costs

MARGIN = 0.02
"""Share of a limit left free: what a second measurement may differ by."""
WELL_FILLED = 0.95
"""A network that uses less of a limit is worth another try at a wider one."""
NUM_TRIALS = 8
LARGEST_STEP = 2.0
SMALLEST_STEP = 0.95
"""Of a scale that led to the same network again: widths come in steps."""
NEAR_MISS = 1.2
CLOSE_SCALES = 1.01
"""Two scales nearer than that need nothing between them."""
TIMED = ("latency", "energy")
"""Budgets that only a measurement answers; all others are counted and need no trial."""

Fit = Callable[[float], Architecture]
"""scale → the architecture fitted to the budgets, with the limits of the timed ones multiplied by scale.
Raises BudgetError when none meets them."""
MeasureArchitecture = Callable[[Architecture], Mapping[str, float | None]]
"""Measured costs by quantity (`latency_ms`, `energy_mj`); None: not measured."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One architecture that was measured."""

    scale: float
    architecture: Architecture
    measured: Mapping[str, float | None]
    ratio: float
    """The largest measured cost / limit."""


@dataclass(frozen=True, kw_only=True)
class MeasuredFit:
    """The largest architecture whose measured costs hold, of those that were tried."""

    architecture: Architecture
    trial: Trial | None
    """None: nothing was measured, since no budget is timed or the target is not here."""
    trials: tuple[Trial, ...]


def fit_until_measured(
    fit: Fit,
    budgets: Sequence[Budget],
    measure: MeasureArchitecture,
    *,
    margin: float = MARGIN,
    max_trials: int = NUM_TRIALS,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> MeasuredFit:
    """Refit with the timed limits scaled by limit / measured until the measured costs hold.

    If the first fit leaves room (its costs were predicted too high), wider ones are tried as well. The result
    is the widest that was measured to hold, with `margin` of the limit to spare.

    Raises:
        BudgetError: not even the narrowest network holds when measured.
    """
    timed = [budget for budget in budgets if budget.name in TIMED]
    if not timed:
        return MeasuredFit(architecture=fit(1.0), trial=None, trials=())
    goal = 1 - margin
    trials: list[Trial] = []
    scale = 1.0
    low, high = 0.0, inf  # the largest scale that held (or fitted nothing), the smallest that missed
    while len(trials) < max_trials and high > low * CLOSE_SCALES:
        architecture = _try_fit(fit, scale, is_first=not trials)
        if architecture is None:
            if high == inf:
                break
            low = max(low, scale)
            scale = (low + high) / 2
            continue
        trial = next((t for t in trials if t.architecture == architecture), None)
        is_new = trial is None
        if trial is None:
            trial = _try_out(architecture, scale, timed, measure, goal)
            if trial is None:
                return MeasuredFit(architecture=architecture, trial=None, trials=tuple(trials))
            trials.append(trial)
            on_trial(trial)
        if trial.ratio <= goal:
            low = max(low, scale)
            if trial.ratio >= WELL_FILLED * goal or (high == inf and not is_new):
                break  # full enough, or something else than the timed budgets keeps it from growing
        else:
            high = min(high, scale)
        # What was fitted to scale × limit takes ratio × limit.
        step = min(goal / trial.ratio, LARGEST_STEP)
        scale *= step if is_new else min(step, SMALLEST_STEP)
        if not low < scale < high:
            scale = (low + high) / 2
    return _best(trials, timed, margin)


def scale_timed(budgets: Sequence[Budget], scale: float) -> tuple[Budget, ...]:
    """The budgets to fit to at a scale: the limits of those that are measured, times scale."""
    return tuple(replace(b, limit=b.limit * scale) if b.name in TIMED else b for b in budgets)


def measure_architecture(target: DeviceConfig) -> MeasureArchitecture:
    """Measures architectures on a target, with random weights."""

    def measure(architecture: Architecture) -> Mapping[str, float | None]:
        model = build_onnx(architecture, batch_size=target.batch_size).SerializeToString()
        found: TargetMeasurement | None = measure_on_target(model, target)
        if found is None:
            return {"latency_ms": None, "energy_mj": None}
        energy = found.energy.energy_mj if found.energy else None
        return {"latency_ms": found.latency.latency_ms, "energy_mj": energy}

    return measure


def _try_fit(fit: Fit, scale: float, *, is_first: bool) -> Architecture | None:
    """The fit at a scale; None when it fails after others have been measured."""
    try:
        return fit(scale)
    except BudgetError:
        if is_first:
            raise
        return None


def _try_out(
    architecture: Architecture,
    scale: float,
    timed: Sequence[Budget],
    measure: MeasureArchitecture,
    goal: float,
) -> Trial | None:
    """Measure an architecture; a near miss twice, since whatever disturbs a timing makes it longer."""
    best: Trial | None = None
    for _ in range(2):
        measured = measure(architecture)
        ratio = _worst_ratio(timed, measured)
        if ratio is None:
            return None
        if best is None or ratio < best.ratio:
            best = Trial(scale=scale, architecture=architecture, measured=measured, ratio=ratio)
        if not goal < best.ratio < NEAR_MISS:
            break
    return best


def _worst_ratio(timed: Sequence[Budget], measured: Mapping[str, float | None]) -> float | None:
    """The largest measured cost / limit; None if nothing was measured."""
    ratios = [value / b.limit for b in timed if (value := measured.get(b.quantity)) is not None]
    return max(ratios, default=None)


def _best(trials: Sequence[Trial], timed: Sequence[Budget], margin: float) -> MeasuredFit:
    """The largest network that holds: with the margin if there is one, else without.

    Not the slowest: runtimes work on blocks of channels, so that a wider network can be the faster one.
    """
    for allowed in (1 - margin, 1.0):
        if holding := [trial for trial in trials if trial.ratio <= allowed]:
            best = max(holding, key=lambda trial: count_costs(lower(trial.architecture)).flops)
            return MeasuredFit(architecture=best.architecture, trial=best, trials=tuple(trials))
    nearest = min(trials, key=lambda trial: trial.ratio)
    taken = ", ".join(
        f"{b.name} {format_quantity(b.name, value)} of {format_quantity(b.name, b.limit)}"
        for b in timed
        if (value := nearest.measured.get(b.quantity)) is not None
    )
    raise BudgetError(
        f"no network of this search holds the budget when it is measured: the nearest of {len(trials)} takes "
        f"{taken}; allow more, or search again under a tighter budget"
    )
