"""How much a calibration may adjust: decided by cross-validation.

Candidates are one scale factor on everything, and factors of groups of kernels at several assumed noises.
They are averaged, each with a weight that falls with its error on networks that were held out, and the more
so the more networks there are; before any was seen, those that stay close to the scale factor weigh more. A
few networks give little more than the scale, and many give what predicts best. With many, the residual of
`calibrate_residual` is added if it predicts held-out networks better, and where several families were
measured, so is another reach of `calibrate_trust` than the usual one. A network is held out alone (at all its
batch sizes) and with its whole family; both errors count alike.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from dsonas_hw.estimate.calibrate_fit import (
    FACTORS,
    NO_ADJUSTMENT,
    NOISES,
    Adjustment,
    Array,
    Streams,
    combined,
    fit_adjustment,
    scale_only,
)
from dsonas_hw.estimate.calibrate_residual import Residual, feature_vectors, fit_residual
from dsonas_hw.estimate.calibrate_trust import REACHES, USUAL_REACH, Evidence, collect_evidence

_MOST_FOLDS = 50
_NUM_FOLDS = 10
"""Of more groups than `_MOST_FOLDS`; otherwise every group is left out alone."""
_MIN_FOR_RESIDUAL = 20
_CLIP = 0.5
"""An outlier counts as an error of this much when candidates are compared."""
_HANDICAP = 0.98
"""A residual, or another reach, has to be better by a fiftieth."""
_LEAST_WEIGHT = 1e-3
"""Candidates of less weight are left away."""


CANDIDATES = (*NOISES, math.inf)


@dataclass(frozen=True)
class Fitted:
    """Measured networks as a fit sees them; one row or entry per network."""

    streams: Streams
    measured: Array
    importance: Array
    work: Array
    """Shape (networks, 2): work vectors of `calibrate_trust`."""
    sharpness: float
    _adjustments: dict[float, Adjustment] = field(default_factory=dict, repr=False, compare=False)

    def pick(self, chosen: Array) -> Fitted:
        return Fitted(
            self.streams.pick(chosen),
            self.measured[chosen],
            self.importance[chosen],
            self.work[chosen],
            self.sharpness,
        )

    def latency_ms(self, adjustment: Adjustment) -> Array:
        """Of every network, shape (networks,)."""
        return combined(*adjustment.apply(self.streams), self.sharpness)

    def adjustment(self, noise: float) -> Adjustment:
        """The candidate of an assumed noise, fitted once; of infinite noise is the scale factor alone."""
        if noise not in self._adjustments:
            self._adjustments[noise] = (
                scale_only(self.streams, self.measured, self.sharpness, self.importance)
                if math.isinf(noise)
                else fit_adjustment(self.streams, self.measured, self.sharpness, noise, self.importance)
            )
        return self._adjustments[noise]


@dataclass(frozen=True)
class Fit:
    """What was fitted; as it is by default, the estimate stands."""

    adjustment: Adjustment = NO_ADJUSTMENT
    residual: Residual = field(default_factory=Residual)
    evidence: Evidence = field(default_factory=Evidence)

    def predict(self, rows: Fitted) -> Array:
        """Latencies in ms, shape (networks,)."""
        estimated = np.log(rows.latency_ms(NO_ADJUSTMENT))
        calibrated = np.log(rows.latency_ms(self.adjustment))
        calibrated = calibrated + self.residual.at(network_vectors(rows.streams, self.adjustment))
        return np.asarray(np.exp(estimated + self.evidence.trust(rows.work) * (calibrated - estimated)))


@dataclass(frozen=True)
class Plan:
    """An average of candidates, and the residual on top of it."""

    weights: tuple[tuple[float, float], ...]
    """(noise, weight); the weights add up to 1."""
    residual_noise: float | None = None
    reach: float = USUAL_REACH

    def fit(self, rows: Fitted) -> Fit:
        found = averaged([(rows.adjustment(noise), weight) for noise, weight in self.weights])
        evidence = collect_evidence(rows.work, self.reach)
        if self.residual_noise is None:
            return Fit(found, evidence=evidence)
        logs = np.log(rows.measured / rows.latency_ms(found))
        z = network_vectors(rows.streams, found)
        return Fit(found, fit_residual(z, logs, rows.importance, self.residual_noise), evidence)


def averaged(candidates: Sequence[tuple[Adjustment, float]]) -> Adjustment:
    """Geometric mean of the factors and mean of the constants, weighted."""
    return Adjustment(
        sum((weight * found.logs for found, weight in candidates), np.zeros(len(FACTORS))),
        sum(weight * found.image_ms for found, weight in candidates),
        sum(weight * found.network_ms for found, weight in candidates),
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


@dataclass(frozen=True)
class Split:
    """Networks that are held out together, and the others."""

    held_out: NDArray[np.bool_]
    """Shape (networks,)."""
    test: Fitted
    training: Fitted


def split(rows: Fitted, groups: Sequence[Hashable]) -> list[Split]:
    """Every network in one test set; those of one group stay together."""
    folds = np.array(fold_of_groups(groups))
    masks = [folds == fold for fold in range(folds.max() + 1)]
    return [Split(out, rows.pick(out), rows.pick(~out)) for out in masks]


def cross_validate(splits: Sequence[Split], plan: Plan) -> Array:
    """log(measured / predicted) of every network, predicted without those of its fold."""
    errors = np.empty(len(splits[0].held_out))
    for one in splits:
        fit = Fit() if one.held_out.all() else plan.fit(one.training)
        errors[one.held_out] = np.log(one.test.measured / fit.predict(one.test))
    return errors


@dataclass(frozen=True)
class Choice:
    """A plan and its cross-validated errors: log(measured / predicted) of every network."""

    plan: Plan
    alone: Array
    """Each network held out alone."""
    with_family: Array | None
    """Each held out with its family; None: there is one family."""
    loss: float


def choose_fit(rows: Fitted, networks: Sequence[Hashable], families: Sequence[Hashable]) -> Choice:
    """The average of candidates, with or without a residual, and how far it reaches.

    networks: the network of every row, which may occur at several batch sizes; families: its family.
    """
    several = len(set(families)) > 1
    one_by_one, by_family = split(rows, networks), split(rows, families)

    def loss(errors: Array) -> float:
        return float(np.minimum(np.abs(errors), _CLIP) @ rows.importance) / float(rows.importance.sum())

    def tried(plan: Plan) -> Choice:
        alone = cross_validate(one_by_one, plan)
        far = cross_validate(by_family, plan) if several else None
        return Choice(plan, alone, far, loss(alone) if far is None else (loss(alone) + loss(far)) / 2)

    losses = [tried(Plan(((noise, 1.0),))).loss for noise in CANDIDATES]
    best = tried(Plan(candidate_weights(losses, len(set(networks)))))
    if len(rows.measured) >= _MIN_FOR_RESIDUAL:
        for noise in (0.01, 0.03, 0.1):
            best = better(best, tried(replace(best.plan, residual_noise=noise)))
    if several:
        for reach in REACHES:
            best = better(best, tried(replace(best.plan, reach=reach)))
    return best


def better(best: Choice, other: Choice) -> Choice:
    """The other one only if it is clearly better."""
    return other if other.loss < _HANDICAP * best.loss else best


def candidate_weights(losses: Sequence[float], num_networks: int) -> tuple[tuple[float, float], ...]:
    """(noise, weight) of the candidates that count, from their losses on networks that were left out."""
    prior = np.minimum(CANDIDATES, max(NOISES))
    excess = np.array(losses) / max(min(losses), 1e-9) - 1
    weights = prior * np.exp(-num_networks * excess)
    weights = np.where(weights < _LEAST_WEIGHT * weights.sum(), 0.0, weights)
    shares = weights / weights.sum()
    return tuple((noise, float(w)) for noise, w in zip(CANDIDATES, shares, strict=True) if w > 0)
