"""How much a calibration may adjust: decided by cross-validation.

Candidates are one scale factor on everything, and factors of groups of kernels at several assumed noises.
They are averaged, each with a weight that falls with its error on networks that were left out, and the more
so the more networks there are; before any was seen, those that stay close to the scale factor weigh more. A
few networks give little more than the scale, and many give what predicts best. With many, the residual of
`calibrate_residual` is added if it predicts networks that were left out better.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from dsonas_hw.estimate.calibrate_fit import (
    FACTORS,
    NOISES,
    Adjustment,
    Array,
    Streams,
    combined,
    fit_adjustment,
    scale_only,
)
from dsonas_hw.estimate.calibrate_residual import Residual, feature_vectors, fit_residual

_MOST_FOLDS = 50
_NUM_FOLDS = 10
"""Of more groups than `_MOST_FOLDS`; otherwise every group is left out alone."""
_MIN_FOR_RESIDUAL = 20
_CLIP = 0.5
"""An outlier counts as an error of this much when candidates are compared."""
_HANDICAP = 0.95
"""A residual has to be better by a twentieth."""
_LEAST_WEIGHT = 1e-3
"""Candidates of less weight are left away."""


CANDIDATES = (*NOISES, math.inf)


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
    """An average of candidates, and the residual on top of it."""

    weights: tuple[tuple[float, float], ...]
    """(noise, weight); of infinite noise is the scale factor alone. The weights add up to 1."""
    residual_noise: float | None = None

    def fit(self, rows: Fitted) -> tuple[Adjustment, Residual]:
        found = averaged([(fit_candidate(rows, noise), weight) for noise, weight in self.weights])
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


def fit_candidate(rows: Fitted, noise: float) -> Adjustment:
    """Factors at an assumed noise."""
    if math.isinf(noise):
        return scale_only(rows.streams, rows.measured, rows.sharpness, rows.importance)
    return fit_adjustment(rows.streams, rows.measured, rows.sharpness, noise, rows.importance)


def averaged(candidates: Sequence[tuple[Adjustment, float]]) -> Adjustment:
    """Geometric mean of the factors and mean of the constants, weighted."""
    return Adjustment(
        sum((weight * found.logs for found, weight in candidates), np.zeros(len(FACTORS))),
        sum(weight * found.gpu_constant for found, weight in candidates),
        sum(weight * found.host_constant for found, weight in candidates),
    )


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
    """The average of candidates, with or without a residual, and its cross-validated errors."""

    def loss(errors: Array) -> float:
        return float(np.minimum(np.abs(errors), _CLIP) @ rows.importance) / float(rows.importance.sum())

    losses = [loss(cross_validate(rows, Plan(((noise, 1.0),)), folds)) for noise in CANDIDATES]
    best = Plan(candidate_weights(losses, len(rows.measured)))
    errors = cross_validate(rows, best, folds)
    if len(rows.measured) >= _MIN_FOR_RESIDUAL:
        for residual_noise in (0.01, 0.03, 0.1):
            plan = Plan(best.weights, residual_noise)
            found = cross_validate(rows, plan, folds)
            if loss(found) < _HANDICAP * loss(errors):
                best, errors = plan, found
    return best, errors


def candidate_weights(losses: Sequence[float], num_networks: int) -> tuple[tuple[float, float], ...]:
    """(noise, weight) of the candidates that count, from their losses on networks that were left out."""
    prior = np.minimum(CANDIDATES, max(NOISES))
    excess = np.array(losses) / max(min(losses), 1e-9) - 1
    weights = prior * np.exp(-num_networks * excess)
    weights = np.where(weights < _LEAST_WEIGHT * weights.sum(), 0.0, weights)
    shares = weights / weights.sum()
    return tuple((noise, float(w)) for noise, w in zip(CANDIDATES, shares, strict=True) if w > 0)
