"""How much a calibration may adjust: chosen by cross-validation.

Candidates, from the simplest on: one scale factor on everything; factors of groups of kernels, at several
assumed noises (a large one moves the factors less); the same with the residual of `calibrate_residual`. The
simpler one stays unless the other predicts networks that were left out better.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from dsonas_hw.profile.calibrate_fit import (
    FACTORS,
    NOISES,
    Adjustment,
    Array,
    Streams,
    combined,
    fit_adjustment,
    scale_only,
)
from dsonas_hw.profile.calibrate_residual import Residual, feature_vectors, fit_residual

_MOST_FOLDS = 50
_NUM_FOLDS = 10
"""Of more groups than `_MOST_FOLDS`; otherwise every group is left out alone."""
_MIN_FOR_RESIDUAL = 20
_CLIP = 0.5
"""An outlier counts as an error of this much when candidates are compared."""
_HANDICAP = 0.95
"""The more complex of two candidates has to be better by a twentieth."""


@dataclass(frozen=True)
class Fitted:
    """Measured networks as a fit sees them; one row or entry per network."""

    streams: Streams
    measured: Array
    importance: Array
    sharpness: float

    def pick(self, chosen: Array) -> Fitted:
        return Fitted(
            self.streams.pick(chosen), self.measured[chosen], self.importance[chosen], self.sharpness
        )


@dataclass(frozen=True)
class Plan:
    """One candidate; without a noise it is a plain scale factor."""

    noise: float | None
    residual_noise: float | None = None

    def fit(self, rows: Fitted) -> tuple[Adjustment, Residual]:
        if self.noise is None:
            found = scale_only(rows.streams, rows.measured, rows.sharpness, rows.importance)
            return found, Residual()
        found = fit_adjustment(rows.streams, rows.measured, rows.sharpness, self.noise, rows.importance)
        if self.residual_noise is None:
            return found, Residual()
        gpu_ms, host_ms = found.apply(rows.streams)
        logs = np.log(rows.measured / combined(gpu_ms, host_ms, rows.sharpness))
        z = network_vectors(rows.streams, found)
        return found, fit_residual(z, logs, rows.importance, self.residual_noise)

    def predict(self, rows: Fitted, found: Adjustment, residual: Residual) -> Array:
        """Latencies in ms, shape (networks,)."""
        latency_ms = combined(*found.apply(rows.streams), rows.sharpness)
        if not len(residual.weights):
            return latency_ms
        return np.asarray(latency_ms * np.exp(residual.at(network_vectors(rows.streams, found))))


def network_vectors(streams: Streams, found: Adjustment) -> Array:
    """Feature vectors of networks as the adjusted estimate sees them."""
    factors = np.exp(found.logs)
    gpu = streams.gpu * factors * factors[FACTORS.index("gpu")]
    return feature_vectors(gpu, streams.host * factors[FACTORS.index("host")], streams.batch)


def fold_of_groups(groups: Sequence[Hashable]) -> list[int]:
    """The fold of every network; those of one group share it."""
    number: dict[Hashable, int] = {}
    for group in groups:
        number.setdefault(group, len(number))
    num_folds = len(number) if len(number) <= _MOST_FOLDS else _NUM_FOLDS
    return [number[group] % num_folds for group in groups]


def cross_validate(rows: Fitted, plan: Plan, folds: Sequence[Hashable]) -> Array:
    """log(measured / predicted) of every network, predicted without those of its fold."""
    errors = np.empty(len(rows.measured))
    for fold in dict.fromkeys(folds):
        out = np.array([other == fold for other in folds])
        held = rows.pick(out)
        if out.all():
            found, residual = Adjustment(np.zeros(len(FACTORS))), Residual()
        else:
            found, residual = plan.fit(rows.pick(~out))
        errors[out] = np.log(held.measured / plan.predict(held, found, residual))
    return errors


def choose_fit(rows: Fitted, folds: Sequence[Hashable]) -> tuple[Plan, Array]:
    """The best candidate, and its cross-validated errors."""

    def score(errors: Array) -> float:
        return float(np.minimum(np.abs(errors), _CLIP) @ rows.importance)

    best = Plan(None)
    errors = cross_validate(rows, best, folds)
    factors = {Plan(noise): cross_validate(rows, Plan(noise), folds) for noise in NOISES}
    plan = min(factors, key=lambda plan: score(factors[plan]))
    if score(factors[plan]) < _HANDICAP * score(errors):
        best, errors = plan, factors[plan]
    if best.noise is not None and len(rows.measured) >= _MIN_FOR_RESIDUAL:
        for residual_noise in (0.01, 0.03, 0.1):
            plan = Plan(best.noise, residual_noise)
            found = cross_validate(rows, plan, folds)
            if score(found) < _HANDICAP * score(errors):
                best, errors = plan, found
    return best, errors
