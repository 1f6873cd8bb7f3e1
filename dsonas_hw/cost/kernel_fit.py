"""Fits the costs of single kernels to the rows of a table: the numbers that `kernel_costs` predicts with.

Notation:
    y    measured cost of a row, ms        X    its features, one row per kernel
    w    weight of a row                   β    coefficients of a category, β ≥ 0
    r    ln(y / Xβ), the residual          ℓ    length scales of the Gaussian process through r

    β = argmin Σ w² (Xβ / y − 1)²          non-negative least squares of relative errors
    ℓ, σ, noise                            maximum likelihood of r (scikit-learn)
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from dsonas_hw.cost.kernel_costs import (
    DIMENSIONS,
    MAX_SAMPLES,
    Array,
    Category,
    CategoryFit,
    ancestors,
    category_of,
    coordinates,
    features,
    row_noise,
)
from dsonas_hw.table.rows import KernelRow

MIN_ROWS = 12
"""Categories of fewer rows take the length scales below."""
MAX_ROWS = 220
"""Of a category that length scales are fitted on."""
USUAL_SCALES = (1.0, 1.0, 1.5, 1.5, 1.0, 1.0, 1.0, 1.0)
SCALE_BOUNDS = (0.15, 20.0)
DEVIATION_BOUNDS = (0.03, 1.0)
NOISE_BOUNDS = (0.01, 0.3)
USUAL_DEVIATION, USUAL_NOISE = 0.2, 0.05


def fit_categories(
    rows: Iterable[KernelRow], *, like: dict[Category, CategoryFit] | None = None
) -> dict[Category, CategoryFit]:
    """Fit every category of the rows, and every ancestor of one.

    like: fits whose length scales, deviations and noises are taken over (refits on a part of the rows).
    """
    grouped: dict[Category, list[KernelRow]] = {}
    for row in rows:
        category = category_of(row.kernel)
        for member in (category, *ancestors(category)):
            grouped.setdefault(member, []).append(row)
    leaves = {category_of(row.kernel) for row in grouped.get((), [])}
    found = {}
    for category, members in grouped.items():
        coefficients = fit_coefficients(members)
        known = like.get(category) if like else None
        if category not in leaves:
            found[category] = _ancestor(coefficients, members)
        elif known is not None:
            found[category] = CategoryFit(
                coefficients=coefficients,
                length_scales=known.length_scales,
                deviation=known.deviation,
                noise=known.noise,
            )
        else:
            found[category] = _fit_residual(coefficients, members, "/".join(category))
    return found


def fit_coefficients(rows: Sequence[KernelRow]) -> tuple[float, ...]:
    """Return β of one category, in the order of `FEATURES`."""
    from scipy.optimize import nnls

    matrix = np.array([features(row.kernel) for row in rows])
    target = np.array([row.latency_ms for row in rows])
    weights = np.sqrt([min(row.num_samples, MAX_SAMPLES) for row in rows])
    solution, _ = nnls(matrix * (weights / target)[:, None], weights)
    return tuple(float(value) for value in solution)


def _ancestor(coefficients: tuple[float, ...], rows: Sequence[KernelRow]) -> CategoryFit:
    fit = CategoryFit(coefficients=coefficients)
    return CategoryFit(
        coefficients=coefficients, deviation=float(np.sqrt(np.mean(np.square(_logs(fit, rows)))))
    )


def _logs(fit: CategoryFit, rows: Sequence[KernelRow]) -> Array:
    return np.log([row.latency_ms for row in rows]) - np.log(fit.bases_ms([row.kernel for row in rows]))


def _fit_residual(coefficients: tuple[float, ...], rows: list[KernelRow], name: str) -> CategoryFit:
    """Length scales, deviation and noise by maximum likelihood; the usual ones where there are few rows."""
    fit = CategoryFit(
        coefficients=coefficients, length_scales=USUAL_SCALES, deviation=USUAL_DEVIATION, noise=USUAL_NOISE
    )
    if len(rows) < MIN_ROWS:
        return fit
    some = random.Random(name).sample(rows, MAX_ROWS) if len(rows) > MAX_ROWS else rows
    points = np.array([coordinates(row.kernel) for row in some])
    varied = np.flatnonzero(np.ptp(points, axis=0) > 0)
    if not len(varied):
        return fit
    scales, deviation, noise = _maximise_likelihood(points[:, varied], _logs(fit, some), some)
    length_scales = list(USUAL_SCALES)
    for index, scale in zip(varied, scales, strict=True):
        length_scales[index] = float(scale)
    assert len(length_scales) == len(DIMENSIONS)
    return CategoryFit(
        coefficients=coefficients, length_scales=tuple(length_scales), deviation=deviation, noise=noise
    )


def _maximise_likelihood(points: Array, logs: Array, rows: Sequence[KernelRow]) -> tuple[Array, float, float]:
    """(length scales, deviation, noise) of a Gaussian process with one length scale per dimension."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    covariance = ConstantKernel(USUAL_DEVIATION**2, tuple(value**2 for value in DEVIATION_BOUNDS)) * RBF(
        np.ones(points.shape[1]), SCALE_BOUNDS
    ) + WhiteKernel(USUAL_NOISE**2, tuple(value**2 for value in NOISE_BOUNDS))
    process = GaussianProcessRegressor(
        covariance, alpha=np.array([row_noise(row, 0.0) + 1e-8 for row in rows])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at a bound, which is meant
        process.fit(points, np.clip(logs, -1.5, 1.5))
    fitted = process.kernel_
    scales = np.atleast_1d(fitted.k1.k2.length_scale)
    return scales, float(np.sqrt(fitted.k1.k1.constant_value)), float(np.sqrt(fitted.k2.noise_level))
